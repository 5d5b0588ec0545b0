from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from isogloss.core.errors import RegistryUnavailableError, SignatureError
from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isogloss.registry import Version
    from isogloss.registry.following import Follower

    from .conftest import MakeAdapter, PostgresServer

SOON = 20.0
"""Seconds; on an idle machine it takes a fraction of one."""


class Told:
    """Says when a follower has taken up a change, and what state it is in."""

    def __init__(self) -> None:
        self.generations: list[int] = []
        self.states: list[str] = []
        self.changed = threading.Condition()

    def generation(self, number: int) -> None:
        with self.changed:
            self.generations.append(number)
            self.changed.notify_all()

    def state(self, state: object) -> None:
        with self.changed:
            self.states.append(getattr(state, "status", ""))
            self.changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, SOON), (self.generations, self.states)

    def until_state(self, status: str) -> None:
        self.until(lambda: self.states[-1:] == [status])


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def follower(registry: Registry, told: Told) -> Iterator[Follower]:
    with registry.follow(told.generation, told.state) as following:
        told.until_state("watching")
        yield following


def publish(registry: Registry, folder: Path, locale: str = "de", **options: str) -> Version:
    return registry.publish(folder, locale=locale, task="intent", smoke=False, **options)  # type: ignore[arg-type]


def answer(follower: Follower, locale: str = "de-AT", alias: str = "production") -> Version | None:
    return follower.resolve(locale, "intent", alias=alias).version


@contextmanager
def statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_answers_ask_the_database_nothing(
    registry: Registry, make_adapter: MakeAdapter, told: Told
) -> None:
    german, french = (publish(registry, make_adapter(n), ("de", "fr")[n]) for n in range(2))
    with registry.follow(told.generation, told.state) as follower:
        told.until_state("watching")
        answer(follower)
        answer(follower, "fr")
        with statements() as seen:
            found = follower.resolve_all(["de-AT", "fr-CA", "de"], "intent", alias="production")
        assert [resolution.version for resolution in found] == [german, french, german]
        assert seen == []


def test_what_this_process_changes_is_seen_at_once(
    registry: Registry, follower: Follower, make_adapter: MakeAdapter
) -> None:
    assert answer(follower) is None
    one, two = (publish(registry, make_adapter(seed)) for seed in range(2))
    for version in (one, two, one):
        registry.promote(version, smoke=False)
        assert answer(follower) == version
    assert registry.rollback("de", "intent") == two
    assert answer(follower) == two


def test_what_others_change_is_heard_of(
    place: Path, registry: Registry, follower: Follower, told: Told, make_adapter: MakeAdapter
) -> None:
    one, two = (publish(registry, make_adapter(seed)) for seed in range(2))
    assert answer(follower) == two
    told.until(lambda: told.generations[-1:] == [2])
    with Registry.open(place) as other:
        other.promote(one, smoke=False)
    told.until(lambda: told.generations[-1:] == [3])
    with statements() as seen:
        assert answer(follower) == one
    # It was looked up before anyone asked.
    assert not [statement for statement in seen if "versions" in statement]


def test_a_key_that_is_revoked_ends_answers(
    registry: Registry, follower: Follower, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    from isogloss.registry.signing import generate_key

    key = generate_key(tmp_path / "key")
    registry.rules.trust_key(tmp_path / "key.pub", name="heidi")
    version = publish(registry, make_adapter(), sign=str(tmp_path / "key"))
    registry.require_signatures()
    assert answer(follower) == version
    registry.rules.revoke_key(key, force=True)
    with pytest.raises(SignatureError):
        answer(follower)


def test_a_file_that_goes_and_comes_back(
    tmp_path: Path, told: Told, make_adapter: MakeAdapter
) -> None:
    folder, hidden = tmp_path / "registry", tmp_path / "hidden"
    with Registry.open(folder) as registry:
        one, two = (publish(registry, make_adapter(seed)) for seed in range(2))
        french = publish(registry, make_adapter(2), "fr")
        with registry.follow(told.generation, told.state) as follower:
            told.until_state("watching")
            assert (answer(follower), answer(follower, "fr")) == (two, french)
            # A change of one locale leaves what is known of another.
            registry.promote(one, smoke=False)
            assert answer(follower) == one
            folder.rename(hidden)
            assert (answer(follower), answer(follower, "fr")) == (one, french)
            told.until_state("away")
            assert "moved or replaced" in (follower.state.reason or "")
            assert (answer(follower), answer(follower, "fr")) == (one, french)
            with pytest.raises(RegistryUnavailableError, match="try again"):
                answer(follower, alias="canary")
            with pytest.raises(RegistryUnavailableError):
                registry.resolve("de", "intent")
            with Registry.open(hidden) as other:
                other.promote(two, smoke=False)
            assert answer(follower) == one
            hidden.rename(folder)
            assert answer(follower) == two
            told.until_state("watching")
            assert answer(follower, alias="canary") is None
        assert (answer(follower), follower.state.reason) == (two, "the watch has ended")


def test_a_server_that_stops_and_starts_again(
    postgres_server: PostgresServer, tmp_path: Path, told: Told, make_adapter: MakeAdapter
) -> None:
    def open_registry() -> Registry:
        return Registry.open(database=postgres_server.url, blobs=tmp_path / "blobs")

    with open_registry() as registry:
        one, two = (publish(registry, make_adapter(seed)) for seed in range(2))
        with registry.follow(told.generation, told.state) as follower:
            told.until_state("watching")
            assert answer(follower) == two
            postgres_server.stop()
            assert answer(follower) == two
            told.until_state("away")
            assert answer(follower) == two
            with pytest.raises(RegistryUnavailableError):
                answer(follower, alias="canary")
            postgres_server.start()
            with open_registry() as other:
                other.promote(one, smoke=False)
            told.until(lambda: told.generations[-1:] == [3])
            told.until_state("watching")
            assert answer(follower) == one
    assert told.states == ["watching", "away", "watching"]


def test_an_older_database_in_its_place(
    registry: Registry, follower: Follower, told: Told, make_adapter: MakeAdapter
) -> None:
    one, two = (publish(registry, make_adapter(seed)) for seed in range(2))
    assert answer(follower) == two
    told.until(lambda: told.generations[-1:] == [2])
    with registry._catalog.database.writing() as connection:
        connection.exec_driver_sql(f"UPDATE aliases SET digest = '{one.digest}'")
        connection.exec_driver_sql("UPDATE generation SET number = 1")
    assert answer(follower) == one


def test_threads_see_no_answer_older_than_their_request(
    registry: Registry, follower: Follower, make_adapter: MakeAdapter
) -> None:
    digests = [publish(registry, make_adapter(seed)).digest for seed in range(6)]
    failures: list[str] = []
    latest = 0
    stop = threading.Event()
    registry.promote(digests[0], smoke=False)

    def ask() -> None:
        while not stop.is_set():
            before = latest
            version = answer(follower)
            if version is None or digests.index(version.digest) < before:
                failures.append(str(version))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number, digest in enumerate(digests):
        registry.promote(digest, smoke=False)
        latest = number
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
