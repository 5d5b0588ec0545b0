"""Linear layers through bitsandbytes (LLM.int8, arXiv 2208.07339)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .quantized import refuse_gradients

if TYPE_CHECKING:
    from .quantized import Quantizer


class BitsandbytesLinear(nn.Module):
    """A frozen linear layer of bitsandbytes' int8 weights.

    bitsandbytes finds outlier channels anew in every batch, so that a row's answer would depend on
    its neighbours. Here they are the ones that the base's weights tell, and its search is off.

    Args:
        weight: fp32 `[out, in]`, on the CPU.
        bias: fp32 `[out]` or None.
        quantizer: knows the outlier channels of its activations.
        device: where to compute.
    """

    # [out]
    bias: torch.Tensor
    # [outliers, out]
    outliers: torch.Tensor
    # [outliers], int64
    columns: torch.Tensor

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        quantizer: Quantizer,
        *,
        device: torch.device,
    ) -> None:
        super().__init__()
        from bitsandbytes.nn.modules import Linear8bitLt

        self.out_features, self.in_features = weight.shape
        columns = quantizer.columns
        inner = Linear8bitLt(
            self.in_features, self.out_features, bias=False, has_fp16_weights=False
        )
        inner.weight.data = weight.index_fill(1, columns, 0.0)
        self.inner = inner.to(device)  # type: ignore[no-untyped-call]
        # Otherwise the first forward does it, perhaps in two threads.
        self.inner.init_8bit_state()
        self.register_buffer(
            "bias", (torch.zeros(len(weight)) if bias is None else bias).to(device)
        )
        self.register_buffer("outliers", weight[:, columns].T.contiguous().to(device))
        self.register_buffer("columns", columns.to(device))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """fp32 `[…, in]` → `[…, out]`; forward only.

        Raises:
            PrecisionError: a gradient is asked for.
        """
        refuse_gradients(features)
        rows = features.reshape(-1, self.in_features)
        # Its kernels take half precision only.
        codes = rows.half()
        codes[:, self.columns] = 0
        result: torch.Tensor = self.inner(codes).to(features.dtype)
        result += self.bias
        for at in range(len(self.columns)):
            result.addcmul_(rows[:, self.columns[at], None], self.outliers[at])
        return result.view(*features.shape[:-1], self.out_features)

    def dense_weight(self) -> torch.Tensor:
        """What the codes stand for, fp32 `[out, in]`."""
        state = self.inner.state
        weight: torch.Tensor = state.CB.float() * (state.SCB.float() / 127).unsqueeze(1)
        weight[:, self.columns] = self.outliers.T
        return weight
