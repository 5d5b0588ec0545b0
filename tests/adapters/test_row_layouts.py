from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isogloss.adapters.row_layouts import LAYOUTS, normalised
from isogloss.adapters.rows import (
    Answer,
    ClassificationRow,
    EmbeddingRow,
    Place,
    PlainRow,
    QuestionRow,
    RankingRow,
    TaggingRow,
    embedding_pairs,
)
from isogloss.core.errors import MalformedRowError

PLACE = Place(path=Path("rows.jsonl"), number=7)
PASSAGE = "Retouren sind 30 Tage lang frei."
QUESTION = {"question": "Wie lang?", "context": PASSAGE}


def test_every_task_type_has_a_layout() -> None:
    assert set(LAYOUTS) == {
        "sequence-classification",
        "token-classification",
        "embedding",
        "reranking",
        "masked-lm",
        "question-answering",
    }
    assert all(layout.task_type == name for name, layout in LAYOUTS.items())


@pytest.mark.parametrize(
    ("task_type", "fields", "row"),
    [
        (
            "sequence-classification",
            {"text": "Hoi", "label": 3, "other": [1]},
            ClassificationRow(text="Hoi", label="3"),
        ),
        (
            "sequence-classification",
            {"text": "Hoi", "text_pair": "zäme", "label": "greet"},
            ClassificationRow(text="Hoi", pair="zäme", label="greet"),
        ),
        (
            "token-classification",
            {"tokens": ["uf", "Bärn", "."], "tags": ["O", "B-GPE", "O"], "text": "uf Bärn."},
            TaggingRow(tokens=("uf", "Bärn", "."), tags=("O", "B-GPE", "O")),
        ),
        (
            "token-classification",
            {"tokens": ["uf"], "tags": ["ADP"]},
            TaggingRow(tokens=("uf",), tags=("ADP",)),
        ),
        ("embedding", {"anchor": "a", "positive": "b"}, EmbeddingRow(anchor="a", positive="b")),
        (
            "embedding",
            {"query": "a", "positive": "b", "negatives": ["c", "d"]},
            EmbeddingRow(anchor="a", positive="b", negatives=("c", "d")),
        ),
        (
            "embedding",
            {"anchor": "a", "positive": "b", "negative": "c"},
            EmbeddingRow(anchor="a", positive="b", negatives=("c",)),
        ),
        (
            "reranking",
            {"query": "Red  Shoes", "product": "shoe", "label": 2},
            RankingRow(query="Red  Shoes", text="shoe", grade=2, group="red shoes"),
        ),
        (
            "reranking",
            {"query": "q", "text": "t", "grade": "0", "qid": 5},
            RankingRow(query="q", text="t", grade=0, group="5"),
        ),
        ("masked-lm", {"text": " x ", "label": None}, PlainRow(text=" x ")),
        (
            "question-answering",
            {**QUESTION, "answers": [{"text": "30 Tage", "start": 14}]},
            QuestionRow(**QUESTION, answers=(Answer(text="30 Tage", start=14),)),
        ),
        (
            "question-answering",
            {**QUESTION, "answers": {"text": ["30", "30 Tage"], "answer_start": [14, 14]}},
            QuestionRow(
                **QUESTION, answers=(Answer(text="30", start=14), Answer(text="30 Tage", start=14))
            ),
        ),
    ],
)
def test_fields_become_a_row(task_type: Any, fields: dict[str, Any], row: object) -> None:
    assert LAYOUTS[task_type].parse(fields, PLACE) == row


@pytest.mark.parametrize(
    ("task_type", "fields", "problem"),
    [
        ("sequence-classification", {"label": "a"}, "text is None; expected a non-empty string"),
        ("sequence-classification", {"text": " ", "label": "a"}, "text is ' '"),
        ("sequence-classification", {"text": "x", "text_pair": "", "label": "a"}, "text_pair is"),
        ("sequence-classification", {"text": "x", "label": 1.5}, "label is 1.5; expected a string"),
        ("sequence-classification", {"text": "x"}, "the row has no label"),
        ("token-classification", {"tags": ["O"]}, "tokens is None; expected a list"),
        ("token-classification", {"tokens": "a b", "tags": ["O", "O"]}, "tokens is 'a b'"),
        ("token-classification", {"tokens": [], "tags": []}, "expected at least one"),
        ("token-classification", {"tokens": ["a", ""], "tags": ["O", "O"]}, "tokens[1] is ''"),
        ("token-classification", {"tokens": ["a"], "tags": [1]}, "tags[0] is 1"),
        ("token-classification", {"tokens": ["a", "b"], "tags": ["O"]}, "2 tokens but 1 tags"),
        (
            "token-classification",
            {"tokens": ["a", "b"], "tags": ["O", "I-X"]},
            "tags[1] is 'I-X' after 'O'; in BIO a span begins with 'B-X'",
        ),
        (
            "token-classification",
            {"tokens": ["a", "b"], "tags": ["B-Y", "I-X"]},
            "tags[1] is 'I-X' after 'B-Y'",
        ),
        (
            "token-classification",
            {"tokens": ["a", "b"], "tags": ["B-X", "NOUN"]},
            "tags[1] is 'NOUN'; in BIO it is O, B-… or I-…",
        ),
        ("token-classification", {"tokens": ["a"], "tags": ["B-"]}, "tags[0] is 'B-'"),
        ("embedding", {"anchor": "a"}, "positive is None"),
        ("embedding", {"positive": "a"}, "anchor is None"),
        ("embedding", {"anchor": "a", "positive": "b", "negatives": "c"}, "negatives is 'c'"),
        ("reranking", {"query": "q", "text": "t"}, "the row has no label"),
        ("reranking", {"query": "q", "text": "t", "label": "good"}, "expected a whole number"),
        ("reranking", {"query": "q", "text": "t", "label": -1}, "label is -1"),
        ("reranking", {"query": "q", "text": "t", "label": True}, "label is True"),
        ("reranking", {"query": "q", "text": "t", "label": 1, "qid": [1]}, "qid is [1]"),
        ("masked-lm", {"text": 5}, "text is 5"),
        ("question-answering", {**QUESTION}, "answers is None; expected a list of objects"),
        ("question-answering", {**QUESTION, "answers": []}, "answers is []"),
        ("question-answering", {**QUESTION, "answers": ["30"]}, "an answer is '30'"),
        (
            "question-answering",
            {**QUESTION, "answers": [{"text": "30", "start": 1}]},
            "the answer '30' doesn't stand at character 1; it stands at 14",
        ),
        (
            "question-answering",
            {**QUESTION, "answers": [{"text": "31", "start": 14}]},
            "it stands nowhere in the context",
        ),
        (
            "question-answering",
            {**QUESTION, "answers": {"text": ["30"], "answer_start": []}},
            "as many text as answer_start",
        ),
    ],
)
def test_a_row_that_cannot_be_used(task_type: Any, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(MalformedRowError) as caught:
        LAYOUTS[task_type].parse(fields, PLACE)
    assert str(caught.value).startswith("rows.jsonl, line 7: ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_are_compared_in_one_form() -> None:
    assert normalised("  Cafe\u0301\tSTRASSE\u00a0x ") == normalised("café straße x")
    assert normalised("a b") != normalised("ab")
    key = LAYOUTS["sequence-classification"].key
    assert key(ClassificationRow(text="A ", label="x")) == key(
        ClassificationRow(text="a", label="y")
    )
    assert key(ClassificationRow(text="a", pair="b", label="x")) != key(
        ClassificationRow(text="a", label="x")
    )


def test_graded_rows_give_pairs_with_hard_negatives() -> None:
    def row(query: str, text: str, grade: int) -> RankingRow:
        return RankingRow(query=query, text=text, grade=grade, group=query)

    rows = [row("q", "x", 0), row("q", "y", 1), row("r", "u", 0), row("q", "z", 2)]
    assert embedding_pairs([*rows, row("s", "v", 1)]) == [
        EmbeddingRow(anchor="q", positive="z", negatives=("x",)),
        EmbeddingRow(anchor="s", positive="v"),
    ]
