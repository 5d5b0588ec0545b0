"""Rows to one packed batch: a single sequence of tokens without padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .base import EncoderShape


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tokenized text and the slot of its adapter."""

    token_ids: tuple[int, ...]
    """Ids, special tokens included."""
    type_ids: tuple[int, ...] | None = None
    """Token types (BERT's pairs), or None for all zero."""
    slot: int | None = None
    """Slot of the adapter; None: the bare base."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of tokens, and of rows, that share an adapter."""

    slot: int | None
    """Slot of the adapter."""
    begin: int
    """First token."""
    end: int
    """Token after the last."""
    first_row: int
    """First row, in packed order."""
    last_row: int
    """Row after the last."""


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Rows sorted by adapter, then length, laid end to end."""

    # [1, tokens]
    token_ids: torch.Tensor
    # [1, tokens]
    position_ids: torch.Tensor
    # [1, tokens]
    type_ids: torch.Tensor
    # [rows]: where each row begins
    starts: torch.Tensor
    # [rows]: the place in the request of each packed row
    order: torch.Tensor
    segments: tuple[Segment, ...]
    """Runs of one adapter each."""
    # each [rows of that length, length]: the tokens of all rows of one length
    same_length: tuple[torch.Tensor, ...]

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """`[rows, …]` in packed order → in the order of the request."""
        result = torch.empty_like(values)
        result[self.order] = values
        return result


def pack(rows: Sequence[Row], shape: EncoderShape, device: torch.device) -> PackedBatch:
    """Pack rows, of which there is at least one, none empty or longer than the base takes."""
    assert rows, "an empty batch"

    def key(index: int) -> tuple[int, int]:
        row = rows[index]
        return (-1 if row.slot is None else row.slot, len(row.token_ids))

    order = sorted(range(len(rows)), key=key)
    packed = [rows[index] for index in order]
    lengths = [len(row.token_ids) for row in packed]
    assert min(lengths) > 0, "an empty row"
    assert max(lengths) <= shape.max_tokens, "a row longer than the base takes"
    assert all(len(row.type_ids or row.token_ids) == len(row.token_ids) for row in rows), (
        "a type for each token"
    )
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    by_length: dict[int, list[int]] = {}
    for start, length in zip(starts, lengths, strict=False):
        by_length.setdefault(length, []).append(start)

    def row_of(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=device).unsqueeze(0)

    return PackedBatch(
        token_ids=row_of([token for row in packed for token in row.token_ids]),
        position_ids=row_of([at for row in packed for at in _positions(row, shape)]),
        type_ids=row_of(
            [kind for row in packed for kind in row.type_ids or (0,) * len(row.token_ids)]
        ),
        starts=torch.tensor(starts[:-1], device=device),
        order=torch.tensor(order, device=device),
        segments=_segments([row.slot for row in packed], starts),
        same_length=tuple(
            torch.tensor(begins, device=device).unsqueeze(1) + torch.arange(length, device=device)
            for length, begins in by_length.items()
        ),
    )


def _positions(row: Row, shape: EncoderShape) -> Iterable[int]:
    """BERT counts from 0; XLM-R from the padding id + 1, without `<pad>` that a text spells out."""
    if shape.model_type != "xlm-roberta":
        return range(len(row.token_ids))
    padding = shape.pad_token_id
    counted = accumulate((token != padding for token in row.token_ids), initial=padding)
    next(counted)
    return [
        padding if token == padding else at
        for token, at in zip(row.token_ids, counted, strict=True)
    ]


def _segments(slots: Sequence[int | None], starts: Sequence[int]) -> tuple[Segment, ...]:
    segments = []
    row = 0
    for slot, group in groupby(slots):
        last = row + len(list(group))
        segments.append(
            Segment(slot=slot, begin=starts[row], end=starts[last], first_row=row, last_row=last)
        )
        row = last
    return tuple(segments)
