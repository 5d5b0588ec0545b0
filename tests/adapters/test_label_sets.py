from __future__ import annotations

from pathlib import Path

import pytest

from isogloss.adapters.label_sets import (
    check_known_labels,
    label_counts,
    label_set,
    unknown_labels,
)
from isogloss.adapters.row_layouts import CLASSIFICATION, PLAIN, TAGGING
from isogloss.adapters.rows import ClassificationRow, Place, PlainRow, Record, TaggingRow
from isogloss.core.errors import EmptyDataError, InputError, UnknownLabelError


def labelled(*labels: str) -> list[Record[ClassificationRow]]:
    return [
        Record(
            row=ClassificationRow(text=f"text {number}", label=label),
            locale="gsw-CH",
            place=Place(path=Path("rows.jsonl"), number=number),
        )
        for number, label in enumerate(labels, start=1)
    ]


def tagged(*tags: str) -> Record[TaggingRow]:
    return Record(
        row=TaggingRow(tokens=("x",) * len(tags), tags=tags),
        locale="bar",
        place=Place(path=Path("rows.jsonl"), number=1),
    )


def test_labels_are_sorted_unless_given() -> None:
    records = labelled("b", "a", "b", "c")
    assert label_set(records, CLASSIFICATION, name="x") == ("a", "b", "c")
    given = ["c", "z", "b", "a"]
    assert label_set(records, CLASSIFICATION, name="x", given=given) == ("c", "z", "b", "a")
    assert label_set([tagged("O", "B-X", "O")], TAGGING, name="x") == ("B-X", "O")


def test_a_label_that_was_not_given() -> None:
    with pytest.raises(UnknownLabelError, match=r"line 3: label 'c' .*labels that were given .*a"):
        label_set(labelled("a", "b", "c"), CLASSIFICATION, name="x", given=["a", "b"])


@pytest.mark.parametrize("given", [["a", "a", "b"], ["a", " ", "b"]])
def test_given_labels_that_make_no_sense(given: list[str]) -> None:
    with pytest.raises(InputError, match="each must be a name and stand once"):
        label_set(labelled("a", "b"), CLASSIFICATION, name="x", given=given)


def test_too_few_labels() -> None:
    with pytest.raises(EmptyDataError, match="x has only the label 'a'; a classifier needs at le"):
        label_set(labelled("a", "a"), CLASSIFICATION, name="x")
    with pytest.raises(EmptyDataError, match="x has no labels"):
        label_set(labelled("a"), CLASSIFICATION, name="x", given=[])


def test_a_task_without_labels() -> None:
    record = Record(
        row=PlainRow(text="x"), locale="bar", place=Place(path=Path("rows.txt"), number=1)
    )
    assert label_set([record], PLAIN, name="x") == ()
    with pytest.raises(InputError, match="masked-lm has none"):
        label_set([record], PLAIN, name="x", given=["a"])


def test_unknown_labels_are_counted_and_named() -> None:
    records = labelled("a", "new", "other", "new")
    assert label_counts(records, CLASSIFICATION) == {"new": 2, "a": 1, "other": 1}
    assert unknown_labels(records, CLASSIFICATION, ["a"]) == {"new": 2, "other": 1}
    with pytest.raises(UnknownLabelError) as caught:
        check_known_labels(records, CLASSIFICATION, ["a", "b"])
    assert str(caught.value) == (
        "rows.jsonl, line 2: label 'new' was not seen in training (and 1 more); training had a, b"
    )
    check_known_labels(records, CLASSIFICATION, ["a", "new", "other"])
    assert unknown_labels([tagged("O", "B-X")], TAGGING, ["O"]) == {"B-X": 1}
