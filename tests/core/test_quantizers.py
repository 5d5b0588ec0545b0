from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from isogloss.core.base import locate_base
from isogloss.core.quantizers import quantized_linears
from isogloss.core.weights import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from isogloss.core.base import BaseFiles

    from ..conftest import TinyBase

LOUD = 5  # a channel that is much larger than the rest


def reader(
    base: BaseFiles, *, loud: str = ""
) -> Callable[[str], tuple[torch.Tensor, torch.Tensor]]:
    checkpoint = Checkpoint(base)

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        weight, bias = checkpoint.read(f"{name}.weight"), checkpoint.read(f"{name}.bias")
        if name == loud:
            weight[LOUD] *= 100
        return weight, bias

    return read


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
def test_every_linear_of_the_layers_comes_once(tiny_base: TinyBase, model_type: str) -> None:
    base = locate_base(tiny_base(model_type))
    read = reader(base)
    found = {}
    for name, weight, bias, quantizer in quantized_linears(base.shape, read):
        assert torch.equal(weight, read(name)[0])
        assert torch.equal(bias, read(name)[1])
        found[name] = quantizer
    assert set(found) == set(base.shape.linears()) - {"pooler.dense"}
    for layer in range(base.shape.layers):
        at = f"encoder.layer.{layer}.attention.self"
        assert found[f"{at}.query"] is found[f"{at}.key"] is found[f"{at}.value"]
    assert len(set(map(id, found.values()))) == 4 * base.shape.layers


@pytest.mark.parametrize(
    ("loud", "heard_by"),
    [
        ("embeddings.LayerNorm", "encoder.layer.0.attention.self.key"),
        ("encoder.layer.0.attention.self.value", "encoder.layer.0.attention.output.dense"),
        ("encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.intermediate.dense"),
        ("encoder.layer.0.intermediate.dense", "encoder.layer.0.output.dense"),
        ("encoder.layer.0.output.LayerNorm", "encoder.layer.1.attention.self.query"),
    ],
)
def test_a_loud_channel_stays_out_of_the_codes_of_the_next_layer(
    tiny_base: TinyBase, loud: str, heard_by: str
) -> None:
    base = locate_base(tiny_base("xlm-roberta"))
    columns = {
        name: quantizer.columns.tolist()
        for name, _, _, quantizer in quantized_linears(base.shape, reader(base, loud=loud))
    }
    assert LOUD in columns[heard_by]
