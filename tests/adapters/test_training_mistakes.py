"""Settings and bases that no adapter can be trained with."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer

from isogloss.adapters.training import TrainingConfig, train
from isogloss.core.errors import (
    BaseNotFoundError,
    DataError,
    InputError,
    InvalidLocaleError,
    IsoglossError,
    PrecisionError,
    UnsupportedAdapterError,
    UnsupportedBaseError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import TinyBase


@pytest.mark.parametrize(
    ("changes", "kind", "problem"),
    [
        ({"data": "/nowhere/at/all"}, DataError, "can't read /nowhere/at/all"),
        ({"locale": "not a tag"}, InvalidLocaleError, "not a tag"),
        ({"rank": 0}, InputError, r"rank is 0; it must lie in 1\.\.512"),
        ({"rank": 513}, InputError, "rank is 513"),
        ({"alpha": math.nan}, InputError, "alpha is nan"),
        ({"alpha": 0.0}, InputError, "alpha is 0.0"),
        ({"targets": ()}, InputError, "targets is empty"),
        ({"targets": ("nonsense",)}, InputError, "targets nonsense don't fit tiny"),
        ({"targets": ("query", "nonsense")}, InputError, "'nonsense' matches no linear module"),
        ({"targets": ("LayerNorm",)}, InputError, "'LayerNorm' matches no linear module"),
        ({"targets": ("word_embeddings",)}, InputError, "'word_embeddings' matches no linear"),
        ({"task": "No Name"}, InputError, "task"),
        ({"base": "/nowhere/base"}, BaseNotFoundError, "no base at '/nowhere/base'"),
        ({"kind": "ia3"}, UnsupportedAdapterError, "kind is 'ia3'; this release trains lora"),
        (
            {"kind": "prefix", "targets": None, "task_type": "masked-lm"},
            UnsupportedAdapterError,
            "kind is 'prefix' for masked-lm",
        ),
        ({"kind": "prefix"}, InputError, "targets was given, but kind prefix has none"),
        ({"kind": "houlsby", "targets": None, "rank": 4097}, InputError, r"lie in 1\.\.4096"),
        ({"kind": "prefix", "targets": None, "rank": 200}, InputError, "a shorter one"),
        ({"kind": "pfeiffer", "targets": None, "alpha": 1.0}, InputError, "alpha was given"),
        ({"adapters_from_layer": 9}, InputError, "adapters_from_layer is 9"),
        ({"task_type": "parsing"}, InputError, "task_type is 'parsing'; use sequence-class"),
        ({"preset": "huge"}, InputError, "preset is 'huge'; use small, base, wide"),
        ({"schedule": "step"}, InputError, "schedule is 'step'; use linear, cosine"),
        ({"balance": "both"}, InputError, "balance is 'both'"),
        ({"balance": "weights", "task_type": "embedding"}, InputError, "embedding has no labels"),
        (
            {"balance": "sampling", "task_type": "token-classification"},
            InputError,
            "has many labels; use weights",
        ),
        ({"labels": ("delivery", "payment")}, DataError, "'return' was not seen"),
        ({"data": ("de=",)}, InputError, "names no data"),
        ({"track": "notebook"}, InputError, "track is 'notebook'"),
        ({"track": "mlflow"}, InputError, r"run pip install 'isogloss\[mlflow\]'"),
        ({"accumulation": 0}, InputError, "accumulation is 0"),
        ({"clip": 0.0}, InputError, "clip is 0.0"),
        ({"label_smoothing": 1.0}, InputError, "label_smoothing is 1.0"),
        ({"locale_temperature": 0.5}, InputError, "locale_temperature is 0.5"),
        ({"epochs": 0}, InputError, "epochs is 0"),
        ({"batch_size": 0}, InputError, "batch_size is 0"),
        ({"patience": 0}, InputError, "patience is 0"),
        ({"learning_rate": math.inf}, InputError, "learning_rate is inf"),
        ({"weight_decay": -1.0}, InputError, "weight_decay is -1.0"),
        ({"dropout": 1.0}, InputError, "dropout is 1.0"),
        ({"warmup": math.nan}, InputError, "warmup nan"),
        ({"seed": -1}, InputError, "seed is -1"),
        ({"seed": 2**32}, InputError, "seed is 4294967296"),
        ({"precision": "fp8"}, InputError, "precision is 'fp8'"),
        ({"device": "abacus"}, PrecisionError, "device 'abacus' can't be used here"),
    ],
)
def test_what_makes_no_sense_leaves_nothing(
    changes: dict[str, Any],
    kind: type[IsoglossError],
    problem: str,
    training_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    with pytest.raises(kind, match=problem) as caught:
        train(TrainingConfig(out=str(tmp_path / "out"), **training_settings | changes))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_bert_without_its_pooler_is_refused(
    tiny_base: TinyBase, training_settings: dict[str, Any], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model = AutoModelForMaskedLM.from_pretrained(tiny_base("bert", saved_as="AutoModelForMaskedLM"))
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_base("bert")).save_pretrained(base)
    (tmp_path / "outs").mkdir()
    config = TrainingConfig(
        out=str(tmp_path / "outs" / "out"), **training_settings | {"base": str(base)}
    )
    with pytest.raises(UnsupportedBaseError, match=r"lacks .*pooler.*; save it again"):
        train(config, show_progress=False)
    assert not list((tmp_path / "outs").iterdir())


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        ("no tokenizer", "no tokenizer: none of tokenizer.json"),
        ("small embedding", "for an embedding of 100; put the tokenizer there"),
        ("cut off", r"base can't be loaded \(.*\); save or copy it again"),
    ],
)
def test_a_damaged_base_is_refused(
    damage: str,
    problem: str,
    tiny_encoder: Path,
    training_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    base, outs = tmp_path / "base", tmp_path / "outs"
    outs.mkdir()
    shutil.copytree(tiny_encoder, base)
    if damage == "no tokenizer":
        (base / "tokenizer.json").unlink()
    elif damage == "small embedding":
        model = AutoModelForMaskedLM.from_pretrained(base)
        model.resize_token_embeddings(100)
        model.save_pretrained(base)
    else:
        (base / "tokenizer.json").write_text('{"version": ')
    config = TrainingConfig(out=str(outs / "out"), **training_settings | {"base": str(base)})
    with pytest.raises(UnsupportedBaseError, match=problem) as caught:
        train(config, show_progress=False)
    assert "\n" not in str(caught.value)
    assert not list(outs.iterdir())
