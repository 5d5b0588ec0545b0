from __future__ import annotations

import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from isogloss.adapters.sampling import SamplerState, class_weights, locale_shares, make_sampler
from isogloss.core.errors import InputError


def test_class_weights_by_hand_and_as_scikit_learn_has_them() -> None:
    labels = ["a"] * 6 + ["b"] * 2
    assert class_weights(labels, ("a", "b")) == (8 / 12, 8 / 4)
    assert class_weights(labels, ("b", "unseen", "a")) == (2.0, 1.0, 8 / 12)


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1))
def test_class_weights_are_those_of_scikit_learn(labels: list[str]) -> None:
    order = sorted(set(labels))
    expected = compute_class_weight("balanced", classes=np.array(order), y=labels)
    assert class_weights(labels, order) == pytest.approx(tuple(expected))


def test_temperature_by_hand() -> None:
    sizes = {"es-ES": 900, "es-MX": 100}
    assert locale_shares(sizes, 1) == pytest.approx({"es-ES": 0.9, "es-MX": 0.1})
    assert locale_shares(sizes, 2) == pytest.approx({"es-ES": 0.75, "es-MX": 0.25})
    assert locale_shares(sizes, math.inf) == pytest.approx({"es-ES": 0.5, "es-MX": 0.5})


@pytest.mark.parametrize("temperature", [0.5, 0, -1, math.nan])
def test_temperatures_that_make_no_sense(temperature: float) -> None:
    with pytest.raises(InputError, match=f"temperature is {temperature}; it must be at least 1"):
        locale_shares({"es-ES": 1}, temperature)


def test_without_temperature_each_row_comes_once_an_epoch() -> None:
    sampler = make_sampler(["es-ES"] * 37 + ["es-MX"] * 5 + ["es-AR"] * 1, seed=3)
    first, second = sampler.order(0), sampler.order(1)
    assert sorted(first) == sorted(second) == list(range(43))
    assert list(first) != list(second)


def test_temperature_gives_small_locales_more_rows() -> None:
    locales = ["es-ES"] * 900 + ["es-MX"] * 100
    sampler = make_sampler(locales, seed=0, temperature=2)
    order = sampler.order(0)
    assert Counter(locales[row] for row in order) == {"es-ES": 750, "es-MX": 250}
    times = Counter(int(row) for row in order)
    assert {times[row] for row in range(900, 1000)} == {2, 3}
    assert {times[row] for row in range(900)} == {0, 1}
    left_out = {row for row in range(900) if not times[row]}
    again = Counter(int(row) for row in sampler.order(1))
    assert left_out != {row for row in range(900) if not again[row]}


def test_labels_are_balanced_within_each_locale() -> None:
    locales = ["bar"] * 80 + ["gsw-CH"] * 20
    labels = ["O"] * 70 + ["X"] * 10 + ["O"] * 19 + ["X"]
    sampler = make_sampler(locales, seed=0, labels=labels)
    counts = Counter((locales[row], labels[row]) for row in sampler.order(0))
    assert counts == {
        ("bar", "O"): 40,
        ("bar", "X"): 40,
        ("gsw-CH", "O"): 10,
        ("gsw-CH", "X"): 10,
    }


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    temperature=st.floats(1, 100),
    labelled=st.booleans(),
)
def test_an_epoch_has_as_many_rows_as_there_are(
    sizes: list[int], temperature: float, labelled: bool
) -> None:
    locales = [f"l{number}" for number, size in enumerate(sizes) for _ in range(size)]
    labels = [str(row % 3) for row in range(len(locales))] if labelled else None
    sampler = make_sampler(locales, seed=1, temperature=temperature, labels=labels)
    order = sampler.order(0)
    assert len(order) == sampler.rows == len(locales)
    assert set(order.tolist()) <= set(range(len(locales)))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("stop", [0, 1, 4, 5, 6, 11, 12, 17])
def test_a_run_goes_on_where_it_stopped(stop: int, temperature: float) -> None:
    locales = ["a"] * 17 + ["b"] * 6
    whole = list(islice(make_sampler(locales, seed=9, temperature=temperature).batches(4), 24))
    assert [len(batch) for batch, _ in whole[:12]] == [4, 4, 4, 4, 4, 3] * 2
    state = whole[stop - 1][1] if stop else SamplerState()
    fresh = make_sampler(locales, seed=9, temperature=temperature)
    rest = list(islice(fresh.batches(4, state), 24 - stop))
    assert [(batch.tolist(), after) for batch, after in rest] == [
        (batch.tolist(), after) for batch, after in whole[stop:]
    ]


def test_seeds_differ() -> None:
    orders = {tuple(make_sampler(["a"] * 20, seed=seed).order(0)) for seed in range(5)}
    assert len(orders) == 5


def test_no_rows() -> None:
    with pytest.raises(InputError, match="no rows to sample"):
        make_sampler([], seed=0)
