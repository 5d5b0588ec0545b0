from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isogloss.adapters.data import Example, read_data, read_examples
from isogloss.adapters.row_layouts import CLASSIFICATION
from isogloss.adapters.sources import Source
from isogloss.core.errors import (
    DataNotFoundError,
    EmptyDataError,
    MalformedRowError,
    UnknownLabelError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROWS = [(f"Grüezi Nummer {number} 你好", "hello" if number % 2 else "bye") for number in range(64)]


def write(path: Path, rows: Sequence[tuple[str, Any]]) -> Path:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Rows:
    """The rows of a run alone, without where they stand."""

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    labels: tuple[str, ...]
    digest: str


def read_training_data(path: Path) -> Rows:
    data = read_data([Source(locale="und", name=str(path))], CLASSIFICATION)
    train, dev = (tuple(record.row for record in part) for part in (data.train, data.dev))
    return Rows(train, dev, data.labels, data.digest)


def test_a_folder_gives_its_train_and_dev_rows_in_order(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS[:40])
    write(tmp_path / "dev.jsonl", ROWS[40:])
    data = read_training_data(tmp_path)
    assert [(e.text, e.label) for e in data.train] == ROWS[:40]
    assert [(e.text, e.label) for e in data.dev] == ROWS[40:]
    assert data.labels == ("bye", "hello")


@pytest.mark.parametrize("as_folder", [True, False])
def test_without_a_dev_file_some_training_rows_become_dev_rows(
    tmp_path: Path, as_folder: bool
) -> None:
    path = write(tmp_path / "train.jsonl", ROWS)
    first, second = (read_training_data(tmp_path if as_folder else path) for _ in range(2))
    assert first == second
    assert not {e.text for e in first.train} & {e.text for e in first.dev}
    assert sorted((e.text, e.label) for e in first.train + first.dev) == sorted(ROWS)
    assert 2 <= len(first.dev) <= 16  # an eighth of 64, give or take


def test_the_split_depends_on_the_row_alone(tmp_path: Path) -> None:
    whole = read_training_data(write(tmp_path / "whole.jsonl", ROWS))
    part = read_training_data(write(tmp_path / "part.jsonl", ROWS[::-1][:48]))
    assert {e.text for e in part.dev} == {e.text for e in whole.dev} & {t for t, _ in ROWS[16:]}


def test_equal_texts_are_never_on_both_sides(tmp_path: Path) -> None:
    data = read_training_data(write(tmp_path / "rows.jsonl", ROWS * 3))
    assert not {e.text for e in data.train} & {e.text for e in data.dev}
    assert len(data.train) + len(data.dev) == 3 * len(ROWS)


def test_too_few_rows_to_split(tmp_path: Path) -> None:
    with pytest.raises(EmptyDataError, match=r"too few rows .* add a dev\.jsonl"):
        read_training_data(write(tmp_path / "rows.jsonl", ROWS[:1]))


def test_the_digest_is_that_of_the_rows(tmp_path: Path) -> None:
    def digest(rows: Sequence[tuple[str, str]], dev: Sequence[tuple[str, str]]) -> str:
        write(tmp_path / "train.jsonl", rows)
        write(tmp_path / "dev.jsonl", dev)
        return read_training_data(tmp_path).digest

    train, dev = ROWS[:40], ROWS[40:]
    original = digest(train, dev)
    assert digest(train, dev) == original
    others = [
        digest([(train[0][0] + "!", train[0][1]), *train[1:]], dev),
        digest([(train[0][0], "hello"), *train[1:]], dev),
        digest(train[::-1], dev),
        digest(train[:-1], dev),
        digest(train, dev[:-1]),
    ]
    assert len({original, *others}) == 6


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'"text"', "expected an object, got str"),
        (b"[1]", "expected an object, got list"),
        (b'{"label": "a"}', "text is None"),
        (b'{"text": 5, "label": "a"}', "text is 5"),
        (b'{"text": " \\t", "label": "a"}', "expected a non-empty string"),
        (b'{"text": "x", "label": 1.5}', "label is 1.5; expected a string"),
        (b'{"text": "x", "label": true}', "label is True; expected a string"),
        (b'{"text": "x", "label": ["a"]}', "expected a string"),
        (b'{"text": "x"}', "the row has no label"),
        (b'{"text": "x", "label": ""}', "the row has no label"),
        (b'{"text": "x", "label": null}', "the row has no label"),
        ('{"text": "Grüezi", "label": "a"}'.encode("latin-1"), "not UTF-8"),
        ('{"text": "x", "label": "a"}'.encode("utf-16"), "not UTF-8"),
        (b'{"text": "half \\ud83d", "label": "a"}', "half a character"),
        (b'{"text": "x", "label": "\\udc00"}', "half a character"),
        (b'\xef\xbb\xbf{"text": "x", "label": "a"}', "not JSON"),  # a mark amid the file
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "x", "label": "a"}\n\n' + line + b'\n{"text": "y", "label": "b"}')
    with pytest.raises(MalformedRowError) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (caught.value.path, caught.value.line) == (path, 3)


def test_byte_order_mark_blank_lines_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "\xc3\xa4", "label": "a"}\r\n\r\n  \n{"text": "y", "label": "b"}\r\n'
    )
    assert read_examples(path) == [Example(text="ä", label="a"), Example(text="y", label="b")]
    path.write_bytes(b'\xef\xbb\xbf\n{"text": "y", "label": "b"}')
    assert read_examples(path) == [Example(text="y", label="b")]


def test_only_line_feeds_end_a_row(tmp_path: Path) -> None:
    texts = ["a\u2028b", "a\u0085b", "a\x0bb"]
    path = write(tmp_path / "rows.jsonl", [(text, "a") for text in texts])
    assert [e.text for e in read_examples(path)] == texts


def test_integers_become_strings(tmp_path: Path) -> None:
    data = read_training_data(write(tmp_path / "rows.jsonl", [(t, len(t) % 2) for t, _ in ROWS]))
    assert data.labels == ("0", "1")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_no_rows(tmp_path: Path, content: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(EmptyDataError, match="has no rows"):
        read_examples(path)


def test_no_row_has_a_label(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x"}\n{"text": "y", "label": null}\n')
    with pytest.raises(EmptyDataError, match=r"none of the 2 rows of .* has a label"):
        read_examples(path)


def test_one_label_only(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [(text, "same") for text, _ in ROWS])
    with pytest.raises(EmptyDataError, match=r"only the label 'same'.* at least two"):
        read_training_data(path)


def test_a_dev_label_that_training_lacks(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    dev = write(tmp_path / "dev.jsonl", [("x", "hello"), ("y", "new")])
    with pytest.raises(UnknownLabelError, match=r"label 'new' was not seen.* bye, hello") as caught:
        read_training_data(tmp_path)
    assert str(dev) in str(caught.value)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"can't read .*\(no train, dev or test file"):
        read_training_data(tmp_path)
    with pytest.raises(DataNotFoundError, match=r"can't read .*\(No such file"):
        read_training_data(tmp_path / "none.jsonl")


def test_an_empty_dev_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "dev.jsonl").touch()
    with pytest.raises(EmptyDataError, match=r"dev\.jsonl has no rows"):
        read_training_data(tmp_path)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
    rows=st.lists(
        st.tuples(st.text(min_size=1).filter(str.strip), st.text(min_size=1)), min_size=1
    ),
    escaped=st.booleans(),
)
def test_any_text_and_label_is_read_as_it_was_written(
    tmp_path: Path, rows: list[tuple[str, str]], escaped: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"text": t, "label": lab}, ensure_ascii=escaped) for t, lab in rows]
    path.write_bytes("\n".join(lines).encode())
    assert [(e.text, e.label) for e in read_examples(path)] == rows
