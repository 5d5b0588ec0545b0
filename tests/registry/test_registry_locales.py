"""A registry's answers for locales: lists, headers, aliases of locales, policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from isogloss.core.errors import InputError, InvalidLocaleError, UnknownAliasError
from isogloss.registry import Policy, Registry

if TYPE_CHECKING:
    from pathlib import Path


class MakeAdapter(Protocol):
    def __call__(self, seed: int = 0, *, labels: int = 3) -> Path: ...


def test_lists_and_headers(registry: Registry, make_adapter: MakeAdapter) -> None:
    german = registry.publish(make_adapter(1), locale="de", task="intent")
    french = registry.publish(make_adapter(2), locale="fr", task="intent")
    for request, version in (
        (["ta", "fr-CA"], french),
        ("de-AT, fr", german),
        ("gsw, de;q=0, fr;q=0.1", french),
    ):
        assert registry.resolve(request, "intent").version == version
    assert registry.resolve(["gsw", "fr"], "intent").requested == "gsw, fr"
    with pytest.raises(InvalidLocaleError, match="empty"):
        registry.resolve([], "intent")


def test_aliases_of_locales(registry: Registry, make_adapter: MakeAdapter) -> None:
    german = registry.publish(make_adapter(1), locale="de", task="intent")
    assert registry.resolve("bar-AT", "intent").version is None
    registry.locale_alias("BAR", "de")
    found = registry.resolve("bar-AT", "intent")
    assert (found.version, found.stage, found.distance) == (german, "region", 4)
    (alias,) = registry.locale_aliases()
    assert (alias.locale, alias.instead) == ("bar", "de")
    bavarian = registry.publish(make_adapter(2), locale="bar", task="intent")
    assert registry.resolve("bar", "intent").version == bavarian
    registry.remove_locale_alias("bar")
    assert registry.locale_aliases() == []
    with pytest.raises(UnknownAliasError, match="bar is no alias"):
        registry.remove_locale_alias("bar")
    with pytest.raises(InputError, match="are one locale"):
        registry.locale_alias("iw", "he")
    with pytest.raises(InvalidLocaleError, match="klingon"):
        registry.locale_alias("bar", "klingon")


def test_a_policy(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    with Registry.open(tmp_path / "r", policy=Policy(language_limit=0)) as strict:
        german = strict.publish(make_adapter(1), locale="de", task="intent")
        assert strict.resolve("gsw", "intent").version is None
        assert strict.resolve("de-AT", "intent").version == german
    with Registry.open(tmp_path / "r") as registry:
        assert registry.resolve("gsw", "intent").version == german


def test_publishing_refuses_what_is_not_registered(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    with pytest.raises(InvalidLocaleError, match="klingon"):
        registry.publish(make_adapter(1), locale="klingon", task="intent")
    assert registry.resolve("klingon", "intent").stage == "base"
