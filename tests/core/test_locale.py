from __future__ import annotations

import csv
import json
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import isogloss.core.locale
from isogloss.core.errors import InvalidLocaleError
from isogloss.core.locale import (
    Locale,
    canonicalise,
    check_registered,
    maximise,
    parent,
    parent_chain,
    parse_locale,
    read_tag,
)

CLDR = Path(isogloss.core.locale.__file__).parent / "cldr"
DATA = json.loads((CLDR / "locales.json").read_text(encoding="utf-8"))
LIKELY_SCRIPTS = {
    tag: addition.partition("-")[0]
    for addition, tags in DATA["likely_subtags"].items()
    for tag in tags.split()
}


def words(key: str) -> st.SearchStrategy[str]:
    return st.sampled_from(DATA[key].split())


subtag = st.one_of(
    words("languages"),
    words("scripts"),
    words("regions"),
    words("variants"),
    st.sampled_from([*DATA["language_aliases"], *DATA["legacy_tags"], *DATA["region_aliases"]]),
    st.sampled_from(["", "x", "X", "u", "ca", "t", "m0", "yue", "und", "bernese", "ß", "a\n", "K"]),
    st.text("abzXQ019", max_size=9),
)
tag_like = st.builds(
    lambda subtags, mark: mark.join(subtags),
    st.lists(subtag, min_size=1, max_size=7),
    st.sampled_from("-_"),
)


@st.composite
def valid_locales(draw: st.DrawFn) -> Locale:
    """Half of them near CLDR's own tables, where the parents are not mere truncation."""
    scripts = st.none() | words("scripts")
    regions = st.none() | words("regions")
    if draw(st.booleans()):
        tabled = [*DATA["parents"], *(tag for tag in LIKELY_SCRIPTS if "-" in tag)]
        start = parse_locale(draw(st.sampled_from(tabled)))
    else:
        start = Locale(draw(words("languages")))
    return Locale(
        language=start.language,
        script=start.script or draw(scripts),
        region=start.region or draw(regions),
        variants=tuple(sorted(draw(st.sets(words("variants"), max_size=2)))),
        private=tuple(draw(st.lists(st.sampled_from(["bernese", "nord", "x", "u"]), max_size=2))),
    )


@pytest.mark.parametrize(
    ("tag", "read"),
    [
        ("es", "es"),
        ("ES-mx", "es-MX"),
        ("pt_br", "pt-BR"),
        ("ZH_hant-hk", "zh-Hant-HK"),
        ("es-419", "es-419"),
        ("AR-001", "ar-001"),
        ("NO-no-X-Nord", "no-NO-x-nord"),
        ("de-x-A-b-C1", "de-x-a-b-c1"),
        ("de-x-u-ca-x", "de-x-u-ca-x"),
        ("x-Other", "x-other"),
        ("und-x-other", "x-other"),
        ("und-DE-x-other", "und-DE-x-other"),
        ("und", "und"),
        ("root", "und"),
        ("UND-tw", "und-TW"),
        ("de-1901", "de-1901"),
        ("sl-rozaj-1994-BISKE", "sl-1994-biske-rozaj"),  # sorted, as UTS #35 has it
        ("de-DE-u-co-phonebk", "de-DE"),
        ("en-t-jp-m0-ungegn-u-ca-buddhist-x-y", "en-x-y"),
        ("de-u-ca-x-y-u", "de-x-y-u"),
        ("qtz-Qabx-XZ", "qtz-Qabx-XZ"),
        # No alias is applied, and nothing is looked up.
        ("iw", "iw"),
        ("en-uk", "en-UK"),
        ("sh-QAAI-yu-Polytoni", "sh-Qaai-YU-polytoni"),
        ("klingon", "klingon"),
        ("zz-Zxqj-999-swiss", "zz-Zxqj-999-swiss"),
        # Legacy as a whole.
        ("zh-yue", "yue"),
        ("zh-yue-Hant-HK", "yue-Hant-HK"),
        ("zh-CMN-hant", "zh-Hant"),
        ("sgn-ase-US", "ase-US"),
        ("ar-arb", "ar"),
        ("I-Klingon", "tlh"),
        ("i-klingon-x-home", "tlh-x-home"),
        ("i-default", "en-x-i-default"),
        ("i-enochian", "x-i-enochian"),
        ("zh_min_nan", "nan"),
        ("zh-min-x-home", "nan-x-zh-min-home"),
        ("en-GB-oed", "en-GB-oxendict"),
        ("sgn-BE-FR", "sfb"),
        ("no-bok", "nb"),
    ],
)
def test_read_tag(tag: str, read: str) -> None:
    assert str(read_tag(tag)) == read


@pytest.mark.parametrize(
    ("tag", "canonical"),
    [
        ("iw", "he"),
        ("zh_cmn", "zh"),
        ("en-UK", "en-GB"),
        ("eng", "en"),
        ("tl-x-home", "fil-x-home"),
        ("sh-QAAI-yu-Polytoni", "sr-Zinh-RS-polyton"),
        ("de-u-co-phonebk", "de"),
        ("klingon", "klingon"),
    ],
)
def test_parse_locale_reads_and_canonicalises(tag: str, canonical: str) -> None:
    assert str(parse_locale(tag)) == canonical
    assert parse_locale(tag) == canonicalise(read_tag(tag))


def test_fields() -> None:
    assert parse_locale("zh-yue-hant-hk-x-a-b") == Locale(
        language="yue", script="Hant", region="HK", private=("a", "b")
    )
    assert parse_locale("x-a") == Locale("und", private=("a",))


@pytest.mark.parametrize(
    ("locale", "problem"),
    [
        (Locale("klingon"), "'klingon' is no registered language"),
        (Locale("spa", None, "PE"), "'spa' is no registered language"),
        (Locale("de", "Abcd", "DE"), "'Abcd' is no registered script"),
        (Locale("en", None, "UK"), "'UK' is no registered region"),
        (Locale("es", None, "999"), "'999' is no registered region"),
        (Locale("de", variants=("1996", "swiss")), "'swiss' is no registered variant"),
    ],
)
def test_what_is_not_registered(locale: Locale, problem: str) -> None:
    with pytest.raises(InvalidLocaleError, match=problem) as caught:
        check_registered(locale)
    assert str(caught.value).startswith(f"{str(locale)!r} is no locale: ")
    assert len(str(caught.value).splitlines()) == 1
    assert parse_locale(str(locale))  # as a request it is fine


@pytest.mark.parametrize(
    "tag",
    ["gsw-CH", "x-other", "und", "qaa-Qaaa-QM", "qtz-Qabx-XZ", "en-AA", "en-ZZ", "ca-valencia-x-a"],
)
def test_what_is_registered(tag: str) -> None:
    locale = parse_locale(tag)
    check_registered(locale)
    assert str(locale) == tag


@given(st.text() | tag_like)
def test_reading_raises_nothing_but_its_own_error_and_is_idempotent(tag: str) -> None:
    try:
        read = read_tag(tag)
    except InvalidLocaleError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert read_tag(str(read)) == read
    locale = parse_locale(tag)
    assert parse_locale(str(locale)) == locale


@given(valid_locales(), st.booleans(), st.booleans())
def test_a_locale_is_its_tag(locale: Locale, upper: bool, underscores: bool) -> None:
    tag = str(locale)
    tag = tag.upper() if upper else tag
    tag = tag.replace("-", "_") if underscores else tag
    assert read_tag(tag) == locale


@given(valid_locales())
def test_the_canonical_form_of_what_is_registered_is_registered(locale: Locale) -> None:
    check_registered(locale)
    check_registered(canonicalise(locale))


def test_a_locale_is_a_value() -> None:
    locale = parse_locale("gsw-CH-x-bernese")
    assert pickle.loads(pickle.dumps(locale)) == locale
    assert len({locale, parse_locale("GSW_ch-x-Bernese")}) == 1
    with pytest.raises(FrozenInstanceError):
        locale.region = "LI"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("tag", "chain"),
    [
        ("es", ""),
        ("und", ""),
        ("und-TW", ""),
        ("x-other", ""),
        ("x-a-b", "x-a"),
        ("es-MX", "es-419 es"),
        ("es-PH", "es"),
        ("en-AT", "en-150 en-001 en"),
        ("de-CH-1901-x-a-b", "de-CH-1901-x-a de-CH-1901 de-CH de"),
        ("sl-1994-biske", "sl-1994 sl"),
        ("zh-Hant-TW", "zh-Hant"),
        ("zh-Hant", ""),
        ("zh-Hans-CN", "zh-Hans zh"),
        ("ru-Latn-RU", "ru-Latn"),  # in no table: CLDR's rule nonlikelyScript
        ("ru-Cyrl", "ru"),
        ("qaa-Latn", "qaa"),  # CLDR knows no likely script
        ("zh-TW", "zh-Hant"),  # the region says which script
        ("sr-ME", "sr-Latn"),
        ("pa-PK", "pa-Arab"),
        ("sr-RS", "sr"),
        ("hi-Latn-IN", "hi-Latn en-IN en-001 en"),
    ],
)
def test_parent_chain(tag: str, chain: str) -> None:
    assert " ".join(str(above) for above in parent_chain(parse_locale(tag))) == chain


@given(valid_locales())
def test_a_chain_ends_and_each_step_follows_the_table_or_drops_something(locale: Locale) -> None:
    chain = (locale, *parent_chain(locale))
    assert len(set(chain)) == len(chain)
    assert parent(chain[-1]) is None
    for below, above in pairwise(chain):
        tag = str(below)
        by_table = DATA["parents"].get(tag) == str(above)
        shorter = str(above).count("-") < tag.count("-")
        script_of_region = above == Locale(below.language, above.script) and below.script is None
        assert by_table or shorter or script_of_region
        if not by_table and below.script is not None and above.script is None:
            assert LIKELY_SCRIPTS.get(below.language, below.script) == below.script


def test_no_parent_has_another_script() -> None:
    # UTS #35 asks for it; CLDR's explicit parents say so too where they lead to the root.
    for child, above in DATA["parents"].items():
        locale = parse_locale(child)
        assert str(locale) == child
        assert str(parent(locale)) == (above if above != "und" else "None")
        if above == "und":
            assert maximise(Locale(locale.language)).script != locale.script


def test_importing_needs_no_torch() -> None:
    code = (
        "import sys; from isogloss.core.locale import parse_locale; parse_locale('es');"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_locales_of_the_reference_data(shared: Path) -> None:
    tags = {folder.name for folder in (shared / "data").glob("*/*/")}
    assert tags
    aliased = {tag: str(parse_locale(tag)) for tag in tags if str(parse_locale(tag)) != tag}
    assert aliased == {"tw": "ak", "tw-GH": "ak-GH"}
    for tag in tags:
        assert str(read_tag(tag)) == tag
        check_registered(parse_locale(tag))


def test_parents_of_the_reference_data(shared: Path) -> None:
    with (shared / "locale" / "parent_chains.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["locale"] for row in rows} == set(DATA["parents"])
    for row in rows:
        chain = [str(above) for above in parent_chain(parse_locale(row["locale"]))]
        assert " > ".join([*chain, "und"]) == row["cldr48_parent_chain"]
