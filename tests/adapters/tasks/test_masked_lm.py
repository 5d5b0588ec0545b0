from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from isogloss.adapters.rows import PlainRow
from isogloss.adapters.tasks.masked_lm import TASK

if TYPE_CHECKING:
    from isogloss.adapters.tasks import Encoding


def test_masks_are_drawn_as_bert_does(encoding: Encoding) -> None:
    text = "parcel invoice refund Karte Bote kaputt please bitte und"
    examples = TASK.encode([PlainRow(text=text)] * 400, ["de"] * 400, encoding)
    drawn = TASK.draw(examples, encoding, np.random.default_rng(0))
    again = TASK.draw(examples, encoding, np.random.default_rng(0))
    assert drawn == again
    assert TASK.draw(examples, encoding, np.random.default_rng(1)) != drawn
    mask = encoding.tokenizer.mask_id
    kinds = {"mask": 0, "same": 0, "other": 0}
    for before, after in zip(examples, drawn, strict=True):
        ids, masked = before.rows[0].token_ids, after.rows[0].token_ids
        places = after.target.places
        assert after.target.ids == tuple(ids[place] for place in places)
        assert len(places) == max(1, round(0.15 * (len(ids) - 2)))
        assert not {0, len(ids) - 1} & {*places}  # <s> and </s>
        for place, (one, other) in enumerate(zip(ids, masked, strict=True)):
            if place not in places:
                assert one == other
            else:
                kinds["mask" if other == mask else "same" if other == one else "other"] += 1
    total = sum(kinds.values())
    assert kinds["mask"] / total == pytest.approx(0.8, abs=0.05)
    assert kinds["same"] / total == pytest.approx(0.1, abs=0.05)
