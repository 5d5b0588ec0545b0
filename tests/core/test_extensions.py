from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.core.errors import InvalidLocaleError
from isogloss.core.locale import canonical_tag, parse_locale

subtag = st.sampled_from(
    ["en", "iw", "zh", "yue", "us", "uk", "Latn", "u", "t", "a", "ca", "m0", "rg", "fi01", "true"]
) | st.text("abtux019", max_size=9)


@pytest.mark.parametrize(
    ("tag", "canonical"),
    [
        ("EN_us", "en-US"),
        ("iw-U-CA-buddhist-x-Y", "he-u-ca-buddhist-x-y"),
        ("en-u-nu-latn-ca-gregory", "en-u-ca-gregory-nu-latn"),
        ("en-u-foo-bar-nu-latn", "en-u-bar-foo-nu-latn"),
        ("en-u-kn-true-kn-false", "en-u-kn"),
        ("en-u-ca-islamic-civil", "en-u-ca-islamic-civil"),
        ("en-u-rg-fi01", "en-u-rg-axzzzz"),
        ("en-u-sd-no23", "en-u-sd-no50"),
        ("en-u-sd-usca", "en-u-sd-usca"),
        ("und-u-ca-roc-t-it-m0-bgn", "und-t-it-m0-bgn-u-ca-roc"),
        ("und-t-IW-Latn-UK-m0-true-i0-pinyin", "und-t-he-latn-gb-i0-pinyin-m0-true"),
        ("und-t-m0-bgn", "und-t-m0-bgn"),
        ("de-b-foo-a-bar", "de-a-bar-b-foo"),
        ("zh-yue-u-co-stroke", "yue-u-co-stroke"),
        ("x-other", "x-other"),
        ("de-x-u-ca", "de-x-u-ca"),
    ],
)
def test_extensions(tag: str, canonical: str) -> None:
    assert canonical_tag(tag) == canonical


def test_the_language_of_a_transform_must_be_well_formed() -> None:
    with pytest.raises(InvalidLocaleError, match="'latn' is no language"):
        canonical_tag("de-t-latn-m0-bgn")


@given(st.text() | st.lists(subtag, min_size=1, max_size=9).map("-".join))
def test_only_its_own_error_and_idempotent(tag: str) -> None:
    try:
        canonical = canonical_tag(tag)
    except InvalidLocaleError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert canonical_tag(canonical) == canonical
    assert parse_locale(canonical) == parse_locale(tag)
