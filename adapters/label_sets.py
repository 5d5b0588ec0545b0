"""Labels: the set that a head is made for, in a fixed order, and rows that don't fit it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..core.errors import EmptyDataError, InputError, UnknownLabelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .row_layouts import RowLayout
    from .rows import Record

R = TypeVar("R")
# What becomes of dev rows with a label that no training row has.
UnknownLabels = Literal["refuse", "report"]


def label_set(
    records: Sequence[Record[R]],
    layout: RowLayout[R],
    *,
    name: str,
    given: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """The labels of the training rows in order; empty for a task without labels.

    Args:
        records: the training rows.
        layout: their layout.
        name: where they come from, for messages.
        given: the labels in the order that is wanted; else sorted.

    Raises:
        EmptyDataError: fewer than two labels.
        InputError: given labels that repeat, or are empty.
        UnknownLabelError: a row with a label that isn't given.
    """
    if layout.task_type not in {"sequence-classification", "token-classification"}:
        if given is not None:
            raise InputError(f"labels were given, but {layout.task_type} has none; leave them out")
        return ()
    seen = {label for record in records for label in layout.labels(record.row)}
    labels = tuple(sorted(seen)) if given is None else tuple(given)
    if not all(label.strip() for label in labels) or len(set(labels)) < len(labels):
        raise InputError(f"labels are {', '.join(labels)}; each must be a name and stand once")
    if len(labels) < 2:
        only = f"only the label {labels[0]!r}" if labels else "no labels"
        raise EmptyDataError(f"{name} has {only}; a classifier needs at least two")
    if given is not None:
        check_known_labels(records, layout, labels, hint="the labels that were given are")
    return labels


def check_known_labels(
    records: Sequence[Record[R]],
    layout: RowLayout[R],
    labels: Sequence[str],
    *,
    hint: str = "training had",
) -> None:
    """Check that every row's labels are known.

    Raises:
        UnknownLabelError: some are not; the message names the first, its row, and the others.
    """
    unknown = unknown_labels(records, layout, labels)
    if not unknown:
        return
    record = next(r for r in records if not unknown.keys().isdisjoint(layout.labels(r.row)))
    label = next(label for label in layout.labels(record.row) if label in unknown)
    more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
    raise UnknownLabelError(
        f"{record.place}: label {label!r:.60} was not seen in training{more}; {hint} "
        f"{', '.join(labels[:8])}{'…' if len(labels) > 8 else ''}"
    )


def unknown_labels(
    records: Sequence[Record[R]], layout: RowLayout[R], labels: Sequence[str]
) -> dict[str, int]:
    """How often labels occur that are none of `labels`, most frequent first."""
    counts = label_counts(records, layout)
    known = set(labels)
    return {label: count for label, count in counts.items() if label not in known}


def label_counts(records: Sequence[Record[Any]], layout: RowLayout[Any]) -> dict[str, int]:
    """How often each label occurs, most frequent first."""
    counts = Counter(label for record in records for label in layout.labels(record.row))
    return dict(counts.most_common())
