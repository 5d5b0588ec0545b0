"""What holds for any published locales and any request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from isogloss.core.errors import InvalidLocaleError
from isogloss.core.locale import Locale, parse_locale
from isogloss.registry.distance import language_distance, lsr, script_distance
from isogloss.registry.resolution import LocaleMatch, LocaleResolver

if TYPE_CHECKING:
    import random
    from collections.abc import Collection

# Languages that CLDR has rules, parents, aliases or several scripts for, so that all steps occur.
LANGUAGES = [
    "de", "gsw", "lb", "bar", "en", "es", "pt", "fr", "ht", "zh", "yue", "sr", "hr", "bs", "sh",
    "no", "nb", "nn", "da", "cs", "sk", "hi", "ta", "ar", "arz", "ary", "ms", "id", "ja", "ko",
    "uz", "und", "iw", "he", "x",
]  # fmt: skip
SCRIPTS = ["Latn", "Cyrl", "Hans", "Hant", "Arab", "Jpan", "Hang", "Kore", "Deva"]
REGIONS = [
    "DE", "AT", "CH", "US", "GB", "IN", "001", "150", "419", "MX", "AR", "ES", "BR", "PT", "AO",
    "TW", "HK", "MO", "CN", "RS", "ME", "BA", "NO", "EG", "XA",
]  # fmt: skip
VARIANTS = ["1901", "1996", "rozaj", "biske"]
PRIVATE = ["a", "b", "bernese"]
PAIRS = {frozenset(pair) for pair in (("cs", "sk"), ("nb", "nn"), ("nn", "no"))}


@st.composite
def tags(draw: st.DrawFn) -> str:
    language = draw(st.sampled_from(LANGUAGES))
    private = draw(st.lists(st.sampled_from(PRIVATE), max_size=2))
    if language == "x":
        return "-".join(["x", *(private or ["a"])])
    subtags = [language]
    subtags += draw(st.lists(st.sampled_from(SCRIPTS), max_size=1))
    subtags += draw(st.lists(st.sampled_from(REGIONS), max_size=1))
    subtags += draw(st.lists(st.sampled_from(VARIANTS), max_size=2, unique=True))
    if private:
        subtags += ["x", *private]
    tag = draw(st.sampled_from("-_")).join(subtags)
    return draw(st.sampled_from([tag, tag, tag.upper()]))


published = st.sets(tags(), max_size=12)


def resolve(tags_: Collection[str], request: str) -> LocaleMatch:
    return LocaleResolver(tags_).resolve(request)


@given(published, tags(), st.randoms(use_true_random=False))
def test_the_order_of_publication_changes_nothing(
    tags_: set[str], request: str, generator: random.Random
) -> None:
    ordered = sorted(tags_)
    shuffled = generator.sample(ordered, len(ordered))
    assert resolve(ordered, request) == resolve(shuffled, request)


@given(published, tags())
def test_an_exact_tag_always_wins(tags_: set[str], request: str) -> None:
    match = resolve(tags_ | {request}, request)
    assert (match.locale, match.stage, match.distance) == (request, "exact", 0)


@given(published, tags())
def test_an_answer_is_published_and_says_why(tags_: set[str], request: str) -> None:
    match = resolve(tags_, request)
    assert match.trace
    assert len(set(match.trace)) == len(match.trace)
    assert (match.stage == "base") == (match.locale is None)
    assert (match.distance is None) == (match.stage in {"default", "base"})
    assert match.locale is None or match.locale in tags_


@given(published, tags())
def test_nothing_serves_a_request_that_lacks_its_variants_or_private_use(
    tags_: set[str], request: str
) -> None:
    match = resolve(tags_, request)
    if match.locale is not None and match.stage != "default":
        wanted, found = parse_locale(request), parse_locale(match.locale)
        assert set(found.variants) <= set(wanted.variants)
        assert found.private == wanted.private[: len(found.private)]


@given(published, tags())
@example({"sr", "sr-Latn"}, "sr-Cyrl-ME")
@example({"zh", "zh-Hant"}, "zh-Hans-HK")
def test_language_and_script_change_within_the_policy_alone(tags_: set[str], request: str) -> None:
    match = resolve(tags_, request)
    if match.locale is None or match.stage == "default":
        return
    wanted, found = lsr(parse_locale(request)), lsr(parse_locale(match.locale))
    if wanted.language != found.language:
        assert match.stage in {"language", "parent", "drop-private", "drop-variant"}
        if match.stage == "parent":
            assert (wanted.language, found.language) in {("nb", "no"), ("nn", "no")}
        elif match.stage == "language":
            rule = language_distance(wanted.language, found.language)
            assert rule is not None
            assert rule <= 10 or {wanted.language, found.language} in PAIRS
            assert wanted.script == found.script
        else:  # private use alone, or a pseudo-locale
            assert parse_locale(request).language in {"und", found.language}
    elif wanted.script != found.script:
        assert match.stage == "script"
        assert match.script_changed
        assert script_distance(wanted, found) <= 5
    assert match.script_changed == (match.stage == "script")


@given(published, tags())
def test_what_answers_would_still_answer_alone(tags_: set[str], request: str) -> None:
    match = resolve(tags_, request)
    if match.locale is None:
        for tag in tags_:
            assert resolve([tag], request).locale is None
    else:
        assert resolve([match.locale], request).locale == match.locale


@given(published, st.lists(tags(), min_size=1, max_size=4))
def test_a_list_is_answered_as_one_of_its_locales(tags_: set[str], requests: list[str]) -> None:
    resolver = LocaleResolver(tags_)
    match = resolver.resolve(requests)
    alone = [resolver.resolve(request) for request in requests]
    costs = [
        (one.distance + 5 * place, place)
        for place, one in enumerate(alone)
        if one.distance is not None
    ]
    if costs:
        best = alone[min(costs)[1]]
        assert (match.locale, match.stage, match.distance) == (
            best.locale,
            best.stage,
            best.distance,
        )
    else:
        assert match.stage in {"default", "base"}


@given(published, st.text(alphabet="adexyDE019-_,;=q*. \t\nüK", max_size=40))
def test_any_text_is_answered_or_refused_with_our_error(tags_: set[str], text: str) -> None:
    try:
        match = resolve(tags_, text)
    except InvalidLocaleError as error:
        assert "\n" not in str(error)
    else:
        assert match.requested == text


@given(tags())
def test_unregistered_subtags_are_resolved_as_far_as_they_go(request: str) -> None:
    locale = parse_locale(request)
    if locale.language == "und" or locale.region == "XA":
        return
    strange = Locale(locale.language, locale.script, "QQ", ("notavar1",), ("qq",))
    match = resolve([str(Locale(locale.language, locale.script))], str(strange))
    assert match.stage in {"parent", "region", "drop-variant", "base"}
