from __future__ import annotations

import math

import pytest
import torch

from isogloss.adapters.tasks import Example, Objective
from isogloss.adapters.tasks.embedding import TASK
from isogloss.core.packing import Row


def example(*texts: int) -> Example[None]:
    return Example(rows=tuple(Row(token_ids=(text,)) for text in texts), target=None, locale="de")


def vectors(*angles: float) -> list[torch.Tensor]:
    return [torch.tensor([math.cos(angle), math.sin(angle)]) for angle in angles]


def cross_entropy(scores: list[float]) -> float:
    """Of the first of them."""
    return math.log(sum(math.exp(score) for score in scores)) - scores[0]


def test_every_other_text_is_a_negative() -> None:
    examples = [example(1, 2, 3), example(4, 5)]
    answers = vectors(0.0, 0.1, 0.5, 1.0, 1.2)
    loss = TASK.loss(answers, examples, Objective(temperature=0.5))

    def score(one: float, other: float) -> float:
        return math.cos(one - other) / 0.5

    expected = cross_entropy([score(0, 0.1), score(0, 0.5), score(0, 1.2)])
    expected += cross_entropy([score(1, 1.2), score(1, 0.1), score(1, 0.5)])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert TASK.weight(examples, Objective()) == 2


def test_what_belongs_to_an_equal_anchor_is_no_negative() -> None:
    """Nor is a text that equals the positive."""
    answers = vectors(0.0, 0.1, 0.0, 0.3, 1.0, 0.1)
    same_anchor = [example(1, 2), example(1, 3), example(4, 2)]
    loss = TASK.loss(answers, same_anchor, Objective(temperature=1.0))
    # Anchor 1 has only its own positives before it; anchor 4 has 3 as its negative.
    own = cross_entropy([math.cos(1.0 - 0.1), math.cos(1.0 - 0.3)])
    assert loss.item() == pytest.approx(own, rel=1e-5)


def test_an_anchor_seeks_all_its_positives() -> None:
    examples = [example(1, 2, 5), example(1, 3), example(4, 5)]
    decisions = [
        [vector.numpy() for vector in part]
        for part in (vectors(0.0, 0.1, 0.4), vectors(0.0, 0.2), vectors(0.5, 0.4))
    ]
    metrics = TASK.figures(examples, decisions, ()).metrics
    assert metrics == {"recall_at_1": 0.75, "recall_at_5": 1, "recall_at_10": 1, "mrr": 1}
