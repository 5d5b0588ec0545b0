from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.core.accept_language import MAX_HEADER_ENTRIES, MAX_HEADER_LENGTH
from isogloss.core.errors import InvalidLocaleError
from isogloss.core.locale import AcceptLanguage, accept_language, read_tag

entry = st.builds(
    lambda tag, weight: tag + weight,
    st.sampled_from(["de", "de-AT", "EN_us", "fr", "*", "", " ", "x-a", "zh-yue", "de-", "ü"]),
    st.sampled_from(
        ["", ";q=1", ";q=0", " ; Q=0.5 ", ";q=0.25", ";q=2", ";q=.5", ";q", ";", ";q=1.001"]
    ),
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("de", AcceptLanguage(wanted=("de",), weights=(1.0,))),
        (
            "de-AT, de;q=0.8,en;q=0.5, *;q=0.1",
            AcceptLanguage(wanted=("de-AT", "de", "en"), weights=(1.0, 0.8, 0.5), wildcard=0.1),
        ),
        (
            "fr;q=0.3,  en ; Q=0.700\t, it;q=0.3",
            AcceptLanguage(wanted=("en", "fr", "it"), weights=(0.7, 0.3, 0.3)),
        ),
        (
            "fr;q=0,en;q=0.5",
            AcceptLanguage(wanted=("en",), weights=(0.5,), excluded=("fr",)),
        ),
        ("*", AcceptLanguage(wanted=(), weights=(), wildcard=1.0)),
        ("*;q=0, de;q=0.", AcceptLanguage(wanted=(), weights=(), excluded=("de",), wildcard=0.0)),
        (
            "de;q=0.2,en,de;q=0.9,en;q=0",
            AcceptLanguage(wanted=("de",), weights=(0.9,), excluded=("en",)),
        ),
        ("en;q=0,en", AcceptLanguage(wanted=(), weights=(), excluded=("en",))),
        (", ,pt_br,", AcceptLanguage(wanted=("pt_br",), weights=(1.0,))),
    ],
)
def test_headers(header: str, expected: AcceptLanguage) -> None:
    assert accept_language(header) == expected


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("", "names no language"),
        (" , ", "names no language"),
        (";q=1", "can't be empty"),
        ("de;q=1.5", "'q=1.5' is no weight"),
        ("de;q=-1", "'q=-1' is no weight"),
        ("de;q=0.1234", "'q=0.1234' is no weight"),
        ("de;q=nan", "is no weight"),
        ("de;q=٠", "is no weight"),
        ("de;", "'' is no weight"),
        ("de;level=1", "'level=1' is no weight"),
        ("de;q=1;q=1", "'q=1;q=1' is no weight"),
        ("de\n;q=1", "is no locale"),
        ("de AT", "is no locale"),
        ("de-DE-AT, fr", "'at' stands in the wrong place"),
        ("**", "is no locale"),
        ("de-*", "is no locale"),
    ],
)
def test_refused(header: str, problem: str) -> None:
    with pytest.raises(InvalidLocaleError) as caught:
        accept_language(header)
    assert problem in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("value", [None, 7, b"de", ["de"]])
def test_only_strings_are_headers(value: object) -> None:
    with pytest.raises(InvalidLocaleError, match="header is a string, got"):
        accept_language(value)  # type: ignore[arg-type]


def test_limits() -> None:
    most = ",".join(["de"] * MAX_HEADER_ENTRIES)
    assert accept_language(most).wanted == ("de",)
    with pytest.raises(InvalidLocaleError, match=f"entries are more than {MAX_HEADER_ENTRIES}"):
        accept_language(most + ",de")
    blank = "de" + " " * (MAX_HEADER_LENGTH - 2)
    assert accept_language(blank).wanted == ("de",)
    for header in (blank + " ", "de," * 400_000, "a" * 1_000_000, "-" * 1_000_000):
        with pytest.raises(InvalidLocaleError, match=f"more than {MAX_HEADER_LENGTH}") as caught:
            accept_language(header)
        assert len(str(caught.value)) < 200


@given(st.text() | st.lists(entry, max_size=6).map(",".join))
def test_a_header_is_read_or_refused(header: str) -> None:
    try:
        accepted = accept_language(header)
    except InvalidLocaleError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert list(accepted.weights) == sorted(accepted.weights, reverse=True)
    assert all(0 < weight <= 1 for weight in accepted.weights)
    assert len(accepted.weights) == len(accepted.wanted)
    assert not set(accepted.wanted) & set(accepted.excluded)
    for tag in (*accepted.wanted, *accepted.excluded):
        assert read_tag(tag)
