"""How the frozen base's own linear layers compute, in each precision.

Every one of them replaces an `nn.Linear` of the encoder and holds its weight once, in the form in
which it is multiplied.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional

from .quantized import refuse_gradients

if TYPE_CHECKING:
    from collections.abc import Iterable

# Tokens that oneDNN lays weights out for; any number is served.
TYPICAL_TOKENS = 64


@runtime_checkable
class BaseLinear(Protocol):
    """A linear layer of the frozen base."""

    in_features: int
    out_features: int
    # [out], or None
    bias: torch.Tensor | None

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """`[…, in]` → a new tensor `[…, out]`."""
        ...

    def dense_weight(self) -> torch.Tensor:
        """Its weight, fp32 `[out, in]`."""
        ...


class PlainLinear(nn.Module):
    """torch's own product, in fp32 or bf16, on any device.

    Args:
        weight: `[out, in]`.
        bias: `[out]` or None.
    """

    # [out, in]
    weight: torch.Tensor
    # [out], or None
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[…, in]` → `[…, out]`."""
        return functional.linear(features, self.weight, self.bias)

    def dense_weight(self) -> torch.Tensor:
        """fp32 `[out, in]`."""
        return self.weight.float()


class PackedLinear(nn.Module):
    """fp32 on a CPU, the weight laid out for oneDNN: twice as fast as a product of plain tensors.

    Its sums run in an order that doesn't depend on how many tokens there are.

    Args:
        weight: fp32 `[out, in]`.
        bias: fp32 `[out]` or None.
    """

    # [out, in], in oneDNN's own layout
    packed: torch.Tensor
    # [out], or None
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # Not persistent: a tensor in a layout of oneDNN's can't be saved.
        self.register_buffer("packed", _pack(weight), persistent=False)
        self.register_buffer("bias", bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """fp32 `[…, in]` → `[…, out]`; forward only.

        Raises:
            PrecisionError: a gradient is asked for.
        """
        refuse_gradients(features)
        return _multiply(features, self.packed, self.bias)

    def dense_weight(self) -> torch.Tensor:
        """fp32 `[out, in]`."""
        return self.packed.to_dense()


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_TOKENS)
    return packed


def _multiply(
    features: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        features, packed, bias, "none", [], ""
    )
    return result


@functools.cache
def can_pack() -> bool:
    """Whether this build of torch has oneDNN's products; they are no public operators."""
    weight = torch.arange(32 * 48, dtype=torch.float32).remainder(7).view(32, 48)
    features = torch.arange(6 * 48, dtype=torch.float32).remainder(5).view(6, 48)
    try:
        packed = _pack(weight)
        result = _multiply(features, packed, None)
        return torch.equal(packed.to_dense(), weight) and torch.equal(result, features @ weight.T)
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return False


class InPlaceGelu(nn.Module):
    """GELU (with erf) over its own input, which nothing else reads: no second tensor of that size.

    At a batch's width of thousands of channels, memory that is asked for and given back at every
    layer costs more than the function.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[…, width]` → the same tensor; forward only.

        Raises:
            PrecisionError: a gradient is asked for.
        """
        refuse_gradients(features)
        result: torch.Tensor = torch.ops.aten.gelu_(features)
        return result


def fp32_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> PackedLinear | PlainLinear:
    """The fastest fp32 layer for a weight's device."""
    if weight.device.type == "cpu" and can_pack():
        return PackedLinear(weight, bias)
    return PlainLinear(weight, bias)


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the memory behind tensors, each piece of memory counted once.

    Tensors in a layout of oneDNN's have no storage that could be asked; each is its own.
    """
    pieces: dict[tuple[str, int], int] = {}
    for tensor in tensors:
        if tensor.layout is torch._mkldnn:  # type: ignore[attr-defined]
            pieces["opaque", id(tensor)] = tensor.numel() * tensor.element_size()
        else:
            storage = tensor.untyped_storage()
            pieces[str(tensor.device), storage.data_ptr()] = storage.nbytes()
    return sum(pieces.values())


def model_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters and buffers."""
    return tensor_bytes([*model.parameters(), *model.buffers()])
