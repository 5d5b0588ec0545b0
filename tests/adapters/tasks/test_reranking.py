from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

from isogloss.adapters.rows import RankingRow
from isogloss.adapters.tasks import Objective
from isogloss.adapters.tasks.reranking import TASK

if TYPE_CHECKING:
    from isogloss.adapters.tasks import Encoding


def rows(*grades: int) -> list[RankingRow]:
    return [
        RankingRow(query="parcel", text=f"Bote {place}", grade=grade, group="1")
        for place, grade in enumerate(grades)
    ]


def test_the_loss_is_that_of_grades_as_shares(encoding: Encoding) -> None:
    examples = TASK.encode(rows(0, 1, 2), ["de"] * 3, encoding)
    answers = [torch.tensor([logit]) for logit in (0.5, -1.0, 2.0)]

    def loss(logit: float, wanted: float) -> float:
        sure = 1 / (1 + math.exp(-logit))
        return -wanted * math.log(sure) - (1 - wanted) * math.log(1 - sure)

    found = TASK.loss(answers, examples, Objective(top_grade=2))
    assert found.item() == pytest.approx(loss(0.5, 0) + loss(-1, 0.5) + loss(2, 1), rel=1e-5)
    smoothed = TASK.loss(answers, examples, Objective(top_grade=2, smoothing=0.2))
    expected = loss(0.5, 0.1) + loss(-1, 0.5) + loss(2, 0.9)
    assert smoothed.item() == pytest.approx(expected, rel=1e-5)


def test_queries_of_two_locales_are_two_groups(encoding: Encoding) -> None:
    examples = TASK.encode(rows(0, 1), ["de", "gsw"], encoding)
    assert len({example.target.group for example in examples}) == 2
    together = TASK.encode(rows(0, 1), ["de", "de"], encoding)
    assert TASK.figures(together, [1.0, 0.0], ()).metrics["mrr"] == 0.5
    assert TASK.figures(together, [0.0, 1.0], ()).metrics == {"ndcg_at_10": 1, "mrr": 1}
