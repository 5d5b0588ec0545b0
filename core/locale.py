"""Locales: BCP 47 tags, their canonical form, and their parents in CLDR.

Sources: BCP 47 (RFC 5646) for syntax, the IANA subtag registry for what is registered, CLDR 48 and
UTS #35 (part 1) for canonical form, likely subtags and parents. `cldr/refresh.py` says where the
data comes from.

The parts stand in `tags.py` (syntax), `canonical.py` (aliases), `extensions.py` (whole tags),
`likely.py` (likely subtags) and `accept_language.py`; everything public is imported from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from .accept_language import AcceptLanguage, accept_language
from .canonical import canonicalise, read_parts
from .cldr_data import cldr_data, cldr_version
from .extensions import canonical_tag
from .likely import likely, likely_script, maximise, minimise
from .tags import (
    MAX_SUBTAGS,
    MAX_TAG_LENGTH,
    Locale,
    invalid_tag,
    split_tag,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_SUBTAGS",
    "MAX_TAG_LENGTH",
    "AcceptLanguage",
    "Locale",
    "accept_language",
    "canonical_tag",
    "canonicalise",
    "check_registered",
    "cldr_version",
    "likely",
    "maximise",
    "minimise",
    "parent",
    "parent_chain",
    "parse_locale",
    "read_tag",
]

# Nearly every tag that is met has this shape. It is none of the legacy ones.
_COMMON = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?")


def parse_locale(tag: str) -> Locale:
    """Read a tag in any spelling and give the canonical form of its locale.

    Aliases are replaced (`iw` is `he`, `zh-yue` is `yue`, `en-UK` is `en-GB`), variants are
    sorted, and extensions (`-u-`, `-t-`) are dropped, as they don't say which language a text is
    in. A tag of private use alone (`x-other`) has the language `und`. Whether the subtags are
    registered is not asked: `check_registered` does that.

    Args:
        tag: BCP 47, in any case, with hyphens or underscores; at most 255 characters and 32
            subtags.

    Returns:
        The canonical form: parsing its `str()` gives an equal locale.

    Raises:
        InvalidLocaleError: not a string, or not well formed.
    """
    return canonicalise(read_tag(tag))


def read_tag(tag: str) -> Locale:
    """Read a tag and leave its subtags as they are: only case, separators and order are normal.

    No alias is applied, so that `iw` and `he` are two locales. Tags whose whole shape is legacy
    have no subtags to keep (`i-klingon`, `zh-min-nan`, extended languages such as `zh-yue`): they
    come in canonical form. Extensions are dropped.

    Raises:
        InvalidLocaleError: not a string, or not well formed.
    """
    common = _COMMON.fullmatch(tag) if type(tag) is str else None
    if common is not None:
        language, script, region = common.groups()
        return Locale(
            language.lower(),
            None if script is None else script.title(),
            None if region is None else region.upper(),
        )
    return read_parts(tag, split_tag(tag))


def check_registered(locale: Locale) -> None:
    """Refuse a subtag that the IANA registry doesn't know, in its ranges for private use either.

    For where something is created under a locale: a slip of the pen there would never be found.
    A request for such a locale is fine; it finds what is nearest.

    Raises:
        InvalidLocaleError: names the subtag.
    """
    registry = _registry()
    if not registry.is_language(locale.language):
        problem = f"{locale.language!r} is no registered language"
    elif locale.script is not None and not registry.is_script(locale.script):
        problem = f"{locale.script!r} is no registered script"
    elif locale.region is not None and not registry.is_region(locale.region):
        problem = f"{locale.region!r} is no registered region"
    else:
        strange = [variant for variant in locale.variants if variant not in registry.variants]
        if not strange:
            return
        problem = f"{strange[0]!r} is no registered variant (put words of your own behind -x-)"
    raise invalid_tag(str(locale), problem)


def parent(locale: Locale) -> Locale | None:
    """Where CLDR looks next when it has nothing for a locale; None stands for the root.

    The explicit parents of CLDR come first. Otherwise the last subtag goes: of the private ones,
    of the variants, then the region, then the script. A parent never has another script (UTS #35,
    `localeRules="nonlikelyScript"`): the parent of `ru-Latn` is the root, and the parent of
    `zh-TW`, which is written in Hant, is `zh-Hant`. The root takes the place of `und`.
    """
    if locale.private:
        above = replace(locale, private=locale.private[:-1])
    elif locale.variants:
        above = replace(locale, variants=locale.variants[:-1])
    elif (explicit := _explicit_parents().get(str(locale))) is not None:
        above = explicit
    elif locale.region:
        above = replace(locale, region=None)
        script = likely_script(locale.language, locale.region)
        # sr-ME is written in Latn, sr alone in Cyrl: the region said so.
        if locale.script is None and script != likely_script(locale.language):
            above = replace(above, script=script)
    elif locale.script:
        # Where CLDR knows no likely script there is nothing to differ from.
        expected = likely_script(locale.language) or locale.script
        above = replace(locale, script=None)
        if locale.script != expected:
            return None
    else:
        return None
    return None if above == Locale("und") else above


def parent_chain(locale: Locale) -> tuple[Locale, ...]:
    """The parents of a locale, nearest first, without itself and without the root.

    `es-MX` gives `es-419`, `es`; `zh-Hant` gives nothing.
    """
    chain: list[Locale] = []
    above = parent(locale)
    while above is not None:
        chain.append(above)
        above = parent(above)
    return tuple(chain)


@cache
def _explicit_parents() -> Mapping[str, Locale]:
    return {tag: parse_locale(above) for tag, above in cldr_data("locales")["parents"].items()}


@dataclass(frozen=True, slots=True)
class _Registry:
    """The subtags of the IANA registry, in canonical case."""

    languages: frozenset[str]
    scripts: frozenset[str]
    regions: frozenset[str]
    variants: frozenset[str]

    # The ranges that the registry keeps for private use are written as ranges there too.

    def is_language(self, subtag: str) -> bool:
        return subtag in self.languages or _within(subtag, "qaa", "qtz")

    def is_script(self, subtag: str) -> bool:
        return subtag in self.scripts or _within(subtag, "Qaaa", "Qabx")

    def is_region(self, subtag: str) -> bool:
        return subtag in self.regions or _within(subtag, "QM", "QZ") or _within(subtag, "XA", "XZ")


def _within(subtag: str, first: str, last: str) -> bool:
    return len(subtag) == len(first) and subtag.isalpha() and first <= subtag <= last


@cache
def _registry() -> _Registry:
    data = cldr_data("locales")
    return _Registry(
        languages=frozenset(data["languages"].split()),
        scripts=frozenset(data["scripts"].split()),
        regions=frozenset(data["regions"].split()),
        variants=frozenset(data["variants"].split()),
    )
