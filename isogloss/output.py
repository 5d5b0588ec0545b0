"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_json(value: Any) -> None:
    """Print a value as JSON; dataclasses as objects, tuples as lists."""
    text = json.dumps(plain(value), ensure_ascii=False, indent=2)
    # A file's name may be no Unicode text; its odd bytes become JSON's own escapes.
    click.echo(text.encode(errors="backslashreplace").decode())


def plain(value: Any) -> Any:
    """The same value in JSON's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers to the right."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column, heading in enumerate(headings):
        numeric = bool(rows) and all(isinstance(row[column], int | float) for row in rows)
        table.add_column(
            heading,
            justify="right" if numeric else "left",
            no_wrap=column == 0 and numeric,
            overflow="fold" if column == 0 else "ellipsis",
        )
    for row in rows:
        table.add_row(*(format_cell(cell) for cell in row))
    # A pipe has no width; cutting cells there would lose what programs look for.
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        unlimited = console.options.update(max_width=sys.maxsize)
        console.width = max(1, Measurement.get(console, unlimited, table).maximum)
    console.print(table)


def format_cell(cell: object) -> str:
    """A figure to three places, a whole number with separators, the rest as it is."""
    if isinstance(cell, bool) or cell is None:
        return "" if cell is None else str(cell).lower()
    if isinstance(cell, float):
        return f"{cell:.3f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def format_bytes(count: int) -> str:
    """`1.2 MB`: decimal units, as disks and downloads are sold."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
