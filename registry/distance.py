"""How far apart CLDR holds two locales, part by part: language, script, region.

The enhanced language matching of UTS #35 (part 1, "Enhanced Language Matching"), with the rules
read as ICU 78 reads them. Distances go from what is wanted to what is offered, and the way back
may be longer.

    wanted, offered = lsr(parse_locale("es-MX")), lsr(parse_locale("es"))
    distance(wanted, offered)    # Distance(language=0, script=0, region=5), its .total is 5
    script_distance(wanted, offered), region_distance(wanted, offered)    # one part alone
    language_rules("nb")         # {"no": 1, "nn": 20, "da": 8}
    neighbours(wanted)           # each language and script that can match, nearest first
    is_paradigm(offered)         # True: es-ES is preferred to its equals

Where there is no rule, the default stands: 80 for languages (`language_distance` says None), 50
for scripts, 4 for regions. At `THRESHOLD`, a total of 50, nothing matches.
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from ..core.locale import Locale, likely, maximise, parse_locale
from .match_rules import ANY, match_rules

if TYPE_CHECKING:
    from collections.abc import Mapping

THRESHOLD = 50
"""The total from which nothing matches; ICU takes CLDR's default for scripts."""

DEMOTION = 5
"""What each place further down a list of wishes costs: as much as another region of English, so
that a mere difference of region is no reason to take a later wish that fits exactly (ICU)."""

_UNKNOWN = "und"
_NO_RULES: Mapping[str, int] = MappingProxyType({})
_NO_SCRIPTS: Mapping[str, Mapping[str, int]] = MappingProxyType({})


class LSR(NamedTuple):
    """Language, script and region of a locale, maximised; empty where nothing is known."""

    language: str
    script: str
    region: str


class Distance(NamedTuple):
    """A distance in its three parts."""

    language: int
    script: int
    region: int

    @property
    def total(self) -> int:
        """The sum: what CLDR compares."""
        return self.language + self.script + self.region


class Neighbour(NamedTuple):
    """A language in a script that can match, its regions aside."""

    language: str
    script: str
    distance: int


def lsr(locale: Locale) -> LSR:
    """What of a locale is compared: likely subtags filled in; variants and private use left out.

    As in ICU, a pseudo-locale (`en-XA`, `ar-psbidi`) and a tag of private use alone (`x-other`)
    are languages by themselves, so that only they match themselves; and a language that has no
    likely subtags gets those of an unknown language with its script and region.

    Args:
        locale: in canonical form, as `parse_locale` makes it.
    """
    language, script, region = locale.language, locale.script, locale.region
    if language == _UNKNOWN and locale.private and script is None and region is None:
        return LSR(str(locale), "", "")
    pseudo = _pseudo_region(locale)
    if pseudo is not None:
        return LSR(f"{language}-{pseudo}", script or "", region or pseudo)
    full = likely(locale)
    language, script, region = full.language, full.script, full.region
    if language != _UNKNOWN and (script is None or region is None):
        unknown = maximise(Locale(_UNKNOWN, script, region))
        script, region = script or unknown.script, region or unknown.region
    return LSR(language, script or "", region or "")


def distance(wanted: LSR, offered: LSR) -> Distance | None:
    """The distance in its parts; None where CLDR has no rule for the languages.

    An unknown language (`und`) is near to none, not even to another unknown one.
    """
    language = language_distance(wanted.language, offered.language)
    if language is None or (wanted.language == _UNKNOWN and wanted != offered):
        return None
    return Distance(language, script_distance(wanted, offered), region_distance(wanted, offered))


def language_distance(wanted: str, offered: str) -> int | None:
    """The distance between two languages, 0 for the same; None where CLDR has no rule."""
    if wanted == offered:
        return 0
    return language_rules(wanted).get(offered)


def language_rules(wanted: str) -> Mapping[str, int]:
    """The other languages that CLDR has a rule for, where this one is wanted."""
    return match_rules().languages.get(wanted, _NO_RULES)


def ruled_languages() -> frozenset[str]:
    """The languages that have rules where they are wanted."""
    return frozenset(match_rules().languages)


def script_distance(wanted: LSR, offered: LSR) -> int:
    """The distance between the scripts of two languages; 50 where CLDR has no rule."""
    if wanted.script == offered.script:
        return 0
    rules = match_rules()
    scripts = rules.scripts.get((wanted.language, offered.language), _NO_SCRIPTS)
    return scripts.get(wanted.script, {}).get(offered.script, rules.script)


def region_distance(wanted: LSR, offered: LSR) -> int:
    """The distance between the regions of two languages; 4 where CLDR has no rule.

    The languages of the rules have clusters of regions (`es`: America and the rest) and are
    nearer within one. A region of several countries is as far as its furthest country.
    """
    if wanted.region == offered.region:
        return 0
    clusters = match_rules().clusters
    row = region_row(wanted, offered.language, offered.script)
    return row[clusters.get(offered.region, 0)]


def region_row(wanted: LSR, language: str, script: str) -> tuple[int, ...]:
    """The distances from a region to each cluster of regions of an offered language and script.

    Returns:
        By the number that `region_cluster` gives. A region's distance from itself is 0 all the
        same.
    """
    rules = match_rules()
    by_scripts = rules.regions.get((wanted.language, language))
    if by_scripts is None:
        return rules.default_regions
    table = by_scripts.get((wanted.script, script)) or by_scripts.get((ANY, ANY))
    return rules.default_regions if table is None else table[region_cluster(wanted.region)]


def region_cluster(region: str) -> int:
    """The number of a region's cluster: regions of one cluster are equally far from any other."""
    return match_rules().clusters.get(region, 0)


def neighbours(wanted: LSR) -> list[Neighbour]:
    """Every language in every script that can match, nearest first: the wanted one leads.

    Nothing is a neighbour of an unknown language (`und`).
    """
    if wanted.language == _UNKNOWN:
        return []
    rules = match_rules()
    near = [Neighbour(wanted.language, wanted.script, 0)]
    others = language_rules(wanted.language).items()
    near += [Neighbour(language, wanted.script, far) for language, far in others]
    for language, script, far in tuple(near):
        scripts = rules.scripts.get((wanted.language, language), _NO_SCRIPTS).get(script, {})
        near += [Neighbour(language, other, far + further) for other, further in scripts.items()]
    return sorted((one for one in near if one.distance < THRESHOLD), key=_by_distance)


def is_paradigm(offered: LSR) -> bool:
    """Whether CLDR prefers this locale to others at its distance: `en`, `en-GB`, `es-419`, …."""
    return offered in _paradigms()


@cache
def _paradigms() -> frozenset[LSR]:
    return frozenset(lsr(parse_locale(tag)) for tag in match_rules().paradigms)


def _by_distance(neighbour: Neighbour) -> int:
    return neighbour.distance


def _pseudo_region(locale: Locale) -> str | None:
    """`XA`, `XB` or `XC` where a locale is one of CLDR's pseudo-locales."""
    if locale.region in {"XA", "XB", "XC"}:
        return locale.region
    variant = locale.variants[0] if len(locale.variants) == 1 else ""
    return {"psaccent": "XA", "psbidi": "XB", "pscrack": "XC"}.get(variant)
