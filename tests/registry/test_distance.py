from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pytest

from isogloss.core.cldr_data import cldr_data
from isogloss.core.locale import parse_locale
from isogloss.registry.distance import (
    LSR,
    THRESHOLD,
    Distance,
    distance,
    is_paradigm,
    language_distance,
    language_rules,
    lsr,
    neighbours,
    region_cluster,
    region_distance,
    region_row,
    ruled_languages,
    script_distance,
)

if TYPE_CHECKING:
    from pathlib import Path


def of(tag: str) -> LSR:
    return lsr(parse_locale(tag))


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("es", LSR("es", "Latn", "ES")),
        ("zh_tw", LSR("zh", "Hant", "TW")),
        ("iw", LSR("he", "Hebr", "IL")),
        ("de-CH-1996-x-bernese", LSR("de", "Latn", "CH")),
        ("und-TW", LSR("zh", "Hant", "TW")),
        ("und", LSR("und", "", "")),
        ("und-Latn", LSR("und", "Latn", "")),
    ],
)
def test_what_is_compared_is_maximised_without_variants(tag: str, expected: LSR) -> None:
    assert of(tag) == expected


def test_an_unknown_language_gets_what_is_likely_for_its_script_and_region() -> None:
    assert of("qaa") == LSR("qaa", "Latn", "US")
    assert of("qaa-Cyrl") == LSR("qaa", "Cyrl", "RU")
    assert of("qaa-EG") == LSR("qaa", "Arab", "EG")


@pytest.mark.parametrize("tag", ["en-XA", "en-psaccent", "x-other"])
def test_pseudo_locales_and_private_use_are_near_to_nothing_else(tag: str) -> None:
    assert distance(of(tag), of("en")) is None
    assert distance(of("en"), of(tag)) is None
    assert distance(of(tag), of(tag)) == Distance(0, 0, 0)


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        ("es-MX", "es", (0, 0, 5)),
        ("es-MX", "es-419", (0, 0, 4)),
        ("es-PH", "es", (0, 0, 4)),
        ("en-AU", "en-GB", (0, 0, 3)),
        ("en-GB", "en-AU", (0, 0, 3)),
        ("en-IN", "en", (0, 0, 5)),
        ("ar-MA", "ar-DZ", (0, 0, 4)),
        ("ar-MA", "ar", (0, 0, 5)),
        ("pt-AO", "pt-PT", (0, 0, 4)),
        ("zh-HK", "zh-MO", (0, 0, 4)),
        ("zh-HK", "zh-TW", (0, 0, 5)),
        ("fr-CA", "fr", (0, 0, 4)),
        ("sr-Latn", "sr", (0, 5, 0)),
        ("zh-TW", "zh-CN", (0, 50, 4)),
        ("ja-Latn", "ja", (0, 5, 0)),
        ("ja", "ja-Latn", (0, 50, 0)),
        ("nb", "no", (1, 0, 0)),
        ("gsw", "de-CH", (4, 0, 0)),
        ("ta", "en", (30, 10, 4)),
        ("yue-HK", "zh-Hant", (10, 0, 4)),
    ],
)
def test_distances_by_part(wanted: str, offered: str, expected: tuple[int, int, int]) -> None:
    assert distance(of(wanted), of(offered)) == Distance(*expected)


def test_a_region_of_many_countries_is_as_far_as_its_furthest() -> None:
    # Some of the world is in America, some is not.
    assert region_distance(of("es-001"), of("es")) == 5
    assert region_distance(of("es-005"), of("es-MX")) == 4
    # CLDR's containment knows no XZ: only the rule for all regions is left.
    assert region_distance(of("es-XZ"), of("es")) == 5


def test_a_row_of_regions_says_what_each_pair_says() -> None:
    row = region_row(of("en-AU"), "en", "Latn")

    for region in ("GB", "US", "NZ", "001", "XZ"):
        expected = region_distance(of("en-AU"), LSR("en", "Latn", region))
        assert row[region_cluster(region)] == expected


def test_without_a_rule_the_defaults_of_the_data_stand() -> None:
    rules = cldr_data("matching")["language_matches"]

    assert {"* * 80", f"*-* *-* {THRESHOLD}", "*-*-* *-*-* 4"} <= set(rules)
    assert language_distance("fr", "de") is None
    assert script_distance(of("ru"), of("ru-Latn")) == 50
    assert region_distance(of("fr-CA"), of("fr")) == 4


def test_language_rules_agree_with_the_reference(shared: Path) -> None:
    path = shared / "locale" / "cldr48_language_rules.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    expected: dict[tuple[str, str], int] = {}
    for row in rows:
        pair = (row["desired"], row["supported"])
        expected[pair] = int(row["distance"])
        if row["direction"] == "twoway":
            expected[pair[::-1]] = int(row["distance"])

    actual = {
        (wanted, offered): rule
        for wanted in ruled_languages()
        for offered, rule in language_rules(wanted).items()
    }

    assert actual == expected


def test_neighbours_are_all_that_can_match_nearest_first() -> None:
    near = neighbours(of("ja-Hira"))
    assert [tuple(one) for one in near] == [("ja", "Hira", 0), ("ja", "Jpan", 5), ("ja", "Hrkt", 5)]

    near = neighbours(of("ta"))
    assert [tuple(one) for one in near] == [
        ("ta", "Taml", 0),
        ("en", "Taml", 30),
        ("en", "Latn", 40),
    ]

    assert neighbours(of("und-Latn")) == []


def test_paradigm_locales_are_those_of_cldr() -> None:
    assert all(is_paradigm(of(tag)) for tag in ("en", "en-GB", "es", "es-419", "pt", "pt-PT"))
    assert not any(is_paradigm(of(tag)) for tag in ("en-AU", "es-MX", "pt-AO", "fr"))
