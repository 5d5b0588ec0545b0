from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from isogloss.adapters.files import WEIGHTS_FILE, read_adapter_folder
from isogloss.adapters.loading import LoadedAdapter, classify, load_adapter
from isogloss.core.encoder import Encoder, load_encoder, quiet_transformers
from isogloss.core.engine import Engine
from isogloss.core.errors import BaseMismatchError, NonFiniteWeightsError, TensorKeysError
from isogloss.core.packing import Row

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..conftest import PeftAdapter, TinyBase

MODEL_TYPES = ("xlm-roberta", "bert")
# What may differ between adapters of one batch.
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "wide": {"rank": 8, "alpha": 4, "labels": 7},
    "narrow": {"rank": 1, "alpha": 3.5, "labels": 2, "targets": ["key"]},
    "rslora": {"rank": 6, "alpha": 5, "rslora": True},
    "dense": {"targets": ["dense"], "labels": 5},
    "all": {"targets": "all-linear", "rank": 3},
    "one layer": {"targets": ["query", "dense"], "layers_to_transform": [1]},
    "layer as a number": {"layers_to_transform": 0},
    "every layer": {"layers_to_transform": []},
    "layers that the base lacks": {"layers_to_transform": [0, 7]},
    "full name": {"targets": ["encoder.layer.1.attention.self.query", "layer.0.output.dense"]},
    "one label": {"labels": 1},
    "gaussian": {"init_lora_weights": "gaussian"},
}
TEXTS = (
    "wo isch mys päckli",
    "dónde está mi pedido?",
    "привет",
    "the quick brown fox jumps over the lazy dog",
    "我的订单在哪里",
    "bitte " * 60,
)


@dataclass(frozen=True)
class Adapted:
    """One adapter, as PEFT loads it and as we do."""

    folder: Path
    peft: torch.nn.Module
    loaded: LoadedAdapter


def with_peft(base: Path, folder: Path, labels: int) -> torch.nn.Module:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    return PeftModel.from_pretrained(model, str(folder)).eval()


def reference(model: torch.nn.Module, row: Row) -> torch.Tensor:
    """Logits `[labels]` of one row through plain PEFT."""
    with torch.inference_mode():
        output = model(
            input_ids=torch.tensor([row.token_ids]),
            attention_mask=torch.ones(1, len(row.token_ids), dtype=torch.long),
            token_type_ids=torch.tensor([row.type_ids or (0,) * len(row.token_ids)]),
        )
    logits: torch.Tensor = output.logits[0]
    return logits


def in_slot(row: Row, slot: int | None) -> Row:
    return Row(token_ids=row.token_ids, type_ids=row.type_ids, slot=slot)


def load(folder: Path, encoder: Encoder) -> LoadedAdapter:
    return load_adapter(read_adapter_folder(folder, locale="gsw-CH", task="intent").files, encoder)


def serve(encoder: Encoder, adapters: Sequence[LoadedAdapter]) -> Engine:
    engine = Engine(encoder, slots=len(adapters))
    for slot, adapter in enumerate(adapters):
        engine.bank.put(slot, adapter.updates)
    return engine


def assert_logits(results: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", params=MODEL_TYPES)
def mixed(
    request: pytest.FixtureRequest, tiny_base: TinyBase, peft_adapter: PeftAdapter
) -> tuple[Engine, dict[str, Adapted]]:
    """All of ADAPTERS in the slots of one engine."""
    base = tiny_base(request.param)
    encoder = load_encoder(base, device="cpu")
    adapted = {}
    for name, options in ADAPTERS.items():
        folder = peft_adapter(base, **options)
        model = with_peft(base, folder, options.get("labels", 3))
        adapted[name] = Adapted(folder=folder, peft=model, loaded=load(folder, encoder))
    return serve(encoder, [each.loaded for each in adapted.values()]), adapted


def test_a_mixed_batch_equals_peft_one_adapter_and_row_at_a_time(
    mixed: tuple[Engine, dict[str, Adapted]],
) -> None:
    engine, adapters = mixed
    heads = {slot: each.loaded.head for slot, each in enumerate(adapters.values())}
    rows, expected = [], []
    # Neighbours in the batch have different adapters.
    for row, _ in engine.encoder.tokenize(TEXTS):
        for slot, adapted in enumerate(adapters.values()):
            rows.append(in_slot(row, slot))
            expected.append(reference(adapted.peft, row))
    results = classify(engine, rows, heads)
    assert [len(each) for each in results[: len(ADAPTERS)]] == [
        options.get("labels", 3) for options in ADAPTERS.values()
    ]
    assert_logits(results, expected)


def test_adapters_change_the_result(mixed: tuple[Engine, dict[str, Adapted]]) -> None:
    """Else the comparison with PEFT would say little."""
    engine, adapters = mixed
    row, _ = engine.encoder.tokenize(TEXTS)[0]
    heads = {slot: each.loaded.head for slot, each in enumerate(adapters.values())}
    for slot, adapted in enumerate(adapters.values()):
        with_adapter = classify(engine, [in_slot(row, slot)], heads)[0]
        engine.bank.clear(slot)
        without = classify(engine, [in_slot(row, slot)], heads)[0]
        engine.bank.put(slot, adapted.loaded.updates)
        assert (with_adapter - without).abs().max() > 1e-3


def test_a_slot_taken_over_serves_the_new_adapter(
    mixed: tuple[Engine, dict[str, Adapted]],
) -> None:
    engine, adapters = mixed
    first, second = adapters["all"], adapters["narrow"]
    slot = list(adapters).index("all")
    row, _ = engine.encoder.tokenize(TEXTS)[1]
    engine.bank.put(slot, second.loaded.updates)
    (result,) = classify(engine, [in_slot(row, slot)], {slot: second.loaded.head})
    engine.bank.put(slot, first.loaded.updates)
    assert_logits([result], [reference(second.peft, row)])


def test_pairs_equal_peft(mixed: tuple[Engine, dict[str, Adapted]]) -> None:
    engine, adapters = mixed
    heads = {slot: each.loaded.head for slot, each in enumerate(adapters.values())}
    tokenized = engine.encoder.tokenize([("the lazy dog", "el perro"), ("bitte", "привет, где")])
    rows = [in_slot(row, slot) for row, _ in tokenized for slot in heads]
    models = [each.peft for each in adapters.values()] * len(tokenized)
    expected = [reference(model, row) for model, row in zip(models, rows, strict=True)]
    assert_logits(classify(engine, rows, heads), expected)


def test_bytes_are_those_of_the_file(mixed: tuple[Engine, dict[str, Adapted]]) -> None:
    from safetensors.torch import load_file

    _, adapters = mixed
    for name, adapted in adapters.items():
        stored = load_file(adapted.folder / WEIGHTS_FILE)
        assert adapted.loaded.bytes == sum(value.nbytes for value in stored.values()), name


def test_dense_reaches_berts_pooler_but_not_xlm_rs_head(
    mixed: tuple[Engine, dict[str, Adapted]],
) -> None:
    engine, adapters = mixed
    is_bert = engine.encoder.shape.model_type == "bert"
    for name in ("dense", "all"):
        assert (adapters[name].loaded.head.hidden_update is not None) == is_bert
    # The pooler belongs to no layer, so PEFT leaves it out when layers are named.
    assert adapters["one layer"].loaded.head.hidden_update is None


def test_half_precision_adapters_equal_peft(tiny_base: TinyBase, peft_adapter: PeftAdapter) -> None:
    from safetensors.torch import load_file, save_file

    base = tiny_base("xlm-roberta")
    encoder = load_encoder(base, device="cpu")
    engine = Engine(encoder, slots=1)
    row, _ = encoder.tokenize(TEXTS)[0]
    for dtype in (torch.float16, torch.bfloat16):
        folder = peft_adapter(base)
        path = folder / WEIGHTS_FILE
        save_file(
            {name: tensor.to(dtype) for name, tensor in load_file(path).items()},
            path,
            metadata={"format": "pt"},
        )
        adapter = load(folder, encoder)
        engine.bank.put(0, adapter.updates)
        results = classify(engine, [in_slot(row, 0)], {0: adapter.head})
        assert_logits(results, [reference(with_peft(base, folder, 3), row)])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_another_base_is_refused(
    tiny_base: TinyBase, peft_adapter: PeftAdapter, model_type: str
) -> None:
    """One of the same shape, with other weights: PEFT would load it without a word."""
    own, other = tiny_base(model_type), tiny_base(model_type, seed=1)
    files = read_adapter_folder(peft_adapter(own), locale="de-CH", task="intent").files
    encoder = load_encoder(other, device="cpu")
    with pytest.raises(BaseMismatchError) as caught:
        load_adapter(files, encoder)
    message = str(caught.value)
    assert "intent/de-CH" in message
    assert own.name in message
    assert other.name in message
    assert encoder.fingerprint[:12] in message


def test_what_does_not_fit_is_refused_again_when_it_is_loaded(
    tiny_base: TinyBase, peft_adapter: PeftAdapter
) -> None:
    """A registry may have been filled by another release, with trust_base=, or by hand."""
    base = tiny_base("xlm-roberta")
    encoder = load_encoder(base, device="cpu")
    files = read_adapter_folder(peft_adapter(base), locale="de-CH", task="intent").files
    other = read_adapter_folder(
        peft_adapter(base, targets=["key"]), locale="de-CH", task="intent"
    ).files
    with pytest.raises(TensorKeysError):
        load_adapter(files | {WEIGHTS_FILE: other[WEIGHTS_FILE]}, encoder)
    damaged = files[WEIGHTS_FILE][:-4] + b"\x00\x00\xc0\x7f"
    with pytest.raises(NonFiniteWeightsError):
        load_adapter(files | {WEIGHTS_FILE: damaged}, encoder)
    load_adapter(files, encoder)
