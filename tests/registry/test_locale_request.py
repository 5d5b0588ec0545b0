from __future__ import annotations

from typing import Any

import pytest

from isogloss.core.errors import InvalidLocaleError
from isogloss.registry import Blend, LocaleResolver, Policy

Answer = tuple[str | None, str, int | None]


def answer(request: str | list[str], published: str) -> Answer:
    match = LocaleResolver(published.split()).resolve(request)
    return match.locale, match.stage, match.distance


@pytest.mark.parametrize(
    ("request_", "published", "expected"),
    [
        (["de-AT", "fr"], "de fr", ("de", "region", 4)),
        (["es-MX", "en"], "es en", ("es", "region", 5)),  # 5, and the place counts 5
        (["yue-HK", "en"], "zh-Hant en", ("en", "exact", 0)),
        (["ta", "is", "fr-CA"], "en fr", ("fr", "region", 4)),
        (["ta", "is"], "en und", ("und", "default", None)),
        (["ta", "is"], "en", (None, "base", None)),
        (("pt-AO",), "pt-PT", ("pt-PT", "parent", 4)),
        (["qaa", "qab", "qac", "qad", "qae", "qaf", "qag", "qah", "qai", "qaj", "qak", "de"], "de",
         ("de", "exact", 0)),
        ("is,fr;q=0.5", "en fr", ("fr", "exact", 0)),
        ("fr;q=0.2, de-AT;q=0.9", "de fr", ("de", "region", 4)),
        ("fr;q=0,en;q=0.5", "fr en", ("en", "exact", 0)),
        ("gsw, de;q=0", "de", (None, "base", None)),
        ("gsw, de;q=0", "de de-CH gsw-LI", ("gsw-LI", "region", 4)),
        ("es-MX, es-419;q=0", "es es-419", ("es", "region", 5)),
        ("fr-CA, fr;q=0", "fr fr-CA", ("fr-CA", "exact", 0)),
        ("fr-CA, fr;q=0", "fr fr-CH", (None, "base", None)),
        ("zh-TW, zh-Hans;q=0", "zh zh-TW", ("zh-TW", "exact", 0)),
        ("zh, zh-Hans;q=0", "zh-CN zh-TW", (None, "base", None)),
        ("en-US, *;q=0", "en de", ("en", "equivalent", 0)),
        ("gsw, *;q=0", "de und", ("und", "default", None)),
        ("fr, *", "de", (None, "base", None)),
        ("*", "de", (None, "base", None)),
        ("*", "de und", ("und", "default", None)),
        ("de;q=0", "de", (None, "base", None)),
    ],
)  # fmt: skip
def test_lists_and_headers(request_: Any, published: str, expected: Answer) -> None:
    assert answer(request_, published) == expected


def test_the_trace_names_each_locale_that_was_looked_for() -> None:
    match = LocaleResolver(["zh-Hant", "en"]).resolve(["ta", "yue-HK", "en", "fr"])
    assert match.requested == "ta, yue-HK, en, fr"
    assert any("en (30): refused" in line for line in match.trace)
    assert "yue-HK: zh-Hant would answer, at 19 with its place in the list" in match.trace
    assert match.trace[-1] == "en: published"


def test_an_exclusion_holds_at_every_step_and_in_a_blend() -> None:
    resolver = LocaleResolver(
        ["gsw-LI", "de", "de-AT", "de-DE-x-a", "de-AT-1996"],
        policy=Policy(blend=Blend(adapters=9)),
    )
    match = resolver.resolve("gsw-1996, de;q=0, de-AT;q=0.1")
    assert [tag for tag, _ in match.blend] == ["gsw-LI", "de-AT"]
    assert resolver.resolve("de-DE-x-a, de;q=0").locale == "de-DE-x-a"
    assert resolver.resolve("de-AT-1996, de-AT-1996;q=0").locale is None
    assert resolver.resolve("de-AT-1996-x-a, de-AT-1996;q=0").locale == "de-AT"
    assert resolver.resolve("de-AT-1996, *;q=0").locale == "de-AT-1996"


def test_the_trace_names_what_a_header_excludes() -> None:
    match = LocaleResolver(["de"]).resolve("gsw, de;q=0, *;q=0")
    assert match.trace[0] == "the header excludes de, *"


def test_a_long_trace_is_shortened() -> None:
    match = LocaleResolver(["de"]).resolve([f"qa{letter}" for letter in "abcdefghijkl"])
    assert len(match.trace) <= 24
    assert any(line.startswith("… ") for line in match.trace)
    assert match.trace[-1] == "no default (und) is published: the bare base is left"


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ("", "can't be empty"),
        ("klingon!", "klingon!"),
        ("d", "'d' is no language"),
        ([], "the list of locales is empty"),
        (["de", "klingon!"], "klingon!"),
        (["de", "de,en"], "de,en"),
        (["de", 5], "a list with int"),
        ([["de"]], "a list with list"),
        (None, "NoneType is no request"),
        (b"de", "bytes is no request"),
        ({"de"}, "set is no request"),
        ("de" * 5000, "10000 characters"),
        (["de"] * 1000, "1000 locales"),
        ("de;q=2", "no weight"),
        ("," * 20, "names no language"),
        ("," * 400, "entries"),
        ("," * 4000, "4000 characters"),
    ],
)
def test_what_is_no_request(request_: Any, problem: str) -> None:
    with pytest.raises(InvalidLocaleError, match=problem) as caught:
        LocaleResolver(["de"]).resolve(request_)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_a_list_is_checked_to_its_end() -> None:
    with pytest.raises(InvalidLocaleError, match="klingon!"):
        LocaleResolver(["de"]).resolve(["de", "en", "klingon!"])
