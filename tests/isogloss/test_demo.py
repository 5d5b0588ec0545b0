"""The shop's messages, and the demo that learns them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from isogloss.adapters.data import read_examples
from isogloss.core.errors import InputError
from isogloss.core.locale import parse_locale
from isogloss.demo import PAIRS, SHOP, run_demo

if TYPE_CHECKING:
    from pathlib import Path

LABELS = {
    "delivery_cost",
    "order_status",
    "payment",
    "product_question",
    "refund",
    "return",
    "size_advice",
}
LOCALES = sorted(locale for pair in PAIRS for locale in pair)


def letters(text: str) -> str:
    return "".join(
        character for character in text.casefold() if unicodedata.category(character)[0] in "LNM"
    )


def test_every_locale_of_the_demo_has_messages() -> None:
    assert sorted(path.name for path in SHOP.iterdir()) == LOCALES
    assert [str(parse_locale(locale)) for locale in LOCALES] == LOCALES


@pytest.mark.parametrize("locale", LOCALES)
def test_messages_are_balanced_and_splits_apart(locale: str) -> None:
    seen: set[str] = set()
    for split, each in {"train": 36, "dev": 8, "test": 8}.items():
        examples = read_examples(SHOP / locale / f"{split}.jsonl")
        assert Counter(example.label for example in examples) == dict.fromkeys(LABELS, each)
        texts = {letters(example.text) for example in examples}
        assert len(texts) == len(examples)
        assert not texts & seen
        seen |= texts


def test_unknown_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="de-DE:nl-NL"):
        run_demo(pairs="de-DE:nl-NL")


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        run_demo(out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_demo_and_its_second_run(tmp_path: Path) -> None:
    report = run_demo(out=tmp_path, pairs="zh-Hant-HK:yue-HK")
    (row,) = report.comparisons
    assert (row.standard, row.dialect, row.rows) == ("zh-Hant-HK", "yue-HK", 56)
    assert row.own_accuracy > 2 / len(LABELS)

    exact, fallen_back = (prediction for _, prediction in report.answers)
    assert exact.resolution.stage == "exact"
    assert exact.resolution.locale == "yue-HK"
    assert fallen_back.resolution.requested == "zh-Hant-MO"
    assert fallen_back.resolution.stage == "parent"
    assert fallen_back.resolution.locale == "zh-Hant-HK"
    assert any("zh-Hant-HK" in step for step in fallen_back.resolution.trace)

    memory = report.memory
    assert len(memory.adapters) == 2
    assert report.full_copies_bytes > 2 * memory.base_bytes
    assert memory.slot_bytes + memory.head_bytes == sum(memory.adapters.values())
    # Adapters that are there are not trained again.
    weights = tmp_path / "yue-HK" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns
    again = run_demo(out=tmp_path, pairs="zh-Hant-HK:yue-HK")
    assert again.comparisons == report.comparisons
    assert weights.stat().st_mtime_ns == before
