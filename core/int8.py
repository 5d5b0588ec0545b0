"""int8 arithmetic: a scale per token, a scale per output channel, whole numbers in between.

Scales per token (as in LLM.int8, arXiv 2208.07339) keep a row's answer free of its neighbours: sums
of whole numbers don't depend on their order, and everything around them is done token by token. So
a row gives the same bits alone and in any batch.

Some channels of a trained transformer are 20 to 100 times larger than the rest, and would take the
resolution of all others. They are known by the base's weights (see outliers.py), stay out of the
codes, and are added in single precision.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from . import native

if TYPE_CHECKING:
    from collections.abc import Callable

    KernelArguments = tuple[int | torch.Tensor, ...]

LARGEST = 127
ZERO_POINT = 128
# 127 · 127 · 1024 < 2²⁴: a sum of so many products is exact in single precision, in any order.
EXACT_TERMS = 1024
# torch splits no tensor of fewer elements over threads, and computes so many at once.
PIECE = 32_768
VECTORS = 32


@dataclass(frozen=True, kw_only=True)
class Product:
    """One way to multiply codes."""

    name: str
    """Which, for people."""
    pack: Callable[[torch.Tensor], torch.Tensor]
    """Codes of a weight, int8 `[out, in]` → what `multiply` takes."""
    unpack: Callable[[torch.Tensor], torch.Tensor]
    """The way back."""
    multiply: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    """uint8 `[tokens, in]`, packed weight, scales `[out]` → fp32 `[tokens, out]`."""


def choose_product() -> Product:
    """The fastest product that works with this torch and processor."""
    return _working()[0]


@functools.cache
def _working() -> tuple[Product, ...]:
    return tuple(product for product in PRODUCTS if _works(product))


def _works(product: Product) -> bool:
    """Try it: private operators of torch may be renamed, or lack a kernel for this processor."""
    codes = torch.arange(6 * 48, dtype=torch.int64).remainder(255).to(torch.uint8).view(6, 48)
    weight = torch.arange(32 * 48).mul(37).remainder(255).sub(LARGEST).to(torch.int8).view(32, 48)
    # The largest sums of all: without VNNI, some kernels cut pairs of products off at 16 bits.
    codes[0], weight[0], weight[1] = 255, LARGEST, -LARGEST
    scales = torch.full((32,), 0.5)
    expected = _multiply_plainly(codes, weight, scales)
    try:
        packed = product.pack(weight)
        result = product.multiply(codes, packed, scales)
        return torch.equal(product.unpack(packed), weight) and torch.equal(result, expected)
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return False


def _multiply_onednn(
    codes: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """The kernel of oneDNN (VNNI, AMX), which is fast for unsigned activations only."""
    result: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        *(codes, 1.0, ZERO_POINT, packed, scales, None, None, 1.0, 0),
        *(torch.float32, "none", [], ""),
    )
    return result


def _multiply_int_mm(
    codes: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """The product of signed bytes in torch; flipping the top bit takes 128 off."""
    signed = codes.bitwise_xor(ZERO_POINT).view(torch.int8)
    return torch._int_mm(signed, packed.T).float().mul_(scales)


def _multiply_plainly(
    codes: torch.Tensor, packed: torch.Tensor, scales: torch.Tensor
) -> torch.Tensor:
    """Products in single precision, of so few terms that each is a whole number."""
    total = torch.zeros(len(codes), len(packed), dtype=torch.int32, device=codes.device)
    for begin in range(0, codes.shape[1], EXACT_TERMS):
        part = slice(begin, begin + EXACT_TERMS)
        total += ((codes[:, part].float() - ZERO_POINT) @ packed[:, part].float().T).int()
    return total.float().mul_(scales)


PRODUCTS = (
    Product(
        name="oneDNN",
        pack=lambda codes: torch.ops.onednn.qlinear_prepack(codes, [64, codes.shape[1]]),
        unpack=lambda packed: packed.to_dense().T.contiguous(),
        multiply=_multiply_onednn,
    ),
    Product(
        name="torch._int_mm",
        pack=torch.Tensor.contiguous,
        unpack=torch.Tensor.contiguous,
        multiply=_multiply_int_mm,
    ),
    Product(
        name="torch",
        pack=torch.Tensor.contiguous,
        unpack=torch.Tensor.contiguous,
        multiply=_multiply_plainly,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Activations as bytes: `x * factors = (values - 128) * scales`."""

    # [tokens, width], uint8
    values: torch.Tensor
    # [tokens]
    scales: torch.Tensor


def quantize_weight(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int8 of the shape of `weight` `[rows, columns]`, and a scale per row `[rows]`."""
    scales = _peaks(weight).div_(LARGEST)
    codes = (weight * _inverse(scales).unsqueeze(1)).round_().clamp_(-LARGEST, LARGEST)
    return codes.to(torch.int8), scales


def quantize_tokens(features: torch.Tensor, factors: torch.Tensor | None) -> Codes:
    """Codes of activations.

    Args:
        features: fp32 `[tokens, width]`.
        factors: `[width]`, 0 for channels that are left out; None: all are in.
    """
    features = features.contiguous()
    kernels = native.load()
    if kernels is not None:
        values = torch.empty(features.shape, dtype=torch.uint8)
        scales = torch.empty(len(features))
        kernels.over_rows(
            "isogloss_quantize",
            len(features),
            *(features, factors, features.shape[1], values, scales),
        )
        return Codes(values=values, scales=scales)
    if factors is not None:
        features = features * factors
    scales = _peaks(features).div_(LARGEST)
    values = (features * _inverse(scales).unsqueeze(1)).round_().add_(ZERO_POINT)
    return Codes(values=values.to(torch.uint8), scales=scales)


def gelu_quantize_(features: torch.Tensor, factors: torch.Tensor | None) -> Codes:
    """GELU in place on fp32 `[tokens, width]`, contiguous, and the codes of what it gives."""
    kernels = native.load()
    if kernels is None:
        _gelu_(features)
        return quantize_tokens(features, factors)
    values = torch.empty(features.shape, dtype=torch.uint8)
    scales = torch.empty(len(features))
    kernels.over_rows(
        "isogloss_gelu_quantize",
        len(features),
        *(features, factors, features.shape[1], values, scales),
    )
    return Codes(values=values, scales=scales)


def _gelu_(features: torch.Tensor) -> None:
    """GELU in place, with the same bits for a token alone and in a batch.

    torch rounds the last few elements of a tensor otherwise than the rest, and likewise where it
    splits a tensor over threads: so give it whole vectors, and pieces too small to be split.
    """
    width = features.shape[1]
    padding = -width % VECTORS
    for piece in torch.split(features, max(1, PIECE // (width + padding))):
        whole = torch.nn.functional.pad(piece, (0, padding))
        piece.copy_(torch.ops.aten.gelu_(whole)[:, :width])


def rescale_(
    product: torch.Tensor,
    *,
    scales: torch.Tensor,
    bias: torch.Tensor,
    features: torch.Tensor,
    columns: torch.Tensor,
    weights: torch.Tensor,
    low_rank: KernelArguments = (),
) -> None:
    """Finish a product of codes, in place: `product * scales + bias + features[columns] weights`.

    Args:
        product: `[tokens, out]`, contiguous.
        scales: of the tokens, `[tokens]`.
        bias: `[out]`.
        features: `[tokens, in]`, contiguous.
        columns: int64 `[outliers]`: the input channels that the codes leave out.
        weights: of those channels, `[outliers, out]`.
        low_rank: what `isogloss_low_rank` takes after the layer's own arguments: updates to be
            added in the same pass; only where there are compiled kernels.
    """
    kernels = native.load()
    if kernels is not None:
        kernels.over_rows(
            "isogloss_rescale_low_rank" if low_rank else "isogloss_rescale",
            len(product),
            *(product, scales, bias, product.shape[1]),
            *(features, features.shape[1], columns, weights, len(columns)),
            *low_rank,
        )
        return
    assert not low_rank, "updates are added by the compiled kernel"
    product.mul_(scales.unsqueeze(1)).add_(bias)
    for column, weight in zip(columns.tolist(), weights, strict=True):
        product.addcmul_(features[:, column : column + 1], weight)


def _peaks(values: torch.Tensor) -> torch.Tensor:
    """Largest magnitude of each row `[rows]`; two passes are faster than `aminmax` or `abs`."""
    return torch.maximum(values.amax(1), -values.amin(1))


def _inverse(scales: torch.Tensor) -> torch.Tensor:
    """What to multiply by; rows too small for a quotient become zero."""
    return torch.where(scales < torch.finfo(scales.dtype).tiny, 0.0, 1 / scales)
