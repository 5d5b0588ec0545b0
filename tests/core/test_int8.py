from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isogloss.core import native
from isogloss.core.int8 import (
    PRODUCTS,
    Codes,
    Product,
    choose_product,
    gelu_quantize_,
    quantize_tokens,
    quantize_weight,
    rescale_,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = [(1, 1, 1), (2, 16, 32), (5, 100, 33), (7, 3072, 20), (40, 1025, 3)]


@pytest.fixture(params=["compiled", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways to compute; they give the same up to the rounding of a single code."""
    if request.param == "torch":
        monkeypatch.setenv("ISOGLOSS_NATIVE", "0")
    elif native.load() is None:
        pytest.skip(f"no compiled kernels: {native.status().note}")
    yield request.param


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def decoded(codes: Codes) -> torch.Tensor:
    return (codes.values.double() - 128) * codes.scales.double().unsqueeze(1)


# -- products of codes


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
@pytest.mark.parametrize(("tokens", "width", "outputs"), SIZES)
def test_products_are_exact(product: Product, tokens: int, width: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(width)
    codes = torch.randint(0, 256, (tokens, width), generator=generator).to(torch.uint8)
    weight = torch.randint(-127, 128, (outputs, width), generator=generator).to(torch.int8)
    scales = torch.rand(outputs, generator=generator) + 0.5
    packed = product.pack(weight)
    assert torch.equal(product.unpack(packed), weight)
    whole = (codes.long() - 128) @ weight.long().T
    result = product.multiply(codes, packed, scales)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), whole * scales.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_the_largest_sums(product: Product) -> None:
    codes = torch.full((4, 3072), 255, dtype=torch.uint8)
    weight = torch.full((16, 3072), -127, dtype=torch.int8)
    result = product.multiply(codes, product.pack(weight), torch.ones(16))
    assert torch.equal(result, torch.full((4, 16), -127.0 * 127 * 3072))


def test_a_product_is_chosen() -> None:
    assert choose_product() in PRODUCTS
    assert choose_product() is choose_product()


# -- quantizing


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    tokens=st.integers(1, 6),
    width=st.integers(1, 300),
    exponent=st.integers(-30, 30),
    left_out=st.sets(st.integers(0, 299), max_size=4),
)
def test_codes_stand_for_the_activations(
    way: str, tokens: int, width: int, exponent: int, left_out: set[int]
) -> None:
    features = random(tokens, width, seed=width) * 2.0**exponent
    columns = sorted(column for column in left_out if column < width)
    factors = torch.ones(width)
    factors[columns] = 0
    codes = quantize_tokens(features, factors if columns else None)
    expected = features.double() * factors
    error = (decoded(codes) - expected).abs()
    assert (error <= 0.501 * codes.scales.double().unsqueeze(1)).all()
    assert (codes.values[:, columns] == 128).all()
    torch.testing.assert_close(codes.scales, expected.abs().amax(1).float() / 127)


def test_both_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    features = random(50, 333)
    if native.load() is None:
        pytest.skip(f"no compiled kernels: {native.status().note}")
    compiled = quantize_tokens(features, None)
    monkeypatch.setenv("ISOGLOSS_NATIVE", "0")
    plain = quantize_tokens(features, None)
    torch.testing.assert_close(compiled.scales, plain.scales, rtol=1e-6, atol=0)
    differences = (compiled.values.int() - plain.values.int()).abs()
    assert differences.max() <= 1
    assert (differences > 0).float().mean() < 1e-3


def test_rows_that_are_hardly_there(way: str) -> None:
    features = torch.stack([torch.zeros(70), torch.full((70,), 1e-42), torch.ones(70)])
    codes = quantize_tokens(features, None)
    assert (codes.values[:2] == 128).all()
    assert (codes.values[2] == 255).all()
    assert codes.scales[0] == 0
    torch.testing.assert_close(decoded(codes).float(), features)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_not_hidden(way: str, value: float) -> None:
    features = torch.ones(3, 70)
    features[1, 65] = value
    codes = quantize_tokens(features, None)
    assert torch.isfinite(codes.scales).tolist() == [True, False, True]
    product = torch.ones(3, 4)
    none = torch.zeros(0, dtype=torch.int64)
    rescale_(
        product,
        scales=codes.scales,
        bias=torch.zeros(4),
        features=features,
        columns=none,
        weights=torch.zeros(0, 4),
    )
    assert torch.isfinite(product).all(1).tolist() == [True, False, True]


def test_weights() -> None:
    weight = random(20, 50) * torch.logspace(-6, 3, 20).unsqueeze(1)
    weight[3] = 0
    codes, scales = quantize_weight(weight)
    assert codes.dtype == torch.int8
    assert codes.abs().amax(1).tolist() == [0 if row == 3 else 127 for row in range(20)]
    error = (codes * scales.unsqueeze(1) - weight).abs()
    assert (error <= 0.501 * scales.unsqueeze(1)).all()


# -- around the product


@pytest.mark.parametrize("width", [1, 16, 63, 64, 200])
def test_gelu(way: str, width: int) -> None:
    features = torch.linspace(-9, 9, 40 * width).view(40, width)
    exact = torch.nn.functional.gelu(features.double())
    codes = gelu_quantize_(features, None)
    # A few units in the last place, of numbers up to 9.
    assert (features.double() - exact).abs().max() < 2e-6
    assert (features.double() - exact)[features.abs() < 4].abs().max() < 1e-6
    again = quantize_tokens(features, None)
    assert torch.equal(codes.values, again.values)
    assert torch.equal(codes.scales, again.scales)


@pytest.mark.parametrize("outputs", [1, 64, 100])
@pytest.mark.parametrize("outliers", [0, 1, 5])
def test_finishing_a_product(way: str, outputs: int, outliers: int) -> None:
    product, features, bias = random(9, outputs), random(9, 30, seed=1), random(outputs, seed=2)
    scales, weights = random(9, seed=3).abs(), random(outliers, outputs, seed=4)
    columns = torch.arange(outliers) * 7 % 30
    expected = (
        product.double() * scales.double().unsqueeze(1)
        + bias
        + features.double()[:, columns] @ weights.double()
    )
    rescale_(product, scales=scales, bias=bias, features=features, columns=columns, weights=weights)
    torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("width", [1, 37, 64, 191, 768])
def test_a_token_gives_the_same_bits_anywhere(way: str, width: int) -> None:
    """Alone, in a batch, and at any address."""
    features = random(23, width)
    bias, weights = random(width, seed=1), random(2, width, seed=2)
    columns = torch.tensor([0, width - 1])

    def compute(rows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rows = rows.clone()
        codes = quantize_tokens(rows, None)
        product = rows.clone()
        rescale_(
            product,
            scales=codes.scales,
            bias=bias,
            features=rows,
            columns=columns,
            weights=weights,
        )
        activated = gelu_quantize_(rows, None)
        return codes.values, codes.scales, product, rows, activated.values, activated.scales

    together = compute(features)
    for row in range(23):
        alone = compute(features[row : row + 1])
        for part, whole in zip(alone, together, strict=True):
            assert torch.equal(part[0], whole[row])
    shifted = torch.empty(23 * width + 1)[1:].view(23, width).copy_(features)
    codes = quantize_tokens(shifted, None)
    assert torch.equal(codes.values, together[0])
