"""Guess the masked tokens of a text: language adapters are trained so, on plain text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...core.errors import UnsupportedBaseError
from ..metrics import perplexity
from ..row_layouts import PLAIN
from .task import Encoding, Example, Figures, Objective

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import torch

    from ...core.packing import Row
    from ..row_layouts import RowLayout
    from ..rows import PlainRow
    from ..spec import TaskType

# BERT's: so many tokens are guessed, of which so many are masked, and so many are another's.
MASKED, HIDDEN, SWAPPED = 0.15, 0.8, 0.1


@dataclass(frozen=True, kw_only=True)
class Masks:
    """What is to be guessed in a text."""

    places: tuple[int, ...] = ()
    """Tokens."""
    ids: tuple[int, ...] = ()
    """What stands there."""


@dataclass(frozen=True)
class MaskedLM:
    """Cross-entropy over masked tokens (https://arxiv.org/abs/1810.04805); perplexity.

    Masks are drawn anew in each epoch; those of the dev rows stay the same.
    """

    task_type: TaskType = "masked-lm"
    layout: RowLayout[PlainRow] = PLAIN
    host: str = "AutoModelForMaskedLM"
    peft_task: str | None = None
    head: tuple[str, ...] = ()
    first_tokens: bool = False
    metric: str = "perplexity"
    lower_is_better: bool = True

    def outputs(self, labels: Sequence[str]) -> int | None:  # noqa: ARG002
        """Those of the base's own head."""
        return None

    def encode(
        self, rows: Sequence[PlainRow], locales: Sequence[str], encoding: Encoding
    ) -> list[Example[Masks]]:
        """A text without masks.

        Raises:
            UnsupportedBaseError: the base's tokenizer has no mask.
        """
        if encoding.tokenizer.mask_id is None:
            raise UnsupportedBaseError(
                "the base's tokenizer has no mask token, which masked-lm needs; use another base"
            )
        found = encoding.tokenizer.rows(
            [row.text for row in rows], limits=[encoding.limit] * len(rows)
        )
        return [
            Example(
                rows=(tokenized.row,), target=Masks(), locale=locale, truncated=tokenized.truncated
            )
            for locale, tokenized in zip(locales, found, strict=True)
        ]

    def trainable(self, example: Example[Masks]) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def draw(
        self, examples: Sequence[Example[Masks]], encoding: Encoding, generator: np.random.Generator
    ) -> list[Example[Masks]]:
        """The same texts with masks: at least one each, unless it has special tokens only."""
        return [self._masked(example, encoding, generator) for example in examples]

    def _masked(
        self, example: Example[Masks], encoding: Encoding, generator: np.random.Generator
    ) -> Example[Masks]:
        ids = list(example.rows[0].token_ids)
        candidates = [at for at, token in enumerate(ids) if token not in encoding.special]
        if not candidates:
            return example
        count = max(1, round(MASKED * len(candidates)))
        places = sorted(generator.choice(candidates, size=count, replace=False).tolist())
        known = tuple(ids[place] for place in places)
        mask = encoding.tokenizer.mask_id
        assert mask is not None, "encode has looked"
        for place in places:
            chance = generator.random()
            if chance < HIDDEN:
                ids[place] = mask
            elif chance < HIDDEN + SWAPPED:
                ids[place] = int(generator.integers(encoding.pieces))
        row: Row = replace(example.rows[0], token_ids=tuple(ids))
        return replace(example, rows=(row,), target=Masks(places=tuple(places), ids=known))

    def answers(
        self,
        host: Any,
        hidden: torch.Tensor,
        spans: Sequence[tuple[int, int]],
        examples: Sequence[Example[Masks]],
    ) -> list[torch.Tensor]:
        """`[masks, vocabulary]` for each text."""
        import torch

        places = [
            begin + place
            for (begin, _), example in zip(spans, examples, strict=True)
            for place in example.target.places
        ]
        head = host.lm_head if hasattr(host, "lm_head") else host.cls.predictions
        logits: torch.Tensor = head(hidden[places])
        return list(torch.split(logits, [len(example.target.places) for example in examples]))

    def weight(self, examples: Sequence[Example[Masks]], objective: Objective) -> float:  # noqa: ARG002
        """How many tokens are masked."""
        return float(sum(len(example.target.places) for example in examples))

    def loss(
        self,
        answers: Sequence[torch.Tensor],
        examples: Sequence[Example[Masks]],
        objective: Objective,
    ) -> torch.Tensor:
        """Cross-entropy."""
        import torch

        logits = torch.cat(list(answers)).float()
        ids = [token for example in examples for token in example.target.ids]
        return torch.nn.functional.cross_entropy(
            logits,
            torch.tensor(ids, device=logits.device),
            label_smoothing=objective.smoothing,
            reduction="sum",
        )

    def decide(
        self,
        example: Example[Masks],
        answers: Sequence[torch.Tensor],
        labels: Sequence[str],  # noqa: ARG002
    ) -> tuple[float, int]:
        """The mean loss of its masks in nats, and how many there are."""
        if not example.target.places:
            return 0.0, 0
        total = float(self.loss(answers, [example], Objective()))
        return total / len(example.target.places), len(example.target.places)

    def figures(
        self,
        examples: Sequence[Example[Masks]],  # noqa: ARG002
        decisions: Sequence[tuple[float, int]],
        labels: Sequence[str],  # noqa: ARG002
    ) -> Figures:
        """Loss and perplexity."""
        return Figures(
            metrics=perplexity([loss for loss, _ in decisions], [count for _, count in decisions])
        )


TASK = MaskedLM()
