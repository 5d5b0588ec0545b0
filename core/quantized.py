"""The int8 modules that take the place of a frozen encoder's linears, embedding and GELU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from .errors import PrecisionError
from .int8 import (
    choose_product,
    gelu_quantize_,
    quantize_tokens,
    quantize_weight,
    rescale_,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .int8 import Codes, KernelArguments


class _Held(NamedTuple):
    """Codes that wait for the layers that will read the same activations."""

    features: torch.Tensor
    codes: Codes
    uses: int


class Quantizer:
    """Turns activations into codes, once for all the layers that read them.

    Query, key and value get the same tensor: the first has it quantized, the last lets go of it.
    The tensor is held meanwhile, so its address stays its own; it must not be written to.

    Args:
        columns: int64 `[outliers]`, channels that stay out of the codes.
        width: how many channels there are.
        uses: how many layers read each tensor.
    """

    def __init__(self, columns: torch.Tensor, width: int, *, uses: int = 1) -> None:
        self.columns = columns
        # [width], 0 for the channels that are left out
        self.factors = torch.ones(width).index_fill_(0, columns, 0.0) if len(columns) else None
        self._uses = uses
        # Threads may run forwards at once, each with its own activations.
        self._local = threading.local()

    def __call__(self, features: torch.Tensor) -> Codes:
        """Codes of contiguous fp32 `[tokens, width]`."""
        held: _Held | None = getattr(self._local, "held", None)
        if held is not None and _same(held.features, features):
            codes, left = held.codes, held.uses - 1
        else:
            codes, left = quantize_tokens(features, self.factors), self._uses - 1
        self._local.held = _Held(features, codes, left) if left else None
        return codes

    def gelu_(self, features: torch.Tensor) -> None:
        """GELU in place on contiguous fp32 `[tokens, width]`; keeps the codes for the reader."""
        codes = gelu_quantize_(features, self.factors)
        self._local.held = _Held(features, codes, self._uses)


def _same(held: torch.Tensor, features: torch.Tensor) -> bool:
    """Whether both are the same memory: two views of a tensor are two objects."""
    return held.data_ptr() == features.data_ptr() and held.shape == features.shape


class Int8Linear(nn.Module):
    """A frozen linear layer of int8 weights.

    Args:
        weight: fp32 `[out, in]`.
        bias: fp32 `[out]` or None.
        quantizer: of its activations.
    """

    # [out, in] codes, as the product wants them
    packed: torch.Tensor
    # [out]
    scales: torch.Tensor
    # [out]
    bias: torch.Tensor
    # [outliers, out]: the channels that the codes leave out
    outliers: torch.Tensor
    # [outliers], int64: which they are
    columns: torch.Tensor

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, quantizer: Quantizer):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.quantizer = quantizer
        self._product = choose_product()
        outliers = weight[:, quantizer.columns].T.contiguous()
        codes, scales = quantize_weight(weight.index_fill(1, quantizer.columns, 0.0))
        self.register_buffer("packed", self._product.pack(codes), persistent=False)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", torch.zeros(len(weight)) if bias is None else bias.clone())
        self.register_buffer("outliers", outliers)
        # The quantizer's own, so that they are counted.
        self.register_buffer("columns", quantizer.columns)
        self.register_buffer("factors", quantizer.factors)

    def forward(self, features: torch.Tensor, low_rank: KernelArguments = ()) -> torch.Tensor:
        """fp32 `[…, in]` → `[…, out]`; forward only.

        Args:
            features: the activations.
            low_rank: updates to be added in the pass that rescales, as `rescale_` takes them.

        Raises:
            PrecisionError: a gradient is asked for.
        """
        refuse_gradients(features)
        rows = features.reshape(-1, self.in_features).contiguous()
        codes = self.quantizer(rows)
        result = self._product.multiply(codes.values, self.packed, self.scales)
        rescale_(
            result,
            scales=codes.scales,
            bias=self.bias,
            features=rows,
            columns=self.columns,
            weights=self.outliers,
            low_rank=low_rank,
        )
        return result.view(*features.shape[:-1], self.out_features)

    def dense_weight(self) -> torch.Tensor:
        """What the codes stand for, fp32 `[out, in]`."""
        weight = self._product.unpack(self.packed).float() * self.scales.unsqueeze(1)
        weight[:, self.columns] = self.outliers.T
        return weight

    def extra_repr(self) -> str:
        """What torch prints of a module."""
        return f"{self.in_features}, {self.out_features}, product={self._product.name}"


class QuantizedGelu(nn.Module):
    """GELU (with erf), in place, leaving codes for the layer that reads it.

    Args:
        quantizer: of that layer.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self._quantizer = quantizer

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """fp32 `[…, width]`, contiguous → the same tensor."""
        refuse_gradients(features)
        rows = features.view(-1, features.shape[-1])
        self._quantizer.gelu_(rows)
        return features


class QuantizedEmbedding(nn.Module):
    """A frozen embedding of int8 rows, each with its own scale.

    Args:
        rows: how many.
        width: of each.
        device: where they are.
    """

    # [rows, width], int8
    codes: torch.Tensor
    # [rows]
    scales: torch.Tensor

    def __init__(self, rows: int, width: int, *, device: torch.device | None = None) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = rows, width
        self.register_buffer("codes", torch.empty(rows, width, dtype=torch.int8, device=device))
        self.register_buffer("scales", torch.empty(rows, device=device))

    def fill(self, blocks: Iterable[torch.Tensor]) -> None:
        """Quantize all rows, given as consecutive fp32 blocks `[rows of a block, width]`."""
        begin = 0
        for block in blocks:
            end = begin + len(block)
            codes, scales = quantize_weight(block)
            self.codes[begin:end] = codes
            self.scales[begin:end] = scales
            begin = end
        assert begin == self.num_embeddings, f"{begin} rows given"

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """`[…]` → fp32 `[…, width]`."""
        return self.codes[ids].float() * self.scales[ids].unsqueeze(-1)

    def dense_rows(self, begin: int = 0, end: int | None = None) -> torch.Tensor:
        """Rows `begin` to `end` in fp32 `[end - begin, width]`; all of them unless said."""
        return self.codes[begin:end].float() * self.scales[begin:end].unsqueeze(1)

    def extra_repr(self) -> str:
        """What torch prints of a module."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


def refuse_gradients(features: torch.Tensor) -> None:
    """Raise PrecisionError where autograd would silently stop."""
    if features.requires_grad and torch.is_grad_enabled():
        raise PrecisionError(
            "a base loaded for serving can't be trained through: gradients end in its kernels; "
            "train with isogloss.train"
        )
