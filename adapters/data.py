"""Labelled data: JSON lines, one row with `text` and `label` a line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import (
    DataNotFoundError,
    EmptyDataError,
    MalformedRowError,
    UnknownLabelError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# Without a dev file, one row in so many is taken from the training rows.
DEV_SHARE = 8


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled row."""

    text: str
    """What a person wrote."""
    label: str
    """What it means."""


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """The rows of a training run."""

    train: tuple[Example, ...]
    """Rows to train on."""
    dev: tuple[Example, ...]
    """Rows to choose the best epoch by."""
    labels: tuple[str, ...]
    """The labels of the training rows, sorted."""
    digest: str
    """sha256 of all rows."""


def read_training_data(path: str | Path) -> LabelledData:
    """Read a folder with `train.jsonl` and `dev.jsonl`, or one file.

    Without a dev file, every eighth training row by its hash becomes a dev row.

    Raises:
        DataNotFoundError: no such folder or file.
        EmptyDataError: no rows, no labels, or only one label.
        MalformedRowError: a row that can't be used.
        UnknownLabelError: a dev row whose label no training row has.
    """
    path = Path(path)
    if path.is_dir():
        train = read_examples(path / "train.jsonl")
        dev_path = path / "dev.jsonl"
        dev = read_examples(dev_path) if dev_path.exists() else []
    else:
        train, dev, dev_path = read_examples(path), [], path
    if not dev:
        dev = [example for example in train if _hash(example) % DEV_SHARE == 0]
        train = [example for example in train if _hash(example) % DEV_SHARE != 0]
        if not dev or not train:
            raise EmptyDataError(f"{path} has too few rows to keep some apart; add a dev.jsonl")
    labels = tuple(sorted({example.label for example in train}))
    if len(labels) < 2:
        raise EmptyDataError(
            f"{path} has only the label {labels[0]!r}; a classifier needs at least two"
        )
    check_labels(dev, labels, dev_path)
    rows = json.dumps(
        [[[e.text, e.label] for e in part] for part in (train, dev)], ensure_ascii=False
    )
    return LabelledData(
        train=tuple(train),
        dev=tuple(dev),
        labels=labels,
        digest=hashlib.sha256(rows.encode()).hexdigest(),
    )


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
        MalformedRowError: a row that can't be used.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataNotFoundError(
            f"can't read {path} ({error.strerror}); expected JSON lines with text and label"
        ) from None
    examples: list[Example] = []
    first_unlabelled = 0
    rows = 0
    for number, line in enumerate(content.split(b"\n"), start=1):
        row = parse_row(line, path, number)
        if row is None:
            continue
        rows += 1
        example = _example(row, path, number)
        if example is None:
            first_unlabelled = first_unlabelled or number
        else:
            examples.append(example)
    if not rows:
        raise EmptyDataError(f"{path} has no rows")
    if not examples:
        raise EmptyDataError(f"none of the {rows} rows of {path} has a label")
    if first_unlabelled:
        raise MalformedRowError(path, first_unlabelled, "the row has no label")
    return examples


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
        row = json.loads(content)
        # JSON can spell half a character (a lone surrogate), which nothing after this can write.
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise MalformedRowError(path, number, "not UTF-8; save the file as UTF-8") from None
    except UnicodeEncodeError:
        raise MalformedRowError(path, number, "half a character (a lone surrogate)") from None
    except (ValueError, RecursionError) as error:
        raise MalformedRowError(
            path, number, f"not JSON ({error}); expected an object a line"
        ) from None
    if not isinstance(row, dict):
        raise MalformedRowError(path, number, f"expected an object, got {type(row).__name__}")
    return row


def _example(row: dict[str, Any], path: Path, number: int) -> Example | None:
    """One row; None when it has no label."""
    text, label = row.get("text"), row.get("label")
    if not isinstance(text, str) or not text.strip():
        raise MalformedRowError(path, number, f"text is {text!r:.60}; expected a non-empty string")
    if label is None or label == "":
        return None
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise MalformedRowError(path, number, f"label is {label!r:.60}; expected a string")
    return Example(text=text, label=str(label))


def _hash(example: Example) -> int:
    digest = hashlib.sha256(example.text.encode()).digest()
    return int.from_bytes(digest[:4], "big")
