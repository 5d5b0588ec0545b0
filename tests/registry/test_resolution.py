from __future__ import annotations

import csv
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.core.errors import InvalidLocaleError
from isogloss.core.locale import parse_locale
from isogloss.registry.resolution import LocaleMatch, LocaleResolver, Stage

if TYPE_CHECKING:
    from pathlib import Path

TAGS = [
    "de", "de-CH", "de-1901", "de-CH-1901", "de-CH-x-bernese", "de-x-other", "gsw", "gsw-CH", "bar",
    "es", "es-419", "es-MX", "ht", "fr", "fr-HT", "nb", "nn", "no", "no-NO-x-nord", "und", "zh",
    "zh-TW", "zh-Hant", "zh-Hant-HK", "x-bernese", "x-other",
]  # fmt: skip


def answer(request: str, published: str, **aliases: str) -> tuple[str | None, str, int | None]:
    match = LocaleResolver(published.split(), aliases).resolve(request)
    return match.locale, match.stage, match.distance


@pytest.mark.parametrize(
    ("request_", "published", "expected"),
    [
        ("es-MX", "es es-MX", ("es-MX", "exact", 0)),
        ("ES_mx", "es_mx", ("es_mx", "exact", 0)),
        ("zh-yue", "yue zh", ("yue", "exact", 0)),
        ("und", "und", ("und", "exact", 0)),
        ("x-other", "x-other", ("x-other", "exact", 0)),
        ("no-NO-x-nord", "no-NO no", ("no-NO", "drop-private", 0)),
        ("de-x-a-b", "de de-x-b", ("de", "drop-private", 0)),
        ("de-CH-1901", "de-CH de-1901", ("de-CH", "drop-variant", None)),
        ("de-CH-1901-x-a", "de-CH", ("de-CH", "drop-variant", None)),
        ("de-CH-x-a", "de", ("de", "parent", None)),
        ("es-MX", "es es-419", ("es-419", "parent", None)),
        ("nb-NO", "no", ("no", "parent", None)),
        ("nn", "no", ("no", "parent", None)),
        ("ht", "fr fr-HT", (None, "base", None)),  # CLDR's parent, but another language
        ("hi-Latn", "en en-IN hi", (None, "base", None)),
        ("zh-TW", "zh zh-Hans", (None, "base", None)),
        ("zh-TW", "zh zh-Hant", ("zh-Hant", "parent", None)),
        ("x-other", "de x-bernese", (None, "base", None)),
        ("de", "de-1901 de-x-a", (None, "base", None)),
        ("de-CH-x-bernese", "de-CH-x-zurich", (None, "base", None)),
        ("de-CH-1901", "de-CH-1996", (None, "base", None)),
        ("es", "", (None, "base", None)),
        ("es-MX", "de und", ("und", "default", None)),
        ("ht", "fr und", ("und", "default", None)),
        ("x-other", "x-bernese UND", ("UND", "default", None)),
    ],
)
def test_stages(
    request_: str, published: str, expected: tuple[str | None, str, int | None]
) -> None:
    assert answer(request_, published) == expected
    assert expected[1] in get_args(Stage)


def test_aliases() -> None:
    assert answer("bar", "de", bar="de") == ("de", "alias", 0)
    assert answer("BAR", "de", Bar="DE") == ("de", "alias", 0)
    assert answer("bar", "bar de", bar="de") == ("bar", "exact", 0)
    assert answer("bar", "de", bar="de-AT") == ("de", "parent", None)
    assert answer("bar-DE-x-muc", "de", bar="de") == ("de", "parent", None)
    assert answer("bar-x-muc", "de", bar="de") == ("de", "drop-private", 0)
    assert answer("bar", "gsw", bar="de", de="gsw") == ("gsw", "alias", 0)
    assert answer("bar", "und", bar="de") == ("und", "default", None)


def test_aliases_that_go_in_circles() -> None:
    assert answer("bar", "gsw", bar="de", de="bar") == (None, "base", None)
    assert answer("bar", "gsw", bar="bar") == (None, "base", None)
    match = LocaleResolver(["und"], {"de": "de-AT"}).resolve("de")
    assert match.stage == "default"
    assert match.trace == (
        "de: nothing published",
        "alias of de is de-AT: nothing published",
        "parent of de-AT is de (CLDR 48.0.0): tried before",
        "und: published, the default",
    )


def test_trace() -> None:
    match = LocaleResolver(["pt", "PT_pt"]).resolve("pt_AO-x-luanda")
    assert match == LocaleMatch(
        requested="pt_AO-x-luanda",
        locale="PT_pt",
        stage="parent",
        distance=None,
        trace=(
            "pt-AO-x-luanda: nothing published",
            "pt-AO-x-luanda with less private use is pt-AO: nothing published",
            "parent of pt-AO is pt-PT (CLDR 48.0.0): published as PT_pt",
        ),
    )
    with pytest.raises(FrozenInstanceError):
        match.locale = "pt"  # type: ignore[misc]


def test_trace_without_an_answer() -> None:
    assert LocaleResolver(["fr"]).resolve("ht").trace == (
        "ht: nothing published",
        "parent of ht is fr-HT (CLDR 48.0.0): another language, not followed",
        "no default (und) is published: the bare base is left",
    )


@pytest.mark.parametrize("tags", [["pt_br", "pt-BR"], ["pt-BR", "pt_br"]])
def test_two_spellings_of_one_locale(tags: list[str]) -> None:
    assert LocaleResolver(tags).resolve("pt-br").locale == "pt-BR"


def test_invalid_tags_are_refused() -> None:
    with pytest.raises(InvalidLocaleError, match="klingon"):
        LocaleResolver(["de", "klingon"])
    with pytest.raises(InvalidLocaleError, match="klingon"):
        LocaleResolver(["de"], {"klingon": "de"})
    with pytest.raises(InvalidLocaleError, match="klingon"):
        LocaleResolver(["de"], {"de": "klingon"})
    with pytest.raises(InvalidLocaleError, match="klingon"):
        LocaleResolver(["de"]).resolve("klingon")


@given(
    st.sampled_from(TAGS),
    st.sets(st.sampled_from(TAGS)),
    st.dictionaries(st.sampled_from(TAGS), st.sampled_from(TAGS), max_size=3),
)
def test_every_answer_is_published_and_sound(
    request_: str, published: set[str], aliases: dict[str, str]
) -> None:
    match = LocaleResolver(published, aliases).resolve(request_)
    assert (match.stage == "base") == (match.locale is None)
    assert (match.stage == "exact") == (request_ in published)
    assert match.trace
    if match.locale is None:
        assert "und" not in published
        return
    assert match.locale in published
    if not aliases and match.stage != "default":
        wanted, found = parse_locale(request_), parse_locale(match.locale)
        assert wanted.private[: len(found.private)] == found.private
        assert wanted.variants[: len(found.variants)] == found.variants
        assert found.language == wanted.language or found.language == "no"


def test_cases_of_the_reference_data(shared: Path) -> None:
    with (shared / "locale" / "adapter_cases.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    # The other stages need likely subtags, CLDR's distances or its aliases.
    stages = {"exact", "drop-private", "parent", "base"}
    singles = [row for row in rows if not {",", ";"} & set(row["request"])]
    tested = [row for row in singles if row["stage"] in stages]
    assert {row["stage"] for row in tested} == stages
    for row in tested:
        match = LocaleResolver(row["adapters"].split(",")).resolve(row["request"])
        assert (match.locale or "BASE", match.stage) == (row["expected"], row["stage"]), row
        if match.distance is not None:
            assert str(match.distance) == row["cldr_distance"], row


def test_parents_that_are_safe_for_adapters(shared: Path) -> None:
    with (shared / "locale" / "parent_chains.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        safe = [tag for tag in row["adapter_safe_chain"].split(" > ") if tag]
        raw = [tag for tag in row["cldr48_parent_chain"].split(" > ") if tag != "und"]
        for tag in raw:
            match = LocaleResolver([tag]).resolve(row["locale"])
            assert match.locale == (tag if tag in safe else None), row
