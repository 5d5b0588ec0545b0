"""Each word of a text gets a label, by its first piece."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..metrics import tagging_metrics
from ..row_layouts import TAGGING, is_bio
from .sequence_classification import f1_each
from .task import Drawn, Encoding, Example, Figures, Objective, class_tensor, split_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..row_layouts import RowLayout
    from ..rows import TaggingRow
    from ..spec import TaskType

OUTSIDE = "O"


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """The words of a text."""

    places: tuple[int | None, ...]
    """The token of each word's first piece; None: it was cut off, or the tokenizer drops it."""
    learnt: tuple[tuple[int, int], ...]
    """Tokens to learn from, each with the number of its label."""


@dataclass(frozen=True)
class TokenClassification(Drawn):
    """Cross-entropy over first pieces; F1 of spans, or macro-F1 of single words' labels."""

    task_type: TaskType = "token-classification"
    layout: RowLayout[TaggingRow] = TAGGING
    host: str = "AutoModelForTokenClassification"
    peft_task: str | None = "TOKEN_CLS"
    head: tuple[str, ...] = ("classifier",)
    first_tokens: bool = False
    metric: str = "f1"
    lower_is_better: bool = False

    def outputs(self, labels: Sequence[str]) -> int | None:
        """One for each label."""
        return len(labels)

    def encode(
        self, rows: Sequence[TaggingRow], locales: Sequence[str], encoding: Encoding
    ) -> list[Example[Tagged]]:
        """A text split into words, and where they begin."""
        ids = {label: number for number, label in enumerate(encoding.labels)}
        words = [list(row.tokens) for row in rows]
        found = encoding.tokenizer.words(words, limits=[encoding.limit] * len(words))
        examples = []
        for row, locale, tokenized in zip(rows, locales, found, strict=True):
            places = tuple(word.token for word in tokenized.words)
            examples.append(
                Example(
                    rows=(tokenized.row,),
                    target=Tagged(
                        places=places,
                        learnt=tuple(
                            (place, ids[tag])
                            for place, tag in zip(places, row.tags, strict=True)
                            if place is not None and tag in ids
                        ),
                    ),
                    locale=locale,
                    labels=row.tags,
                    truncated=tokenized.truncated,
                )
            )
        return examples

    def trainable(self, example: Example[Tagged]) -> bool:
        """Whether a word is left to learn from."""
        return bool(example.target.learnt)

    def answers(
        self,
        host: Any,
        hidden: torch.Tensor,
        spans: Sequence[tuple[int, int]],
        examples: Sequence[Example[Tagged]],  # noqa: ARG002
    ) -> list[torch.Tensor]:
        """`[tokens, labels]` for each text."""
        return split_rows(host.classifier(host.dropout(hidden)), spans)

    def weight(self, examples: Sequence[Example[Tagged]], objective: Objective) -> float:
        """The sum of the weights of all words' labels."""
        weights = objective.class_weights
        if weights is None:
            return float(sum(len(example.target.learnt) for example in examples))
        return sum(weights[tag] for example in examples for _, tag in example.target.learnt)

    def loss(
        self,
        answers: Sequence[torch.Tensor],
        examples: Sequence[Example[Tagged]],
        objective: Objective,
    ) -> torch.Tensor:
        """Cross-entropy of the words' first pieces."""
        import torch

        pairs = list(zip(answers, examples, strict=True))
        logits = torch.cat(
            [answer[[place for place, _ in example.target.learnt]] for answer, example in pairs]
        ).float()
        tags = [tag for example in examples for _, tag in example.target.learnt]
        return torch.nn.functional.cross_entropy(
            logits,
            torch.tensor(tags, device=logits.device),
            weight=class_tensor(objective, logits),
            label_smoothing=objective.smoothing,
            reduction="sum",
        )

    def decide(
        self, example: Example[Tagged], answers: Sequence[torch.Tensor], labels: Sequence[str]
    ) -> list[str]:
        """A label for each word; of one without a token `O`, or the first label."""
        best = answers[0].argmax(-1).tolist()
        unseen = OUTSIDE if OUTSIDE in labels else labels[0]
        return [unseen if at is None else labels[best[at]] for at in example.target.places]

    def figures(
        self,
        examples: Sequence[Example[Tagged]],
        decisions: Sequence[list[str]],
        labels: Sequence[str],  # noqa: ARG002
    ) -> Figures:
        """Of spans by seqeval, else of words; `f1` is macro-F1 then, too."""
        gold = [list(example.labels) for example in examples]
        metrics = tagging_metrics(gold, decisions)
        if "f1" in metrics:
            return Figures(metrics=metrics, per_label=_f1_of_spans(gold, list(decisions)))
        flat = [[tag for tags in side for tag in tags] for side in (gold, decisions)]
        return Figures(
            metrics=metrics | {"f1": metrics["macro_f1"]}, per_label=f1_each(flat[0], flat[1])
        )


def _f1_of_spans(gold: list[list[str]], predicted: list[list[str]]) -> dict[str, float]:
    """F1 of each type of span."""
    from seqeval.metrics import classification_report

    assert any(is_bio(tags) for tags in gold), "tags of spans"
    report = classification_report(gold, predicted, output_dict=True, zero_division=0)
    return {
        name: float(figures["f1-score"])
        for name, figures in report.items()
        if not name.endswith(" avg")
    }


TASK = TokenClassification()
