from __future__ import annotations

import pickle
from typing import Any

import pytest

from isogloss.core.errors import InputError, InvalidLocaleError
from isogloss.registry import Blend, LocaleResolver, Policy, resolution
from isogloss.registry.locale_index import MAX_LOCALES


def answer(policy: Policy, request: str, published: str) -> tuple[str | None, str, int | None]:
    match = LocaleResolver(published.split(), policy=policy).resolve(request)
    return match.locale, match.stage, match.distance


NOTHING = (None, "base", None)


def test_a_looser_policy() -> None:
    assert answer(Policy(language_limit=30), "ta", "en") == NOTHING  # another script, too
    assert answer(Policy(language_limit=30), "is", "en") == ("en", "language", 24)
    assert answer(Policy(language_limit=30), "ht", "fr") == ("fr", "language", 24)
    assert answer(Policy(script_limit=20), "hi-Latn", "hi") == ("hi", "script", 20)
    assert answer(Policy(script_limit=50), "zh-TW", "zh") == ("zh", "script", 54)
    pair = Policy(pairs=(("nds", "de"), ("cs", "sk")))
    assert answer(pair, "nds", "de") == ("de", "language", 80)
    assert answer(pair, "de", "nds") == ("nds", "language", 80)
    assert answer(pair, "cs", "sk") == ("sk", "language", 24)


def test_a_tighter_policy() -> None:
    strict = Policy(language_limit=0, script_limit=0, pairs=())
    for request, published in (("gsw", "de"), ("sr", "sr-Latn"), ("cs", "sk"), ("nb", "nn")):
        assert answer(strict, request, published) == NOTHING
        assert answer(Policy(), request, published) != NOTHING
    assert answer(strict, "nb", "no") == ("no", "parent", 1)  # the same language
    assert answer(strict, "es-MX", "es-419") == ("es-419", "parent", 4)


def test_aliases_of_a_policy_and_of_a_resolver() -> None:
    policy = Policy(aliases={"bar": "de", "nds": "de"})
    resolver = LocaleResolver(["de", "gsw", "nl"], {"nds": "nl"}, policy)
    assert resolver.resolve("bar").locale == "de"
    assert resolver.resolve("nds").locale == "nl"


def test_a_policy_is_a_value() -> None:
    aliases = {"bar": "de"}
    policy = Policy(aliases=aliases)
    aliases["bar"] = "fr"
    assert policy == Policy(aliases={"bar": "de"})
    assert len({policy, Policy(aliases={"bar": "de"})}) == 1
    assert pickle.loads(pickle.dumps(policy)) == policy
    assert Policy(pairs=(("CS", "sk"),)).pairs == (("cs", "sk"),)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"script_limit": -1}, "script_limit can't be -1"),
        ({"language_limit": 101}, "language_limit can't be 101"),
        ({"language_limit": 5.0}, "whole number"),
        ({"language_limit": True}, "whole number"),
        ({"pairs": (("cs",),)}, "no pair of languages"),
        ({"pairs": ("cs",)}, "no pair of languages"),
        ({"pairs": (("cs", "cs"),)}, "no pair of languages"),
        ({"pairs": (("cs", "sk-SK"),)}, "no pair of languages"),
        ({"pairs": (("cs", "!"),)}, "no locale"),
        ({"aliases": {"bar": "!"}}, "no locale"),
    ],
)
def test_a_policy_that_makes_no_sense(options: dict[str, Any], problem: str) -> None:
    with pytest.raises((InputError, InvalidLocaleError), match=problem) as caught:
        Policy(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"adapters": 0}, "from 1 to 16"),
        ({"adapters": 17}, "from 1 to 16"),
        ({"adapters": 1.5}, "whole number"),
        ({"decay": 0}, "more than 0"),
        ({"decay": 1.1}, "at most 1"),
        ({"decay": float("nan")}, "decay by nan"),
        ({"decay": "0.5"}, "decay by '0.5'"),
    ],
)
def test_a_blend_that_makes_no_sense(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Blend(**options)


def test_a_blend_follows_the_path_of_fallback() -> None:
    resolver = LocaleResolver(
        ["es-MX", "es-419", "es", "es-AR", "pt", "und"], policy=Policy(blend=Blend(adapters=3))
    )
    match = resolver.resolve("es-MX-x-a")
    assert (match.locale, match.stage) == ("es-MX", "drop-private")
    assert [tag for tag, _ in match.blend] == ["es-MX", "es-419", "es-AR"]
    weights = [weight for _, weight in match.blend]
    assert weights == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert resolver.resolve(["ta", "es-MX-x-a"]).blend == match.blend
    # The trace is that of the answer, as without a blend.
    assert match.trace == LocaleResolver(["es-MX", "es-419"]).resolve("es-MX-x-a").trace


def test_a_blend_has_as_many_adapters_as_there_are() -> None:
    policy = Policy(blend=Blend(adapters=16, decay=1))
    assert LocaleResolver(["de", "und"], policy=policy).resolve("de").blend == (
        ("de", 0.5),
        ("und", 0.5),
    )
    assert LocaleResolver(["de"], policy=policy).resolve("de").blend == (("de", 1.0),)
    assert LocaleResolver(["de"], policy=policy).resolve("fr").blend == ()
    assert LocaleResolver(["und"], policy=policy).resolve("fr").blend == ()
    assert LocaleResolver(["de"]).resolve("de").blend == ()


def test_too_many_locales() -> None:
    with pytest.raises(InputError, match="more than 100,000 locales"):
        LocaleResolver(f"de-x-{number}" for number in range(MAX_LOCALES + 1))


def test_many_times_one_locale_is_one() -> None:
    resolver = LocaleResolver(["de"] * (MAX_LOCALES + 1) + ["fr"])
    assert resolver.resolve("fr").locale == "fr"


def test_answers_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "CACHE_SIZE", 3)
    resolver = LocaleResolver(["de"])
    for number in range(10):
        request = f"de-x-{number}"
        assert resolver.resolve(request) is resolver.resolve(request)
        assert len(resolver._answers) <= 3
    long = "de-x-" + "-".join(["abcdefgh"] * 27)
    header = f"{long},{long}-b"
    assert resolver.resolve(header) is not resolver.resolve(header)
