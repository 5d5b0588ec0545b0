from __future__ import annotations

import pytest
import torch

from isogloss.core.packing import Row
from isogloss.core.tokenization import Tokenized, Word
from isogloss.serving.decoding import (
    LONGEST_ANSWER,
    decode_answer,
    decode_classes,
    decode_masks,
    decode_words,
)


def in_context(context: str, width: int = 1) -> Tokenized:
    """A question of two tokens, then a token for every `width` characters of a context."""
    spans = [(at, at + width) for at in range(0, len(context), width)]
    row = Row(token_ids=(0,) * (len(spans) + 3))
    return Tokenized(row=row, truncated=False, spans=(None, None, *spans, None))


def test_probabilities_sum_to_one() -> None:
    found = decode_classes(torch.tensor([1.0, 3.0, 2.0]), ("a", "b", "c"))
    assert (found["label"], found["logits"]) == ("b", (1.0, 3.0, 2.0))
    assert sum(found["scores"].values()) == pytest.approx(1)
    assert found["score"] == max(found["scores"].values())


def test_one_label_has_a_probability_of_its_own() -> None:
    found = decode_classes(torch.tensor([-1.0]), ("relevance",))
    assert found["scores"] == {"relevance": pytest.approx(0.2689414)}


def test_words_without_a_token_are_left_out() -> None:
    words = [
        Word(text="a", start=0, end=1, token=1),
        Word(text="b", start=2, end=3, token=None),
        Word(text="c", start=4, end=5, token=2),
    ]
    logits = torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 0.0]])
    tokens = decode_words(logits, words, ("x", "y"))["tokens"]
    assert [(token.text, token.label) for token in tokens] == [("a", "y"), ("c", "x")]


def test_an_answer_ends_where_or_after_it_begins() -> None:
    context = "abcdef"
    logits = torch.zeros(9, 2)
    logits[2 + 4, 0] = 9.0  # the best first token stands behind the best last one
    logits[2 + 1, 1] = 9.0
    logits[2 + 5, 1] = 5.0
    found = decode_answer(logits, in_context(context), context)
    assert found["answer"] == "ef"
    (token,) = found["tokens"]
    assert (token.start, token.end) == (4, 6)


def test_an_answer_neither_begins_nor_ends_with_a_space() -> None:
    context = "ab cd"
    logits = torch.zeros(8, 2)
    logits[2 + 2] = 9.0
    found = decode_answer(logits, in_context(context), context)
    assert found["answer"] == found["answer"].strip() != ""


def test_no_answer_is_very_long() -> None:
    context = "x" * (3 * LONGEST_ANSWER)
    logits = torch.zeros(len(context) + 3, 2)
    logits[2, 0] = logits[2 + len(context) - 1, 1] = 9.0
    found = decode_answer(logits, in_context(context), context)
    assert len(found["answer"]) <= LONGEST_ANSWER


def test_no_answer_in_the_question() -> None:
    context = "abc"
    logits = torch.zeros(6, 2)
    logits[0] = logits[1] = logits[5] = 50.0
    logits[3] = 1.0
    assert decode_answer(logits, in_context(context), context)["answer"] == "b"


def test_pieces_that_read_alike_are_named_once() -> None:
    logits = torch.tensor([[1.0, 5.0, 4.0, 3.0, 0.0, -1.0]])
    found = decode_masks(logits, [(0, 6)], "<mask>", lambda token: "abbcde"[token])
    assert list(found["scores"]) == ["b", "c", "a", "d"]
    assert found["logits"] == (5.0, 3.0, 1.0, 0.0)
    assert found["label"] == "b"
    assert found["score"] == found["scores"]["b"] == pytest.approx(float(logits.softmax(-1)[0, 1]))
