"""The base's own masked-LM head; with adapters it is in test_loading.py."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from isogloss.adapters.lm_head import PIECES, MaskedLMHead, base_lm_head
from isogloss.core.base import locate_base
from isogloss.core.encoder import load_encoder, quiet_transformers
from isogloss.core.engine import Engine
from isogloss.core.errors import UnsupportedBaseError

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import TinyBase

MODEL_TYPES = ("xlm-roberta", "bert")
WEIGHTS = "model.safetensors"


def head_of(base: Path) -> MaskedLMHead:
    return base_lm_head(load_encoder(base, device="cpu"), locate_base(base))


@pytest.fixture(params=MODEL_TYPES)
def base(request: pytest.FixtureRequest, tiny_base: TinyBase, tmp_path: Path) -> Path:
    """A copy to change, of a base that was saved with a head."""
    saved = tiny_base(request.param, saved_as="AutoModelForPreTraining")
    return shutil.copytree(saved, tmp_path / "base")


def change_weights(base: Path, change: Any) -> None:
    save_file(change(load_file(base / WEIGHTS)), base / WEIGHTS, metadata={"format": "pt"})


def test_the_bare_base_answers_as_transformers_does(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForMaskedLM

    # The vocabulary in several parts, the last of them shorter.
    monkeypatch.setattr("isogloss.adapters.lm_head.PIECES", 50)
    with quiet_transformers():
        model = AutoModelForMaskedLM.from_pretrained(base).eval()
    encoder = load_encoder(base, device="cpu")
    head = base_lm_head(encoder, locate_base(base))
    rows = [row for row, _ in encoder.tokenize(["wo isch mys päckli", "привет"])]
    batch, hidden = Engine(encoder, slots=1).forward(rows)
    for row, span, found in zip(rows, batch.rows, head(hidden, batch.rows), strict=True):
        with torch.inference_mode():
            wanted = model(input_ids=torch.tensor([row.token_ids])).logits[0]
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        # One token alone is a range like any other.
        (alone,) = head(hidden, [(span[0] + 1, span[0] + 2)])
        torch.testing.assert_close(alone[0], wanted[1], rtol=1e-5, atol=1e-5)


def test_its_bytes_leave_out_the_embedding(base: Path) -> None:
    shape = locate_base(base).shape
    width = shape.hidden_size
    floats = width * width + 3 * width + shape.vocab_size
    head = head_of(base)
    assert head.own_bytes == 4 * floats
    assert head.to(torch.device("cpu")).own_bytes == head.own_bytes
    assert shape.vocab_size < PIECES


def test_a_base_without_a_head(tiny_base: TinyBase) -> None:
    for model_type, name in {"xlm-roberta": "lm_head", "bert": "cls.predictions"}.items():
        with pytest.raises(UnsupportedBaseError, match=f"without a masked-LM head.*{name}"):
            head_of(tiny_base(model_type))


def test_a_head_that_lacks_a_tensor(base: Path) -> None:
    change_weights(
        base,
        lambda tensors: {
            name: tensor
            for name, tensor in tensors.items()
            if not name.endswith(("lm_head.dense.bias", "transform.dense.bias"))
        },
    )
    with pytest.raises(UnsupportedBaseError, match=r"it lacks .*dense\.bias"):
        head_of(base)


def test_a_head_that_does_not_fit(base: Path) -> None:
    def cut(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for name in ("lm_head.bias", "cls.predictions.bias"):
            if name in tensors:
                tensors[name] = tensors[name][:-1].clone()
        return tensors

    encoder = load_encoder(base, device="cpu")
    change_weights(base, cut)
    with pytest.raises(UnsupportedBaseError, match="doesn't fit the encoder"):
        base_lm_head(encoder, locate_base(base))


def test_a_head_whose_last_layer_is_its_own(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(UnsupportedBaseError, match="tie_word_embeddings is false"):
        head_of(base)


def test_names_that_come_from_tensorflow(base: Path) -> None:
    expected = head_of(base)
    change_weights(
        base,
        lambda tensors: {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): tensor
            for name, tensor in tensors.items()
        },
    )
    found = head_of(base)
    torch.testing.assert_close(found.norm.weight, expected.norm.weight)
    torch.testing.assert_close(found.norm.bias, expected.norm.bias)


def test_a_checkpoint_in_several_files(base: Path) -> None:
    expected = head_of(base)
    tensors = load_file(base / WEIGHTS)
    (base / WEIGHTS).unlink()
    names = sorted(tensors)
    halves = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    for file, own in halves.items():
        save_file({name: tensors[name] for name in own}, base / file, metadata={"format": "pt"})
    index = {name: file for file, own in halves.items() for name in own}
    (base / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    found = head_of(base)
    torch.testing.assert_close(found.dense.weight, expected.dense.weight)
    torch.testing.assert_close(found.bias, expected.bias)
