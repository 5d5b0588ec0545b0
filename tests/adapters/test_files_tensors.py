from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from isogloss.adapters.files import WEIGHTS_FILE
from isogloss.core.errors import (
    LabelCountError,
    NonFiniteWeightsError,
    TensorKeysError,
    TensorShapeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import ChangeConfig, Read, Refused

pytestmark = pytest.mark.usefixtures("no_pickle")
WIDTH, LABELS, RANK = 16, 3, 4
QUERY = "base_model.model.roberta.encoder.layer.0.attention.self.query"
OUTPUT = "base_model.model.classifier.out_proj"


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / WEIGHTS_FILE
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name", [f"{QUERY}.lora_A.weight", f"{QUERY}.lora_B.weight", f"{OUTPUT}.bias"]
)
def test_missing_tensors(plain: Path, name: str, refused: Refused) -> None:
    change_tensors(plain, lambda tensors: tensors.pop(name))
    refused(TensorKeysError, plain, "lacks 1 tensors", name)


@pytest.mark.parametrize(
    "name",
    [
        f"{QUERY}.lora_magnitude_vector",
        "base_model.model.roberta.embeddings.word_embeddings.weight",
        "base_model.model.roberta.encoder.layer.9.attention.self.query.lora_A.weight",
        "x",
    ],
)
def test_extra_tensors(plain: Path, name: str, refused: Refused) -> None:
    change_tensors(plain, lambda tensors: tensors.update({name: np.ones(3, np.float32)}))
    refused(TensorKeysError, plain, "has 1 that the config doesn't account for", name)


def test_no_head(plain: Path, refused: Refused) -> None:
    def without_head(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if "classifier" in name]:
            del tensors[name]

    change_tensors(plain, without_head)
    refused(TensorKeysError, plain, "no classification head", "SEQ_CLS")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{QUERY}.lora_A.weight", (RANK + 1, WIDTH)),
        (f"{QUERY}.lora_A.weight", (WIDTH, RANK)),
        (f"{QUERY}.lora_B.weight", (WIDTH, RANK, 1)),
        (f"{QUERY}.lora_B.weight", ()),
        (f"{OUTPUT}.weight", (LABELS, WIDTH + 1)),
        (f"{OUTPUT}.bias", (LABELS + 1,)),
    ],
)
def test_wrong_shapes(plain: Path, name: str, shape: tuple[int, ...], refused: Refused) -> None:
    change_tensors(plain, lambda tensors: tensors.update({name: np.ones(shape, np.float32)}))
    refused(TensorShapeError, plain, name, f"is {list(shape)}")


def test_a_rank_other_than_the_configs(
    plain: Path, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, r=RANK * 2)
    refused(TensorShapeError, plain, f"is [{RANK}, {WIDTH}]", f"need [{RANK * 2}, {WIDTH}]")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", [f"{QUERY}.lora_B.weight", f"{OUTPUT}.bias"])
def test_values_that_are_not_finite(
    plain: Path, name: str, dtype: Any, value: float, refused: Refused
) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors[name] = tensors[name].astype(dtype)
        tensors[name].flat[-1] = value

    change_tensors(plain, spoil)
    refused(NonFiniteWeightsError, plain, name, "NaN or infinity")


def test_extreme_but_finite_values_pass(plain: Path, read: Read) -> None:
    largest = np.finfo(np.float32).max

    def change(tensors: dict[str, Any]) -> None:
        tensors[f"{OUTPUT}.bias"][:] = [largest, -largest, np.finfo(np.float32).smallest_subnormal]

    change_tensors(plain, change)
    read(plain)


def test_more_outputs_than_anyone_needs(plain: Path, refused: Refused) -> None:
    outputs = 10_001

    def widen(tensors: dict[str, Any]) -> None:
        tensors[f"{OUTPUT}.weight"] = np.ones((outputs, WIDTH), np.float32)
        tensors[f"{OUTPUT}.bias"] = np.ones(outputs, np.float32)

    change_tensors(plain, widen)
    refused(LabelCountError, plain, "10,001 outputs", "10,000 is the limit")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (f"{QUERY}.lora_A.weight", ()),
        ("base_model.model.roberta.encoder.layer.0.intermediate.dense.lora_B.weight", ()),
        ("base_model.model.roberta.encoder.layer.999999999.attention.self.query.x", (1,)),
        (f"base_model.model.{'9' * 5_000}", (1,)),
        (f"base_model.model.{'²' * 3}", (1,)),
    ],
    ids=["query", "intermediate", "layers", "digits", "superscripts"],
)
def test_a_base_nobody_can_look_at_and_odd_tensors(
    plain: Path, name: str, shape: tuple[int, ...], read: Read, change_config: ChangeConfig
) -> None:
    change_config(plain, base_model_name_or_path=None)
    change_tensors(plain, lambda tensors: tensors.update({name: np.ones(shape, np.float32)}))
    with pytest.raises((TensorShapeError, TensorKeysError)):
        read(plain, trust_base=True)
