"""Texts to rows of token ids, and from tokens back to the words and characters of a text."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import InputError, UnsupportedBaseError
from .packing import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from .base import EncoderShape

_WORD = re.compile(r"\S+")
# Between so many texts, other threads get their turn.
_TEXTS_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word of a text, and the token that answers for it."""

    text: str
    """The word itself."""
    start: int
    """First character in the text."""
    end: int
    """Character after the last."""
    token: int | None
    """Place of its first piece in the row; None: it was cut off, or the tokenizer drops it."""


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """One text as a row, and what of the text its tokens are."""

    row: Row
    """Its ids, on the bare base."""
    truncated: bool
    """Whether the text was cut to the longest that fits."""
    words: tuple[Word, ...] = ()
    """The words of a text that was split into words."""
    spans: tuple[tuple[int, int] | None, ...] = field(default=(), repr=False)
    """For each token its first character and the one after the last, in the second text of a pair
    or in the only one; None for tokens of the first and for special ones. Where asked for."""


class RowTokenizer:
    """A base's tokenizer; threads may use it at once.

    Args:
        tokenizer: transformers' own.
        shape: the base's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, shape: EncoderShape) -> None:
        self._tokenizer = tokenizer
        self._shape = shape
        # Cutting a text switches the one tokenizer's truncation on and off again.
        self._lock = threading.Lock()

    @property
    def mask_token(self) -> str | None:
        """What stands for a word that is to be guessed."""
        token: str | None = self._tokenizer.mask_token
        return token

    @property
    def mask_id(self) -> int | None:
        """Its id; None: the tokenizer has none."""
        return None if self.mask_token is None else int(self._tokenizer.mask_token_id)

    def piece(self, token: int) -> str:
        """A token id as text."""
        text = self._tokenizer.decode([token])
        return str(text).strip()

    def rows(
        self,
        texts: Sequence[str | tuple[str, str]],
        *,
        limits: Sequence[int] | None = None,
        numbers: Sequence[int] | None = None,
        spans: bool = False,
    ) -> list[Tokenized]:
        """Tokenize texts and pairs, mixed as they come.

        Args:
            texts: each a str, or a pair of them.
            limits: the most tokens of each row; None: as many as the base takes.
            numbers: what errors call each text; None: by their order.
            spans: whether to say which characters each token stands for.

        Raises:
            InputError: an empty text, something that is no text, or a limit that leaves no room.
            UnsupportedBaseError: spans are asked of a tokenizer that can't give them.
        """
        parts = [
            check_text(number, text)
            for number, text in zip(numbers or range(len(texts)), texts, strict=True)
        ]
        limits = [self._shape.max_tokens] * len(parts) if limits is None else limits
        rows: dict[int, Tokenized] = {}
        for count in (1, 2):  # a tokenizer takes singles or pairs, not both in one call
            places = [place for place, part in enumerate(parts) if len(part) == count]
            if not places:
                continue
            columns = list(zip(*(parts[place] for place in places), strict=True))
            encodings = self._encode(columns, [limits[place] for place in places], aligned=spans)
            for place, (row, truncated, encoding) in zip(places, encodings, strict=True):
                rows[place] = Tokenized(
                    row=row,
                    truncated=truncated,
                    spans=_spans(encoding, part=count - 1) if spans else (),
                )
        return [rows[place] for place in range(len(parts))]

    def words(
        self,
        texts: Sequence[str | list[str]],
        *,
        limits: Sequence[int] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[Tokenized]:
        """Tokenize texts word by word.

        Args:
            texts: each a list of words, or a str that is split at white space. Characters are
                counted in the str, or in the words joined by spaces.
            limits: the most tokens of each row; None: as many as the base takes.
            numbers: what errors call each text; None: by their order.

        Raises:
            InputError: an empty text or word, something that is no text, or a limit that leaves
                no room.
            UnsupportedBaseError: the base's tokenizer doesn't say which word a token is from.
        """
        if not texts:
            return []
        words = [
            _split(number, text)
            for number, text in zip(numbers or range(len(texts)), texts, strict=True)
        ]
        limits = [self._shape.max_tokens] * len(words) if limits is None else limits
        columns = [[[text for text, _, _ in row] for row in words]]
        encodings = self._encode(columns, limits, aligned=True, is_split_into_words=True)
        tokenized = []
        for found, (row, truncated, encoding) in zip(words, encodings, strict=True):
            first: dict[int, int] = {}
            for token, word in enumerate(encoding.word_ids):
                if word is not None:
                    first.setdefault(word, token)
            tokenized.append(
                Tokenized(
                    row=row,
                    truncated=truncated,
                    words=tuple(
                        Word(text=text, start=start, end=end, token=first.get(number))
                        for number, (text, start, end) in enumerate(found)
                    ),
                )
            )
        return tokenized

    def _encode(
        self, columns: Sequence[Any], limits: Sequence[int], *, aligned: bool, **options: Any
    ) -> list[tuple[Row, bool, Any]]:
        """For each text its row, whether it was cut, and the tokenizer's encoding if aligned."""
        options |= {"add_special_tokens": True, "return_token_type_ids": True}
        found: list[tuple[Row, bool, Any]] = []
        for begin in range(0, len(limits), _TEXTS_AT_ONCE):
            part = slice(begin, begin + _TEXTS_AT_ONCE)
            with self._lock:
                found += self._encode_some(
                    [list(column[part]) for column in columns], limits[part], aligned, options
                )
        return found

    def _encode_some(
        self, columns: list[list[Any]], limits: Sequence[int], aligned: bool, options: Any
    ) -> list[tuple[Row, bool, Any]]:
        full = self._tokenizer(*columns, truncation=False, verbose=False, **options)
        if aligned and full.encodings is None:
            raise UnsupportedBaseError(
                f"the base's tokenizer {type(self._tokenizer).__name__} doesn't say where its "
                "tokens come from; save the base again with a tokenizer.json"
            )
        rows = []
        for number, limit in enumerate(limits):
            found, at = full, number
            truncated = len(full["input_ids"][number]) > limit
            if truncated:
                found, at = self._cut([column[number] for column in columns], limit, options), 0
            ids, types = found["input_ids"][at], found["token_type_ids"][at]
            row = Row(
                token_ids=tuple(ids),
                type_ids=tuple(types) if self._shape.model_type == "bert" else None,
            )
            rows.append((row, truncated, found.encodings[at] if aligned else None))
        return rows

    def _cut(self, text: list[Any], limit: int, options: dict[str, Any]) -> Any:
        """One text again, cut to a limit."""
        special = self._tokenizer.num_special_tokens_to_add(pair=len(text) == 2)
        if limit <= special:
            raise InputError(
                f"{limit} tokens are left for a text, of which {special} are special ones; "
                "use an adapter with a shorter prefix"
            )
        columns = [[part] for part in text]
        return self._tokenizer(*columns, truncation=True, max_length=limit, **options)


def check_text(number: int, text: str | tuple[str, str]) -> tuple[str, ...]:
    """A text as a tuple of one or two.

    Args:
        number: the text's place in the request, for the message.
        text: a str, or a pair of them.

    Raises:
        InputError: an empty text, something that is no text, or no Unicode text.
    """
    parts = (text,) if isinstance(text, str) else text
    if (
        not isinstance(parts, tuple | list)
        or len(parts) not in {1, 2}
        or not all(isinstance(part, str) for part in parts)
    ):
        raise InputError(f"text {number} is {text!r:.80}; expected a str or a pair of them")
    if not any(part.strip() for part in parts):
        raise InputError(f"text {number} is empty")
    if not all(_is_unicode(part) for part in parts):
        raise InputError(f"text {number} is {text!r:.80}, which has lone surrogates")
    return tuple(parts)


def _split(number: int, text: str | list[str]) -> list[tuple[str, int, int]]:
    """The words of a text, each with its first character and the one after the last."""
    if isinstance(text, str):
        check_text(number, text)
        return [(word.group(), word.start(), word.end()) for word in _WORD.finditer(text)]
    if not isinstance(text, list):
        raise InputError(f"text {number} is {text!r:.80}; expected a str or a list of words")
    check_text(number, join_words(number, text))
    words = []
    start = 0
    for word in text:
        if not word.strip():
            raise InputError(f"text {number} has an empty word; leave it out")
        words.append((word, start, start + len(word)))
        start += len(word) + 1
    return words


def join_words(number: int, words: list[str]) -> str:
    """A list of words as one text.

    Args:
        number: the text's place in the request, for the message.
        words: the words.

    Raises:
        InputError: something else than words in the list.
    """
    if not all(isinstance(word, str) for word in words):
        raise InputError(f"text {number} is {words!r:.80}; a list must hold words")
    return " ".join(words)


def _spans(encoding: Any, *, part: int) -> tuple[tuple[int, int] | None, ...]:
    return tuple(
        span if sequence == part else None
        for span, sequence in zip(encoding.offsets, encoding.sequence_ids, strict=True)
    )


def _is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON's escapes can bring in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
