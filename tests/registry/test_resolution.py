from __future__ import annotations

import csv
import pickle
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, get_args

import pytest

from isogloss.core.errors import InvalidLocaleError
from isogloss.registry.resolution import LocaleMatch, LocaleResolver, Stage

if TYPE_CHECKING:
    from pathlib import Path

Answer = tuple[str | None, str, int | None]


def answer(request: str, published: str, **aliases: str) -> Answer:
    match = LocaleResolver(published.split(), aliases).resolve(request)
    return match.locale, match.stage, match.distance


NOTHING: Answer = (None, "base", None)


@pytest.mark.parametrize(
    ("request_", "published", "expected"),
    [
        # As it is written.
        ("es-MX", "es es-MX", ("es-MX", "exact", 0)),
        ("ES_mx", "es_mx", ("es_mx", "exact", 0)),
        ("pt_br", "pt-BR pt_br", ("pt_br", "exact", 0)),
        ("zh-yue", "yue zh-yue", ("zh-yue", "exact", 0)),
        ("de-u-co-phonebk", "de", ("de", "exact", 0)),
        ("iw", "he iw", ("iw", "exact", 0)),
        ("und", "und", ("und", "exact", 0)),
        ("x-other", "x-other", ("x-other", "exact", 0)),
        ("ta", "en ta", ("ta", "exact", 0)),
        # The canonical form, of either side.
        ("iw", "he", ("he", "alias", 0)),
        ("he", "iw", ("iw", "alias", 0)),
        ("zh-yue", "yue zh", ("yue", "alias", 0)),
        ("i-klingon", "tlh", ("tlh", "alias", 0)),
        ("en-UK", "en en-GB", ("en-GB", "alias", 0)),
        ("sh", "sr sr-Latn", ("sr-Latn", "alias", 0)),
        ("sl-rozaj-1994", "sl-1994-rozaj", ("sl-1994-rozaj", "alias", 0)),
        # Language, script and region, said or likely.
        ("zh-TW", "zh zh-Hant", ("zh-Hant", "equivalent", 0)),
        ("zh-Hant-HK", "zh-HK zh-Hant", ("zh-HK", "equivalent", 0)),
        ("de-DE", "de de-Latn-DE de-Latn", ("de", "equivalent", 0)),
        ("und-TW", "zh-TW", ("zh-TW", "equivalent", 0)),
        ("ca-ES-valencia", "ca ca-valencia", ("ca-valencia", "equivalent", 0)),
        ("gsw-CH-x-bern", "gsw gsw-x-bern", ("gsw-x-bern", "equivalent", 0)),
        ("de-DE-x-a", "de de-DE", ("de-DE", "drop-private", 0)),
        # Less of private use, then of variants, from the right.
        ("no-NO-x-nord", "no-NO no", ("no-NO", "drop-private", 0)),
        ("de-x-a-b", "de de-x-b", ("de", "drop-private", 0)),
        ("de-x-a-b", "de de-x-a", ("de-x-a", "drop-private", 0)),
        ("de-DE-x-a", "de", ("de", "drop-private", 0)),
        ("x-a-b", "x-a und", ("x-a", "drop-private", 0)),
        ("de-CH-1901", "de-CH de-1901", ("de-CH", "drop-variant", 0)),
        ("de-CH-1901-x-a", "de-CH de-CH-1901", ("de-CH-1901", "drop-private", 0)),
        ("de-CH-1901-x-a", "de-CH de-CH-x-a", ("de-CH", "drop-variant", 0)),
        ("sl-rozaj-biske", "sl sl-rozaj", ("sl-rozaj", "drop-variant", 0)),
        ("sl-rozaj-biske-1994", "sl sl-rozaj", ("sl-rozaj", "drop-variant", 0)),
        # What CLDR names as parent.
        ("es-Latn-MX-x-a", "es es-419", ("es-419", "parent", 4)),
        ("es-MX", "es es-Latn-419", ("es-Latn-419", "parent", 4)),
        ("es-MX", "es-419 es-419-x-a", ("es-419", "parent", 4)),
        ("und-MX", "es es-419", ("es-419", "parent", 4)),
        ("en-AT", "en en-001", ("en-001", "parent", 5)),
        ("nn", "nb no", ("no", "parent", 20)),
        ("nb-SJ", "nb no", ("nb", "region", 4)),
        ("zh-MO", "zh-Hant zh-HK", ("zh-HK", "parent", 4)),
        ("uz-Cyrl-KZ", "uz uz-Cyrl", ("uz-Cyrl", "parent", 4)),
        ("ht", "fr fr-HT", NOTHING),
        ("hi-Latn", "en en-IN hi", NOTHING),
        ("yue-Hans", "yue", NOTHING),
        # The nearest region.
        ("es-MX", "es es-ES", ("es", "region", 5)),
        ("pt-AO", "pt", ("pt", "region", 5)),
        ("en-AU", "en en-GB en-NZ", ("en-GB", "region", 3)),
        ("en-CA", "en en-GB", ("en", "region", 4)),
        ("fr-BE", "fr-CH fr-CA", ("fr-CA", "region", 4)),
        ("de-AT-x-a", "de", ("de", "region", 4)),
        ("de-CH-1901", "de-1901", ("de-1901", "region", 4)),
        ("de-CH-1901", "de-1901 de", ("de", "region", 4)),
        ("de-XY", "de", ("de", "region", 4)),
        # Another script.
        ("sr", "sr-Latn", ("sr-Latn", "script", 5)),
        ("sr-Latn-BA", "sr", ("sr", "script", 9)),
        ("ja-Latn", "ja zh", ("ja", "script", 5)),
        ("zh-TW", "zh zh-Hans", NOTHING),
        ("az-Arab", "az", NOTHING),
        # Another language.
        ("lb", "de fr", ("de", "language", 8)),
        ("nb", "da nn", ("da", "language", 12)),
        ("nb", "nn", ("nn", "language", 20)),
        ("sk", "cs", ("cs", "language", 24)),
        ("id", "ms", ("ms", "language", 14)),
        ("min-ID", "ms id", ("ms", "language", 14)),
        ("be", "ru", NOTHING),
        ("jv", "id", NOTHING),
        ("gsw", "de-1901", NOTHING),
        # No language at all.
        ("und", "de en", NOTHING),
        ("und-Latn", "en", NOTHING),
        ("x-other", "de x-bernese", NOTHING),
        ("de", "de-1901 de-x-a", NOTHING),
        ("de-CH-x-bernese", "de-CH-x-zurich", NOTHING),
        ("de-CH-1901", "de-CH-1996", NOTHING),
        ("es", "", NOTHING),
        ("xx-klingon", "de", NOTHING),
        # The default.
        ("es-MX", "de und", ("und", "default", None)),
        ("ht", "fr und", ("und", "default", None)),
        ("x-other", "x-bernese UND", ("UND", "default", None)),
        ("und-Latn", "und en", ("und", "default", None)),
    ],
)
def test_stages(request_: str, published: str, expected: Answer) -> None:
    assert answer(request_, published) == expected
    assert answer(request_, " ".join(reversed(published.split()))) == expected
    assert expected[1] in get_args(Stage)


def test_cases_of_the_reference_data(shared: Path) -> None:
    with (shared / "locale" / "adapter_cases.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) >= 44
    for row in rows:
        match = LocaleResolver(row["adapters"].split(",")).resolve(row["request"])
        distance = "" if match.distance is None else str(match.distance)
        found = (match.locale or "BASE", match.stage, distance)
        assert found == (row["expected"], row["stage"], row["cldr_distance"]), row


def test_parents_that_are_safe_for_adapters(shared: Path) -> None:
    with (shared / "locale" / "parent_chains.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        safe = [tag for tag in row["adapter_safe_chain"].split(" > ") if tag]
        raw = [tag for tag in row["cldr48_parent_chain"].split(" > ") if tag != "und"]
        for tag in raw:
            match = LocaleResolver([tag]).resolve(row["locale"])
            assert match.locale == (tag if tag in safe else None), row


def test_language_rules_that_are_followed(shared: Path) -> None:
    path = shared / "locale" / "cldr48_language_rules.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    # sh is an alias, of sr-Latn; the likely scripts of these differ.
    unlike = {"sh", "dv"}
    for row in rows:
        if row["desired"] in unlike:
            continue
        match = LocaleResolver([row["supported"]]).resolve(row["desired"])
        if row["class"] == "bridge":
            assert match.locale is None, row
        elif match.locale is None:
            assert any("not in " in step or "CLDR has no rule" in step for step in match.trace), row


def test_aliases() -> None:
    assert answer("bar", "de", bar="de") == ("de", "alias", 0)
    assert answer("BAR", "de", Bar="DE") == ("de", "alias", 0)
    assert answer("bar", "bar de", bar="de") == ("bar", "exact", 0)
    assert answer("bar", "de", bar="de-AT") == ("de", "region", 4)
    assert answer("bar-AT", "de de-AT", bar="de") == ("de-AT", "alias", 0)
    assert answer("bar-DE-x-muc", "de", bar="de") == ("de", "drop-private", 0)
    assert answer("bar", "gsw", bar="de", de="gsw") == ("gsw", "alias", 0)
    assert answer("bar", "und", bar="de") == ("und", "default", None)
    assert answer("ar-EG", "ar arz", **{"ar-EG": "arz"}) == ("arz", "alias", 0)
    assert answer("ar-EG-x-cairo", "ar arz", **{"ar-EG": "arz"}) == ("arz", "drop-private", 0)
    assert answer("ar-SA", "ar-SA arz", **{"ar-EG": "arz"}) == ("ar-SA", "exact", 0)
    # Of one step the alias goes before the locale itself; a nearer step goes first.
    assert answer("de-CH", "de gsw-LI", **{"de-CH": "gsw"}) == ("gsw-LI", "region", 4)
    assert answer("ar-EG", "ar", **{"ar-EG": "arz"}) == ("ar", "equivalent", 0)
    # The alias that says most.
    assert answer("ar-EG", "arz ary", ar="ary", **{"ar-EG": "arz"}) == ("arz", "alias", 0)
    assert answer("de-x-be-a", "gsw", **{"de-x-be": "gsw"}) == ("gsw", "drop-private", 0)


def test_aliases_that_go_in_circles() -> None:
    assert answer("bar", "fr", bar="de", de="bar") == NOTHING
    assert answer("bar", "gsw", bar="bar") == NOTHING
    assert answer("de", "und", de="de-AT") == ("und", "default", None)
    # What would grow for ever.
    assert answer("de", "de-x-a-a", de="de-x-a") == NOTHING
    assert answer("de", "gsw", **{"de": "de-x-a", "de-x-a": "gsw"}) == ("gsw", "alias", 0)


def test_trace() -> None:
    match = LocaleResolver(["pt", "PT_pt"]).resolve("pt_AO-x-luanda")
    assert match == LocaleMatch(
        requested="pt_AO-x-luanda",
        locale="PT_pt",
        stage="parent",
        distance=4,
        trace=(
            "pt-AO-x-luanda: nothing published",
            "pt-AO-x-luanda means pt-Latn-AO: not published in any spelling",
            "pt-AO-x-luanda with fewer variants or less private use: nothing published",
            "CLDR parent pt-PT: published as PT_pt",
        ),
    )
    with pytest.raises(FrozenInstanceError):
        match.locale = "pt"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(match)) == match


@pytest.mark.parametrize(
    ("request_", "published", "steps"),
    [
        ("ht", "fr", ["CLDR parent fr-HT is another language: refused", "over 10: fr (20)"]),
        ("zh-TW", "zh", ["another script, CLDR's rule over 5: zh-Hans (50): refused"]),
        ("de", "de-1901 de-x-a", ["de-1901, de-x-a: variants or private use that de lacks"]),
        ("bar", "de", ["CLDR has no rule from bar to a language that is published"]),
        ("az-Latn", "ru", ["over 10: ru (30): refused"]),
        ("bs-Cyrl", "hr", ["hr: not in Cyrl: refused"]),
        ("und-TW", "zh", ["und-TW means zh-Hant-TW"]),
        ("arb", "fr", ["canonical form of arb, ar: nothing published"]),
        ("sr", "sr-Latn", ["script_changed: sr-Latn is in Latn, not Cyrl, distance 5"]),
        ("x-a", "de", ["x-a names no language", "the bare base is left"]),
        ("es", "und", ["und: published, the default"]),
    ],
)
def test_a_trace_says_what_was_refused(request_: str, published: str, steps: list[str]) -> None:
    match = LocaleResolver(published.split()).resolve(request_)
    for step in steps:
        assert any(step in line for line in match.trace), match.trace
    assert len(match.trace) <= 12
    assert all("\n" not in line and len(line) < 120 for line in match.trace)


def test_a_changed_script_is_flagged() -> None:
    assert LocaleResolver(["sr"]).resolve("sr-Latn").script_changed
    assert not LocaleResolver(["sr"]).resolve("sr-RS").script_changed


@pytest.mark.parametrize("tags", [["pt_br", "pt-BR"], ["pt-BR", "pt_br"]])
def test_two_spellings_of_one_locale(tags: list[str]) -> None:
    assert LocaleResolver(tags).resolve("pt-br").locale == "pt-BR"


def test_ill_formed_tags_are_refused() -> None:
    with pytest.raises(InvalidLocaleError, match="klingon!"):
        LocaleResolver(["de", "klingon!"])
    with pytest.raises(InvalidLocaleError, match="klingon!"):
        LocaleResolver(["de"], {"klingon!": "de"})
    with pytest.raises(InvalidLocaleError, match="klingon!"):
        LocaleResolver(["de"], {"de": "klingon!"})
    with pytest.raises(InvalidLocaleError, match="klingon!"):
        LocaleResolver(["de"]).resolve("klingon!")
