from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from isogloss.adapters.tokenizing import BYTE_TOKENS, train_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = (
    "Paket Pakete Paketen Paketes parcel parcels",  # pieces longer than a character
    "wo isch mys päckli, es isch no nid aacho",
    "привет, где мой заказ",
    "我的订单在哪里",
    "ฉันต้องการคืนสินค้า",
    "مرحبا أين طلبي",
    "τι ώρα είναι",
) * 20
ALL_CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
# Python takes the four separators of ASCII for white space; Unicode and the tokenizer don't.
ASCII_SEPARATORS = "\x1c\x1d\x1e\x1f"
SPACE_MARK = "▁"  # stands for a space in the pieces, and so can't stand for itself

# Written out in a text, they are taken for special tokens, as every Hugging Face tokenizer does.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")

texts = st.text().filter(lambda text: not any(mark in text for mark in (*SPECIAL, SPACE_MARK)))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, vocab_size=1000, max_length=64)


def round_trip(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return str(tokenizer.decode(ids))


def normalized(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())


def in_texts(characters: list[str]) -> list[str]:
    """Texts of 64 of the characters each, letters between them."""
    return [
        "".join(f"a{character}b" for character in characters[first : first + 64])
        for first in range(0, len(characters), 64)
    ]


def assigned_in_unicode_3_2(character: str) -> bool:
    return unicodedata.ucd_3_2_0.category(character) not in {"Cn", "Cs"}


def test_special_tokens_stand_where_xlm_r_has_them(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids(["<s>", "<pad>", "</s>", "<unk>"]) == [0, 1, 2, 3]
    assert tokenizer.mask_token_id == len(tokenizer) - 1
    assert (tokenizer.cls_token, tokenizer.sep_token) == ("<s>", "</s>")
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (1, 3)


def test_sequences_and_pairs_are_framed_as_in_xlm_r(tokenizer: PreTrainedTokenizerFast) -> None:
    def plain(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    first, second = "где мой заказ", "päckli"
    assert tokenizer(first)["input_ids"] == [0, *plain(first), 2]
    assert tokenizer(first, second)["input_ids"] == [0, *plain(first), 2, 2, *plain(second), 2]


def test_every_byte_has_a_piece_dearer_than_any_other(tokenizer: PreTrainedTokenizerFast) -> None:
    vocabulary = tokenizer.get_vocab()
    assert len({vocabulary[token] for token in BYTE_TOKENS}) == 256
    # Frequent words are pieces, not bytes.
    assert not set(tokenizer.tokenize("".join(TEXTS[:7]))) & set(BYTE_TOKENS)


def test_no_character_is_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    # All of the basic plane, and some of the others'.
    encoded = tokenizer(in_texts(ALL_CHARACTERS[:0xF800] + ALL_CHARACTERS[0xF800::19]))["input_ids"]
    assert not [number for number, ids in enumerate(encoded) if tokenizer.unk_token_id in ids]


def test_every_old_character_comes_back_in_its_nfkc_form(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Old: in Unicode 3.2. The tokenizers library's tables lack the newest forms."""
    characters = [
        character
        for character in ALL_CHARACTERS
        if assigned_in_unicode_3_2(character) and character not in SPACE_MARK + ASCII_SEPARATORS
    ]
    assert len(characters) > 90_000
    for text in in_texts(characters):
        assert round_trip(tokenizer, text) == normalized(text)


@settings(max_examples=300, deadline=None)
@given(text=texts)
@example("👩‍👩‍👧 𓀀 ሀ ﷽ ﬁ ①  \t\n x")
@example(" .a , b'c n't ")
@example("<0x41> <0xE4>")
@example("")
def test_a_text_comes_back_in_the_normalizers_form(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert round_trip(tokenizer, text) == tokenizer.backend_tokenizer.normalizer.normalize_str(text)


@settings(max_examples=200, deadline=None)
@given(
    text=st.text(st.characters(exclude_characters=ASCII_SEPARATORS).filter(assigned_in_unicode_3_2))
)
def test_the_normalizers_form_is_nfkc_with_single_spaces(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert tokenizer.backend_tokenizer.normalizer.normalize_str(text) == normalized(text)


def test_it_is_the_same_after_saving(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS[:7], "😀 new text"):
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.model_max_length == 64


def test_training_is_deterministic(tokenizer: PreTrainedTokenizerFast) -> None:
    for _ in range(3):
        again = train_tokenizer(TEXTS, vocab_size=1000, max_length=64)
        assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
