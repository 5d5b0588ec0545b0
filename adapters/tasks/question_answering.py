"""The span of a passage that answers a question."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..metrics import answer_metrics
from ..row_layouts import QUESTIONS
from .task import Drawn, Encoding, Example, Figures, Objective, split_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ...core.tokenization import Tokenized
    from ..row_layouts import RowLayout
    from ..rows import QuestionRow
    from ..spec import TaskType

# The most tokens of an answer.
LONGEST_ANSWER = 64


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A passage, and what in it is the answer."""

    context: str
    """Its text."""
    places: tuple[int, ...]
    """The tokens of the passage, those of white space alone left out."""
    spans: tuple[tuple[int, int], ...]
    """The characters of each of them."""
    learnt: tuple[int, int] | None
    """First and last token of the first answer, counted in `places`; None: it was cut off."""
    answers: tuple[str, ...]
    """All that are right."""


@dataclass(frozen=True)
class QuestionAnswering(Drawn):
    """Cross-entropy of first and last token over the passage; exact match and F1 (SQuAD).

    PEFT's model for it hands no token types on, so that rows have none.
    """

    task_type: TaskType = "question-answering"
    layout: RowLayout[QuestionRow] = QUESTIONS
    host: str = "AutoModelForQuestionAnswering"
    peft_task: str | None = "QUESTION_ANS"
    head: tuple[str, ...] = ("qa_outputs",)
    first_tokens: bool = False
    metric: str = "f1"
    lower_is_better: bool = False

    def outputs(self, labels: Sequence[str]) -> int | None:  # noqa: ARG002
        """Two: begins, ends."""
        return 2

    def encode(
        self, rows: Sequence[QuestionRow], locales: Sequence[str], encoding: Encoding
    ) -> list[Example[Passage]]:
        """A pair of question and passage."""
        found = encoding.tokenizer.rows(
            [(row.question, row.context) for row in rows],
            limits=[encoding.limit] * len(rows),
            spans=True,
        )
        return [
            Example(
                rows=(replace(tokenized.row, type_ids=None),),
                target=_passage(row, tokenized),
                locale=locale,
                truncated=tokenized.truncated,
            )
            for row, locale, tokenized in zip(rows, locales, found, strict=True)
        ]

    def trainable(self, example: Example[Passage]) -> bool:
        """Whether the answer is still there."""
        return example.target.learnt is not None

    def answers(
        self,
        host: Any,
        hidden: torch.Tensor,
        spans: Sequence[tuple[int, int]],
        examples: Sequence[Example[Passage]],  # noqa: ARG002
    ) -> list[torch.Tensor]:
        """`[tokens, 2]` for each text."""
        return split_rows(host.qa_outputs(hidden), spans)

    def weight(self, examples: Sequence[Example[Passage]], objective: Objective) -> float:  # noqa: ARG002
        """Two for each question."""
        return 2.0 * len(examples)

    def loss(
        self,
        answers: Sequence[torch.Tensor],
        examples: Sequence[Example[Passage]],
        objective: Objective,
    ) -> torch.Tensor:
        """Cross-entropy of both ends."""
        import torch

        losses = []
        for answer, example in zip(answers, examples, strict=True):
            assert example.target.learnt is not None, "such examples are left out"
            # [2, tokens of the passage]
            logits = answer[list(example.target.places)].T.float()
            ends = torch.tensor(example.target.learnt, device=logits.device)
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits, ends, label_smoothing=objective.smoothing, reduction="sum"
                )
            )
        return torch.stack(losses).sum()

    def decide(
        self,
        example: Example[Passage],
        answers: Sequence[torch.Tensor],
        labels: Sequence[str],  # noqa: ARG002
    ) -> str:
        """The likeliest span, whose ends are independent."""
        import torch

        passage = example.target
        if not passage.places:
            return ""
        first, last = answers[0][list(passage.places)].float().softmax(0).T
        products = torch.triu(first[:, None] * last[None, :]).tril(LONGEST_ANSWER - 1)
        begin, end = divmod(int(products.argmax()), len(passage.places))
        return passage.context[passage.spans[begin][0] : passage.spans[end][1]].strip()

    def figures(
        self,
        examples: Sequence[Example[Passage]],
        decisions: Sequence[str],
        labels: Sequence[str],  # noqa: ARG002
    ) -> Figures:
        """Averaged over the questions; English drops its articles."""
        exact = overlap = 0.0
        for language in sorted({_language(example) for example in examples}):
            own = [at for at, example in enumerate(examples) if _language(example) == language]
            found = answer_metrics(
                [decisions[at] for at in own],
                [examples[at].target.answers for at in own],
                language=language,
            )
            exact += found["exact_match"] * len(own)
            overlap += found["f1"] * len(own)
        return Figures(
            metrics={"exact_match": exact / len(examples), "f1": overlap / len(examples)}
        )


def _language(example: Example[Passage]) -> str:
    return example.locale.partition("-")[0]


def _passage(row: QuestionRow, tokenized: Tokenized) -> Passage:
    kept = [
        (place, span)
        for place, span in enumerate(tokenized.spans)
        if span is not None and row.context[slice(*span)].strip()
    ]
    answer = row.answers[0]
    end = answer.start + len(answer.text)
    inside = [
        number for number, (_, span) in enumerate(kept) if span[1] > answer.start and span[0] < end
    ]
    # Cut off amid the answer, its end would be learnt in the wrong place.
    whole = bool(inside) and kept[inside[-1]][1][1] >= answer.start + len(answer.text.rstrip())
    return Passage(
        context=row.context,
        places=tuple(place for place, _ in kept),
        spans=tuple(span for _, span in kept),
        learnt=(inside[0], inside[-1]) if whole else None,
        answers=tuple(each.text for each in row.answers),
    )


TASK = QuestionAnswering()
