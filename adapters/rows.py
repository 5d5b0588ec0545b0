"""The rows that adapters are trained on: one type for every type of task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from ..core.errors import MalformedRowError

if TYPE_CHECKING:
    from pathlib import Path

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationRow:
    """A text, or a pair of texts, and what it means."""

    text: str
    """What a person wrote."""
    pair: str | None = None
    """The second text of a pair."""
    label: str
    """The class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggingRow:
    """A text in words, and the tag of each."""

    tokens: tuple[str, ...]
    """The words, punctuation among them."""
    tags: tuple[str, ...]
    """As many tags; those of spans are written in BIO."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRow:
    """A text, one that means the same, and some that do not."""

    anchor: str
    """The text whose neighbours are sought, such as a query."""
    positive: str
    """A text that belongs to it."""
    negatives: tuple[str, ...] = ()
    """Hard negatives: texts that look as if they belonged to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingRow:
    """One text that may answer a query, and how well it does."""

    query: str
    """What was asked."""
    text: str
    """The product, passage or answer."""
    grade: int
    """0: does not answer; higher is better."""
    group: str
    """Rows of one group answer one query; the query itself where the data names no group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainRow:
    """A text without a label."""

    text: str
    """What a person wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A span of a passage."""

    text: str
    """The words of the span."""
    start: int
    """Where it begins in the passage, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionRow:
    """A question, a passage, and the spans that answer it."""

    question: str
    """What was asked."""
    context: str
    """The passage that holds the answers."""
    answers: tuple[Answer, ...]
    """At least one; all are right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a row stands."""

    path: Path
    """The file, or `hf:NAME/SPLIT`."""
    number: int
    """The line from 1; the row from 1 in a table without lines."""

    def error(self, problem: str) -> MalformedRowError:
        """The error that names this place."""
        return MalformedRowError(self.path, self.number, problem)

    def __str__(self) -> str:
        return f"{self.path}, line {self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Generic[R]):
    """A row, for which locale it is, and where it stands."""

    row: R
    """The row."""
    locale: str
    """Canonical BCP 47 tag of its source."""
    place: Place
    """Where it was read."""
    parallel: str | None = None
    """The row's `id`: translations of one text share it."""


def embedding_pairs(rows: list[RankingRow]) -> list[EmbeddingRow]:
    """Pairs for a retrieval model out of graded rows.

    Each text with the best grade of its group becomes a positive; those of grade 0 become hard
    negatives of all of them. A group without a text above 0 gives none.
    """
    groups: dict[str, list[RankingRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    pairs: list[EmbeddingRow] = []
    for members in groups.values():
        best = max(row.grade for row in members)
        negatives = tuple(row.text for row in members if row.grade == 0)
        pairs.extend(
            EmbeddingRow(anchor=row.query, positive=row.text, negatives=negatives)
            for row in members
            if row.grade == best > 0
        )
    return pairs
