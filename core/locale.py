"""Locales: BCP 47 tags, their canonical form, and their parents in CLDR.

Sources: BCP 47 (RFC 5646) for syntax and canonical case, the IANA subtag registry for validity,
CLDR 48 and UTS #35 (part 1, "Parent Locales") for the parents. `cldr/refresh.py` says where the
data comes from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InvalidLocaleError

if TYPE_CHECKING:
    from collections.abc import Mapping

# RFC 5646 sets no limit. No real tag comes near these, and they bound what a hostile one costs.
MAX_TAG_LENGTH = 255
MAX_SUBTAGS = 32

_ADVICE = "write a BCP 47 tag such as es-MX or gsw-CH"


@dataclass(frozen=True, slots=True)
class Locale:
    """One locale in canonical form, as `parse_locale` makes it; `str()` gives its tag."""

    language: str
    """Lower case: `es`, `gsw`; `und` where the tag names none."""

    script: str | None = None
    """Title case, ISO 15924: `Hant`."""

    region: str | None = None
    """Upper case ISO 3166 or three digits of UN M.49: `MX`, `419`."""

    variants: tuple[str, ...] = ()
    """Lower case, sorted: `1996`."""

    private: tuple[str, ...] = ()
    """What stands behind `x`, lower case, in the order given: `bernese`."""

    def __str__(self) -> str:
        named = [self.language, self.script, self.region, *self.variants]
        subtags = [subtag for subtag in named if subtag is not None]
        if self.private:
            # `x-other` alone is a tag of its own (RFC 5646, section 2.1).
            subtags = [] if subtags == ["und"] else subtags
            subtags += ["x", *self.private]
        return "-".join(subtags)


def parse_locale(tag: str) -> Locale:
    """Read a BCP 47 tag, in any case and with hyphens or underscores.

    An extended language takes the place of its prefix (`zh-yue` is `yue`), variants are sorted,
    and extensions (`-u-`, `-t-`) are dropped, as they don't say which language a text is in.
    A tag of private use alone (`x-other`) has the language `und`. Deprecated subtags are kept as
    they are, and the whole tags that RFC 5646 grandfathers (`i-klingon`) are refused.

    Args:
        tag: at most 255 characters and 32 subtags.

    Returns:
        The canonical form: parsing its `str()` gives an equal locale.

    Raises:
        InvalidLocaleError: not a string, not well formed, or a subtag that is neither in the IANA
            registry nor in one of its ranges for private use.
    """
    subtags = _split(tag)
    known = _known()

    core, private = _cut_private(tag, subtags)
    core = _cut_extensions(tag, core)
    if not core:
        return Locale("und", private=private)

    language, *rest = core
    if not known.is_language(language):
        raise _invalid(tag, f"{language!r} is no language subtag")
    if rest and rest[0] in known.extlangs.get(language, ()):
        language = rest.pop(0)
    script = rest.pop(0).title() if rest and known.is_script(rest[0].title()) else None
    region = rest.pop(0).upper() if rest and known.is_region(rest[0].upper()) else None
    for subtag in rest:
        if subtag not in known.variants:
            raise _invalid(tag, _misfit(subtag, known))
    if len(set(rest)) < len(rest):
        raise _invalid(tag, "a variant comes twice")
    return Locale(language, script, region, tuple(sorted(rest)), private)


def parent(locale: Locale) -> Locale | None:
    """Where CLDR looks next when it has nothing for a locale; None stands for the root.

    The explicit parents of CLDR come first. Otherwise the last subtag goes: of the private ones,
    of the variants, then the region, then the script. A parent never has another script (UTS #35,
    `localeRules="nonlikelyScript"`): the parent of `ru-Latn` is the root, and the parent of
    `zh-TW`, which is written in Hant, is `zh-Hant`. The root takes the place of `und`.
    """
    known = _known()
    if locale.private:
        above = replace(locale, private=locale.private[:-1])
    elif locale.variants:
        above = replace(locale, variants=locale.variants[:-1])
    elif (explicit := known.parents.get(str(locale))) is not None:
        above = parse_locale(explicit)
    elif locale.region:
        above = replace(locale, region=None)
        script = known.likely_scripts.get(f"{locale.language}-{locale.region}")
        if locale.script is None and script is not None:
            above = replace(above, script=script)
    elif locale.script:
        # Where CLDR knows no likely script there is nothing to differ from.
        likely = known.likely_scripts.get(locale.language, locale.script)
        above = replace(locale, script=None)
        if locale.script != likely:
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


def cldr_version() -> str:
    """The release of CLDR whose data is shipped: `48.0.0`."""
    return _known().cldr_version


@dataclass(frozen=True, slots=True)
class _Known:
    """`cldr/locales.json`, ready for look-ups; subtags in canonical case."""

    cldr_version: str
    languages: frozenset[str]
    extlangs: Mapping[str, frozenset[str]]  # by prefix
    scripts: frozenset[str]
    regions: frozenset[str]
    variants: frozenset[str]
    parents: Mapping[str, str]
    likely_scripts: Mapping[str, str]  # by language, and by language-region where that differs

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
def _known() -> _Known:
    path = Path(__file__).parent / "cldr" / "locales.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    return _Known(
        cldr_version=data["cldr_version"],
        languages=frozenset(data["languages"].split()),
        extlangs={prefix: frozenset(words.split()) for prefix, words in data["extlangs"].items()},
        scripts=frozenset(data["scripts"].split()),
        regions=frozenset(data["regions"].split()),
        variants=frozenset(data["variants"].split()),
        parents=data["parents"],
        likely_scripts={
            tag: script for script, tags in data["likely_scripts"].items() for tag in tags.split()
        },
    )


def _split(tag: object) -> list[str]:
    """The subtags in lower case, each of 1 to 8 ASCII letters and digits."""
    if not isinstance(tag, str):
        raise InvalidLocaleError(f"a locale is a string, got {type(tag).__name__}; {_ADVICE}")
    if not tag:
        raise InvalidLocaleError(f"a locale can't be empty; {_ADVICE}")
    if len(tag) > MAX_TAG_LENGTH:
        raise _invalid(tag, f"{len(tag)} characters are more than {MAX_TAG_LENGTH}")
    subtags = tag.replace("_", "-").split("-")
    if len(subtags) > MAX_SUBTAGS:
        raise _invalid(tag, f"{len(subtags)} subtags are more than {MAX_SUBTAGS}")
    for subtag in subtags:
        if not (1 <= len(subtag) <= 8 and subtag.isascii() and subtag.isalnum()):
            raise _invalid(tag, f"{_short(subtag)} is not 1 to 8 letters a-z and digits")
    # Only now: lower() makes an ASCII k of the Kelvin sign.
    return [subtag.lower() for subtag in subtags]


def _cut_private(tag: str, subtags: list[str]) -> tuple[list[str], tuple[str, ...]]:
    if "x" not in subtags:
        return subtags, ()
    at = subtags.index("x")
    private = tuple(subtags[at + 1 :])
    if not private:
        raise _invalid(tag, "nothing stands behind 'x'")
    return subtags[:at], private


def _cut_extensions(tag: str, subtags: list[str]) -> list[str]:
    """Drop the extensions, each a singleton and one or more subtags (RFC 5646, section 2.2.6)."""
    singletons = [at for at, subtag in enumerate(subtags) if len(subtag) == 1]
    # A tag can't begin with one; the caller then finds that it is no language.
    if not singletons or singletons[0] == 0:
        return subtags
    letters = [subtags[at] for at in singletons]
    for letter, at, end in zip(letters, singletons, [*singletons[1:], len(subtags)], strict=True):
        if end == at + 1:
            raise _invalid(tag, f"nothing stands behind {letter!r}")
    if len(set(letters)) < len(letters):
        raise _invalid(tag, "an extension comes twice")
    return subtags[: singletons[0]]


def _misfit(subtag: str, known: _Known) -> str:
    """Why a subtag behind the language is refused."""
    looks_like_script = len(subtag) == 4 and subtag.isalpha()
    looks_like_region = len(subtag) == (3 if subtag.isdigit() else 2)
    if looks_like_script and not known.is_script(subtag.title()):
        return f"{subtag!r} is no script subtag"
    if looks_like_region and not known.is_region(subtag.upper()):
        return f"{subtag!r} is no region subtag"
    if looks_like_script or looks_like_region or known.is_language(subtag):
        return f"{subtag!r} stands in the wrong place"
    return f"{subtag!r} is no variant subtag"


def _invalid(tag: str, problem: str) -> InvalidLocaleError:
    return InvalidLocaleError(f"{_short(tag)} is no locale: {problem}; {_ADVICE}")


def _short(text: str) -> str:
    """One line (repr escapes line breaks), however long the text."""
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
