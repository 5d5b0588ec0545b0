"""How well a text answers a query: one logit for the pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..metrics import ranking_metrics
from ..row_layouts import RANKING
from .task import Drawn, Encoding, Example, Figures, Objective, first_token_logits

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..row_layouts import RowLayout
    from ..rows import RankingRow
    from ..spec import TaskType


@dataclass(frozen=True, kw_only=True)
class Graded:
    """How good a text is for its query."""

    grade: int
    """0: does not answer."""
    group: str
    """The query."""


@dataclass(frozen=True)
class Reranking(Drawn):
    """Binary cross-entropy against grade / best grade; nDCG and MRR within each query."""

    task_type: TaskType = "reranking"
    layout: RowLayout[RankingRow] = RANKING
    host: str = "AutoModelForSequenceClassification"
    peft_task: str | None = "SEQ_CLS"
    head: tuple[str, ...] = ("classifier",)
    first_tokens: bool = True
    metric: str = "ndcg_at_10"
    lower_is_better: bool = False

    def outputs(self, labels: Sequence[str]) -> int | None:  # noqa: ARG002
        """One."""
        return 1

    def encode(
        self, rows: Sequence[RankingRow], locales: Sequence[str], encoding: Encoding
    ) -> list[Example[Graded]]:
        """A pair of query and text."""
        found = encoding.tokenizer.rows(
            [(row.query, row.text) for row in rows], limits=[encoding.limit] * len(rows)
        )
        return [
            Example(
                rows=(tokenized.row,),
                target=Graded(grade=row.grade, group=f"{locale} {row.group}"),
                locale=locale,
                labels=(str(row.grade),),
                truncated=tokenized.truncated,
            )
            for row, locale, tokenized in zip(rows, locales, found, strict=True)
        ]

    def answers(
        self,
        host: Any,
        hidden: torch.Tensor,
        spans: Sequence[tuple[int, int]],  # noqa: ARG002
        examples: Sequence[Example[Graded]],  # noqa: ARG002
    ) -> list[torch.Tensor]:
        """`[1]` for each pair."""
        return list(first_token_logits(host, hidden).unbind())

    def weight(self, examples: Sequence[Example[Graded]], objective: Objective) -> float:  # noqa: ARG002
        """How many pairs there are."""
        return float(len(examples))

    def loss(
        self,
        answers: Sequence[torch.Tensor],
        examples: Sequence[Example[Graded]],
        objective: Objective,
    ) -> torch.Tensor:
        """Binary cross-entropy."""
        import torch

        logits = torch.cat(list(answers)).float()
        grades = logits.new_tensor([example.target.grade for example in examples])
        wanted = grades.clamp(max=objective.top_grade) / objective.top_grade
        half = objective.smoothing / 2
        return torch.nn.functional.binary_cross_entropy_with_logits(
            logits, wanted * (1 - 2 * half) + half, reduction="sum"
        )

    def decide(
        self,
        example: Example[Graded],  # noqa: ARG002
        answers: Sequence[torch.Tensor],
        labels: Sequence[str],  # noqa: ARG002
    ) -> float:
        """The logit."""
        return float(answers[0])

    def figures(
        self,
        examples: Sequence[Example[Graded]],
        decisions: Sequence[float],
        labels: Sequence[str],  # noqa: ARG002
    ) -> Figures:
        """Of the order within each query."""
        targets = [example.target for example in examples]
        return Figures(
            metrics=ranking_metrics(
                list(decisions),
                [target.grade for target in targets],
                [target.group for target in targets],
            )
        )


TASK = Reranking()
