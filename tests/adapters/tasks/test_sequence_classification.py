from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from isogloss.adapters.rows import ClassificationRow
from isogloss.adapters.tasks import TASKS, Objective
from isogloss.adapters.tasks.sequence_classification import TASK

if TYPE_CHECKING:
    from isogloss.adapters.tasks import Encoding

LABELS = ("a", "b")


def test_every_type_of_task_is_there_under_its_name() -> None:
    assert len(TASKS) == 6
    assert all(task.task_type == name == task.layout.task_type for name, task in TASKS.items())


def test_singles_and_pairs(encoding: Encoding) -> None:
    rows = [
        ClassificationRow(text="parcel", pair="my invoice", label="b"),
        ClassificationRow(text="parcel", label="new"),
    ]
    pair, single = TASK.encode(rows, ["de", "gsw"], replace(encoding, labels=LABELS))
    assert len(pair.rows[0].token_ids) > len(single.rows[0].token_ids)
    assert (pair.target, single.locale) == (1, "gsw")
    figures = TASK.figures([pair, single], ["b", "b"], LABELS)
    assert figures.metrics["accuracy"] == 0.5
    assert figures.per_label == {"b": pytest.approx(2 / 3), "new": 0.0}


def test_weights_and_smoothing_are_torchs(encoding: Encoding) -> None:
    rows = [ClassificationRow(text="parcel", label=label) for label in "abb"]
    examples = TASK.encode(rows, ["de"] * 3, replace(encoding, labels=LABELS))
    logits = torch.tensor([[0.3, -1.0], [2.0, 0.1], [0.0, 0.4]])
    objective = Objective(class_weights=(3.0, 0.5), smoothing=0.1)
    loss = TASK.loss(list(logits), examples, objective) / TASK.weight(examples, objective)
    expected = torch.nn.functional.cross_entropy(
        logits, torch.tensor([0, 1, 1]), weight=torch.tensor([3.0, 0.5]), label_smoothing=0.1
    )
    torch.testing.assert_close(loss, expected)
