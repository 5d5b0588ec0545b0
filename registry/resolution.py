"""From the locale of a request to a published adapter, with the reason.

CLDR's distances (UTS #35, part 1, "Language Matching") say which text a reader understands. A
model that was trained on another language is of less use than that, so the order here is
stricter. `Stage` names its steps, `locale_walk.py` has them, docs/locales.md explains them with
cases, and `Policy` says how far they go.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

from .distance import DEMOTION
from .locale_form import Ground
from .locale_index import LocaleIndex
from .locale_request import read_request, request_key
from .locale_walk import Found, Stage, Walk
from .policy import Policy, read_aliases

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .locale_request import LocaleRequest
    from .policy import Blend

__all__ = ["LocaleMatch", "LocaleResolver", "Stage"]

CACHE_SIZE = 16_384
"""Answers that a resolver keeps."""

# Longer requests are seldom and take the most memory.
_LONGEST_KEPT = 256

_MAX_TRACE = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class LocaleMatch:
    """What answers for a requested locale, and why."""

    requested: str
    """The locale, as it was requested; several are joined by commas."""

    locale: str | None
    """The tag, as it was published; None where only the bare base can answer."""

    stage: Stage
    """The step that found it; `base` where none did."""

    distance: int | None
    """CLDR's distance from the request, or from what an alias says instead of it; None for
    `default` and `base`."""

    trace: tuple[str, ...]
    """What was tried and what was refused, in order, one line each."""

    script_changed: bool = False
    """Whether the adapter was trained on another script than that of the request."""

    blend: tuple[tuple[str, float], ...] = ()
    """Published tags and their weights, with a sum of 1, the one that answers first; empty unless
    the policy asks for a blend. As data only: whoever serves mixes."""


class LocaleResolver:
    """Finds the published locale that answers for a request; may be used by several threads.

    The answer depends on the published locales, and not on their order.
    """

    def __init__(
        self,
        tags: Iterable[str],
        aliases: Mapping[str, str] | None = None,
        policy: Policy | None = None,
    ) -> None:
        """Index the published locales.

        Args:
            tags: the locales that have an adapter, in any spelling. An adapter published as `und`
                is the default.
            aliases: locales to be answered as another, as in `Policy.aliases`, and before those.
            policy: how far to go; None: the default policy.

        Raises:
            InvalidLocaleError: a tag, or one of an alias, is not a BCP 47 tag.
            InputError: more than 100,000 tags.
        """
        policy = policy or Policy()
        self._ground = Ground(
            LocaleIndex(tags),
            policy,
            read_aliases(policy.aliases) | read_aliases(aliases or {}),
        )
        self._blend = policy.blend
        # Reading and writing one entry of a dict is atomic; what two threads find is the same.
        self._answers: dict[str | tuple[str, ...], LocaleMatch] = {}

    def resolve(self, request: str | Sequence[str]) -> LocaleMatch:
        """Find what answers for a request; the same request always gives the same answer.

        Args:
            request: a BCP 47 tag in any spelling; a list of them, the most wanted first; or an
                Accept-Language header, whose exclusions (`q=0`) are kept to. Subtags need not be
                registered.

        Returns:
            The match; its `locale` is None where nothing published may answer.

        Raises:
            InvalidLocaleError: a tag or header that is not well formed, an empty list, or one
                that is longer than any that is meant.
        """
        key = request_key(request)
        found = self._answers.get(key)
        if found is None:
            found = self._resolve(key)
            if sum(map(len, key)) <= _LONGEST_KEPT:
                if len(self._answers) >= CACHE_SIZE:
                    self._answers.clear()
                self._answers[key] = found
        return found

    def _resolve(self, key: str | tuple[str, ...]) -> LocaleMatch:
        request = read_request(key)
        requested = key if isinstance(key, str) else ", ".join(key)
        ways = [_Way(self._ground, request, place) for place in range(len(request.wanted))]
        best: _Way | None = None
        for at, way in enumerate(ways):
            # A place further down counts as a distance that only grows.
            if best is not None and best.cost <= way.demotion:
                ways = ways[:at]
                break
            if way.take_first() and (best is None or way.cost < best.cost):
                best = way
        trace = [f"the header excludes {', '.join(request.excluded)}"] if request.excluded else []
        trace += [line for way in ways for line in way.tell(best)]
        if not ways:
            trace.append("no language is wanted")
        if best is None:
            walk = Walk(self._ground, request.choice)
            found = next(walk.default(), None)
            trace += walk.trace
        else:
            found = best.found
        return LocaleMatch(
            requested=requested,
            locale=None if found is None else found.entry.tag,
            stage="base" if found is None else found.stage,
            distance=None if found is None else found.distance,
            trace=_shorten(trace),
            script_changed=found is not None and found.script_changed,
            blend=() if best is None or self._blend is None else best.blend(self._blend),
        )


class _Way:
    """One of the wanted locales, and what answers for it."""

    def __init__(self, ground: Ground, request: LocaleRequest, place: int) -> None:
        self.found: Found | None = None
        self.demotion = place * DEMOTION
        self._tag = request.wanted[place]
        self._walk = Walk(ground, request.choice)
        self._steps = self._walk.steps(self._tag)
        self._trace: tuple[str, ...] = ()

    @property
    def cost(self) -> int:
        assert self.found is not None and self.found.distance is not None
        return self.found.distance + self.demotion

    def take_first(self) -> bool:
        self.found = next(self._steps, None)
        self._trace = tuple(dict.fromkeys(self._walk.trace))
        return self.found is not None

    def tell(self, best: _Way | None) -> tuple[str, ...]:
        if self.found is None or self is best:
            return self._trace
        by = f"{self.found.entry.tag} would answer, at {self.cost} with its place in the list"
        return (f"{self._tag}: {by}",)

    def blend(self, blend: Blend) -> tuple[tuple[str, float], ...]:
        assert self.found is not None
        following = islice(chain(self._steps, self._walk.default()), blend.adapters - 1)
        tags = [found.entry.tag for found in (self.found, *following)]
        return tuple(zip(tags, blend.weights(len(tags)), strict=True))


def _shorten(trace: list[str]) -> tuple[str, ...]:
    """A long list may fail at every step; its beginning and its end say enough."""
    if len(trace) <= _MAX_TRACE:
        return tuple(trace)
    half = _MAX_TRACE // 2
    left_out = f"… {len(trace) - 2 * half + 1} more steps …"
    return (*trace[:half], left_out, *trace[len(trace) - half + 1 :])
