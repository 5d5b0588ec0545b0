"""Prefix folders; what they compute is in test_loading.py."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from isogloss.adapters.files import (
    CARD_FILE,
    SPEC_FILE,
    WEIGHTS_FILE,
    read_adapter_folder,
)
from isogloss.adapters.spec import AdapterSpec
from isogloss.core.errors import (
    AdapterConfigError,
    NonFiniteWeightsError,
    TensorKeysError,
    TensorShapeError,
    UnsafeWeightsError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import PeftAdapter, TinyBase
    from .conftest import ChangeConfig, Read, Refused

pytestmark = pytest.mark.usefixtures("no_pickle")
LENGTH, LAYERS, WIDTH, MAX_TOKENS = 4, 2, 16, 40


@pytest.fixture
def prefix(tiny_base: TinyBase, peft_adapter: PeftAdapter) -> Path:
    return peft_adapter(tiny_base("xlm-roberta"), kind="prefix", rank=LENGTH)


def change_tensors(folder: Path, **changes: Any) -> None:
    path = folder / WEIGHTS_FILE
    tensors = load_file(path)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value
    save_file(tensors, path)


def with_spec(folder: Path, **fields: Any) -> None:
    checked = read_adapter_folder(folder, locale="de", task="intent")
    assert checked.base is not None
    spec = replace(checked.spec, base=str(checked.base.folder), **fields)
    (folder / SPEC_FILE).write_bytes(spec.to_json())


def test_keys_and_values_of_each_layer(prefix: Path, tiny_base: TinyBase) -> None:
    from isogloss.adapters.loading import load_adapter
    from isogloss.core.encoder import load_encoder

    checked = read_adapter_folder(prefix, locale="de", task="intent")
    adapter = load_adapter(checked.files, load_encoder(tiny_base("xlm-roberta"), device="cpu"))
    found = adapter.delta.prefix
    assert found is not None
    assert found.shifts_positions
    assert tuple(found.keys.shape) == tuple(found.values.shape) == (LAYERS, LENGTH, WIDTH)
    stored = load_file(prefix / WEIGHTS_FILE)["prompt_embeddings"]
    for place in range(LENGTH):
        for layer in range(LAYERS):
            key, value = stored[place].reshape(2 * LAYERS, WIDTH)[2 * layer :][:2]
            assert found.keys[layer, place].tolist() == key.tolist()
            assert found.values[layer, place].tolist() == value.tolist()
    assert adapter.delta.nbytes == stored.nbytes


def test_positions_are_shifted_unless_the_folder_says_otherwise(
    prefix: Path, tiny_base: TinyBase
) -> None:
    from isogloss.adapters.loading import load_adapter
    from isogloss.core.encoder import load_encoder

    encoder = load_encoder(tiny_base("xlm-roberta"), device="cpu")
    for positions, shifted in {None: True, "shifted": True, "kept": False}.items():
        with_spec(prefix, prefix_positions=positions)
        checked = read_adapter_folder(prefix)
        assert checked.spec.prefix_positions == ("shifted" if shifted else "kept")
        found = load_adapter(checked.files, encoder).delta.prefix
        assert found is not None
        assert found.shifts_positions == shifted


def test_what_the_card_says(prefix: Path) -> None:
    (prefix / CARD_FILE).unlink(missing_ok=True)
    for positions in ("shifted", "kept"):
        with_spec(prefix, prefix_positions=positions)
        (prefix / CARD_FILE).write_text("old")
        card = read_adapter_folder(prefix, locale="gsw").files[CARD_FILE].decode()
        assert f"prefix adapter of length {LENGTH} (text positions {positions})" in card
        # PEFT would shift them.
        assert ("library_name: peft" in card) == (positions == "shifted")
        (prefix / SPEC_FILE).unlink()


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"num_virtual_tokens": None}, "num_virtual_tokens is None"),
        ({"num_virtual_tokens": 4.0}, "num_virtual_tokens is 4.0"),
        ({"num_virtual_tokens": True}, "num_virtual_tokens is True"),
        ({"num_virtual_tokens": 0}, "must lie in 1..512"),
        ({"num_virtual_tokens": 513}, "must lie in 1..512"),
        ({"num_virtual_tokens": MAX_TOKENS - 2}, "leaves a text 2 of 40"),
        ({"num_virtual_tokens": 500}, "leaves a text 0 of 40"),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules is 2"),
        ({"num_layers": 4}, "num_layers is 4; the base needs 2"),
        ({"token_dim": 8}, "token_dim is 8; the base needs 16"),
    ],
)
def test_configs_that_do_not_fit(
    prefix: Path,
    changes: dict[str, Any],
    part: str,
    refused: Refused,
    change_config: ChangeConfig,
) -> None:
    change_config(prefix, **changes)
    refused(AdapterConfigError, prefix, part)


def test_a_prefix_that_keeps_positions_may_be_longer_than_a_text(
    prefix: Path, change_config: ChangeConfig
) -> None:
    length = 2 * MAX_TOKENS
    with_spec(prefix, prefix_positions="kept")
    change_config(prefix, num_virtual_tokens=length)
    change_tensors(
        prefix, prompt_embeddings=np.ones((length, 2 * LAYERS * WIDTH), dtype=np.float32)
    )
    assert read_adapter_folder(prefix).spec.prefix_length == length


@pytest.mark.parametrize(
    "shape", [(LENGTH + 1, 64), (LENGTH, 63), (64, LENGTH), (LENGTH, 2, 32), ()]
)
def test_wrong_shapes(prefix: Path, shape: tuple[int, ...], refused: Refused) -> None:
    change_tensors(prefix, prompt_embeddings=np.ones(shape, dtype=np.float32))
    refused(TensorShapeError, prefix, f"prompt_embeddings is {list(shape)}")


def test_missing_and_extra_tensors(prefix: Path, refused: Refused) -> None:
    prompt = load_file(prefix / WEIGHTS_FILE)["prompt_embeddings"]
    change_tensors(prefix, prompt_embeddings=None)
    refused(TensorKeysError, prefix, "lacks 1 tensors, prompt_embeddings")
    change_tensors(prefix, prompt_embeddings=prompt, more=prompt)
    refused(TensorKeysError, prefix, "has 1 that the config doesn't account for, more")
    # A head under the names that LoRA would give it.
    change_tensors(prefix, more=None, **{"base_model.model.classifier.dense.bias": prompt[0]})
    refused(TensorKeysError, prefix, "base_model.model.classifier.dense.bias")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(prefix: Path, value: float, refused: Refused) -> None:
    prompt = load_file(prefix / WEIGHTS_FILE)["prompt_embeddings"].copy()
    prompt[-1, -1] = value
    change_tensors(prefix, prompt_embeddings=prompt)
    refused(NonFiniteWeightsError, prefix, "prompt_embeddings")


def test_weights_only_as_pickle(prefix: Path, refused: Refused) -> None:
    (prefix / WEIGHTS_FILE).rename(prefix / "adapter_model.bin")
    refused(UnsafeWeightsError, prefix, "only as pickle")


def test_a_base_that_nobody_can_look_at(
    prefix: Path, read: Read, change_config: ChangeConfig
) -> None:
    change_config(prefix, base_model_name_or_path="/gone/tiny")
    spec = read(prefix, trust_base=True).spec
    assert (spec.kind, spec.prefix_length, spec.base) == ("prefix", LENGTH, "tiny")
    assert AdapterSpec.from_json(spec.to_json()) == spec
    assert "prefix_length" in json.loads(spec.to_json())
