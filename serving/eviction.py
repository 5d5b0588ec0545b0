"""Which of the things that are kept goes first when room is needed.

LRFU (Lee et al., 2001, "LRFU: a spectrum of policies that subsumes the least recently used and
least frequently used policies", IEEE Transactions on Computers 50): each use counts 1 and loses
half of its worth every `half_life` uses of the whole cache; what has the lowest sum goes first.
What was used once, a minute ago, goes before what is used often, so a scan flushes nothing hot;
what was hot long ago fades.

A sum `S` at time `t` is kept as `log2(S) + t / half_life`, which doesn't change while nothing
happens: there is no ageing pass, and sums of different times compare as they are.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Uses are counted when somebody needs the order, or when so many are waiting.
_NOTED_AT_MOST = 1024
# What has gone keeps its sum, so that it comes back as what it was; in multiples of the capacity.
_REMEMBERED = 8
_REMEMBERED_AT_LEAST = 1024


class Eviction:
    """The order in which keys go. Not thread-safe: its owner holds a lock.

    Noting uses takes constant time, finding the next to go O(log n), amortised.

    Args:
        capacity: about how many keys are kept at once.
        half_life: after how many uses of any keys a use is worth half; None: 16 × capacity.
    """

    def __init__(self, capacity: int, *, half_life: float | None = None) -> None:
        self._half_life = half_life or 16.0 * max(1, capacity)
        self._remember = max(_REMEMBERED_AT_LEAST, _REMEMBERED * capacity)
        self._time = 0
        self._noted: deque[Iterable[str]] = deque()
        # Of what is kept, and of what has gone.
        self._sums: dict[str, float] = {}
        self._kept: set[str] = set()
        # (sum, key): a sum may be older than the one above, and so too low, never too high.
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: str) -> bool:
        return key in self._kept

    def note(self, keys: Iterable[str]) -> None:
        """Say that keys have been used; they may be gone already, or not yet there."""
        self._noted.append(keys)
        if len(self._noted) > _NOTED_AT_MOST:
            self._count()

    def add(self, key: str) -> None:
        """Say that a key is kept from now on."""
        self._count()
        self._kept.add(key)
        heapq.heappush(self._heap, (self._sums.get(key, -math.inf), key))
        if len(self._heap) > 2 * len(self._kept) + 64:
            self._heap = [(self._sums.get(kept, -math.inf), kept) for kept in self._kept]
            heapq.heapify(self._heap)

    def remove(self, key: str) -> None:
        """Say that a key is no longer kept; its sum is remembered for a while."""
        self._kept.discard(key)

    def victim(self, may_go: Callable[[str], bool]) -> str | None:
        """The key that goes first among those that may; it is still kept.

        Args:
            may_go: False for what is pinned or in use.
        """
        self._count()
        staying: list[tuple[float, str]] = []
        found = None
        while self._heap and found is None:
            noted, key = heapq.heappop(self._heap)
            if key not in self._kept:
                continue
            now = self._sums.get(key, -math.inf)
            if now > noted:
                heapq.heappush(self._heap, (now, key))
                continue
            staying.append((now, key))
            if may_go(key):
                found = key
        for entry in staying:
            heapq.heappush(self._heap, entry)
        return found

    def _count(self) -> None:
        while self._noted:
            for key in self._noted.popleft():
                self._time += 1
                now = self._time / self._half_life
                before = self._sums.get(key)
                self._sums[key] = (
                    now if before is None else max(before, now) + _log2_1p(-abs(before - now))
                )
        if len(self._sums) > self._remember + len(self._kept):
            gone = sorted(self._sums.keys() - self._kept, key=self._sums.__getitem__)
            for key in gone[: len(gone) - self._remember // 2]:
                del self._sums[key]


def _log2_1p(exponent: float) -> float:
    """`log2(1 + 2^exponent)`."""
    return math.log1p(2.0**exponent) / math.log(2.0)
