"""Plain text of many locales, sampled and cut into batches of equal length.

Sampling follows XLM-R (Conneau et al., 2020, https://arxiv.org/abs/1911.02116): a locale with a
share p of the text is drawn in proportion to p**temperature.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import DataNotFoundError, EmptyDataError
from .row_files import parse_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

HELD_OUT = 100  # one line in so many is kept for evaluation
# Most lines stay alone, as later input will; the rest are joined up to a drawn length, so that
# the later positions are trained too.
JOINED_SHARE = 0.15


def read_corpora(folders: Sequence[Path]) -> dict[str, list[str]]:
    """Read `<folder>/<locale>/train.jsonl` of every folder; rows without a text are passed over.

    Returns:
        The texts of each locale, without repetitions.

    Raises:
        DataNotFoundError: a folder holds no such file.
        MalformedRowError: a line is no JSON object, or not UTF-8.
        EmptyDataError: no row has a text.
    """
    texts: dict[str, dict[str, None]] = {}
    for folder in folders:
        files = sorted(folder.glob("*/train.jsonl"))
        if not files:
            raise DataNotFoundError(
                f"no <locale>/train.jsonl under {folder}; expected one folder per locale"
            )
        for path in files:
            own = texts.setdefault(path.parent.name, {})
            for text in _texts(path):
                own[text] = None
    corpora = {locale: list(own) for locale, own in sorted(texts.items()) if own}
    if not corpora:
        raise EmptyDataError(f"no row with a text under {', '.join(map(str, folders))}")
    return corpora


def _texts(path: Path) -> Iterator[str]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            row = parse_row(line, path, number)
            text = row.get("text") if row is not None else None
            if isinstance(text, str) and text.strip():
                yield text


def is_held_out(text: str) -> bool:
    """Whether this line is kept for evaluation; depends on the line alone."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT == 0


def sampling_weights(sizes: dict[str, int], temperature: float) -> dict[str, float]:
    """Weights that sum to 1, in proportion to size**temperature."""
    raised = {locale: float(size) ** temperature for locale, size in sizes.items()}
    total = sum(raised.values())
    return {locale: weight / total for locale, weight in raised.items()}


def sample_texts(
    corpora: dict[str, list[str]], *, characters: int, temperature: float, seed: int
) -> list[str]:
    """Draw lines of every locale, up to `characters` in all, for training a tokenizer."""
    generator = np.random.default_rng(seed)
    weights = sampling_weights(
        {locale: sum(map(len, texts)) for locale, texts in corpora.items()}, temperature
    )
    sample: list[str] = []
    for locale, texts in corpora.items():
        left = characters * weights[locale]
        for index in generator.permutation(len(texts)):
            if left <= 0:
                break
            sample.append(texts[index])
            left -= len(texts[index])
    return sample


@dataclass(frozen=True, kw_only=True)
class TokenizedCorpus:
    """All lines of all locales as one array of token ids, without special tokens."""

    tokens: NDArray[np.int32]
    """`[tokens]`: the ids, line after line."""
    offsets: NDArray[np.int64]
    """`[lines + 1]`: where each line begins; the last is the end."""
    locales: dict[str, NDArray[np.int64]]
    """The indices of each locale's lines."""

    @classmethod
    def build(
        cls, corpora: dict[str, list[str]], encode: Callable[[list[str]], list[list[int]]]
    ) -> TokenizedCorpus:
        """Tokenize each locale's lines with `encode`."""
        lines: list[list[int]] = []
        locales: dict[str, NDArray[np.int64]] = {}
        for locale, texts in corpora.items():
            first = len(lines)
            lines.extend(encode(texts))
            locales[locale] = np.arange(first, len(lines))
        offsets = np.zeros(len(lines) + 1, dtype=np.int64)
        np.cumsum([len(line) for line in lines], out=offsets[1:])
        tokens = np.fromiter(
            (token for line in lines for token in line), dtype=np.int32, count=int(offsets[-1])
        )
        return cls(tokens=tokens, offsets=offsets, locales=locales)

    def line(self, index: int) -> NDArray[np.int32]:
        """The ids of one line."""
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    def length_of(self, locale: str) -> int:
        """How many tokens a locale has."""
        lines = self.locales[locale]
        return int((self.offsets[lines + 1] - self.offsets[lines]).sum())

    def epoch(
        self,
        *,
        seed: int,
        temperature: float,
        max_length: int,
        batch_tokens: int,
        start: int,
        end: int,
    ) -> list[NDArray[np.int32]]:
        """One pass over about as many tokens as there are, in batches of sequences of equal length.

        Equal lengths need no padding and no attention mask.

        Args:
            seed: decides everything that is drawn.
            temperature: the exponent of the sampling weights.
            max_length: the longest sequence, special tokens included.
            batch_tokens: about how many tokens a batch holds.
            start: the id that begins a sequence.
            end: the id that ends it.

        Returns:
            Batches `[sequences, length]`, in random order.
        """
        generator = np.random.default_rng(seed)
        weights = sampling_weights(
            {locale: self.length_of(locale) for locale in self.locales}, temperature
        )
        by_length: dict[int, list[NDArray[np.int32]]] = {}
        for locale, weight in weights.items():
            budget = max(1, int(weight * len(self.tokens)))
            for sequence in self._sequences(locale, budget, max_length - 2, generator):
                framed = np.empty(len(sequence) + 2, dtype=np.int32)
                framed[0], framed[1:-1], framed[-1] = start, sequence, end
                by_length.setdefault(len(framed), []).append(framed)
        batches: list[NDArray[np.int32]] = []
        for length, sequences in sorted(by_length.items()):
            order = generator.permutation(len(sequences))
            rows = max(1, batch_tokens // length)
            batches.extend(
                np.stack([sequences[index] for index in order[first : first + rows]])
                for first in range(0, len(order), rows)
            )
        return [batches[index] for index in generator.permutation(len(batches))]

    def _sequences(
        self, locale: str, budget: int, longest: int, generator: np.random.Generator
    ) -> Iterator[NDArray[np.int32]]:
        """Lines of a locale, some joined, none longer than `longest`, until `budget` is spent."""
        drawn = 0
        while drawn < budget:
            before = drawn
            held: list[NDArray[np.int32]] = []
            held_length = target = 0
            for index in generator.permutation(self.locales[locale]):
                line = self.line(int(index))[:longest]
                if len(line) == 0:
                    continue
                drawn += len(line)
                if not held and generator.random() >= JOINED_SHARE:
                    yield line
                else:
                    if held and held_length + len(line) > target:
                        yield np.concatenate(held)
                        held, held_length = [], 0
                    if not held:
                        target = int(generator.integers(longest // 4, longest + 1))
                    held.append(line)
                    held_length += len(line)
                if drawn >= budget:
                    break
            if held:
                yield np.concatenate(held)
            if drawn == before:
                return
