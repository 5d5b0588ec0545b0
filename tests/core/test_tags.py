from __future__ import annotations

import pytest

from isogloss.core.errors import InvalidLocaleError, IsoglossError
from isogloss.core.locale import MAX_SUBTAGS, MAX_TAG_LENGTH, Locale, canonical_tag, parse_locale
from isogloss.core.tags import TagParts, split_tag


def test_the_parts_of_a_tag() -> None:
    assert split_tag("zh_Hant-T-en-U-ca-Roc-x-A-u") == TagParts(
        identifier=("zh", "hant"),
        extensions=(("t", "en"), ("u", "ca", "roc")),
        private=("a", "u"),
    )
    assert split_tag("i-klingon").identifier == ("i", "klingon")
    assert split_tag("x-a") == TagParts((), (), ("a",))


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        ("", "can't be empty"),
        ("d", "'d' is no language: 2, 3 or 5 to 8 letters"),
        ("Latn-DE", "'latn' is no language"),
        ("qb1", "'qb1' is no language"),
        ("419", "'419' is no language"),
        ("i-klingons", "'i' is no language"),
        ("u-ca-buddhist", "'u' is no language"),
        ("root-DE", "'root' is no language"),
        ("de-DE-Latn", "'latn' stands in the wrong place"),
        ("de-DE-AT", "'at' stands in the wrong place"),
        ("de-1996-419", "'419' stands in the wrong place"),
        ("en-yue", "'yue' is no extended language of 'en'"),
        ("zh-yue-cmn", "'cmn' is no extended language of 'yue'"),
        ("zh-min-nan-TW", "'min' is no extended language of 'zh'"),
        ("de-a1", "'a1' has the shape of no subtag"),
        ("de-abc1", "'abc1' has the shape of no subtag"),
        ("de-1996-1996", "a variant comes twice"),
        ("de-u-ca-u-co", "an extension comes twice"),
        ("de-u", "nothing stands behind 'u'"),
        ("de-t-u-ca", "nothing stands behind 't'"),
        ("de-u-x-y", "nothing stands behind 'u'"),
        ("de-x", "nothing stands behind 'x'"),
        ("x", "nothing stands behind 'x'"),
        ("de-x-", "'' is not 1 to 8"),
        ("-de", "'' is not 1 to 8"),
        ("de--DE", "'' is not 1 to 8"),
        ("de-x-ninechars", "'ninechars' is not 1 to 8"),
        ("de DE", "'de DE' is not 1 to 8"),
        ("de-DE\n", r"'DE\n' is not 1 to 8"),
        ("dë", "'dë' is not 1 to 8"),
        ("\u212ao", "is not 1 to 8"),  # the Kelvin sign, whose lower case is an ASCII k
        ("de-\ud800", "is not 1 to 8"),
        ("de-٤١٩", "is not 1 to 8"),
        ("en_US.UTF-8", "'US.UTF' is not 1 to 8"),
        ("de-AT,fr", "'AT,fr' is not 1 to 8"),
    ],
)
def test_refused(tag: str, problem: str) -> None:
    for read in (parse_locale, canonical_tag):
        with pytest.raises(InvalidLocaleError) as caught:
            read(tag)
        message = str(caught.value)
        assert problem in message
        assert message.endswith("; write a BCP 47 tag such as es-MX or gsw-CH")
        assert len(message.splitlines()) == 1


def test_the_message_says_what_was_wrong_what_was_got_and_what_to_do() -> None:
    with pytest.raises(InvalidLocaleError) as caught:
        parse_locale("de-DE-swss")
    assert str(caught.value) == (
        "'de-DE-swss' is no locale: 'swss' stands in the wrong place; "
        "write a BCP 47 tag such as es-MX or gsw-CH"
    )
    assert isinstance(caught.value, IsoglossError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", [None, 7, b"de", ["de"], Locale("de")])
def test_only_strings_are_tags(value: object) -> None:
    with pytest.raises(InvalidLocaleError, match="a locale is a string, got"):
        parse_locale(value)  # type: ignore[arg-type]


def test_limits() -> None:
    longest = "de-x" + "-a" * (MAX_SUBTAGS - 2)
    assert str(parse_locale(longest)) == longest
    with pytest.raises(InvalidLocaleError, match=f"subtags are more than {MAX_SUBTAGS}"):
        parse_locale(longest + "-a")
    with pytest.raises(InvalidLocaleError, match=f"are more than {MAX_TAG_LENGTH}") as caught:
        parse_locale("de-x-" + "a" * 1_000_000)
    assert len(str(caught.value)) < 200
