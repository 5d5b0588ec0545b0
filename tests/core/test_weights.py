from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from isogloss.core.base import locate_base
from isogloss.core.weights import BLOCK_ITEMS, Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..conftest import TinyBase

EMBEDDING = "embeddings.word_embeddings.weight"


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
@pytest.mark.parametrize("saved_as", ["AutoModel", "AutoModelForSequenceClassification"])
@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "8KB"}], ids=["one file", "shards"])
def test_tensors_by_the_names_of_the_encoder(
    tiny_base: TinyBase, model_type: str, saved_as: str, shards: dict[str, Any]
) -> None:
    expected = stored(tiny_base(model_type))
    checkpoint = Checkpoint(locate_base(tiny_base(model_type, saved_as=saved_as, **shards)))
    for name, tensor in expected.items():
        if "pooler" in name and model_type == "xlm-roberta":
            continue
        assert name in checkpoint
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert torch.equal(checkpoint.read(name), tensor)
    assert "embeddings.nothing" not in checkpoint


def test_names_of_old_checkpoints(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    tensors = stored(folder)
    old = {
        f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    save_file(old, folder / "model.safetensors")
    checkpoint = Checkpoint(locate_base(folder))
    assert all(torch.equal(checkpoint.read(name), tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_stored_in_another_precision(copy_of: Callable[..., Path], dtype: torch.dtype) -> None:
    folder = copy_of("xlm-roberta")
    tensors = {name: tensor.to(dtype) for name, tensor in stored(folder).items()}
    save_file(tensors, folder / "model.safetensors")
    checkpoint = Checkpoint(locate_base(folder))
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint.read(name), tensor.float())
        assert torch.equal(checkpoint.read(name, torch.bfloat16), tensor.to(torch.bfloat16))


def test_rows_in_blocks(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("xlm-roberta")
    tensors = stored(folder)
    rows = 2 * BLOCK_ITEMS // 16 + 5
    tensors[EMBEDDING] = torch.arange(rows * 16, dtype=torch.float32).view(rows, 16)
    save_file(tensors, folder / "model.safetensors")
    checkpoint = Checkpoint(locate_base(folder))
    blocks = list(checkpoint.blocks(EMBEDDING))
    assert [len(block) for block in blocks] == [BLOCK_ITEMS // 16, BLOCK_ITEMS // 16, 5]
    assert torch.equal(torch.cat(blocks), tensors[EMBEDDING])
    assert torch.equal(checkpoint.read(EMBEDDING), tensors[EMBEDDING])


def test_a_file_that_is_cut_off(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    checkpoint = Checkpoint(locate_base(folder))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="cut off"):
        [checkpoint.read(name) for name in stored_names(checkpoint)]


def stored_names(checkpoint: Checkpoint) -> list[str]:
    layers = range(2)
    names = [f"encoder.layer.{layer}.output.dense.weight" for layer in layers]
    return [EMBEDDING, *names, "pooler.dense.weight", "pooler.dense.bias"]
