"""Adapters of every kind that PEFT writes, side by side in one batch, each against PEFT alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isogloss import Hub

if TYPE_CHECKING:
    from pathlib import Path

    from isogloss import Registry

    from ..conftest import PeftAdapter, PeftAlone
    from .conftest import PublishLora, PublishPeft

TEXTS = ["wo isch mys päckli", "the quick brown fox"]
LONG = "the quick brown fox jumps over the lazy dog " * 10
PREFIX = 5
KINDS: dict[str, dict[str, Any]] = {
    "de": {"kind": "prefix", "rank": PREFIX},
    "es": {"rank": 3, "use_dora": True},
    "fr": {"kind": "adalora", "rank": 3},
    "it": {"kind": "prefix", "rank": 2, "labels": 4},
    "nl": {"rank": 2, "targets": "all-linear", "labels": 2},
}


def test_kinds_side_by_side(
    registry: Registry, base: Path, publish_peft: PublishPeft, peft_alone: PeftAlone
) -> None:
    folders = {
        locale: publish_peft(base, locale, **options)[0] for locale, options in KINDS.items()
    }
    requests = [(text, locale) for locale in KINDS for text in TEXTS]
    with Hub(registry, base=base) as hub:
        predictions = hub.predict(
            [text for text, _ in requests],
            task="intent",
            locale=[locale for _, locale in requests],
        )
        rows = {
            text: row
            for text, (row, _) in zip(TEXTS, hub.engine.encoder.tokenize(TEXTS), strict=True)
        }
    for (text, locale), prediction in zip(requests, predictions, strict=True):
        (expected,) = peft_alone(folders[locale], base, [rows[text]])
        assert prediction.logits == pytest.approx(expected.tolist(), abs=1e-5)
        assert len(prediction.scores) == KINDS[locale].get("labels", 3)


def test_a_prefix_that_shifts_positions_leaves_fewer_tokens(
    registry: Registry, base: Path, publish_peft: PublishPeft, peft_alone: PeftAlone
) -> None:
    folder, _ = publish_peft(base, "de", kind="prefix", rank=PREFIX)
    publish_peft(base, "es")
    with Hub(registry, base=base) as hub:
        short, long, other = hub.predict(
            [TEXTS[0], LONG, LONG], task="intent", locale=["de", "de", "es"]
        )
        most = hub.engine.encoder.shape.max_tokens
        (cut,) = hub.engine.encoder.rows.rows([LONG], limits=[most - PREFIX])
    assert (short.truncated, long.truncated, other.truncated) == (False, True, True)
    assert len(cut.row.token_ids) == most - PREFIX
    (expected,) = peft_alone(folder, base, [cut.row])
    assert long.logits == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_prefix_and_a_low_rank_update_in_one_mixture(
    registry: Registry, base: Path, publish_peft: PublishPeft, publish_lora: PublishLora
) -> None:
    _, prefix = publish_peft(base, "de", kind="prefix", rank=PREFIX)
    labels = tuple(prefix.labels)
    lora = publish_lora(base, "de", seed=1, labels=labels)
    with Hub(registry, base=base) as hub:
        choices: list[Any] = [
            prefix.name,
            {prefix.name: 1, lora.name: 1e-9},
            {prefix.name: 1, lora.name: 0.5},
        ]
        alone, hardly, mixed = hub.predict([LONG] * 3, task="intent", locale="de", adapter=choices)
    assert hardly.logits == pytest.approx(alone.logits, abs=1e-5)
    assert mixed.logits != pytest.approx(alone.logits, abs=1e-2)
    assert mixed.truncated


def test_two_heads_of_one_task_but_of_two_kinds(
    registry: Registry, base: Path, peft_adapter: PeftAdapter, peft_alone: PeftAlone
) -> None:
    """A plain PEFT folder without labels, beside one with: each answers with its own."""
    plain = peft_adapter(base, labels=2)
    named = peft_adapter(base, kind="prefix", rank=2, labels=2)
    registry.publish(plain, locale="de", task="topic", base=base)
    registry.publish(named, locale="gsw", task="topic", labels=["x", "y"], base=base)
    with Hub(registry, base=base) as hub:
        first, second = hub.predict([TEXTS[0]] * 2, task="topic", locale=["de", "gsw"])
        row, _ = hub.engine.encoder.tokenize(TEXTS[:1])[0]
    assert list(first.scores) == ["LABEL_0", "LABEL_1"]
    assert list(second.scores) == ["x", "y"]
    for folder, prediction in ((plain, first), (named, second)):
        (expected,) = peft_alone(folder, base, [row])
        assert prediction.logits == pytest.approx(expected.tolist(), abs=1e-5)
