"""Rows to one packed batch: a single sequence of tokens without padding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .base import EncoderShape
    from .delta import PrefixPlace

Mix = tuple[tuple[int, float], ...]
Layout = Literal["length", "adapter"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tokenized text and the adapters that it uses."""

    token_ids: tuple[int, ...]
    """Ids, special tokens included."""
    type_ids: tuple[int, ...] | None = None
    """Token types (BERT's pairs), or None for all zero."""
    mix: Mix = ()
    """Slots and their weights, in the order of a stack; empty: the bare base."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Neighbouring rows that use the same adapters."""

    mix: Mix
    """Slots and weights."""
    begin: int
    """First token."""
    end: int
    """Token after the last."""


@dataclass(frozen=True, kw_only=True)
class SameLength:
    """Neighbouring rows of equal length, whose attention is one product."""

    begin: int
    """First token."""
    rows: int
    """How many there are."""
    length: int
    """Tokens of each."""
    prefix_slots: tuple[int, ...]
    """Slot of each row's prefix; empty: they have none."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """All rows padded to the longest, for attention in one product."""

    # [rows, longest]: packed place of each token, 0 where there is none
    tokens: torch.Tensor
    # [rows, 1, 1, longest prefix + longest]: which keys there are
    keys: torch.Tensor
    # [tokens]: place in the grid, flattened, of each packed token
    places: torch.Tensor
    prefix_slots: tuple[int | None, ...]
    """Slot of each row's prefix."""


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Rows laid end to end."""

    # [1, tokens]
    token_ids: torch.Tensor
    # [1, tokens]
    position_ids: torch.Tensor
    # [1, tokens]
    type_ids: torch.Tensor
    rows: tuple[tuple[int, int], ...]
    """First token, and token after the last, of each row, in the order of the request."""
    runs: tuple[Run, ...]
    """Runs of the same adapters, in packed order; rows of the bare base are left out."""
    # [segments, 3]: first token, token after the last, slot; one for each adapter of each run
    segments: torch.Tensor
    # [segments]
    weights: torch.Tensor
    same_length: tuple[SameLength, ...]
    """Every row, by length; empty where there is a grid."""
    grid: Grid | None
    """For devices on which one padded product beats many exact ones."""


def pack(
    rows: Sequence[Row],
    shape: EncoderShape,
    device: torch.device,
    *,
    prefix: Callable[[int], PrefixPlace | None] = lambda _: None,
    by: Layout = "length",
    join: bool = True,
) -> PackedBatch:
    """Pack rows, of which there is at least one, none empty or longer than the base takes.

    Args:
        rows: tokenized rows.
        shape: the base's.
        device: where the tensors go.
        prefix: the prefix that an adapter's slot holds.
        by: what stands together. `length` lets rows of equal length attend without a copy;
            `adapter` makes the runs of one adapter longest, and attention goes through a grid.
        join: make one run of neighbours with the same adapters; without it, one of each row.
    """
    assert rows, "an empty batch"
    places = [_prefix_of(row, prefix) for row in rows]
    slots = [slot for slot, _ in places]
    lengths = [len(row.token_ids) for row in rows]
    shifts = [place.length if place and place.shifts_positions else 0 for _, place in places]
    prefixes = [place.length if place else 0 for _, place in places]
    assert min(lengths) > 0, "an empty row"
    assert all(
        length + shift <= shape.max_tokens for length, shift in zip(lengths, shifts, strict=True)
    ), "a row longer than the base takes"
    assert all(len(row.type_ids or row.token_ids) == len(row.token_ids) for row in rows), (
        "a type for each token"
    )

    def key(row: int) -> tuple[object, ...]:
        size = (prefixes[row], lengths[row])
        return (*size, rows[row].mix) if by == "length" else (rows[row].mix, *size)

    order = sorted(range(len(rows)), key=key)
    starts = dict(zip(order, accumulate((lengths[row] for row in order), initial=0), strict=False))
    spans = tuple((starts[row], starts[row] + lengths[row]) for row in range(len(rows)))
    runs = _runs(rows, order, spans, join=join)
    packed = [rows[row] for row in order]

    def row_of(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, device=device).unsqueeze(0)

    return PackedBatch(
        token_ids=row_of([token for row in packed for token in row.token_ids]),
        position_ids=row_of(
            [at for row in order for at in _positions(rows[row], shape, shifts[row])]
        ),
        type_ids=row_of(
            [kind for row in packed for kind in row.type_ids or (0,) * len(row.token_ids)]
        ),
        rows=spans,
        runs=runs,
        segments=torch.tensor(
            [(run.begin, run.end, slot) for run in runs for slot, _ in run.mix], dtype=torch.int64
        ).view(-1, 3),
        weights=torch.tensor([weight for run in runs for _, weight in run.mix]),
        same_length=_same_length(order, lengths, slots, prefixes) if by == "length" else (),
        grid=_grid(order, spans, slots, prefixes, device) if by == "adapter" else None,
    )


def _prefix_of(
    row: Row, prefix: Callable[[int], PrefixPlace | None]
) -> tuple[int | None, PrefixPlace | None]:
    """The slot and the place of the one prefix that a row may have."""
    found = [(slot, place) for slot, _ in row.mix if (place := prefix(slot)) is not None]
    assert len(found) <= 1, "a row has one prefix at most"
    return found[0] if found else (None, None)


def _positions(row: Row, shape: EncoderShape, shift: int) -> Iterable[int]:
    """BERT counts from 0; XLM-R from the padding id + 1, without `<pad>` that a text spells out."""
    if shape.model_type != "xlm-roberta":
        return range(shift, shift + len(row.token_ids))
    padding = shape.pad_token_id
    counted = accumulate((token != padding for token in row.token_ids), initial=padding + shift)
    next(counted)
    return [
        padding if token == padding else at
        for token, at in zip(row.token_ids, counted, strict=True)
    ]


def _runs(
    rows: Sequence[Row], order: Sequence[int], spans: Sequence[tuple[int, int]], *, join: bool
) -> tuple[Run, ...]:
    runs: list[Run] = []
    for mix, group in groupby(order, key=lambda row: rows[row].mix):
        members = list(group)
        if not mix:
            continue
        parts = [members] if join else [[member] for member in members]
        runs.extend(Run(mix=mix, begin=spans[part[0]][0], end=spans[part[-1]][1]) for part in parts)
    return tuple(runs)


def _same_length(
    order: Sequence[int],
    lengths: Sequence[int],
    slots: Sequence[int | None],
    prefixes: Sequence[int],
) -> tuple[SameLength, ...]:
    groups = []
    begin = 0
    for (_, length), group in groupby(order, key=lambda row: (prefixes[row], lengths[row])):
        members = list(group)
        groups.append(
            SameLength(
                begin=begin,
                rows=len(members),
                length=length,
                prefix_slots=tuple(slot for row in members if (slot := slots[row]) is not None),
            )
        )
        begin += length * len(members)
    return tuple(groups)


def _grid(
    order: Sequence[int],
    spans: Sequence[tuple[int, int]],
    slots: Sequence[int | None],
    prefixes: Sequence[int],
    device: torch.device,
) -> Grid:
    starts = torch.tensor([spans[row][0] for row in order])
    lengths = torch.tensor([spans[row][1] - spans[row][0] for row in order])
    before = torch.tensor([prefixes[row] for row in order])
    columns = torch.arange(int(lengths.max()))
    real = columns < lengths[:, None]
    prefix_real = torch.arange(int(before.max())) < before[:, None]
    return Grid(
        tokens=torch.where(real, starts[:, None] + columns, 0).to(device),
        keys=torch.cat([prefix_real, real], dim=1)[:, None, None].to(device),
        places=real.flatten().nonzero()[:, 0].to(device),
        prefix_slots=tuple(slots[row] for row in order),
    )
