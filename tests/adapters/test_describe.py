"""What folders say of task and labels, beyond text classification."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.adapters.files import SPEC_FILE, read_adapter_folder
from isogloss.adapters.layout import parse_layout
from isogloss.adapters.spec import AdapterSpec
from isogloss.core.base import EncoderShape
from isogloss.core.errors import (
    IsoglossError,
    LabelCountError,
    TensorKeysError,
    UnsupportedAdapterError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..conftest import PeftAdapter, TinyBase
    from .conftest import Read, Refused


@pytest.fixture
def trained(tiny_base: TinyBase, peft_adapter: PeftAdapter) -> Callable[..., Path]:
    base = tiny_base("bert")
    return lambda **options: peft_adapter(base, **options)


def record(folder: Path, **fields: Any) -> None:
    """Give the folder an `isogloss.json`."""
    (folder / SPEC_FILE).unlink(missing_ok=True)
    checked = read_adapter_folder(folder, locale="de", task="intent")
    assert checked.base is not None
    spec = replace(checked.spec, base=str(checked.base.folder), **fields)
    (folder / SPEC_FILE).write_bytes(spec.to_json())


def test_one_output_is_a_score_unless_it_is_given_a_name(
    trained: Callable[..., Path], read: Read
) -> None:
    folder = trained(labels=1)
    assert (read(folder).spec.task_type, read(folder).spec.labels) == ("reranking", ())
    named = read(folder, labels=["spam"]).spec
    assert (named.task_type, named.labels) == ("sequence-classification", ("spam",))


def test_reranking_has_one_output(trained: Callable[..., Path]) -> None:
    folder = trained(labels=1)
    record(folder, labels=("relevance",))
    assert read_adapter_folder(folder).spec.labels == ("relevance",)
    folder = trained(labels=2)
    for labels in ((), ("a", "b")):
        record(folder, task_type="reranking", labels=labels)
        with pytest.raises(LabelCountError, match="2 outputs for reranking"):
            read_adapter_folder(folder)


@pytest.mark.parametrize(
    ("task_type", "part"),
    [
        ("QUESTION_ANS", "question answering"),
        ("FEATURE_EXTRACTION", "embedding, which has none"),
        (None, "masked-lm, which has none"),
    ],
)
def test_tasks_without_labels(
    trained: Callable[..., Path], task_type: str | None, part: str, read: Read, refused: Refused
) -> None:
    folder = trained(task_type=task_type)
    assert read(folder).spec.labels == ()
    refused(LabelCountError, folder, part, labels=["a", "b"])


def test_labels_of_tokens(trained: Callable[..., Path], read: Read, refused: Refused) -> None:
    folder = trained(task_type="TOKEN_CLS", labels=2)
    assert read(folder, labels=["NOUN", "VERB"]).spec.labels == ("NOUN", "VERB")
    refused(LabelCountError, folder, "3 labels", "2 outputs", labels=["a", "b", "c"])
    refused(LabelCountError, folder, "'a' occurs twice", labels=["a", "a"])


def test_a_language_adapter_that_was_trained_with_the_bare_encoder(
    trained: Callable[..., Path], read: Read
) -> None:
    folder = trained(task_type="FEATURE_EXTRACTION")
    assert read(folder).spec.task_type == "embedding"
    record(folder, task_type="masked-lm", pooling=None)
    spec = read_adapter_folder(folder).spec
    assert (spec.task_type, spec.pooling, spec.head) == ("masked-lm", None, None)


def test_a_recorded_pooling_is_kept(trained: Callable[..., Path]) -> None:
    folder = trained(task_type="FEATURE_EXTRACTION")
    for given_, kept in {None: "mean", "mean": "mean", "cls": "cls"}.items():
        record(folder, pooling=given_)
        assert read_adapter_folder(folder).spec.pooling == kept


def test_a_recorded_task_type_other_than_the_configs(trained: Callable[..., Path]) -> None:
    folder = trained(task_type="TOKEN_CLS")
    record(folder, task_type="question-answering")
    with pytest.raises(UnsupportedAdapterError, match="task_type is 'TOKEN_CLS'"):
        read_adapter_folder(folder)


def test_a_head_where_none_belongs(
    trained: Callable[..., Path], refused: Refused, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    folder = trained(task_type="FEATURE_EXTRACTION")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for name in ("base_model.model.classifier.bias", "base_model.model.cls.predictions.bias"):
        save_file(tensors | {name: next(iter(tensors.values()))}, path)
        refused(TensorKeysError, folder, name)


# -- any config at all


SHAPE = EncoderShape(
    model_type="bert",
    vocab_size=20,
    hidden_size=8,
    layers=2,
    intermediate_size=16,
    max_position_embeddings=20,
    pad_token_id=0,
)
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=5,
)
WHOLE: dict[str, dict[str, Any]] = {
    "lora": {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["query"],
        "exclude_modules": None,
        "layers_to_transform": None,
        "layers_pattern": None,
        "rank_pattern": {"query": 1},
        "alpha_pattern": {"query": 1},
        "use_dora": True,
    },
    "adalora": {
        "peft_type": "ADALORA",
        "init_r": 2,
        "lora_alpha": 4,
        "target_modules": ".*query",
        "rank_pattern": {
            f"bert.encoder.layer.{layer}.attention.self.query.lora_E": [True, False]
            for layer in (0, 1)
        },
    },
    "prefix": {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": 2,
        "num_layers": 2,
        "token_dim": 8,
        "num_transformer_submodules": 1,
    },
}


@settings(max_examples=200, deadline=None)
@given(kind=st.sampled_from(sorted(WHOLE)), data=st.data())
def test_any_config_gives_a_layout_or_an_error_of_ours(kind: str, data: st.DataObject) -> None:
    config = WHOLE[kind]
    spec = AdapterSpec(
        locale="de", task="x", base="b", kind="prefix" if kind == "prefix" else "lora"
    )
    assert parse_layout(spec, config, SHAPE, ()).tensors(SHAPE)
    keys = data.draw(st.sets(st.sampled_from(sorted(config)), min_size=1, max_size=2))
    changed = json.loads(json.dumps(config | {key: data.draw(JSON) for key in sorted(keys)}))
    try:
        layout = parse_layout(spec, changed, SHAPE, ())
    except IsoglossError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 800
        return
    assert layout.tensors(SHAPE)
