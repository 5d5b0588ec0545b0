"""Likely subtags: the script and region that a tag leaves unsaid (UTS #35, "Likely Subtags")."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from .cldr_data import cldr_data
from .tags import Locale

if TYPE_CHECKING:
    from collections.abc import Mapping

# Codes that say nothing: unknown script, unknown region.
_NO_SCRIPT = "Zzzz"
_NO_REGION = "ZZ"


def maximise(locale: Locale) -> Locale:
    """Add the likely script and region, and the likely language of `und`.

    What is given stays, `Zzzz` and `ZZ` aside; variants and private use are kept. A language that
    CLDR knows nothing of comes back as it is. Give it the canonical form of a locale.
    """
    return _filled(locale, guess_language=True)


def likely(locale: Locale) -> Locale:
    """Like `maximise`, but `und` becomes a language only where a script or region speaks for it.

    `und-TW` is `zh-Hant-TW`; `und`, `und-Latn` and `und-001`, which CLDR sends to English for
    want of anything better, come back as they are. This is what matching and resolution compare.
    """
    return _filled(locale, guess_language=False)


def minimise(locale: Locale, *, favor: Literal["region", "script"] = "region") -> Locale:
    """Remove each subtag that `maximise` would add; variants and private use are kept.

    Args:
        locale: in canonical form.
        favor: what stays where either script or region would do: `zh-Hant-TW` is `zh-TW` or
            `zh-Hant`.
    """
    full = maximise(locale)
    language, script, region = full.language, full.script, full.region
    with_region = Locale(language, None, region)
    with_script = Locale(language, script)
    shorter = [with_region, with_script] if favor == "region" else [with_script, with_region]
    bare = replace(full, variants=(), private=())
    for trial in (Locale(language), *shorter):
        if maximise(trial) == bare:
            return replace(trial, variants=full.variants, private=full.private)
    return full


def likely_script(language: str, region: str | None = None) -> str | None:
    """The script that CLDR expects of a language (in a region); None where it knows none."""
    table = _table()
    entry = table.known.get(f"{language}-{region}") or table.known.get(language)
    return None if entry is None else entry[0]


class _Table(NamedTuple):
    """`likely_subtags` of the data, ready for look-ups."""

    # By language[-script][-region]: the language stays.
    known: Mapping[str, tuple[str, str]]
    # By [script][-region] of an unknown language; "" is the last resort.
    unknown: Mapping[str, tuple[str, str, str]]


@cache
def _table() -> _Table:
    data = cldr_data("locales")
    known: dict[str, tuple[str, str]] = {}
    for added, tags in data["likely_subtags"].items():
        script, _, region = added.partition("-")
        known.update(dict.fromkeys(tags.split(), (script, region)))
    unknown: dict[str, tuple[str, str, str]] = {}
    for tag, maximal in data["likely_subtags_of_und"].items():
        language, script, region = maximal.split("-")
        unknown[tag] = (language, script, region)
    return _Table(known, unknown)


def _filled(locale: Locale, *, guess_language: bool) -> Locale:
    language, script, region = locale.language, locale.script, locale.region
    if script == _NO_SCRIPT:
        script = None
    if region == _NO_REGION:
        region = None
    if language == "und":
        found = _speaks_for(script, region, guess=guess_language)
        if found is None:
            return locale
        language, added_script, added_region = found
    else:
        if script is not None and region is not None:
            return locale
        entry = _of_language(language, script, region)
        if entry is None:
            return locale
        added_script, added_region = entry
    return Locale(
        language, script or added_script, region or added_region, locale.variants, locale.private
    )


def _of_language(language: str, script: str | None, region: str | None) -> tuple[str, str] | None:
    """What CLDR adds to a language; at least one of script and region is not given."""
    known = _table().known
    if script is not None:
        entry = known.get(f"{language}-{script}")
    elif region is not None:
        entry = known.get(f"{language}-{region}")
    else:
        return known.get(language)
    return entry or known.get(language)


def _speaks_for(
    script: str | None, region: str | None, *, guess: bool
) -> tuple[str, str, str] | None:
    unknown = _table().unknown
    found = None
    if script is not None and region is not None:
        found = unknown.get(f"{script}-{region}")
    if found is None and script is not None:
        found = unknown.get(script)
    if found is None and region is not None:
        found = unknown.get(region)
    if found is None and guess:
        found = unknown[""]
    return found
