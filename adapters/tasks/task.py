"""What training and evaluation need to know of a type of task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

    from ...core.packing import Row
    from ...core.tokenization import RowTokenizer
    from ..row_layouts import RowLayout
    from ..spec import TaskType

R = TypeVar("R")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How texts become rows of tokens."""

    tokenizer: RowTokenizer
    """The base's."""
    limit: int
    """The most tokens of a row."""
    labels: tuple[str, ...] = ()
    """In the order of the head's outputs."""
    special: frozenset[int] = frozenset()
    """Ids that stand for no piece of a text."""
    pieces: int = 0
    """How many ids there are."""


@dataclass(frozen=True, kw_only=True)
class Example(Generic[T]):
    """One row of the data as the encoder reads it."""

    rows: tuple[Row, ...]
    """Its texts: one; of an embedding anchor, positive, and negatives."""
    target: T
    """What is right."""
    locale: str
    """BCP 47 tag of its source."""
    labels: tuple[str, ...] = ()
    """Labels that the row carries, for weights and sampling."""
    truncated: bool = False
    """Whether one of its texts was cut."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the loss depends on beside answers and examples."""

    class_weights: tuple[float, ...] | None = None
    """A weight for each label."""
    smoothing: float = 0.0
    """Label smoothing, 0..1."""
    temperature: float = 0.05
    """Divides the cosines of a contrastive loss."""
    top_grade: int = 1
    """The best grade of a ranking."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good answers are."""

    metrics: dict[str, float]
    """By name."""
    per_label: dict[str, float] = field(default_factory=dict)
    """F1 of each label that occurs, 0..1; empty for a task without labels."""


class Task(Protocol[R, T]):
    """A type of task: everything that training and evaluation ask of it."""

    @property
    def task_type(self) -> TaskType:
        """Its name."""
        ...

    @property
    def layout(self) -> RowLayout[R]:
        """How its rows are read."""
        ...

    @property
    def host(self) -> str:
        """The transformers class that is trained."""
        ...

    @property
    def peft_task(self) -> str | None:
        """PEFT's name for it."""
        ...

    @property
    def head(self) -> tuple[str, ...]:
        """Modules of the host that are trained as a whole."""
        ...

    @property
    def first_tokens(self) -> bool:
        """Whether its head reads the first token of each text only."""
        ...

    @property
    def metric(self) -> str:
        """The metric by which the best weights are chosen."""
        ...

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower value of it is a better one."""
        ...

    def outputs(self, labels: Sequence[str]) -> int | None:
        """How many outputs the head is made with; None: as the host has it."""
        ...

    def encode(
        self, rows: Sequence[R], locales: Sequence[str], encoding: Encoding
    ) -> list[Example[T]]:
        """An example for each row.

        Args:
            rows: rows of its layout.
            locales: the locale of each.
            encoding: how.
        """
        ...

    def trainable(self, example: Example[T]) -> bool:
        """Whether there is something to learn from it: an answer that was cut off can't be."""
        ...

    def draw(
        self, examples: Sequence[Example[T]], encoding: Encoding, generator: np.random.Generator
    ) -> list[Example[T]]:
        """What chance decides anew each time: which tokens of a text are masked."""
        ...

    def answers(
        self,
        host: Any,
        hidden: torch.Tensor,
        spans: Sequence[tuple[int, int]],
        examples: Sequence[Example[T]],
    ) -> list[torch.Tensor]:
        """What the host's head makes of hidden states.

        Args:
            host: the transformers model.
            hidden: `[tokens, width]`; `[rows, width]` if the head reads first tokens only.
            spans: first token, and token after the last, of each text.
            examples: whose texts they are, one after the other.

        Returns:
            An answer for each text, as the served head gives it (`adapters/heads.py`).
        """
        ...

    def weight(self, examples: Sequence[Example[T]], objective: Objective) -> float:
        """What their losses are divided by; of several batches it is the sum."""
        ...

    def loss(
        self,
        answers: Sequence[torch.Tensor],
        examples: Sequence[Example[T]],
        objective: Objective,
    ) -> torch.Tensor:
        """The sum of their losses, a scalar."""
        ...

    def decide(
        self, example: Example[T], answers: Sequence[torch.Tensor], labels: Sequence[str]
    ) -> Any:
        """What is predicted for one example: as little as its figures need.

        Args:
            example: the example.
            answers: one for each of its texts.
            labels: in the order of the head's outputs.
        """
        ...

    def figures(
        self, examples: Sequence[Example[T]], decisions: Sequence[Any], labels: Sequence[str]
    ) -> Figures:
        """How good decisions are."""
        ...


class Drawn:
    """Of tasks in which nothing is left to chance, and every example can be learnt from."""

    def trainable(self, example: Example[Any]) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def draw(
        self,
        examples: Sequence[Example[T]],
        encoding: Encoding,  # noqa: ARG002
        generator: np.random.Generator,  # noqa: ARG002
    ) -> list[Example[T]]:
        """The examples themselves."""
        return list(examples)


def class_tensor(objective: Objective, like: torch.Tensor) -> torch.Tensor | None:
    """The class weights where a tensor lies, `[labels]`."""
    weights = objective.class_weights
    return None if weights is None else like.new_tensor(weights)


def first_token_logits(host: Any, first: torch.Tensor) -> torch.Tensor:
    """The logits `[rows, outputs]` of transformers' classification head for `[rows, width]`."""
    features = first.unsqueeze(1)  # heads take a text's first token by themselves
    if getattr(host.base_model, "pooler", None) is not None:
        features = host.dropout(host.base_model.pooler(features))
    logits: torch.Tensor = host.classifier(features)
    return logits


def split_rows(hidden: torch.Tensor, spans: Sequence[tuple[int, int]]) -> list[torch.Tensor]:
    """The tokens of each text, `[tokens of it, …]`.

    Split, not sliced: the gradient of a slice is as large as the whole batch.
    """
    import torch

    order = sorted(range(len(spans)), key=lambda row: spans[row])
    split = torch.split(hidden, [spans[row][1] - spans[row][0] for row in order])
    parts = dict(zip(order, split, strict=True))
    return [parts[row] for row in range(len(spans))]
