from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isogloss.core.base import locate_base
from isogloss.core.encoder import load_tokenizer
from isogloss.core.errors import InputError, UnsupportedBaseError
from isogloss.core.tokenization import RowTokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..conftest import TinyBase

    MakeTokenizer = Callable[[str], RowTokenizer]

MODEL_TYPES = ("xlm-roberta", "bert")
TEXT = "wo isch  mys päckli,\tes isch no nid aacho"


@pytest.fixture(scope="module")
def tokenizers(tiny_base: TinyBase) -> MakeTokenizer:
    made: dict[str, RowTokenizer] = {}

    def make(model_type: str) -> RowTokenizer:
        if model_type not in made:
            base = locate_base(tiny_base(model_type))
            made[model_type] = RowTokenizer(load_tokenizer(base), base.shape)
        return made[model_type]

    return make


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_words_of_a_text(tokenizers: MakeTokenizer, model_type: str) -> None:
    tokenizer = tokenizers(model_type)
    (found,) = tokenizer.words([TEXT])
    assert [word.text for word in found.words] == TEXT.split()
    assert [TEXT[word.start : word.end] for word in found.words] == TEXT.split()
    places = [word.token for word in found.words if word.token is not None]
    assert places[0] == 1
    assert places == sorted(set(places))
    assert len(places) == len(found.words)
    assert not found.truncated


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_word_is_answered_for_by_its_first_piece(
    tokenizers: MakeTokenizer, model_type: str
) -> None:
    tokenizer = tokenizers(model_type)
    words = TEXT.split()
    (found,) = tokenizer.words([words])
    for number, word in enumerate(found.words):
        (before,) = tokenizer.words([words[:number]]) if number else (None,)
        pieces = len(before.row.token_ids) - 1 if before else 1
        assert word.token == pieces


def test_lists_count_characters_in_the_joined_words(tokenizers: MakeTokenizer) -> None:
    words = ["New York", "isch", "päckli"]
    (found,) = tokenizers("bert").words([words])
    joined = " ".join(words)
    assert [joined[word.start : word.end] for word in found.words] == words
    (split,) = tokenizers("bert").words([joined])
    assert [word.text for word in split.words] == joined.split()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_words_that_are_cut_off_have_no_token(tokenizers: MakeTokenizer, model_type: str) -> None:
    (short, long) = tokenizers(model_type).words([["fox"], ["fox"] * 90])
    assert (short.truncated, long.truncated) == (False, True)
    assert len(long.words) == 90
    kept = [word.token is not None for word in long.words]
    assert kept == sorted(kept, reverse=True)
    assert any(kept)
    assert not all(kept)


def test_words_that_the_tokenizer_drops_have_no_token(tokenizers: MakeTokenizer) -> None:
    (found,) = tokenizers("bert").words([["fox", "\u200b", "dog"]])
    assert [word.token is not None for word in found.words] == [True, False, True]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_spans_of_a_pair_are_those_of_its_second_text(
    tokenizers: MakeTokenizer, model_type: str
) -> None:
    context = "the quick brown fox"
    (found,) = tokenizers(model_type).rows([("wo isch", context)], spans=True)
    assert len(found.spans) == len(found.row.token_ids)
    kept = [span for span in found.spans if span is not None]
    assert "".join(context[start:end] for start, end in kept).split() == context.split() or (
        "".join(context[start:end] for start, end in kept) == context.replace(" ", "")
    )
    assert found.spans[0] is None
    assert found.spans[-1] is None
    (single,) = tokenizers(model_type).rows([context], spans=True)
    assert [span for span in single.spans if span] == kept


def test_spans_only_where_asked_for(tokenizers: MakeTokenizer) -> None:
    (found,) = tokenizers("bert").rows(["fox"])
    assert found.spans == ()
    assert found.words == ()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("limit", [5, 11, 40])
def test_limits(tokenizers: MakeTokenizer, model_type: str, limit: int) -> None:
    tokenizer = tokenizers(model_type)
    long = "the quick brown fox " * 20
    free, cut, pair = tokenizer.rows([long, long, (long, long)], limits=[40, limit, limit])
    assert (len(free.row.token_ids), len(cut.row.token_ids)) == (40, limit)
    assert len(pair.row.token_ids) == limit
    assert all(found.truncated for found in (free, cut, pair))
    (words,) = tokenizer.words([long], limits=[limit])
    assert len(words.row.token_ids) == limit


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_limit_that_leaves_no_room(tokenizers: MakeTokenizer, model_type: str) -> None:
    with pytest.raises(InputError, match=r"2 tokens are left .* shorter prefix"):
        tokenizers(model_type).rows(["the quick brown fox"], limits=[2])


@pytest.mark.parametrize(
    "text",
    ["", " ", [], [""], ["fox", " "], ["fox", 1], None, 5, ("fox", "dog"), ["lone \ud800"]],
    ids=repr,
)
def test_what_is_no_list_of_words(tokenizers: MakeTokenizer, text: Any) -> None:
    with pytest.raises(InputError, match="text 1") as caught:
        tokenizers("bert").words(["fox", text])
    assert "\n" not in str(caught.value)


def test_no_texts(tokenizers: MakeTokenizer) -> None:
    assert tokenizers("bert").words([]) == []
    assert tokenizers("bert").rows([]) == []


def test_a_tokenizer_that_does_not_say_where_tokens_come_from(
    tokenizers: MakeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BatchEncoding

    tokenizer = tokenizers("bert")
    monkeypatch.setattr(BatchEncoding, "encodings", None)
    assert tokenizer.rows(["fox"])[0].row.token_ids
    with pytest.raises(UnsupportedBaseError, match=r"tokenizer\.json"):
        tokenizer.words(["fox"])


def test_many_texts_equal_each_alone(tokenizers: MakeTokenizer) -> None:
    tokenizer = tokenizers("xlm-roberta")
    texts = [f"fox {number} " * (number % 30 + 1) for number in range(1100)]
    rows = tokenizer.rows(texts)
    for place in (0, 29, 511, 512, 1023, 1024, 1099):
        assert tokenizer.rows([texts[place]]) == [rows[place]]


def test_threads_cut_texts_at_once(tokenizers: MakeTokenizer) -> None:
    tokenizer = tokenizers("xlm-roberta")
    long = "the quick brown fox " * 20
    expected = tokenizer.rows([long, "fox"], limits=[11, 40])
    wrong = []

    def ask() -> None:
        for limit in (40, 11, 7) * 10:
            found = tokenizer.rows([long, "fox"], limits=[limit, 40])
            if len(found[0].row.token_ids) != limit or found[1] != expected[1]:
                wrong.append(found)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    words=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=30),
    model_type=st.sampled_from(MODEL_TYPES),
)
def test_any_words_keep_their_places(
    tokenizers: MakeTokenizer, words: list[str], model_type: str
) -> None:
    try:
        (found,) = tokenizers(model_type).words([words])
    except InputError:
        assert any(not word.strip() for word in words)
        return
    joined = " ".join(words)
    assert [joined[word.start : word.end] for word in found.words] == words
    places = [word.token for word in found.words if word.token is not None]
    assert places == sorted(set(places))
    assert all(0 < place < len(found.row.token_ids) for place in places)
