from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from isogloss.adapters.corpus import (
    TokenizedCorpus,
    is_held_out,
    read_corpora,
    sample_texts,
    sampling_weights,
)
from isogloss.core.errors import DataNotFoundError, EmptyDataError, MalformedRowError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

START, END = 1, 2
LARGE, SMALL = 900, 100
FIRST_ID = 1000  # ids from here on; each line has one id of its own, repeated


def corpus_of(lengths: dict[str, list[int]]) -> TokenizedCorpus:
    """A corpus of lines of these lengths; a line's ids all say which line it is."""
    number = FIRST_ID
    corpora: dict[str, list[str]] = {}
    for locale, values in lengths.items():
        corpora[locale] = []
        for length in values:
            corpora[locale].append(f"{number} {length}")
            number += 1

    def encode(texts: list[str]) -> list[list[int]]:
        pairs = [tuple(map(int, text.split())) for text in texts]
        return [[token] * length for token, length in pairs]

    return TokenizedCorpus.build(corpora, encode)


@pytest.fixture(scope="module")
def corpus() -> TokenizedCorpus:
    generator = np.random.default_rng(0)
    return corpus_of(
        {
            "de": generator.integers(1, 40, size=LARGE).tolist(),
            "gsw": generator.integers(1, 40, size=SMALL).tolist(),
        }
    )


def epoch(
    corpus: TokenizedCorpus, *, seed: int = 0, temperature: float = 1.0
) -> list[NDArray[np.int32]]:
    return corpus.epoch(
        seed=seed, temperature=temperature, max_length=34, batch_tokens=200, start=START, end=END
    )


def small_share(batches: list[NDArray[np.int32]]) -> float:
    """The share of the tokens that are the small locale's."""
    tokens = np.concatenate([batch[:, 1:-1].ravel() for batch in batches])
    return float((tokens >= FIRST_ID + LARGE).mean())


def test_a_batch_holds_whole_sequences_of_one_length(corpus: TokenizedCorpus) -> None:
    batches = epoch(corpus)
    for batch in batches:
        assert batch.ndim == 2
        assert (batch[:, 0] == START).all()
        assert (batch[:, -1] == END).all()
        assert (batch[:, 1:-1] >= FIRST_ID).all()
        assert 3 <= batch.shape[1] <= 34
        assert batch.size <= max(200, batch.shape[1])
    # Most batches are full; each length leaves at most one that isn't.
    assert sum(batch.size > 200 - batch.shape[1] for batch in batches) >= len(batches) - 32


def test_lines_are_whole_or_cut_at_the_longest(corpus: TokenizedCorpus) -> None:
    lengths = dict(enumerate(np.diff(corpus.offsets).tolist(), start=FIRST_ID))
    joined = 0
    for batch in epoch(corpus):
        for row in batch:
            tokens, counts = np.unique(row[1:-1], return_counts=True)
            for token, count in zip(tokens.tolist(), counts.tolist(), strict=True):
                assert count % min(lengths[token], 32) == 0
            joined += len(tokens) > 1
    assert joined > 0


def test_one_pass_draws_about_as_many_tokens_as_there_are(corpus: TokenizedCorpus) -> None:
    drawn = sum(batch[:, 1:-1].size for batch in epoch(corpus))
    assert math.isclose(drawn, len(corpus.tokens), rel_tol=0.02)


def test_a_pass_depends_on_the_seed_alone(corpus: TokenizedCorpus) -> None:
    first, again, other = epoch(corpus), epoch(corpus), epoch(corpus, seed=1)
    assert len(first) == len(again)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(first) != len(other) or not all(
        np.array_equal(a, b) for a, b in zip(first, other, strict=True)
    )


def test_a_low_temperature_raises_the_small_locales_share(corpus: TokenizedCorpus) -> None:
    sizes = {locale: corpus.length_of(locale) for locale in corpus.locales}
    shares = []
    for temperature in (1.0, 0.5, 0.0):
        share = small_share(epoch(corpus, temperature=temperature))
        wanted = sampling_weights(sizes, temperature)["gsw"]
        assert math.isclose(share, wanted, abs_tol=0.02)
        shares.append(share)
    assert shares[0] < 0.15 < 0.2 < shares[1] < 0.3 < 0.45 < shares[2]


def test_weights_sum_to_one_and_follow_the_exponent() -> None:
    weights = sampling_weights({"a": 1600, "b": 100}, 0.5)
    assert weights == pytest.approx({"a": 0.8, "b": 0.2})


def test_every_locale_is_drawn_however_small_its_share() -> None:
    batches = epoch(corpus_of({"de": [30] * 50, "gsw": [1], "nds": [1]}), temperature=2.0)
    drawn = set(np.concatenate([batch.ravel() for batch in batches]).tolist())
    assert {FIRST_ID + 50, FIRST_ID + 51} <= drawn


def test_a_locale_of_empty_lines_is_passed_over() -> None:
    batches = epoch(corpus_of({"de": [3, 4], "gsw": [0, 0]}), temperature=0.0)
    drawn = set(np.concatenate([batch.ravel() for batch in batches]).tolist())
    assert drawn <= {START, END, FIRST_ID, FIRST_ID + 1}
    assert FIRST_ID in drawn


def test_a_sample_for_the_tokenizer_takes_from_every_locale() -> None:
    corpora = {"de": ["x" * 10] * 500, "gsw": ["y" * 10] * 50}
    sample = sample_texts(corpora, characters=1000, temperature=0.5, seed=0)
    assert 1000 <= sum(map(len, sample)) <= 1020
    assert sample.count("y" * 10) >= 20
    assert sample == sample_texts(corpora, characters=1000, temperature=0.5, seed=0)


def test_about_one_line_in_a_hundred_is_held_out() -> None:
    held_out = sum(is_held_out(f"line {number}") for number in range(20_000))
    assert 150 < held_out < 250


def test_corpora_of_several_folders_are_joined_without_repetitions(tmp_path: Path) -> None:
    def write(name: str, texts: list[str | None]) -> None:
        path = tmp_path / name / "train.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    write("one/gsw", ["Grüezi", "Merci", "Grüezi"])
    write("two/gsw", ["Merci", "Uf Wiederluege", None, " "])
    write("two/de", ["Hallo"])
    write("two/nds", [None])
    corpora = read_corpora([tmp_path / "one", tmp_path / "two"])
    assert corpora == {"de": ["Hallo"], "gsw": ["Grüezi", "Merci", "Uf Wiederluege"]}


def test_no_such_files(tmp_path: Path) -> None:
    with pytest.raises(DataNotFoundError, match=r"no <locale>/train\.jsonl under"):
        read_corpora([tmp_path])


def test_no_texts(tmp_path: Path) -> None:
    (tmp_path / "de").mkdir()
    (tmp_path / "de" / "train.jsonl").write_text('{"label": "x"}\n')
    with pytest.raises(EmptyDataError, match="no row with a text"):
        read_corpora([tmp_path])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{", "not JSON"),
        (b"[]", "expected an object, got list"),
        ('{"text": "Grüezi"}'.encode("latin-1"), "not UTF-8"),
        (b'{"text": "\\ud83d"}', "half a character"),
    ],
)
def test_a_malformed_row_is_named_by_file_and_line(
    tmp_path: Path, line: bytes, problem: str
) -> None:
    path = tmp_path / "de" / "train.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'\xef\xbb\xbf{"text": "x"}\n\n' + line + b"\n")
    with pytest.raises(MalformedRowError, match=problem) as caught:
        read_corpora([tmp_path])
    assert str(caught.value).startswith(f"{path}, line 3: ")
