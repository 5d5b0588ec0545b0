"""Against ICU: its own matcher test, and PyICU as an oracle for random lists."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import icu
import pytest

from isogloss.core.locale import Locale, parse_locale
from isogloss.registry.distance import LSR, language_rules, lsr, ruled_languages
from isogloss.registry.match_rules import match_rules
from isogloss.registry.matching import LocaleMatcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = 48
PAIRS = 20_000
AGREEMENT = 0.998

# Cases of ICU's test that come out otherwise. None do: a new one fails.
MISSES: frozenset[tuple[tuple[str, ...], str | None, tuple[str, ...]]] = frozenset()
# Rules that CLDR 48 has and the older CLDR of PyICU lacks, (wanted, offered).
NEWER_RULES = {("cnp", "zh"), ("csp", "zh")}
# Supported "locales" of ICU's test that are no BCP 47 tags; ICU's parser lets them through.
ILL_FORMED = {"91"}


class Case(NamedTuple):
    supported: tuple[str, ...]
    default: str | None
    desired: tuple[str, ...]
    expected: str


def default_cases(path: Path) -> Iterator[Case]:
    """The cases of localeMatcherTest.txt that use neither `@favor=script` nor a threshold."""
    supported: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.partition("#")[0].strip()
        if line.startswith("**"):
            supported, settings = (), {}
        elif line.startswith("@supported="):
            supported = split(line.partition("=")[2])
        elif line.startswith("@"):
            name, _, value = line[1:].partition("=")
            settings[name] = value
        elif line and not settings.get("favor") and not settings.get("threshold"):
            desired, _, expected = line.partition(">>")
            expected = expected.partition("|")[0].strip()
            yield Case(supported, settings.get("default") or None, split(desired), expected)


def split(tags: str) -> tuple[str, ...]:
    return tuple(tag.strip() for tag in tags.split(",") if tag.strip())


def answer(case: Case) -> str:
    supported = [tag for tag in case.supported if tag not in ILL_FORMED]
    match = LocaleMatcher(supported, case.default).best(case.desired)
    if match is not None:
        return match.tag
    # Where nothing matches, ICU falls back on the first supported locale.
    return supported[0] if supported else "null"


def agree(ours: str, expected: str) -> bool:
    if "null" in {ours, expected}:
        return ours == expected
    return parse_locale(ours) == parse_locale(expected)


def test_icus_own_cases_come_out_as_in_icu(shared: Path) -> None:
    path = shared / "locale" / "icu-78.3" / "localeMatcherTest.txt"

    cases = dict.fromkeys(default_cases(path))
    missed = {case[:3] for case in cases if not agree(answer(case), case.expected)}

    assert len(cases) == 421
    assert missed == MISSES


@pytest.fixture(scope="module")
def disagreements() -> list[tuple[list[str], list[str]]]:
    """The pairs of lists for which PyICU answers with another tag."""
    rng = random.Random(SEED)
    pairs = Pairs(rng)
    drawn = [pairs.draw() for _ in range(PAIRS)]
    return [
        (desired, supported)
        for desired, supported in drawn
        if ours(desired, supported) != theirs(desired, supported)
    ]


def test_random_lists_are_answered_as_in_icu(
    disagreements: list[tuple[list[str], list[str]]],
) -> None:
    assert 1 - len(disagreements) / PAIRS >= AGREEMENT


def test_only_data_and_und_make_a_difference_to_icu(
    disagreements: list[tuple[list[str], list[str]]],
) -> None:
    reasons = Counter(reason(*pair) for pair in disagreements)

    assert set(reasons) <= {"und is not English", "newer likely subtags", "newer rules"}


class Pairs:
    """Draws lists whose languages are the same or near, so that most of them match.

    Most lists are about a language that ICU has locales of, some about one that has clusters of
    regions or one that has rules.
    """

    def __init__(self, rng: random.Random) -> None:
        rules = match_rules()
        near: defaultdict[str, set[str]] = defaultdict(set)
        for wanted in ruled_languages():
            for offered in language_rules(wanted):
                near[wanted].add(offered)
                near[offered].add(wanted)
        available = {name.partition("_")[0] for name in icu.Locale.getAvailableLocales()}
        scripts = {
            script
            for by_script in rules.scripts.values()
            for wanted, offered in by_script.items()
            for script in (wanted, *offered)
        }
        self._near = {language: sorted(others) for language, others in near.items()}
        self._languages = sorted(available)
        self._with_rules = sorted(near)
        self._with_regions = sorted({language for language, _ in rules.regions})
        self._scripts = sorted(scripts)
        self._regions = sorted(rules.clusters)
        self._rng = rng

    def draw(self) -> tuple[list[str], list[str]]:
        rng = self._rng
        pools = (self._languages, self._with_regions, self._with_rules)
        chosen = rng.choice(rng.choices(pools, weights=(4, 1, 1))[0])
        near = self._near.get(chosen, [])
        languages = [chosen] * 3 + rng.sample(near, min(2, len(near)))
        languages += rng.sample(self._languages, 2)
        if rng.random() < 0.02:
            languages.append("und")
        desired = [self._tag(languages) for _ in range(rng.randint(1, 4))]
        return desired, [self._tag(languages) for _ in range(rng.randint(1, 12))]

    def _tag(self, languages: list[str]) -> str:
        rng = self._rng
        subtags = [rng.choice(languages)]
        subtags += [rng.choice(self._scripts)] if rng.random() < 0.25 else []
        subtags += [rng.choice(self._regions)] if rng.random() < 0.6 else []
        subtags += [rng.choice(["fonipa", "1996"])] if rng.random() < 0.05 else []
        return "-".join(subtags)


def ours(desired: list[str], supported: list[str]) -> str | None:
    match = LocaleMatcher(supported).best(desired)
    return None if match is None else match.tag


def theirs(desired: list[str], supported: list[str]) -> str | None:
    builder = icu.LocaleMatcher.Builder()
    matcher = builder.setSupportedLocales([icu.Locale.forLanguageTag(t) for t in supported]).build()
    # Not getBestMatch, which ends the process where nothing matches.
    result = matcher.getBestMatchResult([icu.Locale.forLanguageTag(tag) for tag in desired])
    index = result.getSupportedIndex()
    return None if index < 0 else supported[index]


def reason(desired: list[str], supported: list[str]) -> str:
    """Why PyICU, whose data are those of an older CLDR, may differ; else the lists themselves."""
    tags = sorted({*desired, *supported})
    unlike = [tag for tag in tags if lsr(parse_locale(tag)) != icus_lsr(tag)]
    if any(tag.startswith("und") for tag in unlike):
        return "und is not English"
    if unlike:
        return "newer likely subtags"
    languages = [{tag.partition("-")[0] for tag in tags} for tags in (desired, supported)]
    newer = NEWER_RULES & {*product(*languages)}
    return "newer rules" if newer else f"{desired} among {supported}"


def icus_lsr(tag: str) -> LSR:
    locale = parse_locale(tag)
    full = icu.Locale.forLanguageTag(str(Locale(locale.language, locale.script, locale.region)))
    full.addLikelySubtags()
    language = full.getLanguage() or "und"
    return LSR(language, full.getScript(), full.getCountry())
