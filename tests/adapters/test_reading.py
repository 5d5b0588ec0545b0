from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.adapters.reading import Skipped, read_records, read_split
from isogloss.adapters.row_layouts import CLASSIFICATION, QUESTIONS, TAGGING
from isogloss.adapters.sources import Source, row_file
from isogloss.core.errors import DataNotFoundError, EmptyDataError, MalformedRowError

if TYPE_CHECKING:
    from pathlib import Path

    from isogloss.adapters.row_layouts import RowLayout

GOOD = {"text": "Hoi", "label": "greet", "tokens": ["uf", "Bern"], "tags": ["O", "B-GPE"]}


def write(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"\n".join(lines))
    return path


def read(path: Path, layout: RowLayout[Any], *, skip_bad: bool = False) -> Any:
    return read_records(row_file(path), layout, locale="gsw-CH", skip_bad=skip_bad)


def test_rows_know_their_locale_and_place(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD, b"", {**GOOD, "id": 7})
    records, skipped = read(path, CLASSIFICATION)
    assert skipped is None
    assert [str(record.place) for record in records] == [f"{path}, line 1", f"{path}, line 3"]
    assert [record.parallel for record in records] == [None, "7"]
    assert {record.locale for record in records} == {"gsw-CH"}


@pytest.mark.parametrize(
    ("layout", "bad", "problem"),
    [
        (CLASSIFICATION, b"{", "not JSON"),
        (CLASSIFICATION, b"[]", "expected an object, got list"),
        (CLASSIFICATION, {"label": "a"}, "text is None"),
        (CLASSIFICATION, {"text": 1, "label": "a"}, "text is 1"),
        (CLASSIFICATION, {"text": "", "label": "a"}, "text is ''"),
        (CLASSIFICATION, b'{"text": "\\ud800", "label": "a"}', "a lone surrogate"),
        (CLASSIFICATION, {"text": "x", "label": {"a": 1}}, "label is {'a': 1}"),
        (CLASSIFICATION, {"text": "x"}, "the row has no label"),
        (CLASSIFICATION, b'{"text": "\xe4", "label": "a"}', "not UTF-8"),
        (CLASSIFICATION, b'\x00{"text": "x", "label": "a"}', "a NUL byte"),
        (TAGGING, {"tokens": ["a"], "tags": []}, "1 tokens but 0 tags"),
    ],
)
def test_a_bad_row_is_named_or_counted(
    tmp_path: Path, layout: RowLayout[Any], bad: Any, problem: str
) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD, bad, GOOD, bad)
    with pytest.raises(MalformedRowError) as caught:
        read(path, layout)
    assert str(caught.value).startswith(f"{path}, line 2: ")
    assert problem in str(caught.value)
    records, skipped = read(path, layout, skip_bad=True)
    assert [record.place.number for record in records] == [1, 3]
    assert skipped == Skipped(path=str(path), rows=2, first=str(caught.value))


def test_an_answer_that_is_not_in_its_context(tmp_path: Path) -> None:
    row = {"question": "q", "context": "abc", "answers": [{"text": "d", "start": 0}]}
    with pytest.raises(MalformedRowError, match=r"line 1: the answer 'd' .* nowhere in"):
        read(write(tmp_path / "rows.jsonl", row), QUESTIONS)


@pytest.mark.parametrize("skip_bad", [True, False])
def test_no_rows_and_no_labels(tmp_path: Path, skip_bad: bool) -> None:
    for name, content in (("a.jsonl", b"\n \n"), ("a.csv", b"text,label\n,\n"), ("b.csv", b"")):
        path = write(tmp_path / name, content)
        with pytest.raises(EmptyDataError, match="has no rows"):
            read(path, CLASSIFICATION, skip_bad=skip_bad)
    path = write(tmp_path / "rows.jsonl", {"text": "x"}, {"text": "y", "label": None})
    with pytest.raises(EmptyDataError, match=r"none of the 2 rows of .* has a label"):
        read(path, CLASSIFICATION, skip_bad=skip_bad)


def test_only_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", b"\x7fELF\x01", b"\xff\xfe", b"\0")
    with pytest.raises(EmptyDataError, match=r"none of the 3 rows can be used; the first is .*li"):
        read(path, CLASSIFICATION, skip_bad=True)


def test_a_split_of_a_folder_or_a_file_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", GOOD)
    write(tmp_path / "test.jsonl", GOOD, GOOD)
    folder = Source(locale="gsw-CH", name=str(tmp_path))
    assert len(read_split(folder, CLASSIFICATION, "test")[0]) == 2
    with pytest.raises(DataNotFoundError, match="has no dev split, but train, test"):
        read_split(folder, CLASSIFICATION, "dev")
    file = Source(locale="gsw-CH", name=str(tmp_path / "train.jsonl"))
    assert len(read_split(file, CLASSIFICATION, "test")[0]) == 1
    for name in ("none.jsonl", "none"):
        missing = Source(locale="gsw-CH", name=str(tmp_path / name))
        with pytest.raises(DataNotFoundError, match="can't read"):
            read_split(missing, CLASSIFICATION, "test")


def test_a_folder_with_nothing_but_train(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", GOOD)
    with pytest.raises(DataNotFoundError, match="has no test split, but train"):
        read_split(Source(locale="gsw-CH", name=str(tmp_path)), CLASSIFICATION, "test")
