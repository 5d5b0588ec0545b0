"""Attention within each row of a packed batch.

transformers' own modules call it through their attention registry
(https://huggingface.co/docs/transformers/attention_interface); no model code is re-written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import nn

    from .packing import PackedBatch

NAME = "isogloss_packed"


def packed_attention(
    module: nn.Module,  # noqa: ARG001  (the registry's signature)
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001
    *,
    plan: PackedBatch,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Rows of equal length attend in one product, each to itself.

    Args:
        module: the attention module that calls.
        query: `[1, heads, tokens, width of a head]`.
        key: likewise.
        value: likewise.
        attention_mask: unused: nothing is padded.
        plan: the packed batch.
        scaling: factor of the scores.

    Returns:
        `[1, tokens, heads, width of a head]`, and no weights.
    """
    # [tokens, heads, width]
    queries, keys, values = (part[0].transpose(0, 1) for part in (query, key, value))
    output = torch.empty_like(queries)
    for tokens in plan.same_length:
        # [rows, heads, length, width]
        q, k, v = (part[tokens].transpose(1, 2) for part in (queries, keys, values))
        attended = functional.scaled_dot_product_attention(q, k, v, scale=scaling)
        output[tokens] = attended.transpose(1, 2)
    return output.unsqueeze(0), None


def register() -> None:
    """Make the function known to transformers; doing so again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    # Without an entry of its own, transformers would build a mask for the packed row.
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
