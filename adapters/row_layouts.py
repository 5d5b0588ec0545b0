"""How the fields of a row in a file become a row of a task, and what is checked on the way."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .rows import (
    Answer,
    ClassificationRow,
    EmbeddingRow,
    PlainRow,
    QuestionRow,
    RankingRow,
    TaggingRow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .rows import Place
    from .spec import TaskType

R = TypeVar("R")
Fields = dict[str, Any]

NO_LABEL = "the row has no label"


def no_labels(_: object) -> tuple[str, ...]:
    """What a row without labels is labelled with."""
    return ()


@dataclass(frozen=True, kw_only=True)
class RowLayout(Generic[R]):
    """How rows of one task type are read, compared, split and counted."""

    task_type: TaskType
    """The type of task that learns from such rows."""
    columns: tuple[tuple[str, ...], ...]
    """The fields that a row must have, each with its other names."""
    parse: Callable[[Fields, Place], R]
    """Makes the row, or raises MalformedRowError."""
    key: Callable[[R], tuple[str, ...]]
    """The input: rows of equal input, normalised, are the same question."""
    split_key: Callable[[R], str]
    """Rows with an equal one stay on the same side of a split."""
    content: Callable[[R], list[Any]]
    """The row as JSON, for the digest."""
    optional: tuple[str, ...] = ()
    """Fields that a row may have."""
    labels: Callable[[R], Sequence[str]] = no_labels
    """The labels that the row carries."""
    cells: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    """How a field that is no string is written in a cell of a CSV file."""

    @property
    def known(self) -> tuple[str, ...]:
        """Every field that is read."""
        return (*(name for names in self.columns for name in names), *self.optional, "id")

    def missing(self, names: Sequence[str]) -> list[str]:
        """The required fields that none of `names` is."""
        return [" or ".join(column) for column in self.columns if not {*column} & {*names}]


def normalised(text: str) -> str:
    """NFC, case folded, each run of whitespace one space."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def _text(fields: Fields, place: Place, *names: str) -> str:
    """The first of these fields that is there, a string with something in it."""
    name = next((name for name in names if fields.get(name) is not None), names[0])
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise place.error(f"{name} is {value!r:.60}; expected a non-empty string")
    return value


def _strings(fields: Fields, place: Place, name: str) -> tuple[str, ...]:
    values = fields.get(name)
    if not isinstance(values, list):
        raise place.error(f"{name} is {values!r:.60}; expected a list of strings")
    for index, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise place.error(f"{name}[{index}] is {value!r:.60}; expected a non-empty string")
    return tuple(values)


def _whole(fields: Fields, place: Place, name: str) -> int:
    """A whole number from 0; CSV cells and float columns spell it in their own way."""
    value = fields.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise place.error(f"{name} is {value!r:.60}; expected a whole number from 0")
    return value


def _classification(fields: Fields, place: Place) -> ClassificationRow:
    text = _text(fields, place, "text")
    pair = _text(fields, place, "text_pair") if fields.get("text_pair") is not None else None
    label = fields.get("label")
    if label is None or label == "":
        raise place.error(NO_LABEL)
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise place.error(f"label is {label!r:.60}; expected a string")
    return ClassificationRow(text=text, pair=pair, label=str(label))


def _tagging(fields: Fields, place: Place) -> TaggingRow:
    tokens = _strings(fields, place, "tokens")
    if not tokens:
        raise place.error("tokens is []; expected at least one")
    tags = _strings(fields, place, "tags")
    if len(tokens) != len(tags):
        raise place.error(f"{len(tokens)} tokens but {len(tags)} tags; each token needs one")
    check_spans(tags, place)
    return TaggingRow(tokens=tokens, tags=tags)


def check_spans(tags: Sequence[str], place: Place) -> None:
    """Check tags of spans: `O`, `B-x`, and `I-x` after a `B-x` or `I-x`; other tags are free.

    Raises:
        MalformedRowError: a row has some tags in BIO, and one that isn't, or continues nothing.
    """
    if not is_bio(tags):
        return
    before = "O"
    for index, tag in enumerate(tags):
        if tag != "O" and (tag[:2] not in {"B-", "I-"} or len(tag) == 2):
            raise place.error(f"tags[{index}] is {tag!r:.60}; in BIO it is O, B-… or I-…")
        if tag.startswith("I-") and before[2:] != tag[2:]:
            raise place.error(
                f"tags[{index}] is {tag!r:.60} after {before!r:.60}; in BIO a span begins with "
                f"{'B-' + tag[2:]!r:.60}"
            )
        before = tag


def is_bio(tags: Sequence[str]) -> bool:
    """Whether these tags mark spans, as opposed to single words."""
    return any(tag.startswith(("B-", "I-")) for tag in tags)


def _embedding(fields: Fields, place: Place) -> EmbeddingRow:
    negatives: tuple[str, ...] = ()
    if fields.get("negatives") is not None:
        negatives = _strings(fields, place, "negatives")
    elif fields.get("negative") is not None:
        negatives = (_text(fields, place, "negative"),)
    return EmbeddingRow(
        anchor=_text(fields, place, "anchor", "query"),
        positive=_text(fields, place, "positive"),
        negatives=negatives,
    )


def _ranking(fields: Fields, place: Place) -> RankingRow:
    query = _text(fields, place, "query")
    text = _text(fields, place, "text", "product")
    grade = "grade" if fields.get("grade") is not None else "label"
    if fields.get(grade) is None:
        raise place.error(NO_LABEL)
    group = fields.get("qid")
    if group is not None and (isinstance(group, bool) or not isinstance(group, str | int)):
        raise place.error(f"qid is {group!r:.60}; expected a string")
    return RankingRow(
        query=query,
        text=text,
        grade=_whole(fields, place, grade),
        group=normalised(query) if group is None else str(group),
    )


def _plain(fields: Fields, place: Place) -> PlainRow:
    return PlainRow(text=_text(fields, place, "text"))


def _question(fields: Fields, place: Place) -> QuestionRow:
    question = _text(fields, place, "question")
    context = _text(fields, place, "context")
    answers = fields.get("answers")
    if isinstance(answers, dict):  # SQuAD's columns, as the Hub has them
        texts, starts = answers.get("text"), answers.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise place.error("answers must hold as many text as answer_start")
        answers = [
            {"text": text, "start": start} for text, start in zip(texts, starts, strict=True)
        ]
    if not isinstance(answers, list) or not answers:
        raise place.error(
            f"answers is {answers!r:.60}; expected a list of objects with text and start"
        )
    return QuestionRow(
        question=question,
        context=context,
        answers=tuple(_answer(answer, context, place) for answer in answers),
    )


def _answer(answer: object, context: str, place: Place) -> Answer:
    if not isinstance(answer, dict):
        raise place.error(f"an answer is {answer!r:.60}; expected an object with text and start")
    text = _text(answer, place, "text")
    start = _whole(answer, place, "start" if answer.get("start") is not None else "answer_start")
    if context[start : start + len(text)] != text:
        found = context.find(text)
        hint = "it stands nowhere in the context" if found < 0 else f"it stands at {found}"
        raise place.error(f"the answer {text!r:.60} doesn't stand at character {start}; {hint}")
    return Answer(text=text, start=start)


def _cell_list(cell: str) -> list[str]:
    return cell.split(" ")


CLASSIFICATION = RowLayout(
    task_type="sequence-classification",
    columns=(("text",), ("label",)),
    optional=("text_pair",),
    parse=_classification,
    key=lambda row: (normalised(row.text), normalised(row.pair or "")),
    split_key=lambda row: row.text if row.pair is None else f"{row.text}\n{row.pair}",
    content=lambda row: [row.text, *([] if row.pair is None else [row.pair]), row.label],
    labels=lambda row: (row.label,),
)
TAGGING = RowLayout(
    task_type="token-classification",
    columns=(("tokens",), ("tags",)),
    parse=_tagging,
    key=lambda row: tuple(map(normalised, row.tokens)),
    split_key=lambda row: " ".join(row.tokens),
    content=lambda row: [row.tokens, row.tags],
    labels=lambda row: row.tags,
    cells={"tokens": _cell_list, "tags": _cell_list},
)
EMBEDDING = RowLayout(
    task_type="embedding",
    columns=(("anchor", "query"), ("positive",)),
    optional=("negatives", "negative"),
    parse=_embedding,
    key=lambda row: (normalised(row.anchor), normalised(row.positive)),
    split_key=lambda row: row.anchor,
    content=lambda row: [row.anchor, row.positive, row.negatives],
    cells={"negatives": json.loads},
)
RANKING = RowLayout(
    task_type="reranking",
    columns=(("query",), ("text", "product"), ("label", "grade")),
    optional=("qid",),
    parse=_ranking,
    key=lambda row: (normalised(row.query), normalised(row.text)),
    split_key=lambda row: row.group,
    content=lambda row: [row.query, row.text, row.grade, row.group],
)
PLAIN = RowLayout(
    task_type="masked-lm",
    columns=(("text",),),
    parse=_plain,
    key=lambda row: (normalised(row.text),),
    split_key=lambda row: row.text,
    content=lambda row: [row.text],
)
QUESTIONS = RowLayout(
    task_type="question-answering",
    columns=(("question",), ("context",), ("answers",)),
    parse=_question,
    key=lambda row: (normalised(row.question), normalised(row.context)),
    split_key=lambda row: f"{row.question}\n{row.context}",
    content=lambda row: [row.question, row.context, [[a.text, a.start] for a in row.answers]],
    cells={"answers": json.loads},
)
LAYOUTS: Mapping[TaskType, RowLayout[Any]] = MappingProxyType(
    {
        layout.task_type: layout
        for layout in (CLASSIFICATION, TAGGING, EMBEDDING, RANKING, PLAIN, QUESTIONS)
    }
)
