from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isogloss.adapters.row_layouts import PLAIN
from isogloss.adapters.sources import Source, open_splits, parse_source
from isogloss.core.errors import DataNotFoundError, InputError, InvalidLocaleError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "locale", "name"),
    [
        ("data/here", "gsw-CH", "data/here"),
        ("es-MX=data/there", "es-MX", "data/there"),
        ("es_mx=data/there", "es-MX", "data/there"),
        ("iw=x", "he", "x"),
        ("no-NO-x-nord=a=b", "no-NO-x-nord", "a=b"),
        ("pt-BR=hf:owner/name:config", "pt-BR", "hf:owner/name:config"),
        ("hf:owner/name", "gsw-CH", "hf:owner/name"),
        ("./a=b/c", "gsw-CH", "./a=b/c"),
    ],
)
def test_a_source_with_and_without_a_locale(text: str, locale: str, name: str) -> None:
    assert parse_source(text, locale="gsw-CH") == Source(locale=locale, name=name)


def test_a_file_may_have_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "es-MX=rows.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    source = parse_source("es-MX=rows.jsonl", locale="gsw-CH")
    assert source == Source(locale="gsw-CH", name="es-MX=rows.jsonl")


def test_sources_that_make_no_sense() -> None:
    with pytest.raises(InvalidLocaleError):
        parse_source("waytoolongtag=x", locale="gsw-CH")
    with pytest.raises(InvalidLocaleError):
        parse_source("x", locale="123456789")
    for text in ("es-MX=", "", "es-MX= "):
        with pytest.raises(InputError, match="names no data; use LOCALE=PLACE"):
            parse_source(text, locale="gsw-CH")


def test_a_folder_may_mix_formats_and_names(tmp_path: Path) -> None:
    for name in ("train.csv", "validation.jsonl", "test.txt", "README.md", "training.csv"):
        (tmp_path / name).write_text("x")
    splits = open_splits(str(tmp_path))
    assert {split: file.path.name for split, file in splits.items()} == {
        "train": "train.csv",
        "dev": "validation.jsonl",
        "test": "test.txt",
    }
    assert list(splits["test"].read(PLAIN, {})) == [(1, {"text": "x"})]


def test_a_file_is_all_train(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text("x")
    assert list(open_splits(str(path))) == ["train"]


def test_two_files_for_one_split(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").touch()
    (tmp_path / "valid.csv").touch()
    with pytest.raises(InputError, match=r"dev\.jsonl and valid\.csv; keep one dev file"):
        open_splits(str(tmp_path))


def test_a_name_that_no_file_can_have() -> None:
    name = "x" * 5000
    assert parse_source(f"es-MX={name}", locale="gsw-CH") == Source(locale="es-MX", name=name)
    with pytest.raises(DataNotFoundError, match=r"can't read x+ \(File name too long\)"):
        list(open_splits(name)["train"].read(PLAIN, {}))


def test_a_folder_without_splits(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(DataNotFoundError, match=r"no train, dev or test file .* train\.jsonl"):
        open_splits(str(tmp_path))
