"""The hub against PEFT, on adapters that PEFT wrote and a real registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isogloss import Hub
from isogloss.core.errors import (
    BaseMismatchError,
    DamagedBlobError,
    InputError,
    InvalidLocaleError,
    NoAdapterError,
    UnknownVersionError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from isogloss import Registry

    from ..conftest import TinyBase
    from .conftest import Damage, PublishPeft

TEXTS = ["wo isch mys päckli", "the quick brown fox jumps over the lazy dog", "dónde está?"]


def peft_logits(base: Path, folder: Path, text: str, labels: int) -> list[float]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from isogloss.core.encoder import quiet_transformers

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
        tokenizer = AutoTokenizer.from_pretrained(base)
    # In fp64: PEFT's own rounding in fp32 is no part of what ours may differ by.
    adapted = PeftModel.from_pretrained(model, str(folder)).eval().double()
    with torch.no_grad():
        logits: list[float] = adapted(**tokenizer(text, return_tensors="pt")).logits[0].tolist()
    return logits


def test_mixed_batch_equals_peft(base: Path, registry: Registry, publish_peft: PublishPeft) -> None:
    kinds: dict[tuple[str, str], dict[str, Any]] = {
        ("gsw-CH", "intent"): {"rank": 4, "labels": 3},
        ("es-MX", "intent"): {"rank": 2, "labels": 5, "targets": ("query", "key", "dense")},
        ("es-MX", "sentiment"): {"rank": 7, "labels": 2, "rslora": True, "targets": "all-linear"},
    }
    published = {
        (locale, task): publish_peft(base, locale, task, **options)
        for (locale, task), options in kinds.items()
    }
    hub = Hub(registry, base=base)
    requests = [(text, key) for key in kinds for text in TEXTS] + [(TEXTS[0], ("es-MX", "intent"))]
    predictions = hub.predict(
        [text for text, _ in requests],
        locale=[locale for _, (locale, _) in requests],
        task=[task for _, (_, task) in requests],
    )
    for (text, key), prediction in zip(requests, predictions, strict=True):
        folder, version = published[key]
        labels = kinds[key]["labels"]
        expected = peft_logits(base, folder, text, labels)
        # Random adapters on all linears enlarge rounding; the engine is held to 1e-5 elsewhere, on
        # adapters of a fixed seed.
        assert prediction.logits == pytest.approx(expected, abs=5e-5)
        assert prediction.adapter == version.name
        assert prediction.label == f"{key[1]}-{expected.index(max(expected))}"
        assert prediction.scores[prediction.label] == prediction.score
        assert sum(prediction.scores.values()) == pytest.approx(1)
        assert prediction.resolution.stage == "exact"


def test_falls_back_along_parents_and_says_why(
    base: Path, registry: Registry, publish_peft: PublishPeft
) -> None:
    _, version = publish_peft(base, "pt-PT")
    (prediction,) = Hub(registry, base=base).predict(TEXTS[:1], task="intent", locale="pt-AO")
    assert prediction.adapter == version.name
    assert prediction.resolution.stage == "parent"
    assert any("pt-PT" in step for step in prediction.resolution.trace)


def test_nothing_answers(base: Path, registry: Registry, publish_peft: PublishPeft) -> None:
    publish_peft(base, "pt-PT")
    hub = Hub(registry, base=base)
    with pytest.raises(NoAdapterError, match="'fi'") as caught:
        hub.predict(TEXTS, task="intent", locale=["pt-PT", "fi", "pt-PT"])
    assert caught.value.trace
    first, second, _ = hub.predict(
        TEXTS, task="intent", locale=["pt-PT", "fi", "pt-PT"], strict=False
    )
    assert first.label is not None
    assert (second.label, second.adapter, second.logits) == (None, None, ())
    assert second.resolution.stage == "base"


def test_alias_moves_between_two_calls(
    base: Path, registry: Registry, publish_peft: PublishPeft
) -> None:
    _, old = publish_peft(base, "gsw-CH")
    hub = Hub(registry, base=base, slots=1)
    assert hub.predict(TEXTS, task="intent", locale="gsw-CH")[0].adapter == old.name
    folder, new = publish_peft(base, "gsw-CH")
    (prediction, *_) = hub.predict(TEXTS, task="intent", locale="gsw-CH")
    assert prediction.adapter == new.name
    assert prediction.logits == pytest.approx(peft_logits(base, folder, TEXTS[0], 3), abs=1e-5)
    registry.rollback("gsw-CH", "intent")
    assert hub.predict(TEXTS, task="intent", locale="gsw-CH")[0].adapter == old.name


def test_version_by_name(base: Path, registry: Registry, publish_peft: PublishPeft) -> None:
    _, old = publish_peft(base, "gsw-CH")
    publish_peft(base, "gsw-CH")
    hub = Hub(registry, base=base)
    (prediction,) = hub.predict(TEXTS[:1], task="intent", locale="gsw-CH", adapter=old.name)
    assert prediction.adapter == old.name
    (prediction,) = hub.predict(TEXTS[:1], task="intent", locale="gsw-CH", adapter={old.name: 1.0})
    assert prediction.adapter == old.name
    with pytest.raises(UnknownVersionError):
        hub.predict(TEXTS, task="intent", locale="gsw-CH", adapter="intent/gsw-CH@ffffff")
    with pytest.raises(UnknownVersionError, match="'x'"):
        hub.predict(TEXTS, task="intent", locale="gsw-CH", adapter={old.name: 0.5, "x": 0.5})
    with pytest.raises(InvalidLocaleError):
        hub.predict(TEXTS, task="intent", locale="no such tag", adapter=old.name)
    with pytest.raises(InputError, match="does 'intent'"):
        hub.predict(TEXTS, task="sentiment", locale="gsw-CH", adapter=old.name)


def test_more_adapters_than_slots(
    base: Path, registry: Registry, publish_peft: PublishPeft
) -> None:
    locales = ["de", "es", "fr", "it", "pt"]
    folders = {locale: publish_peft(base, locale)[0] for locale in locales}
    hub = Hub(registry, base=base, slots=2)
    predictions = hub.predict([TEXTS[0]] * 5, task="intent", locale=locales)
    for locale, prediction in zip(locales, predictions, strict=True):
        expected = peft_logits(base, folders[locale], TEXTS[0], 3)
        # Random adapters on all linears enlarge rounding; the engine is held to 1e-5 elsewhere, on
        # adapters of a fixed seed.
        assert prediction.logits == pytest.approx(expected, abs=5e-5)
    assert len(hub.memory().adapters) == 2


def test_load_pin_and_unload(base: Path, registry: Registry, publish_peft: PublishPeft) -> None:
    for locale in ("de", "es", "fr"):
        publish_peft(base, locale)
    hub = Hub(registry, base=base, slots=2)
    pinned = hub.pin("de", "intent")
    loaded = hub.load("es", "intent")
    assert set(hub.memory().adapters) == {pinned, loaded}
    hub.predict(TEXTS, task="intent", locale="fr")
    assert pinned in hub.memory().adapters
    assert loaded not in hub.memory().adapters
    assert hub.unload(pinned)
    assert not hub.unload(pinned)
    hub.pin("es", "intent")
    hub.pin("fr", "intent")
    with pytest.raises(InputError, match="2 slots"):
        hub.load("de", "intent")


def test_pinned_slots_leave_room_for_smaller_batches(
    base: Path, registry: Registry, publish_peft: PublishPeft
) -> None:
    locales = ["de", "es", "fr"]
    for locale in locales:
        publish_peft(base, locale)
    hub = Hub(registry, base=base, slots=2)
    pinned = hub.pin("de", "intent")
    predictions = hub.predict(TEXTS, task="intent", locale=locales)
    assert [prediction.resolution.locale for prediction in predictions] == locales
    assert pinned in hub.memory().adapters


def test_singles_pairs_and_words_in_one_call(
    base: Path, registry: Registry, publish_peft: PublishPeft
) -> None:
    publish_peft(base, "de")
    hub = Hub(registry, base=base)
    texts: list[str | tuple[str, str] | list[str]] = [
        "wo isch",
        ("wo isch", "mys päckli"),
        ["wo", "isch"],
    ]
    single, pair, words = hub.predict(texts, task="intent", locale="de")
    assert single.logits == pytest.approx(words.logits, abs=1e-5)
    assert single.logits != pytest.approx(pair.logits, abs=1e-3)
    with pytest.raises(InputError, match="must hold words"):
        hub.predict([["wo", 1]], task="intent", locale="de")  # type: ignore[list-item]


def test_memory_counts_what_is_there(
    base: Path, registry: Registry, publish_peft: PublishPeft
) -> None:
    publish_peft(base, "de", rank=4)
    publish_peft(base, "es", rank=8)
    hub = Hub(registry, base=base)
    empty = hub.memory()
    assert (empty.slot_bytes, empty.head_bytes, empty.adapters) == (0, 0, {})
    small, large = hub.load("de", "intent"), hub.load("es", "intent")
    memory = hub.memory()
    assert memory.base_bytes == empty.base_bytes
    assert memory.slot_bytes + memory.head_bytes == sum(memory.adapters.values())
    # hidden 16, 2 layers, query and value: two matrices of rank × 16 floats each
    updates = {small: 4 * 2 * 2 * 2 * 4 * 16, large: 4 * 2 * 2 * 2 * 8 * 16}
    assert memory.slot_bytes == sum(updates.values())
    assert memory.adapters[large] - memory.adapters[small] == updates[large] - updates[small]
    assert memory.resident_set_bytes > memory.base_bytes


def test_damaged_version_fails_alone(
    base: Path, registry: Registry, publish_peft: PublishPeft, damage: Damage
) -> None:
    _, good = publish_peft(base, "de")
    _, bad = publish_peft(base, "es")
    damage(bad)
    hub = Hub(registry, base=base)
    with pytest.raises(DamagedBlobError):
        hub.predict(TEXTS, task="intent", locale="es")
    assert hub.predict(TEXTS, task="intent", locale="de")[0].adapter == good.name
    assert list(hub.memory().adapters) == [good.name]


def test_adapter_of_another_base(
    tiny_base: TinyBase, registry: Registry, publish_peft: PublishPeft
) -> None:
    publish_peft(tiny_base("xlm-roberta", seed=1), "de")
    hub = Hub(registry, base=tiny_base("xlm-roberta", seed=2))
    with pytest.raises(BaseMismatchError, match="trained on"):
        hub.predict(TEXTS, task="intent", locale="de")


def test_long_text_is_cut_and_reported(
    base: Path, registry: Registry, publish_peft: PublishPeft
) -> None:
    publish_peft(base, "de")
    short, long = Hub(registry, base=base).predict(
        ["päckli", "päckli " * 500], task="intent", locale="de"
    )
    assert (short.truncated, long.truncated) == (False, True)


def test_bad_requests(base: Path, registry: Registry, publish_peft: PublishPeft) -> None:
    publish_peft(base, "de")
    hub = Hub(registry, base=base)
    with pytest.raises(InputError, match="empty"):
        hub.predict(["text", "  "], task="intent", locale="de")
    with pytest.raises(InputError, match="2 values of locale for 3 texts"):
        hub.predict(TEXTS, task="intent", locale=["de", "de"])
    with pytest.raises(InvalidLocaleError):
        hub.predict(TEXTS, task="intent", locale="no such tag")
    with pytest.raises(InputError, match="slots"):
        Hub(registry, base=base, slots=0)
    assert hub.predict([], task="intent", locale="de") == []
    assert len(hub.predict("one text", task="intent", locale="de")) == 1
