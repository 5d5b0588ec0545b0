from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from isogloss.adapters.row_files import read_jsonl
from isogloss.adapters.row_layouts import LAYOUTS
from isogloss.adapters.sources import read_file
from isogloss.core.errors import DataNotFoundError, InputError, MalformedRowError

if TYPE_CHECKING:
    from pathlib import Path

    from isogloss.adapters.row_files import RawRow
    from isogloss.adapters.spec import TaskType


def rows_of(
    path: Path,
    content: bytes,
    task_type: TaskType = "sequence-classification",
    columns: dict[str, str] | None = None,
) -> list[RawRow]:
    path.write_bytes(content)
    return list(read_file(path, LAYOUTS[task_type], columns or {}))


def problems_of(rows: list[RawRow]) -> list[tuple[int, str]]:
    return [(number, str(row)) for number, row in rows if isinstance(row, MalformedRowError)]


def test_csv_knows_on_which_line_a_row_began(tmp_path: Path) -> None:
    content = 'text,label\r\n"two\r\nlines, ""quoted""",a\r\n\r\nGrüezi,b\r\n,\r\nlast,c'
    assert rows_of(tmp_path / "rows.csv", content.encode()) == [
        (2, {"text": 'two\r\nlines, "quoted"', "label": "a"}),
        (5, {"text": "Grüezi", "label": "b"}),
        (7, {"text": "last", "label": "c"}),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b"\xef\xbb\xbftext,label\nNA,null\n"),
        ("rows.csv", b"text;label\nNA;null\n"),
        ("rows.csv", b"text\tlabel\nNA\tnull\n"),
        ("rows.tsv", b"text\tlabel\nNA\tnull\n"),
        ("rows.CSV", b" text , label \nNA,null\n"),
    ],
)
def test_csv_dialects_and_words_that_look_like_nothing(
    tmp_path: Path, name: str, content: bytes
) -> None:
    assert rows_of(tmp_path / name, content) == [(2, {"text": "NA", "label": "null"})]


def test_a_tsv_keeps_its_commas(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "rows.tsv", b"text\tlabel\nja, gern\ta,b\n")
    assert rows == [(2, {"text": "ja, gern", "label": "a,b"})]


def test_cells_of_lists(tmp_path: Path) -> None:
    tagged = rows_of(
        tmp_path / "tags.csv", b"tokens,tags\nuf Bern .,O B-GPE O\n", "token-classification"
    )
    assert tagged == [(2, {"tokens": ["uf", "Bern", "."], "tags": ["O", "B-GPE", "O"]})]
    asked = rows_of(
        tmp_path / "qa.tsv",
        b'question\tcontext\tanswers\nq\tc\t"[{""text"": ""c"", ""start"": 0}]"\nq\tc\tnope\n',
        "question-answering",
    )
    assert asked[0] == (
        2,
        {"question": "q", "context": "c", "answers": [{"text": "c", "start": 0}]},
    )
    assert problems_of(asked)[0][0] == 3
    assert "answers is 'nope'; expected JSON" in problems_of(asked)[0][1]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"only text", "1 cells, but the first line names 2 columns"),
        (b"a,b,c", "3 cells, but the first line names 2 columns"),
        (b'"a"b,c', "not CSV"),
        ("Gr\u00fcezi,a".encode("latin-1"), "not UTF-8; save the file as UTF-8"),
        (b"x\0y,a", "a NUL byte: a binary file"),
    ],
)
def test_a_csv_row_that_cannot_be_read_leaves_the_others(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    path = tmp_path / "rows.csv"
    rows = rows_of(path, b"text,label\nx,a\n" + line + b"\ny,b\n")
    assert [row for _, row in rows if isinstance(row, dict)] == [
        {"text": "x", "label": "a"},
        {"text": "y", "label": "b"},
    ]
    ((number, message),) = problems_of(rows)
    assert number == 3
    assert message.startswith(f"{path}, line 3: ")
    assert problem in message


def test_a_quote_that_is_never_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "rows.csv", b'text,label\nx,a\n"open,b\ny,c\n')
    assert rows[0] == (2, {"text": "x", "label": "a"})
    ((number, message),) = problems_of(rows)
    assert (number, len(rows)) == (3, 2)
    assert "unexpected end of data" in message


def test_csv_without_a_header(tmp_path: Path) -> None:
    with pytest.raises(MalformedRowError, match=r"line 1: no column text, label; the columns are"):
        rows_of(tmp_path / "rows.csv", b"Hoi,greet\nAde,bye\n")


def test_a_binary_file_named_csv(tmp_path: Path) -> None:
    for content in (bytes(range(256)) * 4, b"\x89PNG\r\n\x1a\n\0\0", b"PK\x03\x04\0\0text,label"):
        with pytest.raises(MalformedRowError, match=r"line \d: (a NUL byte|not UTF-8)"):
            rows_of(tmp_path / "rows.csv", content)


def test_plain_text_is_one_text_a_line(tmp_path: Path) -> None:
    content = "\ufeffeis\r\n\n  \nzwöi, drü\n".encode() + b"\xff\n\0\nlast"
    rows = rows_of(tmp_path / "rows.txt", content, "masked-lm")
    assert [row for _, row in rows if isinstance(row, dict)] == [
        {"text": "eis"},
        {"text": "zwöi, drü"},
        {"text": "last"},
    ]
    assert [(n, m.partition(": ")[2][:10]) for n, m in problems_of(rows)] == [
        (5, "not UTF-8;"),
        (6, "a NUL byte"),
    ]


def test_plain_text_is_for_masked_lm_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"plain text.* needs rows with text, label"):
        rows_of(tmp_path / "rows.txt", b"x\n")


def test_a_suffix_that_nobody_reads(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the suffix '\.xlsx', which isn't read; use \.jsonl"):
        rows_of(tmp_path / "rows.xlsx", b"x")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.csv", "rows.parquet", "rows.txt", "rows"):
        with pytest.raises(DataNotFoundError, match=r"can't read .*rows.*\(No such file"):
            list(read_file(tmp_path / name, LAYOUTS["masked-lm"], {}))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataNotFoundError, match=r"can't read .*\(Is a directory\)"):
        list(read_file(tmp_path / "folder.jsonl", LAYOUTS["masked-lm"], {}))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b'{"sentence": "x", "intent": "a"}\n'),
        ("rows.csv", b"sentence,intent\nx,a\n"),
    ],
)
def test_columns_of_other_names(tmp_path: Path, name: str, content: bytes) -> None:
    columns = {"text": "sentence", "label": "intent"}
    ((_, row),) = rows_of(tmp_path / name, content, columns=columns)
    assert isinstance(row, dict)
    assert (row["text"], row["label"]) == ("x", "a")


def test_cells_of_columns_of_other_names(tmp_path: Path) -> None:
    columns = {"tokens": "words", "tags": "upos"}
    content = b"words,upos\nuf Bern,ADP PROPN\n"
    ((_, row),) = rows_of(tmp_path / "rows.csv", content, "token-classification", columns)
    assert isinstance(row, dict)
    assert (row["tokens"], row["tags"]) == (["uf", "Bern"], ["ADP", "PROPN"])


def test_json_lines_go_on_after_a_bad_one(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "x"}\n{bad\n\n{"text"\0: "y"}\n{"text": "z"}\n')
    rows: list[Any] = list(read_jsonl(path))
    assert [row for _, row in rows if isinstance(row, dict)] == [{"text": "x"}, {"text": "z"}]
    problems = problems_of(rows)
    assert [number for number, _ in problems] == [2, 4]
    assert "not JSON" in problems[0][1]
    assert "a NUL byte" in problems[1][1]
