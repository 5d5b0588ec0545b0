"""Where rows come from: a file, a folder with splits, or a Hub dataset, each for a locale."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import DataNotFoundError, InputError
from ..core.locale import check_registered, parse_locale
from .row_files import SUFFIXES, not_found, read_csv, read_jsonl, read_text, renamed
from .tables import HUB_PREFIX, load_splits, read_dataset, read_parquet

if TYPE_CHECKING:
    from datasets import Dataset

    from .row_files import RawRow
    from .row_layouts import RowLayout

Split = Literal["train", "dev", "test"]
# How each split may be called, in a folder and on the Hub.
SPLIT_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "dev": ("dev", "validation", "valid", "val"),
    "test": ("test",),
}
ReadRows = Callable[["RowLayout[Any]", Mapping[str, str]], Iterator["RawRow"]]
_LOCALE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of one locale."""

    locale: str
    """Canonical BCP 47 tag."""
    name: str
    """A file, a folder, or `hf:NAME[:CONFIG]`."""


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """The rows of one split."""

    path: Path
    """The file, or `hf:NAME/SPLIT`."""
    read: ReadRows
    """Gives the raw rows for a layout and its column names."""


def parse_source(text: str, *, locale: str) -> Source:
    """Read `PLACE` or `LOCALE=PLACE`.

    Args:
        text: the source as it was given; a place that exists under this whole name is one.
        locale: of a place without a locale.

    Raises:
        InvalidLocaleError: what stands before `=` is no locale.
        InputError: nothing stands behind it.
    """
    before, sign, place = text.partition("=")
    if not sign or not _LOCALE.fullmatch(before) or _exists(text):
        place = text
    else:
        locale = before
    if not place.strip():
        raise InputError(f"{text!r} names no data; use LOCALE=PLACE, such as es-MX=data/es-MX")
    parsed = parse_locale(locale)
    check_registered(parsed)
    return Source(locale=str(parsed), name=place)


def open_splits(name: str) -> dict[Split, RowFile]:
    """What splits a place has; a single file is all `train`.

    A folder has one file per split: `train`, `dev` (or `validation`, `valid`, `val`) and `test`,
    each `.jsonl`, `.csv`, `.tsv`, `.parquet` or `.txt`.

    Raises:
        DataNotFoundError: nothing is there, or no split of these names.
        InputError: a folder has two files for one split.
    """
    if name.startswith(HUB_PREFIX):
        return _hub_splits(name)
    path = Path(name)
    if not _exists(name) or not path.is_dir():
        return {"train": row_file(path)}
    splits: dict[Split, RowFile] = {}
    for split, names in SPLIT_NAMES.items():
        found = [
            file
            for stem in names
            for suffix in SUFFIXES
            if (file := path / f"{stem}{suffix}").exists()
        ]
        if len(found) > 1:
            raise InputError(
                f"{path} has {' and '.join(file.name for file in found)}; keep one {split} file"
            )
        if found:
            splits[split] = row_file(found[0])
    if not splits:
        raise DataNotFoundError(
            f"can't read {path} (no train, dev or test file in it); expected such as train.jsonl, "
            f"with a suffix of {', '.join(SUFFIXES)}"
        )
    return splits


def read_file(path: Path, layout: RowLayout[Any], columns: Mapping[str, str]) -> Iterator[RawRow]:
    """The rows of one file, read as its suffix says; blank lines are passed over.

    Args:
        path: the file; one with an unknown suffix is refused, `.json` counts as `.jsonl`.
        layout: which fields are needed, and how cells spell them.
        columns: other names of fields in this file: `{"text": "sentence"}`.

    Raises:
        DataNotFoundError: no such file.
        InputError: a format that isn't read, or that holds no such rows.
        MalformedRowError: a file without usable columns, or that isn't in its format at all.
    """
    try:
        path.stat()
    except OSError as error:
        raise not_found(path, error) from None
    match path.suffix.lower():
        case ".jsonl" | ".json":
            rows = read_jsonl(path)
        case ".csv" | ".tsv":
            rows = read_csv(path, layout, columns)
        case ".parquet":
            rows = read_parquet(path, layout, columns)
        case ".txt":
            if layout.task_type != "masked-lm":
                raise InputError(
                    f"{path} is plain text, which only masked-lm learns from; {layout.task_type} "
                    f"needs rows with {', '.join(layout.missing([]))}"
                )
            rows = read_text(path)
        case suffix:
            raise InputError(
                f"{path} has the suffix {suffix!r}, which isn't read; use {', '.join(SUFFIXES)}"
            )
    return renamed(rows, columns)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # longer than any name
        return False


def row_file(path: Path) -> RowFile:
    """One file as a split."""
    return RowFile(path=path, read=partial(read_file, path))


def _hub_splits(name: str) -> dict[Split, RowFile]:
    loaded = load_splits(name.removeprefix(HUB_PREFIX))
    splits: dict[Split, RowFile] = {}
    for split, names in SPLIT_NAMES.items():
        found = next((other for other in names if other in loaded), None)
        if found is not None:
            path = Path(name) / found
            splits[split] = RowFile(path=path, read=partial(_read_split, loaded[found], path))
    if not splits:
        raise DataNotFoundError(
            f"{name} has no train, dev or test split, but {', '.join(loaded) or 'none'}; "
            "write one of them to a file"
        )
    return splits


def _read_split(
    dataset: Dataset, path: Path, layout: RowLayout[Any], columns: Mapping[str, str]
) -> Iterator[RawRow]:
    return renamed(read_dataset(dataset, path, layout, columns), columns)
