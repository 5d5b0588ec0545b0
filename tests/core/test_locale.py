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
from isogloss.core.errors import InvalidLocaleError, IsoglossError
from isogloss.core.locale import (
    MAX_SUBTAGS,
    MAX_TAG_LENGTH,
    Locale,
    cldr_version,
    parent,
    parent_chain,
    parse_locale,
)

CLDR = Path(isogloss.core.locale.__file__).parent / "cldr"
DATA = json.loads((CLDR / "locales.json").read_text(encoding="utf-8"))
LIKELY_SCRIPTS = {
    tag: script for script, tags in DATA["likely_scripts"].items() for tag in tags.split()
}


def words(key: str) -> st.SearchStrategy[str]:
    return st.sampled_from(DATA[key].split())


subtag = st.one_of(
    words("languages"),
    words("scripts"),
    words("regions"),
    words("variants"),
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
    ("tag", "canonical"),
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
        ("UND-tw", "und-TW"),
        ("zh-yue", "yue"),
        ("zh-yue-Hant-HK", "yue-Hant-HK"),
        ("sgn-ase-US", "ase-US"),
        ("de-1901", "de-1901"),
        ("sl-rozaj-1994-BISKE", "sl-1994-biske-rozaj"),  # sorted, as UTS #35 has it
        ("de-DE-u-co-phonebk", "de-DE"),
        ("en-t-jp-m0-ungegn-u-ca-buddhist-x-y", "en-x-y"),
        ("de-u-ca-x-y-u", "de-x-y-u"),
        ("qaa-Qaaa-QM", "qaa-Qaaa-QM"),
        ("qtz-Qabx-XZ", "qtz-Qabx-XZ"),
        ("en-AA", "en-AA"),
        ("en-ZZ", "en-ZZ"),
        ("iw", "iw"),
    ],
)
def test_canonical_form(tag: str, canonical: str) -> None:
    assert str(parse_locale(tag)) == canonical


def test_fields() -> None:
    assert parse_locale("zh-yue-hant-hk-x-a-b") == Locale(
        language="yue", script="Hant", region="HK", private=("a", "b")
    )
    assert parse_locale("x-a") == Locale("und", private=("a",))


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        ("", "can't be empty"),
        ("klingon", "'klingon' is no language subtag"),
        ("english", "'english' is no language subtag"),
        ("eng", "'eng' is no language subtag"),
        ("qb1", "'qb1' is no language subtag"),
        ("i-klingon", "'i' is no language subtag"),
        ("u-ca-buddhist", "'u' is no language subtag"),
        ("Latn-DE", "'latn' is no language subtag"),
        ("de-Abcd-DE", "'abcd' is no script subtag"),
        ("en-UK", "'uk' is no region subtag"),
        ("es-999", "'999' is no region subtag"),
        ("de-swiss", "'swiss' is no variant subtag"),
        ("de-DE-Latn", "'latn' stands in the wrong place"),
        ("de-DE-AT", "'at' stands in the wrong place"),
        ("en-yue", "'yue' stands in the wrong place"),
        ("zh-yue-cmn", "'cmn' stands in the wrong place"),
        ("de-1996-1996", "a variant comes twice"),
        ("de-u-ca-u-co", "an extension comes twice"),
        ("de-u", "nothing stands behind 'u'"),
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
    with pytest.raises(InvalidLocaleError) as caught:
        parse_locale(tag)
    message = str(caught.value)
    assert problem in message
    assert message.endswith("; write a BCP 47 tag such as es-MX or gsw-CH")
    assert len(message.splitlines()) == 1


def test_the_message_says_what_was_wrong_what_was_got_and_what_to_do() -> None:
    with pytest.raises(InvalidLocaleError) as caught:
        parse_locale("klingon")
    assert str(caught.value) == (
        "'klingon' is no locale: 'klingon' is no language subtag; "
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


@given(st.text() | tag_like)
def test_parsing_raises_nothing_but_its_own_error_and_is_idempotent(tag: str) -> None:
    try:
        locale = parse_locale(tag)
    except InvalidLocaleError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert parse_locale(str(locale)) == locale


@given(valid_locales(), st.booleans(), st.booleans())
def test_a_locale_is_its_tag(locale: Locale, upper: bool, underscores: bool) -> None:
    tag = str(locale)
    tag = tag.upper() if upper else tag
    tag = tag.replace("-", "_") if underscores else tag
    assert parse_locale(tag) == locale


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
        assert str(parent(parse_locale(child))) == (above if above != "und" else "None")
        locale = parse_locale(child)
        if above == "und":
            assert LIKELY_SCRIPTS[locale.language] != locale.script


def test_shipped_data() -> None:
    assert cldr_version() == "48.0.0"
    licence = (CLDR / "LICENSE-unicode.txt").read_text(encoding="utf-8")
    assert licence.startswith("UNICODE LICENSE V3")
    for extlangs in DATA["extlangs"].values():
        assert set(extlangs.split()) <= set(DATA["languages"].split())


def test_importing_needs_no_torch() -> None:
    code = (
        "import sys; from isogloss.core.locale import parse_locale; parse_locale('es');"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_locales_of_the_reference_data(shared: Path) -> None:
    tags = {folder.name for folder in (shared / "data").glob("*/*/")}
    assert tags
    for tag in tags:
        assert str(parse_locale(tag)) == tag


def test_parents_of_the_reference_data(shared: Path) -> None:
    with (shared / "locale" / "parent_chains.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {row["locale"] for row in rows} == set(DATA["parents"])
    for row in rows:
        chain = [str(above) for above in parent_chain(parse_locale(row["locale"]))]
        assert " > ".join([*chain, "und"]) == row["cldr48_parent_chain"]
