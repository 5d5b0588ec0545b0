from __future__ import annotations

from dataclasses import replace
from itertools import count, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.core.errors import InputError, InvalidLocaleError
from isogloss.core.locale import parse_locale
from isogloss.registry.distance import LSR, distance, lsr
from isogloss.registry.matching import LocaleMatcher, Match

LANGUAGES = ["en", "es", "zh", "ja", "sr", "hr", "sh", "no", "nb", "da", "gsw", "de", "qaa", "und"]
REGIONS = ["US", "GB", "AU", "MX", "419", "001", "TW", "HK", "CH", "XA"]
tags = st.builds(
    lambda *subtags: "-".join(filter(None, subtags)),
    st.sampled_from(LANGUAGES),
    st.sampled_from(["", "", "Latn", "Cyrl", "Hant", "Hira"]),
    st.sampled_from(["", "", *REGIONS]),
    st.sampled_from(["", "", "", "1996", "fonipa"]),
    st.sampled_from(["", "", "", "x-home", "u-nu-latn"]),
)
lists = st.lists(tags, max_size=8)


def matched(supported: list[str], desired: str | list[str]) -> str | None:
    match = LocaleMatcher(supported).best(desired)
    return None if match is None else match.tag


def test_the_nearest_answers_with_its_distance() -> None:
    assert LocaleMatcher(["es", "es-419"]).best("es-MX") == Match(tag="es-419", distance=4)
    assert LocaleMatcher(["fr", "en-GB"]).best(["de", "en-AU"]) == Match(tag="en-GB", distance=3)
    assert LocaleMatcher(["fr"]).best("ja") is None


def test_a_tag_comes_back_as_it_was_given() -> None:
    assert matched(["EN_us", "zh_hant"], "zh-TW") == "zh_hant"
    assert matched(["iw"], "he-IL") == "iw"


def test_the_default_answers_where_nothing_matches() -> None:
    matcher = LocaleMatcher(["de", "en"], default="fr")

    assert matcher.best("ja") == Match(tag="fr", distance=None)
    assert matcher.best([]) == Match(tag="fr", distance=None)
    assert matcher.best("en-GB") == Match(tag="en", distance=5)


def test_an_empty_list_matches_nothing() -> None:
    assert LocaleMatcher([]).best("fr") is None
    assert LocaleMatcher([], default="en").best("fr") == Match(tag="en", distance=None)
    assert LocaleMatcher(["fr"]).best([]) is None


def test_each_place_down_the_list_costs_five() -> None:
    # en-GB for en-AU is 3, less than the 5 of a place; es for es-MX is 5 and loses to a later fit.
    assert matched(["en-GB", "ja"], ["en-AU", "ja"]) == "en-GB"
    assert matched(["zh", "es", "fr"], ["nn", "es-MX", "fr"]) == "es"
    assert matched(["hr", "ja"], ["sr-Latn", "ja"]) == "ja"
    assert matched(["no", "ja"], ["da", "ja"]) == "ja"


def test_no_more_than_ten_wishes_count() -> None:
    wishes = [*["fr"] * 9, "ja"]
    assert matched(["ja"], wishes) == "ja"
    assert matched(["ja"], ["fr", *wishes]) is None


def test_too_many_locales() -> None:
    with pytest.raises(InputError, match="more than 100,000 locales"):
        LocaleMatcher(f"de-x-{number}" for number in count())


def test_wishes_without_end_are_not_read_to_the_end() -> None:
    endless: Any = repeat("fr")
    assert LocaleMatcher(["ja"]).best(endless) is None


def test_likely_subtags_left_out_alike_are_nearer() -> None:
    assert matched(["zh-Hant-TW", "zh-TW"], "zh-TW") == "zh-TW"
    assert matched(["sr-Cyrl-RS", "sr-Cyrl"], "sr") == "sr-Cyrl"


def test_variants_and_private_use_make_no_difference() -> None:
    assert matched(["de-1901", "de"], "de") == "de-1901"
    assert matched(["de-CH-x-bernese"], "de-CH") == "de-CH-x-bernese"
    assert matched(["x-bork", "x-fork"], "x-fork") == "x-fork"
    assert matched(["x-bork"], "x-fork") is None


def test_among_equals_come_default_paradigm_likely_region_then_order() -> None:
    assert matched(["fr", "en-NZ", "en-IE"], "en-ZA") == "en-NZ"
    assert matched(["fr", "de-AT", "de-DE", "de-CH"], "de-LU") == "de-DE"
    # 419 is a paradigm and precedes MX; as the first, MX takes the part of the default.
    assert matched(["fr", "es-MX", "es-419"], "es-AR") == "es-419"
    assert matched(["es-MX", "es-419"], "es-AR") == "es-MX"
    assert LocaleMatcher(["fr", "en-NZ", "en-IE"], default="en-IE").best("en-ZA") == Match(
        tag="en-IE", distance=4
    )
    # The likely script, before the order.
    assert matched(["fr", "ja-Hrkt-US", "ja-US"], "ja-Hira-BR") == "ja-US"


def test_und_is_nothing_but_itself() -> None:
    assert matched(["en", "fr"], "und") is None
    assert matched(["en", "und-Latn", "und"], "und") == "und"
    assert matched(["und", "und-419"], "en") is None


@pytest.mark.parametrize("tag", ["", "91", "e", "es--MX", "es-MX-", "español", "a" * 1_000_000])
def test_an_ill_formed_tag_is_refused_on_either_side(tag: str) -> None:
    with pytest.raises(InvalidLocaleError) as supported:
        LocaleMatcher(["fr", tag])
    with pytest.raises(InvalidLocaleError):
        LocaleMatcher(["fr"], default=tag)
    with pytest.raises(InvalidLocaleError):
        LocaleMatcher(["fr"]).best(["de", tag])
    assert "\n" not in str(supported.value)


@pytest.mark.parametrize("desired", [None, 7, [None], b"fr", [["fr"]]])
def test_what_is_no_text_is_refused(desired: Any) -> None:
    with pytest.raises(InvalidLocaleError):
        LocaleMatcher(["fr"]).best(desired)
    with pytest.raises(InvalidLocaleError):
        LocaleMatcher(["fr", desired])


@given(st.lists(tags | st.text(max_size=12), max_size=5), tags | st.text(max_size=12))
def test_text_of_any_kind_raises_nothing_but_our_error(supported: list[str], tag: str) -> None:
    try:
        match = LocaleMatcher(supported).best([tag])
    except InvalidLocaleError as error:
        assert str(error)
    else:
        assert match is None or match.tag in supported


@given(lists, tags)
def test_a_tag_that_is_supported_always_wins(supported: list[str], tag: str) -> None:
    match = LocaleMatcher([*supported, tag]).best(tag)

    assert match is not None
    assert match.distance == 0
    # Only what doesn't count may differ: variants, private use, extensions.
    assert form(match.tag) == form(tag)


@given(lists, lists, st.randoms(use_true_random=False))
def test_order_decides_nothing_but_ties(supported: list[str], desired: list[str], rng: Any) -> None:
    shuffled = rng.sample(supported, len(supported))

    one, other = LocaleMatcher(supported).best(desired), LocaleMatcher(shuffled).best(desired)

    if one is None or other is None:
        assert one is other
    else:
        assert one.distance == other.distance


@given(lists, tags)
def test_no_supported_locale_is_nearer_than_the_answer(supported: list[str], tag: str) -> None:
    apart = [distance(form(tag), form(one)) for one in supported]
    totals = [one.total for one in apart if one is not None and one.total < 50]

    match = LocaleMatcher(supported).best(tag)

    assert (None if match is None else match.distance) == min(totals, default=None)


def form(tag: str) -> LSR:
    # The matcher doesn't apply the alias of this one, for which CLDR has rules.
    if tag.startswith("sh"):
        return lsr(replace(parse_locale(f"und{tag[2:]}"), language="sh"))
    return lsr(parse_locale(tag))
