"""The rows of a training run: read from all sources, split, cleaned, counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ..core.errors import DataNotFoundError, EmptyDataError, InputError, UnknownLabelError
from .label_sets import check_known_labels, label_counts, label_set, unknown_labels
from .reading import Skipped, read_records
from .row_layouts import CLASSIFICATION
from .rows import ClassificationRow, Record
from .sources import SPLIT_NAMES, Source, open_splits, row_file
from .splits import Leak, count_repeats, drop_leaks, rows_digest, set_aside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .label_sets import UnknownLabels
    from .row_layouts import RowLayout
    from .sources import Split

__all__ = [
    "DataReport",
    "Example",
    "SplitReport",
    "TaskData",
    "check_labels",
    "read_data",
    "read_examples",
]

R = TypeVar("R")
Example = ClassificationRow


@dataclass(frozen=True, kw_only=True)
class SplitReport:
    """What one split of one locale holds."""

    locale: str
    """Canonical BCP 47 tag."""
    split: str
    """`train`, `dev` or `test`."""
    rows: int
    """How many rows; of `train`, those that are trained on."""
    labels: dict[str, int]
    """How often each label occurs, most frequent first; tags are counted by token."""
    repeated: int
    """How many rows repeat the input of an earlier one."""
    unknown_labels: dict[str, int]
    """How often labels occur that training never saw."""


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """What was read, and what became of it."""

    splits: tuple[SplitReport, ...]
    """Each split of each locale, as it is used."""
    leaks: tuple[Leak, ...]
    """Training rows that were left out, because another split has them."""
    skipped: tuple[Skipped, ...]
    """Rows that could not be used."""
    set_aside: tuple[str, ...]
    """Locales whose dev rows were taken from their training rows."""


@dataclass(frozen=True, kw_only=True)
class TaskData(Generic[R]):
    """The rows of a training run."""

    train: tuple[Record[R], ...]
    """Rows to train on, source after source."""
    dev: tuple[Record[R], ...]
    """Rows to choose the best weights by."""
    test: tuple[Record[R], ...]
    """Rows that no choice may depend on; may be empty."""
    labels: tuple[str, ...]
    """Labels in the order of the head's outputs; empty for a task without."""
    digest: str
    """sha256 of the training and dev rows."""
    report: DataReport
    """Counts."""


def read_data(
    sources: Sequence[Source],
    layout: RowLayout[R],
    *,
    labels: Sequence[str] | None = None,
    unknown: UnknownLabels | None = None,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
) -> TaskData[R]:
    """Read the rows of a training run from one source or several.

    Where a source has no dev split, every eighth of its training rows by its hash becomes one.
    Training rows whose input stands in a dev or test split of any source are left out.

    Args:
        sources: each with its locale.
        layout: what rows are read as.
        labels: the labels in order; else those of the training rows, sorted.
        unknown: what becomes of dev rows with a label that training never saw: `refuse` them, or
            keep and `report` them (they count as mistakes). Default: tags are reported, because
            rare ones are often missing; classes are refused. Test rows are only reported.
        skip_bad: leave out and count the rows that can't be used.
        columns: other names of fields: `{"text": "sentence"}`.

    Raises:
        DataNotFoundError: a source that isn't there, or that has no training rows.
        EmptyDataError: no rows, no labels, only one label, or too few rows to set some aside.
        InputError: sources, formats or labels that make no sense.
        MalformedRowError: a row that can't be used.
        UnknownLabelError: a label that isn't among the given ones, or that training never saw.
    """
    if not sources:
        raise InputError("no data was given; name at least one source")
    skipped: list[Skipped] = []
    parts: dict[Split, list[list[Record[R]]]] = {split: [] for split in SPLIT_NAMES}
    for source in sources:
        files = open_splits(source.name)
        if "train" not in files:
            raise DataNotFoundError(
                f"{source.name} has no train split, but {', '.join(files)}; add a train.jsonl"
            )
        for split, part in parts.items():
            records: list[Record[R]] = []
            if split in files:
                records, left = read_records(
                    files[split], layout, locale=source.locale, skip_bad=skip_bad, columns=columns
                )
                skipped += [left] if left else []
            part.append(records)
    test = _joined(parts["test"])
    before = {"dev": _joined(parts["dev"]), "test": test}
    parts["train"], leaks = _drop(parts["train"], before, layout)
    without_dev = [number for number, records in enumerate(parts["dev"]) if not records]
    for number in without_dev:
        parts["train"][number], parts["dev"][number] = set_aside(
            parts["train"][number], layout, name=sources[number].name, by_id=len(sources) > 1
        )
    if without_dev:
        own = _joined([parts["dev"][number] for number in without_dev])
        parts["train"], more = _drop(parts["train"], {"dev": own}, layout)
        leaks += more
    train, dev = _joined(parts["train"]), _joined(parts["dev"])
    name = ", ".join(source.name for source in sources)
    if not train:
        raise EmptyDataError(f"{name}: every training row stands in dev or test too; add others")
    ordered = label_set(train, layout, name=name, given=labels)
    if ordered and (unknown or _default(layout)) == "refuse":
        check_known_labels(dev, layout, ordered)
    return TaskData(
        train=tuple(train),
        dev=tuple(dev),
        test=tuple(test),
        labels=ordered,
        digest=rows_digest(train, dev, layout),
        report=DataReport(
            splits=_report({"train": train, "dev": dev, "test": test}, layout, ordered),
            leaks=tuple(leaks),
            skipped=tuple(skipped),
            set_aside=tuple(sources[number].locale for number in without_dev),
        ),
    )


def _default(layout: RowLayout[R]) -> UnknownLabels:
    return "report" if layout.task_type == "token-classification" else "refuse"


def _joined(parts: Sequence[Sequence[Record[R]]]) -> list[Record[R]]:
    return [record for part in parts for record in part]


def _drop(
    parts: Sequence[Sequence[Record[R]]],
    others: Mapping[str, Sequence[Record[R]]],
    layout: RowLayout[R],
) -> tuple[list[list[Record[R]]], list[Leak]]:
    """`drop_leaks` over all sources at once, which stay apart."""
    kept, leaks = drop_leaks(_joined(parts), others, layout)
    staying = {id(record) for record in kept}
    return [[record for record in part if id(record) in staying] for part in parts], leaks


def _report(
    splits: Mapping[str, Sequence[Record[R]]], layout: RowLayout[R], labels: Sequence[str]
) -> tuple[SplitReport, ...]:
    reports = []
    for split, records in splits.items():
        for locale in dict.fromkeys(record.locale for record in records):
            own = [record for record in records if record.locale == locale]
            reports.append(
                SplitReport(
                    locale=locale,
                    split=split,
                    rows=len(own),
                    labels=label_counts(own, layout),
                    repeated=count_repeats(own, layout),
                    unknown_labels=unknown_labels(own, layout, labels),
                )
            )
    return tuple(reports)


def check_labels(examples: Sequence[Example], labels: Sequence[str], path: str | Path) -> None:
    """Check that every row's label was seen in training.

    Raises:
        UnknownLabelError: one was not.
    """
    known = set(labels)
    for example in examples:
        if example.label not in known:
            raise UnknownLabelError(
                f"{path}: label {example.label!r} was not seen in training, which had "
                f"{', '.join(labels[:8])}{'…' if len(labels) > 8 else ''}"
            )


def read_examples(path: str | Path) -> list[Example]:
    """Read one file of labelled rows; blank lines are passed over.

    Raises:
        DataNotFoundError: no such file.
        EmptyDataError: no rows, or no row with a label.
        InputError: a format that isn't read.
        MalformedRowError: a row that can't be used.
    """
    records, _ = read_records(row_file(Path(path)), CLASSIFICATION, locale="und")
    return [record.row for record in records]
