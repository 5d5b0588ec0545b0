"""A text, or a pair of texts, gets one of several labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..metrics import classification_metrics
from ..row_layouts import CLASSIFICATION
from .task import Drawn, Encoding, Example, Figures, Objective, class_tensor, first_token_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..row_layouts import RowLayout
    from ..rows import ClassificationRow
    from ..spec import TaskType

# The target of a label that training never saw; no answer is right.
UNKNOWN = -1


@dataclass(frozen=True)
class SequenceClassification(Drawn):
    """Cross-entropy over the labels; macro-F1."""

    task_type: TaskType = "sequence-classification"
    layout: RowLayout[ClassificationRow] = CLASSIFICATION
    host: str = "AutoModelForSequenceClassification"
    peft_task: str | None = "SEQ_CLS"
    head: tuple[str, ...] = ("classifier",)
    first_tokens: bool = True
    metric: str = "macro_f1"
    lower_is_better: bool = False

    def outputs(self, labels: Sequence[str]) -> int | None:
        """One for each label."""
        return len(labels)

    def encode(
        self, rows: Sequence[ClassificationRow], locales: Sequence[str], encoding: Encoding
    ) -> list[Example[int]]:
        """A text, and the number of its label."""
        ids = {label: number for number, label in enumerate(encoding.labels)}
        texts = [row.text if row.pair is None else (row.text, row.pair) for row in rows]
        found = encoding.tokenizer.rows(texts, limits=[encoding.limit] * len(texts))
        return [
            Example(
                rows=(tokenized.row,),
                target=ids.get(row.label, UNKNOWN),
                locale=locale,
                labels=(row.label,),
                truncated=tokenized.truncated,
            )
            for row, locale, tokenized in zip(rows, locales, found, strict=True)
        ]

    def answers(
        self,
        host: Any,
        hidden: torch.Tensor,
        spans: Sequence[tuple[int, int]],  # noqa: ARG002
        examples: Sequence[Example[int]],  # noqa: ARG002
    ) -> list[torch.Tensor]:
        """`[labels]` for each text."""
        return list(first_token_logits(host, hidden).unbind())

    def weight(self, examples: Sequence[Example[int]], objective: Objective) -> float:
        """The sum of the labels' weights."""
        weights = objective.class_weights
        if weights is None:
            return float(len(examples))
        return sum(weights[example.target] for example in examples)

    def loss(
        self,
        answers: Sequence[torch.Tensor],
        examples: Sequence[Example[int]],
        objective: Objective,
    ) -> torch.Tensor:
        """Cross-entropy."""
        import torch

        logits = torch.stack(list(answers)).float()
        return torch.nn.functional.cross_entropy(
            logits,
            torch.tensor([example.target for example in examples], device=logits.device),
            weight=class_tensor(objective, logits),
            label_smoothing=objective.smoothing,
            reduction="sum",
        )

    def decide(
        self,
        example: Example[int],  # noqa: ARG002
        answers: Sequence[torch.Tensor],
        labels: Sequence[str],
    ) -> str:
        """The label with the highest logit."""
        return labels[int(answers[0].argmax())]

    def figures(
        self,
        examples: Sequence[Example[int]],
        decisions: Sequence[str],
        labels: Sequence[str],  # noqa: ARG002
    ) -> Figures:
        """Accuracy and F1."""
        gold = [example.labels[0] for example in examples]
        return Figures(
            metrics=classification_metrics(gold, decisions), per_label=f1_each(gold, decisions)
        )


def f1_each(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """F1 of each label that occurs on either side."""
    from sklearn.metrics import f1_score

    occurring = sorted({*gold, *predicted})
    scores = f1_score(gold, predicted, average=None, labels=occurring, zero_division=0.0)
    return dict(zip(occurring, map(float, scores), strict=True))


TASK = SequenceClassification()
