"""Data of several sources, and real data, as a training run takes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.adapters.data import read_data
from isogloss.adapters.reading import read_split
from isogloss.adapters.row_layouts import CLASSIFICATION, LAYOUTS, PLAIN, RANKING, TAGGING
from isogloss.adapters.rows import embedding_pairs
from isogloss.adapters.sources import Source, parse_source
from isogloss.core.errors import (
    DataNotFoundError,
    EmptyDataError,
    InputError,
    MalformedRowError,
    UnknownLabelError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from isogloss.adapters.spec import TaskType


def write(path: Path, rows: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(word: str, count: int, *, first: int = 0, **more: Any) -> list[dict[str, Any]]:
    return [
        {"text": f"{word} {number}", "label": "ab"[number % 2], **more}
        for number in range(first, first + count)
    ]


def source(path: Path, locale: str = "es-MX") -> Source:
    return Source(locale=locale, name=str(path))


def test_several_locales_are_joined_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "mx/train.jsonl", rows("órale", 10))
    write(tmp_path / "mx/dev.jsonl", rows("güey", 4))
    write(tmp_path / "ar/train.jsonl", rows("che", 6) + rows("CHE ", 2))
    write(tmp_path / "ar/dev.jsonl", rows("vos", 2))
    write(tmp_path / "ar/test.jsonl", rows("dale", 3))
    data = read_data([source(tmp_path / "mx"), source(tmp_path / "ar", "es-AR")], CLASSIFICATION)
    assert [record.locale for record in data.train] == ["es-MX"] * 10 + ["es-AR"] * 8
    assert data.labels == ("a", "b")
    report = {(part.locale, part.split): part for part in data.report.splits}
    assert {key: part.rows for key, part in report.items()} == {
        ("es-MX", "train"): 10,
        ("es-AR", "train"): 8,
        ("es-MX", "dev"): 4,
        ("es-AR", "dev"): 2,
        ("es-AR", "test"): 3,
    }
    assert report["es-AR", "train"].labels == {"a": 4, "b": 4}
    assert report["es-AR", "train"].repeated == 2
    assert report["es-AR", "test"].labels == {"a": 2, "b": 1}
    assert (data.report.leaks, data.report.skipped, data.report.set_aside) == ((), (), ())


def test_rows_that_another_locale_tests_on_are_not_trained_on(tmp_path: Path) -> None:
    write(tmp_path / "mx/train.jsonl", rows("Hola", 10))
    write(tmp_path / "mx/dev.jsonl", rows("bueno", 4))
    write(tmp_path / "ar/train.jsonl", rows("che", 6))
    write(tmp_path / "ar/dev.jsonl", rows("vos", 2))
    write(tmp_path / "ar/test.jsonl", rows("hola ", 3, first=4))
    data = read_data([source(tmp_path / "mx"), source(tmp_path / "ar", "es-AR")], CLASSIFICATION)
    assert len(data.train) == 13
    (leak,) = data.report.leaks
    assert (leak.split, leak.rows) == ("test", 3)
    assert leak.first.startswith(f"{tmp_path}/mx/train.jsonl, line 5 = {tmp_path}/ar/test.jsonl")


def test_only_the_source_without_dev_rows_sets_some_aside(tmp_path: Path) -> None:
    write(tmp_path / "mx/train.jsonl", rows("órale", 90))
    write(tmp_path / "mx/test.jsonl", rows("ÓRALE", 40))
    write(tmp_path / "ar/train.jsonl", rows("che", 6))
    write(tmp_path / "ar/dev.jsonl", rows("vos", 2))
    data = read_data([source(tmp_path / "mx"), source(tmp_path / "ar", "es-AR")], CLASSIFICATION)
    assert data.report.set_aside == ("es-MX",)
    dev = {record.row.text for record in data.dev if record.locale == "es-MX"}
    train = {record.row.text for record in data.train if record.locale == "es-MX"}
    assert dev
    assert len(dev) + len(train) == 50  # the forty of the test split are on neither side
    assert not dev & train


def test_translations_are_set_aside_together(tmp_path: Path) -> None:
    for locale, word in (("es-MX", "uno"), ("es-AR", "dos")):
        write(
            tmp_path / locale / "train.jsonl",
            ({**row, "id": number} for number, row in enumerate(rows(word, 80))),
        )
    data = read_data([source(tmp_path / loc, loc) for loc in ("es-MX", "es-AR")], CLASSIFICATION)
    sides = [{record.parallel for record in part} for part in (data.train, data.dev)]
    assert not sides[0] & sides[1]
    assert len(data.train) + len(data.dev) == 160


def test_bad_rows_are_counted_when_that_is_wanted(tmp_path: Path) -> None:
    bad: list[Any] = [{"text": ""}, {"text": "x"}, ["no"]]
    path = write(tmp_path / "train.jsonl", [*rows("x", 5), *bad, *rows("y", 5)])
    write(tmp_path / "dev.jsonl", rows("z", 4))
    with pytest.raises(MalformedRowError, match=r"train\.jsonl, line 6: text is ''"):
        read_data([source(tmp_path)], CLASSIFICATION)
    data = read_data([source(tmp_path)], CLASSIFICATION, skip_bad=True)
    (skipped,) = data.report.skipped
    assert (skipped.path, skipped.rows) == (str(path), 3)
    assert len(data.train) == 10


def test_unknown_labels_of_dev_and_test(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows("x", 6))
    dev = write(tmp_path / "dev.jsonl", [*rows("y", 2), {"text": "z", "label": "new"}])
    write(tmp_path / "test.jsonl", [{"text": "t", "label": "newer"}])
    with pytest.raises(UnknownLabelError, match=rf"{dev}, line 3: label 'new' was not seen"):
        read_data([source(tmp_path)], CLASSIFICATION)
    data = read_data([source(tmp_path)], CLASSIFICATION, unknown="report")
    unknown = {part.split: part.unknown_labels for part in data.report.splits}
    assert unknown == {"train": {}, "dev": {"new": 1}, "test": {"newer": 1}}
    assert (len(data.dev), data.labels) == (3, ("a", "b"))
    given = read_data([source(tmp_path)], CLASSIFICATION, labels=["new", "b", "a"])
    assert given.labels == ("new", "b", "a")


def test_rare_tags_of_dev_rows_are_only_reported(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}])
    write(tmp_path / "dev.jsonl", [{"tokens": ["c"], "tags": ["B-Y"]}])
    data = read_data([source(tmp_path)], TAGGING)
    assert data.labels == ("B-X", "O")
    assert data.report.splits[1].unknown_labels == {"B-Y": 1}
    with pytest.raises(UnknownLabelError, match="label 'B-Y'"):
        read_data([source(tmp_path)], TAGGING, unknown="refuse")


def test_one_locale_alone_leaves_the_digest_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", rows("x", 6))
    write(tmp_path / "dev.jsonl", rows("y", 2))
    data = read_data([source(tmp_path)], CLASSIFICATION)
    assert data.digest == read_data([source(tmp_path, "bar")], CLASSIFICATION).digest


def test_data_that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data was given"):
        read_data([], CLASSIFICATION)
    write(tmp_path / "a/test.jsonl", rows("x", 6))
    with pytest.raises(DataNotFoundError, match=r"no train split, but test; add a train\.jsonl"):
        read_data([source(tmp_path / "a")], CLASSIFICATION)
    write(tmp_path / "b/train.jsonl", rows("x", 6))
    write(tmp_path / "b/dev.jsonl", rows("x", 6))
    with pytest.raises(EmptyDataError, match="every training row stands in dev or test too"):
        read_data([source(tmp_path / "b")], CLASSIFICATION)


@pytest.mark.parametrize(
    ("name", "task_type", "train", "dev"),
    [
        ("nusax_senti/jv-ID", "sequence-classification", 500, 100),
        ("ha_intents/gsw-CH", "sequence-classification", 297, 53),
        ("xsid/gsw-CH", "sequence-classification", 193, 51),
        ("xsid/gsw-CH", "token-classification", 193, 51),
        ("sib200_topic/yue-HK", "sequence-classification", 701, 99),
        ("ud_pos/bar", "token-classification", 596, 150),
        ("nergrit_ner/id-ID", "token-classification", 1672, 209),
        ("epqa_search/en-US", "reranking", 3599, 599),
    ],
)
def test_real_rows_of_every_layout(
    shared: Path, name: str, task_type: TaskType, train: int, dev: int
) -> None:
    place = shared / "data" / name
    data = read_data([parse_source(str(place), locale=place.name)], LAYOUTS[task_type])
    left_out = sum(leak.rows for leak in data.report.leaks)
    assert (len(data.train) + left_out, len(data.dev)) == (train, dev)
    assert left_out <= 3
    assert {record.locale for record in data.train} == {place.name}
    assert not data.report.skipped


def test_real_plain_text_and_real_pairs(shared: Path) -> None:
    plain = read_data([source(shared / "data/plain/wuu-CN", "wuu-CN")], PLAIN)
    assert len(plain.train) + len(plain.dev) == 229
    assert plain.report.set_aside == ("wuu-CN",)
    graded, _ = read_split(source(shared / "data/epqa_search/en-US", "en-US"), RANKING, "dev")
    pairs = embedding_pairs([record.row for record in graded])
    assert len({pair.anchor for pair in pairs}) > 50
    assert any(pair.negatives for pair in pairs)
