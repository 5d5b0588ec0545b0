from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from isogloss.serving.eviction import Eviction


def anything(_: str) -> bool:
    return True


def use(cache: Eviction, capacity: int, key: str) -> bool:
    """One use of a cache of so many keys; says whether the key was there."""
    hit = key in cache
    cache.note((key,))
    if not hit:
        if len(cache) == capacity:
            victim = cache.victim(anything)
            assert victim is not None
            cache.remove(victim)
        cache.add(key)
    return hit


def test_the_longest_unused_of_equals_goes_first() -> None:
    cache = Eviction(3)
    for key in ("a", "b", "c"):
        use(cache, 3, key)
    assert cache.victim(anything) == "a"
    cache.note(("a",))
    assert cache.victim(anything) == "b"


def test_what_may_not_go_stays() -> None:
    cache = Eviction(3)
    for key in ("a", "b", "c"):
        use(cache, 3, key)
    assert cache.victim(lambda key: key != "a") == "b"
    assert cache.victim(lambda _: False) is None
    assert cache.victim(anything) == "a"
    assert len(cache) == 3


def test_nothing_to_go() -> None:
    cache = Eviction(3)
    assert cache.victim(anything) is None
    cache.note(("never kept",))
    assert cache.victim(anything) is None
    cache.add("kept and gone")
    cache.remove("kept and gone")
    assert cache.victim(anything) is None
    assert "kept and gone" not in cache


def test_a_scan_flushes_nothing_hot() -> None:
    cache = Eviction(16)
    hot = [f"hot {number}" for number in range(12)]
    for _ in range(20):
        for key in hot:
            use(cache, 16, key)
    for number in range(200):
        use(cache, 16, f"seen once {number}")
    assert all(key in cache for key in hot)


def test_what_was_hot_long_ago_goes() -> None:
    cache = Eviction(4)
    for _ in range(50):
        use(cache, 4, "old")
    for _ in range(400):
        for key in ("a", "b", "c", "d", "e"):
            use(cache, 4, key)
    assert "old" not in cache


def test_what_comes_back_is_known_again() -> None:
    cache = Eviction(2)
    for _ in range(30):
        use(cache, 2, "hot")
    cache.remove("hot")
    for key in ("a", "b"):
        use(cache, 2, key)
    use(cache, 2, "hot")
    assert cache.victim(anything) in {"a", "b"}


def test_zipf_traffic_keeps_most_of_what_any_choice_could() -> None:
    """Against the best fixed choice: the 32 most frequent of 1,000."""
    generator = random.Random(5)
    keys = [f"{number}" for number in range(1000)]
    weights = [1 / (number + 1) for number in range(1000)]
    traffic = generator.choices(keys, weights, k=20_000)
    cache = Eviction(32)
    hits = sum(use(cache, 32, key) for key in traffic)
    best = sum(count for _, count in Counter(traffic).most_common(32))
    assert hits > 0.85 * best


def test_memory_stays_bounded() -> None:
    cache = Eviction(8)
    for number in range(20_000):
        use(cache, 8, f"{number}")
        cache.note((f"never kept {number}",))
    assert len(cache) == 8
    assert len(cache._sums) < 5000
    assert len(cache._heap) < 200
    cache.victim(anything)
    assert len(cache._noted) == 0


@given(
    steps=st.lists(st.tuples(st.sampled_from(["use", "drop"]), st.integers(0, 12)), max_size=200),
    blocked=st.sets(st.integers(0, 12)),
)
def test_against_sums_computed_at_length(steps: list[tuple[str, int]], blocked: set[int]) -> None:
    """The victim has the lowest sum of halved uses, recomputed from the whole history."""
    half_life = 10.0
    cache = Eviction(5, half_life=half_life)
    uses: list[str] = []
    kept: set[str] = set()
    for what, number in steps:
        key = f"{number}"
        if what == "drop":
            cache.remove(key)
            kept.discard(key)
            continue
        uses.append(key)
        cache.note((key,))
        if key not in kept:
            cache.add(key)
            kept.add(key)
    sums = {
        key: sum(
            0.5 ** ((len(uses) - 1 - place) / half_life)
            for place, used in enumerate(uses)
            if used == key
        )
        for key in kept
    }
    allowed = {key: total for key, total in sums.items() if int(key) not in blocked}
    victim = cache.victim(lambda key: int(key) not in blocked)
    if not allowed:
        assert victim is None
        return
    assert victim is not None
    assert sums[victim] <= min(allowed.values()) * (1 + 1e-9)
