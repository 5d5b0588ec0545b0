"""Rows of one split, checked; those that can't be used are named, or counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..core.errors import DataNotFoundError, EmptyDataError, MalformedRowError
from .row_layouts import NO_LABEL
from .rows import Place, Record
from .sources import open_splits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .row_layouts import RowLayout
    from .sources import RowFile, Source, Split

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """Rows of one file that could not be used."""

    path: str
    """The file."""
    rows: int
    """How many."""
    first: str
    """What was wrong with the first of them, and where it stands."""


def read_records(
    file: RowFile,
    layout: RowLayout[R],
    *,
    locale: str,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
) -> tuple[list[Record[R]], Skipped | None]:
    """Read one split.

    Args:
        file: where it stands.
        layout: what its rows are read as.
        locale: for which locale they are.
        skip_bad: leave out the rows that can't be used.
        columns: other names of fields: `{"text": "sentence"}`.

    Returns:
        The rows, and what was left out.

    Raises:
        DataNotFoundError: no such file.
        EmptyDataError: no rows, no row with a label, or none that can be used.
        InputError: a format that isn't read, or that holds no such rows.
        MalformedRowError: a row that can't be used; with `skip_bad` only a file that isn't in its
            format at all.
    """
    records: list[Record[R]] = []
    bad: list[MalformedRowError] = []
    unlabelled = 0
    for number, fields in file.read(layout, columns or {}):
        place = Place(path=file.path, number=number)
        try:
            if isinstance(fields, MalformedRowError):
                raise fields
            row = layout.parse(fields, place)
        except MalformedRowError as error:
            # A file without any labels is another mistake than a row without one.
            unlabelled += error.problem == NO_LABEL
            if not skip_bad and error.problem != NO_LABEL:
                raise
            bad.append(error)
            continue
        parallel = fields.get("id")
        records.append(
            Record(
                row=row,
                locale=locale,
                place=place,
                parallel=None if parallel is None else str(parallel),
            )
        )
    if not records and not bad:
        raise EmptyDataError(f"{file.path} has no rows")
    if not records and unlabelled == len(bad):
        raise EmptyDataError(f"none of the {len(bad)} rows of {file.path} has a label")
    if not records:
        raise EmptyDataError(f"none of the {len(bad)} rows can be used; the first is {bad[0]}")
    if bad and not skip_bad:
        raise bad[0]
    skipped = Skipped(path=str(file.path), rows=len(bad), first=str(bad[0])) if bad else None
    return records, skipped


def read_split(
    source: Source,
    layout: RowLayout[R],
    split: Split,
    *,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
) -> tuple[list[Record[R]], Skipped | None]:
    """Read one split of a source; of a single file, all its rows.

    Raises:
        DataNotFoundError: no such split.
        EmptyDataError, InputError, MalformedRowError: see `read_records`.
    """
    splits = open_splits(source.name)
    alone = splits.get("train")
    file = alone if alone and alone.path == Path(source.name) else splits.get(split)
    if file is None:
        raise DataNotFoundError(
            f"{source.name} has no {split} split, but {', '.join(splits)}; name a file of rows"
        )
    return read_records(file, layout, locale=source.locale, skip_bad=skip_bad, columns=columns)
