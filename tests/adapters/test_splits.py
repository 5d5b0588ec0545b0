from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from isogloss.adapters.row_layouts import CLASSIFICATION, RANKING
from isogloss.adapters.rows import ClassificationRow, Place, RankingRow, Record
from isogloss.adapters.splits import Leak, count_repeats, drop_leaks, rows_digest, set_aside
from isogloss.core.errors import EmptyDataError

Rows = list[Record[ClassificationRow]]


def record(
    text: str, label: str = "a", *, locale: str = "gsw-CH", line: int = 1, parallel: str = ""
) -> Record[ClassificationRow]:
    return Record(
        row=ClassificationRow(text=text, label=label),
        locale=locale,
        place=Place(path=Path("rows.jsonl"), number=line),
        parallel=parallel or None,
    )


def texts(records: Rows) -> list[str]:
    return [one.row.text for one in records]


def test_about_an_eighth_is_set_aside_and_stays_there() -> None:
    rows = [record(f"Satz {number}") for number in range(800)]
    train, dev = set_aside(rows, CLASSIFICATION, name="x")
    assert 60 <= len(dev) <= 140
    assert sorted(texts(train) + texts(dev)) == sorted(texts(rows))
    _, later = set_aside([*rows[::-1], record("neu")], CLASSIFICATION, name="x")
    assert set(texts(dev)) <= set(texts(later)) <= {*texts(dev), "neu"}


def test_a_label_keeps_a_training_row() -> None:
    rows = [record(f"Satz {number}", f"label {number}") for number in range(400)]
    rows += [record(f"Wort {number}") for number in range(400)]
    train, dev = set_aside(rows, CLASSIFICATION, name="x")
    assert {one.row.label for one in dev} == {"a"}
    assert len({one.row.label for one in train}) == 401


def test_translations_stay_together() -> None:
    german = [record(f"Satz {number}", parallel=str(number)) for number in range(200)]
    spanish = [record(f"frase {number}", parallel=str(number)) for number in range(200)]
    sides = [
        {one.parallel for one in set_aside(rows, CLASSIFICATION, name="x", by_id=True)[1]}
        for rows in (german, spanish)
    ]
    assert sides[0] == sides[1]
    assert len(sides[0]) > 5


def test_a_query_stays_whole() -> None:
    rows = [
        Record(
            row=RankingRow(query=f"q{number % 50}", text=str(number), grade=0, group=str(number)),
            locale="en-US",
            place=Place(path=Path("rows.jsonl"), number=number),
        )
        for number in range(500)
    ]
    train, dev = set_aside(rows, RANKING, name="x")
    assert not {one.row.group for one in train} & {one.row.group for one in dev}


def test_too_few_rows() -> None:
    with pytest.raises(EmptyDataError, match="x has too few rows to keep some apart"):
        set_aside([record("only")], CLASSIFICATION, name="x")


def test_rows_of_other_splits_leave_train() -> None:
    train = [record("Hoi  Zäme", line=1), record("neu", line=2), record("ADE", line=3)]
    train += [record("hoi za\u0308me", "b", line=4)]
    dev, test = [record("hoi zäme", line=9)], [record("ade", locale="bar", line=5)]
    kept, leaks = drop_leaks(train, {"dev": dev, "test": test}, CLASSIFICATION)
    assert texts(kept) == ["neu"]
    assert leaks == [
        Leak(split="dev", rows=2, first="rows.jsonl, line 1 = rows.jsonl, line 9"),
        Leak(split="test", rows=1, first="rows.jsonl, line 3 = rows.jsonl, line 5"),
    ]
    assert drop_leaks(kept, {"dev": dev, "test": []}, CLASSIFICATION) == (kept, [])


def test_a_row_in_dev_and_test_counts_once() -> None:
    both = {"dev": [record("x")], "test": [record("X")]}
    kept, leaks = drop_leaks([record("x"), record("y")], both, CLASSIFICATION)
    assert texts(kept) == ["y"]
    assert [(leak.split, leak.rows) for leak in leaks] == [("dev", 1)]


def test_repeats_are_counted_within_a_locale() -> None:
    rows = [record("x"), record("X "), record("x", locale="bar"), record("y")]
    assert count_repeats(rows, CLASSIFICATION) == 1


def test_the_digest_of_one_locale_is_that_of_texts_and_labels() -> None:
    train, dev = [record("Hoi", "a"), record("Ade", "b")], [record("Sali", "a")]
    plain = [[["Hoi", "a"], ["Ade", "b"]], [["Sali", "a"]]]
    expected = hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()
    assert rows_digest(train, dev, CLASSIFICATION) == expected
    pair = Record(
        row=ClassificationRow(text="Hoi", pair="x", label="a"),
        locale="gsw-CH",
        place=train[0].place,
    )
    others = [
        rows_digest(train[::-1], dev, CLASSIFICATION),
        rows_digest([*train, *dev], [], CLASSIFICATION),
        rows_digest([pair, train[1]], dev, CLASSIFICATION),
        rows_digest([train[0], record("Ade", "b", locale="bar")], dev, CLASSIFICATION),
        rows_digest([record("Hoi", "a", locale="bar"), train[1]], dev, CLASSIFICATION),
    ]
    assert len({expected, *others}) == 6
