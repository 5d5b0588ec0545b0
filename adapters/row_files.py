"""Rows of text files as they stand there: JSON lines, CSV, TSV, plain text.

Readers give a row that can't be read as an error rather than raise it, so that whoever reads may
count it and go on. What makes a whole file useless is raised.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from typing import TYPE_CHECKING, Any

from ..core.errors import DataNotFoundError, MalformedRowError
from .rows import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .row_layouts import Fields, RowLayout

    # The line (from 1), and its fields or what is wrong with it.
    RawRow = tuple[int, Fields | MalformedRowError]

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".txt")
NUL_BYTE = "a NUL byte: a binary file, or one in UTF-16; save it as UTF-8 text"
NOT_UTF8 = "not UTF-8; save the file as UTF-8"
# Where Python puts a byte that is no UTF-8, with errors="surrogateescape".
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def renamed(rows: Iterator[RawRow], columns: Mapping[str, str]) -> Iterator[RawRow]:
    """The rows with the fields of `columns` under the names that isogloss has for them."""
    for number, fields in rows:
        if isinstance(fields, dict):
            moved = {name: fields[old] for name, old in columns.items() if old in fields}
            yield number, {**fields, **moved}
        else:
            yield number, fields


def parse_row(line: bytes, path: Path, number: int) -> dict[str, Any] | None:
    """One line of a JSON-lines file; None when it is blank.

    Args:
        line: its bytes.
        path: the file, for messages.
        number: the line's number, from 1; the first may begin with a byte order mark.

    Raises:
        MalformedRowError: not UTF-8, or no JSON object.
    """
    try:
        content = line.decode("utf-8-sig" if number == 1 else "utf-8")
        if not content.strip():
            return None
        if "\0" in content:
            raise MalformedRowError(path, number, NUL_BYTE)
        row = json.loads(content)
        # JSON can spell half a character (a lone surrogate), which nothing after this can write.
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise MalformedRowError(path, number, NOT_UTF8) from None
    except UnicodeEncodeError:
        raise MalformedRowError(path, number, "half a character (a lone surrogate)") from None
    except (ValueError, RecursionError) as error:
        raise MalformedRowError(
            path, number, f"not JSON ({error}); expected an object a line"
        ) from None
    if not isinstance(row, dict):
        raise MalformedRowError(path, number, f"expected an object, got {type(row).__name__}")
    return row


def check_columns(
    path: Path, names: list[str], layout: RowLayout[Any], columns: Mapping[str, str]
) -> None:
    """Check that a table has the columns that the task needs.

    Raises:
        MalformedRowError: it lacks one; the message names those that it has.
    """
    missing = layout.missing([*names, *(name for name in columns if columns[name] in names)])
    if missing:
        shown = ", ".join(repr(name[:30]) for name in names[:8])
        raise MalformedRowError(
            path,
            1,
            f"no column {', '.join(missing)}; the columns are {shown or 'none'} (the first line "
            "of a CSV file must name them)",
        )


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as lines:
            yield from enumerate(lines, start=1)
    except OSError as error:
        raise not_found(path, error) from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise not_found(path, error) from None


def not_found(path: Path, error: OSError) -> DataNotFoundError:
    """The error for a file that can't be opened."""
    return DataNotFoundError(
        f"can't read {path} ({error.strerror or error}); expected a file of rows "
        f"({', '.join(SUFFIXES)}), or a folder with train and dev files"
    )


def read_jsonl(path: Path) -> Iterator[RawRow]:
    """Rows of a file with one JSON object a line."""
    for number, line in _lines(path):
        try:
            row = parse_row(line, path, number)
        except MalformedRowError as error:
            yield number, error
            continue
        if row is not None:
            yield number, row


def read_text(path: Path) -> Iterator[RawRow]:
    """Rows of a file with one text a line."""
    for number, line in _lines(path):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield number, MalformedRowError(path, number, NOT_UTF8)
            continue
        if "\0" in text:
            yield number, MalformedRowError(path, number, NUL_BYTE)
        elif text.strip():
            yield number, {"text": text}


def read_csv(path: Path, layout: RowLayout[Any], columns: Mapping[str, str]) -> Iterator[RawRow]:
    """Rows of a CSV file (RFC 4180) whose first line names the columns; an empty cell is None.

    The reader is Python's, because it knows on which line a row began.
    """
    # Bytes that are no UTF-8 survive as surrogates, so that only their own row is lost.
    content = _content(path).removeprefix(codecs.BOM_UTF8).decode(errors="surrogateescape")
    first = content.partition("\n")[0]
    # Spreadsheets write semicolons where the comma is the decimal sign.
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"not CSV ({error}); put cells with a delimiter or quotes in double quotes"
            yield number, Place(path=path, number=number).error(problem)
            continue
        if not any(cells):
            continue
        problem = _damage(cells)
        if header is None:
            if problem:
                raise Place(path=path, number=number).error(problem)
            header = [name.strip() for name in cells]
            check_columns(path, header, layout, columns)
        elif problem or len(cells) != len(header):
            problem = problem or (
                f"{len(cells)} cells, but the first line names {len(header)} columns"
            )
            yield number, Place(path=path, number=number).error(problem)
        else:
            yield number, _fields(header, cells, layout, columns, Place(path=path, number=number))


def _damage(cells: list[str]) -> str:
    """What is wrong with the bytes of a row; empty when nothing is."""
    row = "".join(cells)
    if "\0" in row:
        return NUL_BYTE
    return NOT_UTF8 if _ESCAPED_BYTE.search(row) else ""


def _fields(
    header: list[str],
    cells: list[str],
    layout: RowLayout[Any],
    columns: Mapping[str, str],
    place: Place,
) -> Fields | MalformedRowError:
    fields: Fields = {name: cell or None for name, cell in zip(header, cells, strict=True)}
    for name, convert in layout.cells.items():
        column = columns.get(name, name)
        cell = fields.get(column)
        if cell is not None:
            try:
                fields[column] = convert(cell)
            except (ValueError, RecursionError) as error:
                return place.error(f"{column} is {cell!r:.60}; expected JSON ({error})")
    return fields
