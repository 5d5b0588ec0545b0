from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from isogloss.adapters.rows import TaggingRow
from isogloss.adapters.tasks import Objective
from isogloss.adapters.tasks.token_classification import TASK

if TYPE_CHECKING:
    from isogloss.adapters.tasks import Encoding

WORDS = ("the", "parcelparcel", "bitte", "Bote")
ROW = TaggingRow(tokens=WORDS, tags=("O", "B-GOODS", "O", "B-RARE"))


def test_the_first_piece_of_each_word_is_labelled(encoding: Encoding) -> None:
    (example,) = TASK.encode([ROW], ["de"], encoding)
    places = [place for place in example.target.places if place is not None]
    assert len(places) == len(WORDS)
    assert places == sorted(places)
    # What training never saw is not learnt, but counts as a mistake.
    assert example.target.learnt == tuple(zip(places[:3], (1, 0, 1), strict=True))
    logits = torch.zeros(len(example.rows[0].token_ids), 2)
    for place, tag in example.target.learnt:
        logits[place, tag] = 40
    assert TASK.decide(example, [logits], encoding.labels) == ["O", "B-GOODS", "O", "B-GOODS"]
    objective = Objective(class_weights=(3.0, 0.5))
    assert TASK.weight([example], objective) == 4.0
    assert TASK.loss([logits], [example], objective).item() == pytest.approx(0, abs=1e-6)


def test_words_that_were_cut_off_are_outside(encoding: Encoding) -> None:
    (example,) = TASK.encode([ROW], ["de"], replace(encoding, limit=4))
    assert example.truncated
    assert example.target.places[-1] is None
    logits = torch.zeros(len(example.rows[0].token_ids), 2)
    assert TASK.decide(example, [logits], encoding.labels)[-1] == "O"


def test_single_words_labels_count_alike(encoding: Encoding) -> None:
    row = TaggingRow(tokens=WORDS, tags=("DET", "NOUN", "INTJ", "NOUN"))
    examples = TASK.encode([row], ["de"], replace(encoding, labels=("DET", "INTJ", "NOUN")))
    figures = TASK.figures(examples, [["DET", "NOUN", "NOUN", "NOUN"]], ())
    assert figures.metrics["accuracy"] == 0.75
    assert figures.metrics["f1"] == figures.metrics["macro_f1"] == pytest.approx((1 + 0 + 0.8) / 3)
    assert figures.per_label == {"DET": 1.0, "INTJ": 0.0, "NOUN": pytest.approx(0.8)}
