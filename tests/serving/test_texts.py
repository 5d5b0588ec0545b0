from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss import Resolution, Version
from isogloss.core.errors import InputError
from isogloss.core.packing import Row
from isogloss.core.tokenization import Tokenized
from isogloss.serving.mixtures import Member
from isogloss.serving.planning import Plan
from isogloss.serving.texts import (
    MOST_ROWS,
    MOST_TEXTS,
    MOST_TOKENS,
    Job,
    batches,
    check_texts,
    each,
)


def plan(*numbers: int) -> Plan:
    """A plan with these versions."""
    members = tuple(
        Member(
            version=Version(
                digest=f"{number:064}",
                locale="de",
                task="intent",
                task_type="sequence-classification",
                kind="lora",
                rank=None,
                labels=(),
                base="mini",
                base_fingerprint=None,
                metrics={},
                data_digest=None,
                parent=None,
                files=(),
                bytes=0,
                created_at=None,
                published_at="",
                published_by="",
            ),
            weight=1.0,
        )
        for number in numbers
    )
    resolution = Resolution(
        requested="de", locale=None, version=None, stage="base", distance=None, trace=()
    )
    return Plan(resolution=resolution, task_type=None, members=members, answering=members)


def job(place: int, who: Plan, length: int = 5) -> Job:
    row = Row(token_ids=(0,) * length)
    return Job(place=place, text="", plan=who, tokenized=Tokenized(row=row, truncated=False))


def test_batches_are_cut_by_rows_and_by_tokens() -> None:
    who = plan(1)
    cut = list(batches([job(n, who) for n in range(MOST_ROWS * 2 + 3)], 4, set))
    assert [len(batch) for batch in cut] == [MOST_ROWS, MOST_ROWS, 3]
    long = list(batches([job(n, who, length=MOST_TOKENS // 3) for n in range(7)], 4, set))
    assert [len(batch) for batch in long] == [3, 3, 1]
    single = list(batches([job(0, who, length=MOST_TOKENS + 1)], 4, set))
    assert [len(batch) for batch in single] == [1]
    assert list(batches([], 4, set)) == []


def test_a_mixture_is_not_cut_apart() -> None:
    plans = [plan(1, 2, 3), plan(3, 4), plan(2, 3)]
    cut = list(batches([job(n, one) for n, one in enumerate(plans)], 3, set))
    assert [[one.place for one in batch] for batch in cut] == [[0, 2], [1]]


@given(
    wanted=st.lists(st.lists(st.integers(0, 9), max_size=3, unique=True), max_size=60),
    slots=st.integers(3, 6),
    pinned=st.sets(st.integers(0, 9), max_size=3),
)
def test_each_text_runs_once_in_a_batch_that_fits(
    wanted: list[list[int]], slots: int, pinned: set[int]
) -> None:
    plans = {tuple(numbers): plan(*numbers) for numbers in wanted}
    jobs = [job(place, plans[tuple(numbers)]) for place, numbers in enumerate(wanted)]
    kept = {f"{number:064}" for number in pinned}
    cut = list(batches(jobs, slots, lambda: set(kept)))
    assert sorted(one.place for batch in cut for one in batch) == list(range(len(jobs)))
    for batch in cut:
        digests = {digest for one in batch for digest in one.plan.digests}
        alone = len({one.plan for one in batch}) == 1
        assert len(digests | kept) <= slots or alone
        assert len(batch) <= MOST_ROWS


def test_what_is_pinned_is_asked_anew_for_each_batch() -> None:
    asked: list[int] = []

    def pinned() -> set[str]:
        asked.append(1)
        return {f"{number:064}" for number in range(90, 90 + len(asked))}

    jobs = [job(number, plan(number)) for number in range(4)]
    cut = list(batches(jobs, 4, pinned))
    assert [len(batch) for batch in cut] == [3, 1]


@pytest.mark.parametrize("value", ["de", None, {"a": 1.0}])
def test_one_value_stands_for_all(value: Any) -> None:
    assert list(each("locale", value, 3)) == [value] * 3


def test_a_value_for_each() -> None:
    two: str | list[str] = ["de", "es"]
    assert each("locale", two, 2) == ["de", "es"]
    with pytest.raises(InputError, match="2 values of locale for 3 texts"):
        each("locale", two, 3)


def test_no_call_may_be_too_large() -> None:
    assert check_texts("one") == ["one"]
    assert len(check_texts(["x"] * MOST_TEXTS)) == MOST_TEXTS
    with pytest.raises(InputError, match="100,001 texts in one call; give 100,000 at most"):
        check_texts(["x"] * (MOST_TEXTS + 1))
