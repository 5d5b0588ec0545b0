from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from isogloss.adapters.files import WEIGHTS_FILE, read_adapter_folder
from isogloss.adapters.heads import ClassificationHead, apply_heads
from isogloss.adapters.lm_head import base_lm_head
from isogloss.adapters.loading import LoadedAdapter, load_adapter
from isogloss.core.base import locate_base
from isogloss.core.delta import SlotImage
from isogloss.core.encoder import Encoder, load_encoder
from isogloss.core.engine import Engine
from isogloss.core.errors import (
    BaseMismatchError,
    NonFiniteWeightsError,
    TensorKeysError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from isogloss.core.packing import Row

    from ..conftest import PeftAdapter, PeftAlone, TinyBase

MODEL_TYPES = ("xlm-roberta", "bert")
TASK_TYPES = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION", None)
LINEARS = ("query", "value", "attention.output.dense", "intermediate.dense")
# What may differ between adapters of one batch: every kind with every head, …
KINDS: dict[str, dict[str, Any]] = {
    "lora": {
        "targets": LINEARS,
        "rank_pattern": {"query": 2, r"layer\.1\..*value": 6},
        "alpha_pattern": {"value": 3, "attention.output.dense": 0.5},
    },
    "dora": {"targets": LINEARS, "use_dora": True, "rslora": True},
    "adalora": {"kind": "adalora", "rank": 6, "targets": LINEARS},
    "prefix": {"kind": "prefix", "rank": 3},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    f"{kind} {task_type}": options | {"task_type": task_type}
    for kind, options in KINDS.items()
    for task_type in TASK_TYPES
    if (kind, task_type) != ("prefix", None)  # PEFT has no such adapters
} | {
    # … and LoRA's options.
    "wide": {"rank": 8, "alpha": 4, "labels": 7},
    "narrow": {"rank": 1, "alpha": 3.5, "labels": 2, "targets": ["key"]},
    "rslora": {"rank": 6, "alpha": 5, "rslora": True},
    "dense": {"targets": ["dense"], "labels": 5},
    "all": {"targets": "all-linear", "rank": 3},
    "all with magnitudes": {"targets": "all-linear", "rank": 3, "use_dora": True},
    "all of an embedding": {"targets": "all-linear", "task_type": "FEATURE_EXTRACTION"},
    "one layer": {"targets": ["query", "dense"], "layers_to_transform": [1]},
    "layer as a number": {"layers_to_transform": 0},
    "every layer": {"layers_to_transform": []},
    "layers that the base lacks": {"layers_to_transform": [0, 7]},
    "layers of a name": {"layers_to_transform": [1], "layers_pattern": "layer"},
    "full name": {"targets": ["encoder.layer.1.attention.self.query", "layer.0.output.dense"]},
    "pattern": {"targets": r".*layer\.[01]\..*\.(query|dense)"},
    "excluded": {"targets": ["query", "dense"], "exclude_modules": ["intermediate.dense"]},
    "excluded by pattern": {"targets": ["query"], "exclude_modules": r".*layer\.0\..*"},
    "a score": {"labels": 1},
    "gaussian": {"init_lora_weights": "gaussian"},
    "long prefix": {"kind": "prefix", "rank": 20, "labels": 4},
    "projected prefix": {
        "kind": "prefix",
        "rank": 2,
        "prefix_projection": True,
        "encoder_hidden_size": 7,
    },
}
TEXTS = (
    "wo isch mys päckli",
    "dónde está mi pedido?",
    "привет",
    "the quick brown fox jumps over the lazy dog",
    "我的订单在哪里",
)


@dataclass(frozen=True)
class Mixed:
    """All of ADAPTERS in the slots of one engine."""

    base: Path
    engine: Engine
    folders: dict[str, Path]
    loaded: dict[str, LoadedAdapter]

    def answers(self, wanted: Sequence[tuple[str, Row]]) -> list[torch.Tensor]:
        """Of adapters and rows, in one batch."""
        names = list(self.folders)
        rows = [
            replace(for_adapter(self.loaded[name], row), mix=((names.index(name), 1.0),))
            for name, row in wanted
        ]
        lm_head = base_lm_head(self.engine.encoder, locate_base(self.base))
        heads = [self.loaded[name].head or lm_head for name, _ in wanted]
        found = apply_heads(*self.engine.forward(rows), heads)
        return [answer for answer in found if answer is not None]


def for_adapter(adapter: LoadedAdapter, row: Row) -> Row:
    """A row as the adapter reads it: within its positions, with its token types."""
    prefix = adapter.delta.prefix
    longest = 40 - (prefix.length if prefix else 0)
    types = row.type_ids[:longest] if row.type_ids and adapter.spec.reads_token_types else None
    return replace(row, token_ids=row.token_ids[:longest], type_ids=types)


def load(folder: Path, encoder: Encoder, base: Path) -> LoadedAdapter:
    checked = read_adapter_folder(folder, locale="gsw-CH", task="intent", base=base)
    return load_adapter(checked.files, encoder)


def assert_equal(results: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", params=MODEL_TYPES)
def mixed(request: pytest.FixtureRequest, tiny_base: TinyBase, peft_adapter: PeftAdapter) -> Mixed:
    base = tiny_base(request.param, saved_as="AutoModelForPreTraining")
    encoder = load_encoder(base, device="cpu")
    engine = Engine(encoder, slots=len(ADAPTERS))
    folders = {name: peft_adapter(base, **options) for name, options in ADAPTERS.items()}
    loaded = {name: load(folder, encoder, base) for name, folder in folders.items()}
    for slot, adapter in enumerate(loaded.values()):
        engine.bank.put(slot, SlotImage.of(adapter.delta))
    return Mixed(base=base, engine=engine, folders=folders, loaded=loaded)


def test_a_mixed_batch_equals_peft_one_adapter_and_row_at_a_time(
    mixed: Mixed, peft_alone: PeftAlone
) -> None:
    """Every kind with every head, texts and pairs, in one batch."""
    tokenized = mixed.engine.encoder.tokenize([*TEXTS, ("the lazy dog", "el perro"), "bitte " * 60])
    wanted = [(name, row) for name in ADAPTERS for row, _ in tokenized]
    # Neighbours in the batch have different adapters.
    random.Random(5).shuffle(wanted)
    results = mixed.answers(wanted)
    for name, folder in mixed.folders.items():
        own = [place for place, (each, _) in enumerate(wanted) if each == name]
        adapter = mixed.loaded[name]
        rows = [for_adapter(adapter, wanted[place][1]) for place in own]
        assert_equal([results[place] for place in own], peft_alone(folder, mixed.base, rows))


def test_adapters_change_the_result(mixed: Mixed) -> None:
    """Else the comparison with PEFT would say little."""
    row, _ = mixed.engine.encoder.tokenize(TEXTS)[0]
    for slot, (name, adapter) in enumerate(mixed.loaded.items()):
        (with_adapter,) = mixed.answers([(name, row)])
        mixed.engine.bank.clear(slot)
        (without,) = mixed.answers([(name, row)])
        mixed.engine.bank.put(slot, SlotImage.of(adapter.delta))
        assert (with_adapter - without).abs().max() > 1e-3, name


def test_bytes_are_those_of_the_file(mixed: Mixed) -> None:
    """But for singular values, which are folded in, and a pooler that nobody reads."""
    from safetensors.torch import load_file

    for name, adapter in mixed.loaded.items():
        stored = {
            tensor: value.nbytes
            for tensor, value in load_file(mixed.folders[name] / WEIGHTS_FILE).items()
            if not tensor.endswith("lora_E")
            and not (adapter.spec.task_type == "embedding" and ".pooler." in tensor)
        }
        assert adapter.bytes == sum(stored.values()), name


def test_dense_reaches_berts_pooler_but_not_xlm_rs_head(mixed: Mixed) -> None:
    is_bert = mixed.engine.encoder.shape.model_type == "bert"
    # The pooler belongs to no layer, so PEFT leaves it out when layers are named.
    for name, reached in {"dense": is_bert, "all": is_bert, "one layer": False}.items():
        head = mixed.loaded[name].head
        assert isinstance(head, ClassificationHead)
        assert (head.hidden_update is not None) == reached


def test_what_the_spec_says(mixed: Mixed) -> None:
    specs = {name: adapter.spec for name, adapter in mixed.loaded.items()}
    assert [specs[f"lora {task_type}"].task_type for task_type in TASK_TYPES] == [
        "sequence-classification",
        "token-classification",
        "question-answering",
        "embedding",
        "masked-lm",
    ]
    assert (specs["a score"].task_type, specs["a score"].labels) == ("reranking", ())
    assert specs["lora TOKEN_CLS"].labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert specs["lora FEATURE_EXTRACTION"].pooling == "mean"
    assert specs["lora SEQ_CLS"].rank == 6
    prefix = specs["long prefix"]
    assert (prefix.kind, prefix.prefix_length, prefix.rank) == ("prefix", 20, None)
    assert prefix.prefix_positions == "shifted"
    assert [specs[f"lora {task_type}"].head for task_type in TASK_TYPES[1:]] == [
        "token-classification",
        "question-answering",
        None,
        None,
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_adapters_equal_peft(
    tiny_base: TinyBase, peft_adapter: PeftAdapter, peft_alone: PeftAlone, dtype: torch.dtype
) -> None:
    from safetensors.torch import load_file, save_file

    base = tiny_base("xlm-roberta")
    encoder = load_encoder(base, device="cpu")
    engine = Engine(encoder, slots=1)
    row, _ = encoder.tokenize(TEXTS)[0]
    folder = peft_adapter(base)
    path = folder / WEIGHTS_FILE
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    adapter = load(folder, encoder, base)
    engine.bank.put(0, SlotImage.of(adapter.delta))
    answers = apply_heads(*engine.forward([replace(row, mix=((0, 1.0),))]), [adapter.head])
    assert answers[0] is not None
    assert_equal([answers[0]], peft_alone(folder, base, [row]))


@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_magnitudes_and_the_lm_head_on_a_base_of_another_precision(
    tiny_base: TinyBase, peft_adapter: PeftAdapter, peft_alone: PeftAlone, precision: str
) -> None:
    """DoRA's gain comes from the weights as they are then, and the last layer from its rows."""
    base = tiny_base("bert", saved_as="AutoModelForPreTraining")
    encoder = load_encoder(base, device="cpu", precision=precision)
    engine = Engine(encoder, slots=2)
    lm_head = base_lm_head(encoder, locate_base(base))
    row, _ = encoder.tokenize(TEXTS)[0]
    folders = [
        peft_adapter(base, use_dora=True, targets="all-linear", labels=6),
        peft_adapter(base, task_type=None),
    ]
    for slot, folder in enumerate(folders):
        adapter = load(folder, encoder, base)
        engine.bank.put(slot, SlotImage.of(adapter.delta))
        batch = [replace(row, mix=((slot, 1.0),))]
        (answer,) = apply_heads(*engine.forward(batch), [adapter.head or lm_head])
        (wanted,) = peft_alone(folder, base, [row])
        assert answer is not None
        assert torch.cosine_similarity(answer.flatten(), wanted.flatten(), dim=0) > 0.999


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
