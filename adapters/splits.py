"""Train, dev and test: rows set aside, rows that stand on both sides, and the digest of all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..core.errors import EmptyDataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .row_layouts import RowLayout
    from .rows import Record

R = TypeVar("R")

# Without a dev split, one row in so many is taken from the training rows.
DEV_SHARE = 8


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Training rows that were left out, because another split has them too."""

    split: str
    """The other split: `dev` or `test`."""
    rows: int
    """How many training rows."""
    first: str
    """The first of them and where it stands in the other split."""


def set_aside(
    records: Sequence[Record[R]], layout: RowLayout[R], *, name: str, by_id: bool = False
) -> tuple[list[Record[R]], list[Record[R]]]:
    """Take about an eighth of the training rows as dev rows.

    A row's side depends on the row alone, so that it stays there when rows are added. A row whose
    label would be left without a training row stays a training row.

    Args:
        records: the training rows.
        layout: their layout; rows with equal split keys stay together.
        name: where they come from, for messages.
        by_id: go by the rows' `id` where they have one, so that the translations of one text,
            in the sources of several locales, stay together.

    Returns:
        The training rows and the dev rows, each in their order.

    Raises:
        EmptyDataError: one of both would be empty.
    """
    chosen = [_side(record, layout, by_id) == 0 for record in records]
    kept = {
        label
        for record, aside in zip(records, chosen, strict=True)
        if not aside
        for label in layout.labels(record.row)
    }
    train: list[Record[R]] = []
    dev: list[Record[R]] = []
    for record, aside in zip(records, chosen, strict=True):
        known = kept.issuperset(layout.labels(record.row))
        (dev if aside and known else train).append(record)
    if not dev or not train:
        raise EmptyDataError(f"{name} has too few rows to keep some apart; add a dev.jsonl")
    return train, dev


def _side(record: Record[R], layout: RowLayout[R], by_id: bool) -> int:
    key = layout.split_key(record.row)
    if by_id and record.parallel is not None:
        key = record.parallel
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:4], "big") % DEV_SHARE


def drop_leaks(
    train: Sequence[Record[R]],
    others: Mapping[str, Sequence[Record[R]]],
    layout: RowLayout[R],
) -> tuple[list[Record[R]], list[Leak]]:
    """Leave out the training rows whose input stands in another split too, whatever its label.

    Inputs are compared in NFC, with case folded and runs of whitespace as one space.

    Args:
        train: the training rows of all sources.
        others: the rows of the other splits.
        layout: their layout.

    Returns:
        The training rows that stay, and what was left out for each of `others`.
    """
    kept = list(train)
    leaks: list[Leak] = []
    for split, records in others.items():
        held = {layout.key(record.row): record for record in reversed(records)}
        staying: list[Record[R]] = []
        first = ""
        for record in kept:
            twin = held.get(layout.key(record.row))
            if twin is None:
                staying.append(record)
            else:
                first = first or f"{record.place} = {twin.place}"
        if first:
            leaks.append(Leak(split=split, rows=len(kept) - len(staying), first=first))
        kept = staying
    return kept, leaks


def count_repeats(records: Sequence[Record[R]], layout: RowLayout[R]) -> int:
    """How many rows repeat the input of an earlier row of their locale."""
    return len(records) - len({(record.locale, layout.key(record.row)) for record in records})


def rows_digest(train: Sequence[Record[R]], dev: Sequence[Record[R]], layout: RowLayout[R]) -> str:
    """sha256 of the rows, their order and, where there are several, their locales."""
    parts = (train, dev)
    several = len({record.locale for part in parts for record in part}) > 1
    content = [
        [
            [record.locale, *layout.content(record.row)] if several else layout.content(record.row)
            for record in part
        ]
        for part in parts
    ]
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
