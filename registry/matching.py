"""CLDR's best match among supported locales, as ICU's LocaleMatcher finds it.

The enhanced language matching of UTS #35 (part 1, "Enhanced Language Matching"), with the order,
the ties and the demotion of ICU 78; `distance.py` holds the distances. It models which text a
reader understands; `resolution.py` has the stricter order that adapters need.

    LocaleMatcher(["es", "es-419"]).best("es-MX")           # Match(tag="es-419", distance=4)
    LocaleMatcher(["fr", "en-GB"]).best(["de", "en-AU"])    # Match(tag="en-GB", distance=3)
    LocaleMatcher(["fr"]).best("ja")                        # None
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ..core.errors import InvalidLocaleError
from ..core.locale import Locale, canonicalise, read_tag
from .distance import (
    DEMOTION,
    LSR,
    THRESHOLD,
    is_paradigm,
    lsr,
    neighbours,
    region_cluster,
    region_row,
    ruled_languages,
)
from .locale_index import distinct

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A supported locale that fits a wish."""

    tag: str
    """The locale, as it was given to the matcher."""

    distance: int | None
    """CLDR's distance from the wish that it fits, below 50; None for the default."""


class LocaleMatcher:
    """Finds what CLDR holds nearest among supported locales.

    Locales that differ in variants, private use or extensions alone are one to it, and the first
    of them answers. The time of a match depends on the languages and scripts within reach, not on
    the number of supported locales. Aliases are applied (`iw` is `he`), to all but `sh`, for
    which CLDR has rules of its own.
    """

    def __init__(self, supported: Iterable[str], default: str | None = None) -> None:
        """Index the supported locales.

        Args:
            supported: tags, the preferred ones first: their order decides ties. None at all is
                allowed.
            default: what answers where nothing matches, supported or not; its equals win ties.

        Raises:
            InvalidLocaleError: a tag is not well formed.
            InputError: more than 100,000 tags.
        """
        self._default = None if default is None else Match(tag=default, distance=None)
        self._exact: dict[_Form, str] = {}
        self._equal: dict[LSR, list[tuple[int, str]]] = {}
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        preferred = None if default is None else _form(default).lsr
        for order, (form, tag) in enumerate(_in_order(supported, preferred)):
            self._exact[form] = tag
            equal = self._equal.get(form.lsr)
            if equal is not None:
                equal.append((form.explicit, tag))
                continue
            self._equal[form.lsr] = [(form.explicit, tag)]
            language, script, region = form.lsr
            bucket = self._buckets.setdefault((language, script), _Bucket({}, {}))
            entry = _Entry(order, region, tag)
            bucket.by_region[region] = entry
            bucket.by_cluster.setdefault(region_cluster(region), entry)

    def best(self, desired: str | Sequence[str]) -> Match | None:
        """Find the supported locale that fits best; the same wishes always give the same answer.

        Args:
            desired: a tag, or several, the most wanted first. Each place further down costs 5,
                so that no more than the first ten can count; what can't count is not read.

        Returns:
            The match; the default where nothing is nearer than 50; None where there is no default.

        Raises:
            InvalidLocaleError: a tag is not well formed, or something other than text.
        """
        best: Match | None = None
        limit = THRESHOLD
        for tag in _wishes(desired):
            form = _form(tag)
            exact = self._exact.get(form)
            if exact is not None:
                return Match(tag=exact, distance=0)
            found = self._nearest(form, limit)
            if found is not None:
                best = found
                assert found.distance is not None
                limit = found.distance
            limit -= DEMOTION
            if limit <= 0:
                break
        return best or self._default

    def _nearest(self, wanted: _Form, limit: int) -> Match | None:
        """What is nearest to one wish, at less than the limit."""
        equal = self._equal.get(wanted.lsr)
        if equal is not None:
            # The fewer and the less telling the subtags that only one of the two spells out, the
            # nearer; `min` keeps the first of those that are even.
            _, tag = min(equal, key=lambda one: one[0] ^ wanted.explicit)
            return Match(tag=tag, distance=0)
        candidates: list[_Candidate] = []
        for language, script, far in neighbours(wanted.lsr):
            if far > limit:
                break
            bucket = self._buckets.get((language, script))
            if bucket is None:
                continue
            candidate = bucket.nearest(wanted.lsr, language, script, far)
            if candidate.distance < limit:
                limit = candidate.distance
                candidates = [candidate]
            elif candidate.distance == limit and candidates:
                candidates.append(candidate)
        if not candidates:
            return None
        first = min(candidates, key=lambda one: one.order)
        if len(candidates) > 1:
            script = _usual(first.language).script
            usual = [one for one in candidates if one[1:3] == (first.language, script)]
            first = usual[0] if usual else first
        return Match(tag=first.tag, distance=first.distance)


class _Form(NamedTuple):
    """What of a locale counts for ICU."""

    lsr: LSR
    explicit: int  # bits of what the tag itself says: language 4, script 2, region 1


class _Entry(NamedTuple):
    order: int
    region: str
    tag: str


class _Candidate(NamedTuple):
    """What one bucket has to offer."""

    distance: int
    language: str
    script: str
    order: int  # of the first entry at this distance
    tag: str


class _Bucket(NamedTuple):
    """The supported locales of one language in one script, one for each region."""

    by_region: dict[str, _Entry]
    by_cluster: dict[int, _Entry]  # the first of each cluster of regions

    def nearest(self, wanted: LSR, language: str, script: str, far: int) -> _Candidate:
        """The entry with the nearest region, the likely one or else the first among equals."""
        same = self.by_region.get(wanted.region)
        if same is not None:
            return _Candidate(far, language, script, same.order, same.tag)
        row = region_row(wanted, language, script)
        nearest, first = min(
            ((row[cluster], entry) for cluster, entry in self.by_cluster.items()),
            key=lambda one: (one[0], one[1].order),
        )
        usual = self.by_region.get(_usual(language).region, first)
        chosen = usual if row[region_cluster(usual.region)] == nearest else first
        return _Candidate(far + nearest, language, script, first.order, chosen.tag)


def _in_order(supported: Iterable[str], default: LSR | None) -> Iterable[tuple[_Form, str]]:
    """Distinct forms, as ICU ranks them: equals of the default, paradigm locales, the rest.

    Without a default the first locale stands for it.
    """
    forms: dict[_Form, str] = {}
    # Many tags may differ in private use alone.
    known: dict[tuple[object, ...], _Form] = {}
    for tag in distinct(supported):
        given = read_tag(tag)
        key = (given.language, given.script, given.region, given.variants)
        form = known.get(key)
        if form is None or given.language == "und":
            form = known[key] = _compared(given)
        forms.setdefault(form, tag)
    if default is None and forms:
        default = next(iter(forms)).lsr
    ranks: tuple[list[tuple[_Form, str]], ...] = ([], [], [])
    for form, tag in forms.items():
        rank = 0 if form.lsr == default else 1 if is_paradigm(form.lsr) else 2
        ranks[rank].append((form, tag))
    return chain(*ranks)


def _form(tag: str) -> _Form:
    return _compared(read_tag(tag))


def _compared(given: Locale) -> _Form:
    if given.language in _kept():
        locale = replace(canonicalise(replace(given, language="und")), language=given.language)
    else:
        locale = canonicalise(given)
    full = lsr(locale)
    explicit = 4 * (locale.language != "und")
    explicit += 2 * (locale.script is not None and locale.script == full.script)
    explicit += locale.region is not None and locale.region == full.region
    return _Form(full, explicit)


@cache
def _kept() -> frozenset[str]:
    """The languages with rules that an alias would replace by more than a language: `sh`.

    ICU replaces a language by a language only, so that it never makes `sh` into `sr-Latn`.
    """
    aliases = {language: canonicalise(Locale(language)) for language in ruled_languages()}
    return frozenset(
        language for language, locale in aliases.items() if locale != Locale(locale.language)
    )


def _usual(language: str) -> LSR:
    """The script and region that a language most likely has."""
    return lsr(Locale(language))


def _wishes(desired: object) -> Iterable[str]:
    if isinstance(desired, str):
        return (desired,)
    try:
        return iter(desired)  # type: ignore[call-overload, no-any-return]
    except TypeError:
        raise InvalidLocaleError(
            f"desired is a tag or a list of tags, got {type(desired).__name__}"
        ) from None
