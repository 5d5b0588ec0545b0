"""CLDR's rules for language matching, compiled for look-ups: what `distance.py` stands on.

The rules and their variables are those of UTS #35 (part 1, "Enhanced Language Matching"); they
are compiled as ICU compiles them: the first rule for a pair counts, a rule goes both ways unless
it says otherwise, and regions are numbered by the sets of the rules that their countries are in.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

from ..core.cldr_data import cldr_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY = "*"

# Distances by the numbers of two clusters of regions: [wanted][offered].
RegionTable = tuple[tuple[int, ...], ...]

# The names of the sets (`$enUS`, `$!enUS`, `GB`) that one country is in.
_Country = frozenset[str]


@dataclass(frozen=True, slots=True)
class MatchRules:
    """`core/cldr/matching.json`, ready for look-ups; pairs are (wanted, offered)."""

    # CLDR's distance of an offered language where another is wanted.
    languages: Mapping[str, Mapping[str, int]]
    # By the pair of languages, then the wanted script, then the offered one.
    scripts: Mapping[tuple[str, str], Mapping[str, Mapping[str, int]]]
    # By the pair of languages, then the pair of scripts, which may be `*`.
    regions: Mapping[tuple[str, str], Mapping[tuple[str, str], RegionTable]]
    clusters: Mapping[str, int]
    paradigms: tuple[str, ...]
    script: int
    default_regions: tuple[int, ...]


@cache
def match_rules() -> MatchRules:
    """The rules, compiled once."""
    data = cldr_data("matching")
    languages: dict[str, dict[str, int]] = defaultdict(dict)
    scripts: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    regions: dict[tuple[str, str], dict[tuple[str, str], list[tuple[str, str, int]]]] = {}
    # The first rule for a pair is the one that counts.
    for wanted, offered, far in _both_ways(data["language_matches"]):
        pair = (wanted[0], offered[0])
        if len(wanted) == 1:
            languages[wanted[0]].setdefault(offered[0], far)
        elif len(wanted) == 2:
            by_script = scripts.setdefault(pair, {}).setdefault(wanted[1], {})
            by_script.setdefault(offered[1], far)
        else:
            within = regions.setdefault(pair, {}).setdefault((wanted[1], offered[1]), [])
            within.append((wanted[2], offered[2], far))
    del languages[ANY]
    script = scripts.pop((ANY, ANY))[ANY][ANY]
    ((_, _, region),) = regions.pop((ANY, ANY))[ANY, ANY]

    named = {
        name for by in regions.values() for rows in by.values() for row in rows for name in row[:2]
    }
    kinds, clusters = _clusters(data, named - {ANY})
    return MatchRules(
        languages=dict(languages),
        scripts=scripts,
        regions={
            pair: {scripts: _table(rows, kinds) for scripts, rows in by_scripts.items()}
            for pair, by_scripts in regions.items()
        },
        clusters=clusters,
        paradigms=tuple(data["paradigm_locales"].split()),
        script=script,
        default_regions=(region,) * len(kinds),
    )


def _both_ways(lines: Iterable[str]) -> Iterable[tuple[list[str], list[str], int]]:
    for line in lines:
        wanted, offered, far, *one_way = line.split()
        yield wanted.split("-"), offered.split("-"), int(far)
        if not one_way and wanted != offered:
            yield offered.split("-"), wanted.split("-"), int(far)


def _clusters(
    data: Mapping[str, Any], named: set[str]
) -> tuple[list[frozenset[_Country]], dict[str, int]]:
    """Number the regions by the sets that their countries are in; 0 is for those in none."""
    contains = {whole: parts.split() for whole, parts in data["region_contains"].items()}

    def countries(region: str) -> set[str]:
        parts = contains.get(region)
        return {region} if parts is None else set().union(*map(countries, parts))

    world = countries("001")
    sets = {name: {name} for name in named if not name.startswith("$")}
    for name, sum_ in data["match_variables"].items():
        inside = set().union(*map(countries, sum_.split("+")))
        sets[name] = inside
        sets[name.replace("$", "$!")] = world - inside

    kinds: dict[frozenset[_Country], int] = {frozenset(): 0}
    clusters: dict[str, int] = {}
    for region in sorted(world | contains.keys()):
        kind = frozenset(
            frozenset(name for name in named if country in sets[name])
            for country in countries(region)
        )
        clusters[region] = kinds.setdefault(kind, len(kinds))
    return list(kinds), clusters


def _table(rows: list[tuple[str, str, int]], kinds: list[frozenset[_Country]]) -> RegionTable:
    """The distances between clusters: that of their furthest countries."""

    def far(wanted: _Country, offered: _Country) -> int:
        return next(
            number
            for one, other, number in rows
            if (one in wanted and other in offered) or one == other == ANY
        )

    nowhere = (frozenset[str](), frozenset[str]())
    return tuple(
        tuple(
            max(far(*pair) for pair in [*product(wanted, offered)] or [nowhere])
            for offered in kinds
        )
        for wanted in kinds
    )
