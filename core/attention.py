"""Attention within each row of a packed batch.

transformers' own modules call it through their attention registry
(https://huggingface.co/docs/transformers/attention_interface); no model code is re-written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from .packing import Grid, PackedBatch

NAME = "isogloss_packed"


class Prefixes(Protocol):
    """Where prefixes come from: the bank, or the one that is being trained."""

    def prefixes(
        self, slots: Sequence[int | None], layer: int, *, heads: int, longest: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values `[rows, heads, length, width of a head]`."""
        ...


def packed_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  (the registry's signature)
    *,
    plan: PackedBatch,
    bank: Prefixes | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Each row attends to itself and to its adapter's prefix.

    Args:
        module: the attention module that calls.
        query: `[1, heads, tokens, width of a head]`.
        key: likewise.
        value: likewise.
        attention_mask: unused: nothing is padded.
        plan: the packed batch.
        bank: the slots, which hold the prefixes; None: there are none.
        scaling: factor of the scores.
        dropout: of the attention weights, while training.

    Returns:
        `[1, tokens, heads, width of a head]`, and no weights.
    """
    # [tokens, heads, width]
    parts = tuple(part[0].transpose(0, 1) for part in (query, key, value))
    layer: int = module.layer_idx  # type: ignore[assignment]
    if plan.grid is not None:
        result = _in_grid(parts, plan.grid, bank, layer=layer, scaling=scaling, dropout=dropout)
        return result.unsqueeze(0), None
    attended = []
    sizes = [group.rows * group.length for group in plan.same_length]
    # Split, not sliced: the gradient of a slice is as large as the whole batch.
    split = zip(*(torch.split(part, sizes) for part in parts), strict=True)
    for group, of_group in zip(plan.same_length, split, strict=True):
        # [rows, heads, length, width]: views, as rows of one length stand together
        q, k, v = (
            part.unflatten(0, (group.rows, group.length)).transpose(1, 2) for part in of_group
        )
        if group.prefix_slots:
            assert bank is not None, "prefixes that come from nowhere"
            before = bank.prefixes(group.prefix_slots, layer, heads=q.shape[1])
            k, v = (torch.cat(pair, dim=2) for pair in zip(before, (k, v), strict=True))
        result = functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=scaling)
        attended.append(result.transpose(1, 2).flatten(0, 1))
    return torch.cat(attended).unsqueeze(0), None


def _in_grid(
    parts: tuple[torch.Tensor, ...],
    grid: Grid,
    bank: Prefixes | None,
    *,
    layer: int,
    scaling: float | None,
    dropout: float,
) -> torch.Tensor:
    """One padded product for all rows; `[tokens, heads, width]`."""
    # [rows, heads, longest, width]
    q, k, v = (part[grid.tokens].transpose(1, 2) for part in parts)
    if grid.keys.shape[-1] > k.shape[2]:
        assert bank is not None, "prefixes that come from nowhere"
        before = bank.prefixes(
            grid.prefix_slots, layer, heads=q.shape[1], longest=grid.keys.shape[-1] - k.shape[2]
        )
        k, v = (torch.cat(pair, dim=2) for pair in zip(before, (k, v), strict=True))
    result = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=grid.keys, dropout_p=dropout, scale=scaling
    )
    return result.transpose(1, 2).flatten(0, 1)[grid.places]


def register() -> None:
    """Make the function known to transformers; doing so again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    # Without an entry of its own, transformers would build a mask for the packed row.
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
