from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn import functional

from isogloss.core.encoder import load_encoder, quiet_transformers
from isogloss.core.engine import Engine
from isogloss.core.errors import PrecisionError
from isogloss.core.linears import BaseLinear

if TYPE_CHECKING:
    from isogloss.core.llm_int8 import BitsandbytesLinear

pytest.importorskip("bitsandbytes")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(weight: torch.Tensor, bias: torch.Tensor | None, outliers: list[int]) -> BaseLinear:
    from isogloss.core.llm_int8 import BitsandbytesLinear
    from isogloss.core.quantized import Quantizer

    quantizer = Quantizer(torch.tensor(outliers, dtype=torch.int64), weight.shape[1])
    with quiet_transformers():
        made: BitsandbytesLinear = BitsandbytesLinear(
            weight, bias, quantizer, device=torch.device("cpu")
        )
    assert isinstance(made, BaseLinear)
    return made


@pytest.mark.parametrize("outliers", [[], [3, 70]])
def test_a_linear_layer(outliers: list[int]) -> None:
    weight, bias, features = random(60, 100), random(60, seed=1), random(1, 40, 100, seed=2)
    features[..., outliers] *= 60
    made = layer(weight, bias, outliers)
    given = features.clone()
    result = made(features)
    assert torch.equal(features, given)
    exact = functional.linear(features, weight, bias)
    assert result.shape == exact.shape
    assert result.dtype == torch.float32
    assert (result - exact).norm() < 0.015 * exact.norm()
    assert (made.dense_weight() - weight).norm() < 0.01 * weight.norm()
    assert torch.equal(made.dense_weight()[:, outliers], weight[:, outliers])
    assert made.bias is not None
    assert torch.equal(made.bias, bias)


def test_gradients_are_refused() -> None:
    with pytest.raises(PrecisionError, match="can't be trained through"):
        layer(random(4, 8), None, [])(random(2, 8).requires_grad_())


def test_the_embedded_base() -> None:
    encoders = [
        load_encoder(Path("mini"), device="cpu", precision=precision)
        for precision in ("fp32", "bitsandbytes")
    ]
    rows = [
        row
        for row, _ in encoders[0].tokenize(
            ["wo isch mys päckli", "the quick brown fox jumps over the lazy dog", "el perro"]
        )
    ]
    exact, found = (Engine(encoder, slots=1).forward(rows)[1] for encoder in encoders)
    assert functional.cosine_similarity(exact, found, dim=-1).mean() > 0.999
    # Its outliers don't depend on the batch, so neither does a row's answer.
    engine = Engine(encoders[1], slots=1)
    batch, together = engine.forward(rows)
    for row, (begin, end) in zip(rows, batch.rows, strict=True):
        torch.testing.assert_close(
            engine.forward([row])[1], together[begin:end], rtol=1e-5, atol=1e-5
        )
