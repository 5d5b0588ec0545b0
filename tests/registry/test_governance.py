from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

import isogloss
from isogloss.core.errors import (
    ConflictError,
    InputError,
    ProtectedAliasError,
    UnknownAliasError,
    UnknownVersionError,
    VersionInUseError,
)

if TYPE_CHECKING:
    from isogloss.registry import AliasChange, Registry, Version

    from .conftest import MakeAdapter


@pytest.fixture
def versions(registry: Registry, make_adapter: MakeAdapter) -> list[Version]:
    """Three versions of one locale and task; `production` has pointed to each in turn."""
    return [
        registry.publish(make_adapter(seed), locale="gsw-CH", task="intent", smoke=False)
        for seed in range(3)
    ]


def live(registry: Registry, alias: str = "production") -> str:
    return registry.aliases(locale="gsw-CH", task="intent", alias=alias)[0].digest


def moves(registry: Registry, alias: str = "production") -> list[AliasChange]:
    return registry.history("gsw-CH", "intent", alias=alias)


def test_a_version_says_who_made_it_and_with_what(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    ours = registry.publish(make_adapter(1), locale="de", task="intent", alias="canary")
    assert ours.author == ours.published_by
    assert ours.tools["isogloss"] == isogloss.__version__
    assert {"peft", "torch"} <= ours.tools.keys()
    theirs = registry.publish(
        make_adapter(2), locale="de", task="intent", alias="canary", author="Heidi, of Bern"
    )
    assert registry.version(theirs.name) == theirs
    assert registry.version(theirs.name).author == "Heidi, of Bern"
    # The same content by somebody else is the same version.
    folder = make_adapter(3)
    first = registry.publish(folder, locale="de", task="intent", alias=None, author="Heidi")
    again = registry.publish(folder, locale="de", task="intent", alias=None, author="Peter")
    assert again == first
    assert again.author == "Heidi"


def test_a_version_without_an_alias(registry: Registry, make_adapter: MakeAdapter) -> None:
    version = registry.publish(make_adapter(), locale="de", task="intent", alias=None)
    assert registry.aliases() == []
    assert registry.versions() == [version]
    assert registry.read(version)
    assert registry.resolve("de", "intent").version is None
    with pytest.raises(InputError, match="compared with nothing"):
        registry.publish(
            make_adapter(1), locale="de", task="intent", alias=None, require="macro_f1>=0"
        )
    registry.promote(version, smoke=False)
    assert registry.resolve("de", "intent").version == version


def test_versions_page_by_page(registry: Registry, make_adapter: MakeAdapter) -> None:
    aliases = ("production", None, "canary", None, None)
    for seed, alias in enumerate(aliases):
        registry.publish(make_adapter(seed), locale="de", task="t", alias=alias, smoke=False)
    registry.publish(make_adapter(9), locale="fr", task="t", alias=None)
    everything = registry.versions(locale="de")
    pages = [registry.versions(locale="de", limit=2)]
    while pages[-1]:
        pages.append(registry.versions(locale="de", limit=2, after=pages[-1][-1].name))
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert [version for page in pages for version in page] == everything
    assert [alias.alias for alias in registry.aliases(versions=everything[:3])] == ["canary"]
    assert registry.aliases(versions=[]) == []
    with pytest.raises(InputError, match="limit is 0"):
        registry.versions(limit=0)
    # Published at the same moment: by digest.
    one, two = (replace(everything[0], digest=digit * 64) for digit in "12")
    for version in (two, one):
        registry._catalog.publish(version, alias=None)
    assert registry._catalog.versions(limit=2, after=one)[0] == two


def test_promotion_that_expects_what_is_there(registry: Registry, versions: list[Version]) -> None:
    one, two, three = versions
    for expected in (three, three.digest, three.name, three.digest[:8]):
        registry.promote(one, expected=expected, smoke=False)
        assert live(registry) == one.digest
        registry.promote(three, expected=one, smoke=False)
    registry.promote(two, alias="canary", expected=None)
    assert live(registry, "canary") == two.digest


def test_promotion_that_expects_something_else(registry: Registry, versions: list[Version]) -> None:
    one, two, three = versions
    before = moves(registry)
    with pytest.raises(ConflictError) as caught:
        registry.promote(one, expected=two, reason="mine is better", smoke=False)
    message = str(caught.value)
    assert f"was expected to point to {two.digest[:12]}" in message
    assert f"points to {three.digest[:12]} since {before[0].changed_at[:19]}" in message
    assert f"moved by {before[0].changed_by} (no smoke forward)" in message
    with pytest.raises(ConflictError, match="was expected not to exist"):
        registry.promote(one, expected=None, smoke=False)
    with pytest.raises(ConflictError, match="but it doesn't exist"):
        registry.promote(one, alias="canary", expected=two)
    with pytest.raises(ConflictError):
        registry.rollback("gsw-CH", "intent", expected=one)
    with pytest.raises(UnknownVersionError):
        registry.promote(one, expected="f" * 64)
    assert moves(registry) == before
    assert [alias.alias for alias in registry.aliases()] == ["production"]
    with pytest.raises(ConflictError):  # although nothing would have to move
        registry.promote(three, expected=two, smoke=False)
    registry.promote(three, expected=three, smoke=False)
    assert moves(registry) == before


def test_publishing_that_expects_something_else(
    registry: Registry, versions: list[Version], make_adapter: MakeAdapter
) -> None:
    folder = make_adapter(9)
    with pytest.raises(ConflictError):
        registry.publish(folder, locale="gsw-CH", task="intent", expected=versions[0], smoke=False)
    assert len(registry.versions()) == 3


def test_of_all_who_expect_the_same_one_succeeds(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    first, *others = [
        registry.publish(make_adapter(seed), locale="gsw-CH", task="intent", alias=None)
        for seed in range(9)
    ]
    registry.promote(first, smoke=False)
    start = threading.Barrier(len(others))
    won: list[str] = []
    lost: list[str] = []

    def promote(version: Version) -> None:
        start.wait()
        try:
            registry.promote(version, expected=first, smoke=False)
        except ConflictError as error:
            lost.append(str(error))
        else:
            won.append(version.digest)

    threads = [threading.Thread(target=promote, args=(version,)) for version in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(lost) == len(others) - 1
    assert live(registry) == won[0]
    assert len(moves(registry)) == 2


def test_a_protected_alias(
    registry: Registry, versions: list[Version], make_adapter: MakeAdapter
) -> None:
    one, two, three = versions
    new = make_adapter(9)
    registry.protect("production")
    registry.protect("production")
    assert registry.rules.protected() == ["production"]
    for force, reason in ((False, "good"), (True, None), (True, "  ")):
        with pytest.raises(ProtectedAliasError, match=r"--force --reason"):
            registry.promote(one, force=force, reason=reason, smoke=False)
        with pytest.raises(ProtectedAliasError):
            registry.rollback("gsw-CH", "intent", force=force, reason=reason)
        with pytest.raises(ProtectedAliasError):
            registry.publish(
                new,
                locale="gsw-CH",
                task="intent",
                force=force,
                reason=reason,
                smoke=False,
            )
    assert live(registry) == three.digest
    assert len(registry.versions()) == 3
    registry.promote(one, alias="canary")  # other aliases move freely
    registry.promote(one, force=True, reason="incident 7", smoke=False)
    assert moves(registry)[0].reason == "incident 7; no smoke forward"
    registry.rollback("gsw-CH", "intent", force=True, reason="it was the cache")
    assert live(registry) == three.digest

    registry.rules.unprotect("production")
    registry.promote(two, smoke=False)
    assert live(registry) == two.digest
    with pytest.raises(InputError, match="is no name"):
        registry.protect("No Name")


def test_nothing_of_a_refused_version_is_stored(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    registry.protect("production")
    with pytest.raises(ProtectedAliasError):
        registry.publish(make_adapter(), locale="de", task="intent", smoke=False)
    assert registry.versions() == []
    assert list(registry._blobs.blobs()) == []


def test_what_was_live_at_a_time(registry: Registry, versions: list[Version]) -> None:
    changes = moves(registry)[::-1]
    for change, version in zip(changes, versions, strict=True):
        found = registry.live_at("gsw_ch", "intent", change.changed_at)
        assert found == change
        assert found.digest == version.digest
    first, last = (datetime.fromisoformat(changes[place].changed_at) for place in (0, -1))
    assert registry.live_at("gsw-CH", "intent", first - timedelta(microseconds=1)) is None
    assert registry.live_at("gsw-CH", "intent", last + timedelta(days=1)) == changes[-1]
    between = first.replace(tzinfo=None).isoformat()  # without a zone: UTC
    assert registry.live_at("gsw-CH", "intent", between) == changes[0]
    assert registry.live_at("gsw-CH", "intent", "2020-11-20T12:00Z") is None
    assert registry.live_at("gsw-CH", "intent", "2999-01-01", alias="canary") is None
    for time in ("yesterday", "", "2026-13-01", "0001-01-01T00:00+23:00"):
        with pytest.raises(InputError, match="is no time"):
            registry.live_at("gsw-CH", "intent", time)


def test_the_moves_of_an_alias_follow_one_another_whatever_the_clock(
    registry: Registry, versions: list[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="microseconds")
    monkeypatch.setattr("isogloss.registry.history.utc_now", lambda: slow)
    registry.promote(versions[0], smoke=False)
    changes = moves(registry)
    assert all(later.changed_at >= earlier.changed_at for later, earlier in pairwise(changes))
    assert registry.live_at("gsw-CH", "intent", changes[0].changed_at) == changes[0]


def test_removing_a_version(registry: Registry, versions: list[Version]) -> None:
    one, two, three = versions
    with pytest.raises(VersionInUseError, match="alias 'production' of intent/gsw-CH points to it"):
        registry.remove_version(three, keep_days=0)
    with pytest.raises(VersionInUseError, match=r"alias 'production' .* was moved at .* it"):
        registry.remove_version(one)
    assert registry.needed().keys() == {one.digest, two.digest, three.digest}
    assert registry.needed(keep_days=0).keys() == {three.digest}
    for days in (-1, float("nan"), 1e9):
        with pytest.raises(InputError, match="keep_days"):
            registry.remove_version(one, keep_days=days)

    removal = registry.remove_version(one.name, keep_days=0, reason="it was trained on test data")
    assert (removal.digest, removal.locale, removal.task) == (one.digest, "gsw-CH", "intent")
    assert registry.rules.removals() == [removal]
    assert removal.reason == "it was trained on test data"
    assert set(registry.versions()) == {two, three}
    with pytest.raises(UnknownVersionError):
        registry.version(one.digest)
    with pytest.raises(UnknownVersionError):
        registry.remove_version(one)
    # Its history stays known, and rolling back stops there.
    assert [change.digest for change in moves(registry)] == [
        version.digest for version in (three, two, one)
    ]
    assert registry.rollback("gsw-CH", "intent") == two
    with pytest.raises(UnknownAliasError, match="is gone; promote another instead"):
        registry.rollback("gsw-CH", "intent")


def test_a_removed_version_can_be_published_again(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter()
    first = registry.publish(folder, locale="de", task="intent", alias=None)
    generation = registry._catalog.generation()
    registry.remove_version(first)
    assert registry._catalog.generation() > generation
    again = registry.publish(folder, locale="de", task="intent", alias=None)
    assert again.digest == first.digest
    assert again.published_at > first.published_at


def test_what_a_mixture_uses_can_not_be_removed(
    registry: Registry, make_adapter: MakeAdapter
) -> None:
    catalog = registry._catalog
    part = registry.publish(make_adapter(), locale="de", task="intent", alias=None)
    mixture = replace(
        part, digest="a" * 64, kind="mixture", rank=None, parts=(part.digest, "b" * 64)
    )
    with pytest.raises(UnknownVersionError, match=f"mixes version {'b' * 64}, which is not in"):
        catalog.publish(mixture, alias=None)
    mixture = replace(mixture, parts=(part.digest,))
    assert catalog.publish(mixture, alias=None) == mixture
    assert catalog.version(mixture.digest) == mixture
    with pytest.raises(VersionInUseError, match="mixture intent/de@aaaaaaaaaaaa uses it"):
        registry.remove_version(part, keep_days=0)
    registry.remove_version(mixture)
    registry.remove_version(part)
    assert registry.versions() == []
