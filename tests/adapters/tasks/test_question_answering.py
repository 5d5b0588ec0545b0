from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from isogloss.adapters.rows import Answer, QuestionRow
from isogloss.adapters.tasks import Objective
from isogloss.adapters.tasks.question_answering import TASK

if TYPE_CHECKING:
    from isogloss.adapters.tasks import Encoding

CONTEXT = "please bitte Bote kaputt und the parcel my invoice"


def row(answer: str) -> QuestionRow:
    start = CONTEXT.index(answer)
    return QuestionRow(
        question="my invoice?", context=CONTEXT, answers=(Answer(text=answer, start=start),)
    )


@pytest.mark.parametrize("answer", ["Bote kaputt", "please", "invoice", CONTEXT])
def test_the_span_that_is_learnt_is_the_answer(answer: str, encoding: Encoding) -> None:
    (example,) = TASK.encode([row(answer)], ["de"], encoding)
    assert example.target.learnt is not None
    assert example.rows[0].type_ids is None
    # Sure of both ends, it says the answer.
    logits = torch.zeros(len(example.rows[0].token_ids), 2)
    for column, number in enumerate(example.target.learnt):
        logits[example.target.places[number], column] = 30
    assert TASK.decide(example, [logits], ()) == answer
    figures = TASK.figures([example], [answer], ())
    assert figures.metrics == {"exact_match": 1, "f1": 1}
    assert TASK.loss([logits], [example], Objective()).item() == pytest.approx(0, abs=1e-6)


def test_an_answer_that_is_cut_off_is_not_learnt(encoding: Encoding) -> None:
    short = replace(encoding, limit=16)
    kept, lost = TASK.encode([row("please"), row("invoice")], ["de"] * 2, short)
    assert kept.truncated
    assert TASK.trainable(kept)
    assert not TASK.trainable(lost)


def test_english_drops_its_articles(encoding: Encoding) -> None:
    examples = TASK.encode([row("the parcel")] * 2, ["en-US", "de"], encoding)
    assert TASK.figures(examples, ["parcel", "parcel"], ()).metrics["exact_match"] == 0.5
