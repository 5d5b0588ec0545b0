from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from isogloss.core import linears
from isogloss.core.errors import PrecisionError
from isogloss.core.linears import (
    BaseLinear,
    InPlaceGelu,
    PackedLinear,
    PlainLinear,
    can_pack,
    fp32_linear,
    model_bytes,
    tensor_bytes,
)
from isogloss.core.quantized import Int8Linear, Quantizer

SIZES = [(1, 1), (7, 3), (16, 32), (33, 17), (96, 768)]


@pytest.fixture
def packing() -> None:
    if not can_pack():
        pytest.skip("this build of torch has no oneDNN")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("outputs", "width"), SIZES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_packed_weights_give_torchs_product(
    packing: None, outputs: int, width: int, has_bias: bool
) -> None:
    weight, bias = random(outputs, width), random(outputs, seed=1) if has_bias else None
    layer = PackedLinear(weight, bias)
    features = random(1, 20, width, seed=2)
    exact = features.double() @ weight.double().T
    if bias is not None:
        exact += bias
    torch.testing.assert_close(layer(features).double(), exact, rtol=1e-5, atol=1e-4)
    assert torch.equal(layer.dense_weight(), weight)
    assert (layer.in_features, layer.out_features) == (width, outputs)


@pytest.mark.parametrize(("outputs", "width"), SIZES)
def test_a_token_gives_the_same_bits_in_any_batch(packing: None, outputs: int, width: int) -> None:
    layer = PackedLinear(random(outputs, width), random(outputs, seed=1))
    features = random(150, width, seed=2)
    together = layer(features)
    for count in (1, 2, 3, 31, 64, 149):
        assert torch.equal(layer(features[:count]), together[:count])
    for token in (0, 77, 149):
        assert torch.equal(layer(features[token : token + 1])[0], together[token])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_weights(dtype: torch.dtype) -> None:
    weight, bias, features = random(5, 8).to(dtype), random(5).to(dtype), random(3, 8).to(dtype)
    layer = PlainLinear(weight, bias)
    assert torch.equal(layer(features), functional.linear(features, weight, bias))
    assert layer.dense_weight().dtype == torch.float32
    assert torch.equal(layer.dense_weight(), weight.float())


def test_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(fp32_linear(random(4, 6), None), PackedLinear if can_pack() else PlainLinear)
    monkeypatch.setattr(linears, "can_pack", lambda: False)
    layer = fp32_linear(random(4, 6), random(4, seed=1))
    assert isinstance(layer, PlainLinear)
    features = random(3, 6)
    assert torch.equal(layer(features), functional.linear(features, random(4, 6), layer.bias))


def test_every_kind_keeps_to_the_protocol() -> None:
    quantizer = Quantizer(torch.zeros(0, dtype=torch.int64), 6)
    layers = [
        fp32_linear(random(4, 6), random(4)),
        PlainLinear(random(4, 6), None),
        Int8Linear(random(4, 6), None, quantizer),
    ]
    assert all(isinstance(layer, BaseLinear) for layer in layers)


def test_gelu_takes_no_second_tensor() -> None:
    features = random(2, 9)
    expected = functional.gelu(features)
    result = InPlaceGelu()(features)
    assert result.data_ptr() == features.data_ptr()
    assert torch.equal(result, expected)


def test_gradients_are_refused(packing: None) -> None:
    features = random(2, 6).requires_grad_()
    for module in (PackedLinear(random(4, 6), None), InPlaceGelu()):
        with pytest.raises(PrecisionError, match=r"train with isogloss[.]train"):
            module(features)


# -- bytes


def test_memory_is_counted_once(packing: None) -> None:
    whole = torch.zeros(10, 4)
    assert tensor_bytes([whole, whole[2:3], whole.T]) == 160
    assert tensor_bytes([whole, torch.zeros(3, dtype=torch.int8)]) == 163
    packed = PackedLinear(random(16, 32), None).packed
    assert tensor_bytes([packed, packed, whole]) == 4 * 16 * 32 + 160
    assert tensor_bytes([]) == 0


def test_bytes_of_a_model() -> None:
    plain = nn.Linear(32, 16)
    layer = fp32_linear(plain.weight.detach(), plain.bias.detach())
    assert model_bytes(layer) == model_bytes(plain) == 4 * (32 * 16 + 16)
