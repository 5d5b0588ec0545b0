"""A text becomes a vector, near those of texts that mean the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..metrics import retrieval_metrics
from ..row_layouts import EMBEDDING
from .task import Drawn, Encoding, Example, Figures, Objective, split_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ...core.packing import Row
    from ..row_layouts import RowLayout
    from ..rows import EmbeddingRow
    from ..spec import TaskType


@dataclass(frozen=True)
class Embedding(Drawn):
    """In-batch contrastive loss (InfoNCE, https://arxiv.org/abs/1807.03748); recall@k and MRR.

    Every other text of a batch is a negative of an anchor, hard negatives among them; a text equal
    to its positive, or that is a positive of an equal anchor, is not. A text is the mean of its
    tokens, normalised.
    """

    task_type: TaskType = "embedding"
    layout: RowLayout[EmbeddingRow] = EMBEDDING
    host: str = "AutoModel"
    peft_task: str | None = "FEATURE_EXTRACTION"
    head: tuple[str, ...] = ()
    first_tokens: bool = False
    metric: str = "mrr"
    lower_is_better: bool = False

    def outputs(self, labels: Sequence[str]) -> int | None:  # noqa: ARG002
        """There is no head."""
        return None

    def encode(
        self, rows: Sequence[EmbeddingRow], locales: Sequence[str], encoding: Encoding
    ) -> list[Example[None]]:
        """Anchor, positive, and hard negatives."""
        texts = [text for row in rows for text in (row.anchor, row.positive, *row.negatives)]
        found = iter(encoding.tokenizer.rows(texts, limits=[encoding.limit] * len(texts)))
        examples = []
        for row, locale in zip(rows, locales, strict=True):
            own = [next(found) for _ in range(2 + len(row.negatives))]
            examples.append(
                Example(
                    rows=tuple(each.row for each in own),
                    target=None,
                    locale=locale,
                    truncated=any(each.truncated for each in own),
                )
            )
        return examples

    def answers(
        self,
        host: Any,  # noqa: ARG002
        hidden: torch.Tensor,
        spans: Sequence[tuple[int, int]],
        examples: Sequence[Example[None]],  # noqa: ARG002
    ) -> list[torch.Tensor]:
        """`[width]` for each text."""
        import torch

        means = torch.stack([part.float().mean(dim=0) for part in split_rows(hidden, spans)])
        return list(torch.nn.functional.normalize(means, dim=1).unbind())

    def weight(self, examples: Sequence[Example[None]], objective: Objective) -> float:  # noqa: ARG002
        """How many anchors there are."""
        return float(len(examples))

    def loss(
        self,
        answers: Sequence[torch.Tensor],
        examples: Sequence[Example[None]],
        objective: Objective,
    ) -> torch.Tensor:
        """Cross-entropy over all texts but the anchors."""
        import torch

        texts = [row for example in examples for row in example.rows]
        anchors: list[int] = []
        documents: list[int] = []
        own: list[int] = []
        place = 0
        for example in examples:
            anchors.append(place)
            own.append(len(documents))
            documents += range(place + 1, place + len(example.rows))
            place += len(example.rows)
        vectors = torch.stack(list(answers))
        # [anchors, documents]
        scores = vectors[anchors] @ vectors[documents].T / objective.temperature
        belongs: dict[Row, set[Row]] = {}
        for example in examples:
            belongs.setdefault(example.rows[0], set()).add(example.rows[1])
        alike = [
            [texts[at] in belongs[example.rows[0]] for at in documents] for example in examples
        ]
        hidden = torch.tensor(alike, device=scores.device)
        hidden[torch.arange(len(own)), own] = False
        return torch.nn.functional.cross_entropy(
            scores.masked_fill(hidden, -torch.inf),
            torch.tensor(own, device=scores.device),
            reduction="sum",
        )

    def decide(
        self,
        example: Example[None],  # noqa: ARG002
        answers: Sequence[torch.Tensor],
        labels: Sequence[str],  # noqa: ARG002
    ) -> list[NDArray[np.float32]]:
        """The vectors."""
        return [answer.cpu().numpy() for answer in answers]

    def figures(
        self,
        examples: Sequence[Example[None]],
        decisions: Sequence[list[NDArray[np.float32]]],
        labels: Sequence[str],  # noqa: ARG002
    ) -> Figures:
        """Each anchor seeks its own among all positives and negatives."""
        import numpy as np

        queries: dict[Row, NDArray[np.float32]] = {}
        documents: dict[Row, NDArray[np.float32]] = {}
        relevant: dict[Row, set[Row]] = {}
        for example, vectors in zip(examples, decisions, strict=True):
            anchor, positive, *_ = example.rows
            queries[anchor] = vectors[0]
            relevant.setdefault(anchor, set()).add(positive)
            documents.update(zip(example.rows[1:], vectors[1:], strict=True))
        places = {row: place for place, row in enumerate(documents)}
        scores = np.stack(list(queries.values())) @ np.stack(list(documents.values())).T
        own = [{places[row] for row in relevant[anchor]} for anchor in queries]
        return Figures(metrics=retrieval_metrics(scores, own))


TASK = Embedding()
