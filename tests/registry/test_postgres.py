from __future__ import annotations

import queue
import selectors
import socket
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from isogloss.core.errors import (
    InputError,
    RegistryError,
    RegistryNotFoundError,
    RegistryUnavailableError,
)
from isogloss.registry import Registry, migrations, postgresql
from isogloss.registry.catalog import Catalog
from isogloss.registry.tables import METADATA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isogloss.registry.changes import WatchState

    from .conftest import MakeAdapter, PostgresServer

SOON = 10.0


class Proxy:
    """Stands before a server, and can stop passing anything on without closing anything."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._passing = threading.Event()
        self._passing.set()
        self._ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def freeze(self) -> None:
        self._passing.clear()

    def thaw(self) -> None:
        self._passing.set()

    def end(self) -> None:
        self._ended = True
        self.thaw()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _run(self) -> None:
        while not self._ended:
            ready = self._selector.select(0.05)
            self._passing.wait()
            for key, _ in ready:
                if isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() < 0:
                    continue  # the other end of a connection that has just ended
                if key.fileobj is self._listener:
                    near, far = (
                        self._listener.accept()[0],
                        socket.create_connection(("127.0.0.1", self._to)),
                    )
                    self._selector.register(near, selectors.EVENT_READ, far)
                    self._selector.register(far, selectors.EVENT_READ, near)
                else:
                    self._pass_on(key.fileobj, key.data)

    def _pass_on(self, source: Any, target: socket.socket) -> None:
        try:
            data = source.recv(65536)
            target.sendall(data)
        except OSError:
            data = b""
        if not data:
            for end in (source, target):
                self._selector.unregister(end)
                end.close()


@pytest.fixture
def proxy(postgres: str) -> Iterator[Proxy]:
    opened = Proxy(sa.make_url(postgres).port or 5432)
    yield opened
    opened.end()


def open_at(url: str, folder: Path, **options: Any) -> Registry:
    return Registry.open(database=url, blobs=folder / "blobs", **options)


def run(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_migrations_give_the_schema_that_the_code_uses(new_schema: Callable[[], str]) -> None:
    url = sa.make_url(new_schema())
    Catalog(url).close()
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_what_is_no_registry(new_schema: Callable[[], str], tmp_path: Path) -> None:
    url = new_schema()
    with pytest.raises(RegistryNotFoundError, match=r"no registry at postgresql://.*publish"):
        open_at(url, tmp_path, create=False)
    assert sa.make_url(url).query["options"]
    run(url, "CREATE TABLE songs (title TEXT)")
    for create in (True, False):
        with pytest.raises(RegistryNotFoundError, match="is no registry: its tables are songs"):
            open_at(url, tmp_path, create=create)
    assert run(url, "SELECT count(*) FROM songs") == [(0,)]

    url = new_schema()
    open_at(url, tmp_path).close()
    run(url, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(RegistryNotFoundError, match=r"'9999'.*install a newer release"):
        open_at(url, tmp_path)


def test_registries_in_two_schemas_do_not_meet(
    new_schema: Callable[[], str], tmp_path: Path
) -> None:
    one, two = open_at(new_schema(), tmp_path), open_at(new_schema(), tmp_path)
    with one, two, one._catalog._database.writing():
        two.locale_alias("bar", "de")  # doesn't wait
    assert one.locale_aliases() == []
    one.close()


def test_a_lock_that_is_never_given_up(
    new_schema: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_schema()
    monkeypatch.setattr(postgresql, "_LIMITS", "SELECT set_config('lock_timeout', '100ms', true)")
    with open_at(url, tmp_path) as one, open_at(url, tmp_path) as two:
        with (
            one._catalog._database.writing(),
            pytest.raises(RegistryError, match=r"lock timeout.*try again") as caught,
        ):
            two.locale_alias("bar", "de")
        assert not isinstance(caught.value, RegistryUnavailableError)
        two.locale_alias("bar", "de")


def test_passwords_are_not_shown(postgres: str, tmp_path: Path) -> None:
    secret = "hunter2"
    url = sa.make_url(postgres).set(password=secret, database="no_such_database")
    for broken in (url, url.set(port=9), url.update_query_dict({secret: "1"})):
        with pytest.raises(RegistryError) as caught:
            open_at(broken.render_as_string(hide_password=False), tmp_path)
        message = str(caught.value)
        assert secret not in message
        assert "postgresql://" in message
        assert "\n" not in message


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnavailableError, match=r"127.0.0.1:9/adapters can't be reached"):
        open_at("postgresql://127.0.0.1:9/adapters", tmp_path)


def test_psycopg_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isogloss.registry.postgresql", None)
    with pytest.raises(InputError, match=r"pip install 'isogloss\[postgres\]'"):
        open_at("postgresql://127.0.0.1:9/adapters", tmp_path)


def test_a_database_that_sorts_as_people_do(
    postgres_server: PostgresServer, tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    run(
        postgres_server.url,
        "CREATE DATABASE swiss TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-CH'",
    )
    url = sa.make_url(postgres_server.url).set(database="swiss").render_as_string()
    with open_at(url, tmp_path) as registry:
        for number, locale in enumerate(("zh", "de-CH", "de", "de-x-a", "DE-AT")):
            folder = make_adapter(number)
            version = registry.publish(folder, locale=locale, task="intent", alias="canary")
            assert registry.version(version.digest[:8]) == version
        tags = [alias.locale for alias in registry.aliases()]
        assert tags == sorted(tags)


def test_a_server_that_stops_and_starts_again(
    postgres_server: PostgresServer, tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    generations: queue.Queue[int] = queue.Queue()
    states: queue.Queue[WatchState] = queue.Queue()
    with open_at(postgres_server.url, tmp_path) as registry:
        publish = partial(registry.publish, locale="de", task="intent", alias="canary")
        one, two = publish(make_adapter(1)), publish(make_adapter(2))
        assert registry.read(two)
        promote = partial(registry.promote, alias="canary")
        with registry.watch(generations.put, states.put) as watcher:
            assert generations.get(timeout=SOON) == 2
            assert states.get(timeout=SOON).status == "watching"

            postgres_server.stop()
            gone = states.get(timeout=SOON)
            assert gone.status == "away"
            assert "can't be reached" in (gone.reason or "")
            for ask in (registry.versions, registry.aliases, lambda: promote(one)):
                began = time.monotonic()
                with pytest.raises(RegistryUnavailableError, match="try again") as caught:
                    ask()
                assert time.monotonic() - began < SOON
                assert "\n" not in str(caught.value)
            assert registry.read(two)  # blobs are elsewhere

            postgres_server.start()
            with open_at(postgres_server.url, tmp_path) as other:
                other.promote(one, alias="canary", reason="while the watcher was away")
            assert generations.get(timeout=SOON) == 3
            assert states.get(timeout=SOON).status == "watching"
            assert watcher.state.reason is None
            assert registry.resolve("de-AT", "intent", alias="canary").version == one
            promote(two)
            assert generations.get(timeout=SOON) == 4


def test_a_server_that_says_nothing_any_more(
    new_schema: Callable[[], str],
    proxy: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgresql, "ANSWER_TIMEOUT", 0.5)
    url = new_schema()
    through = sa.make_url(url).set(host="127.0.0.1", port=proxy.port)
    through = through.update_query_dict({"connect_timeout": "2"})
    with open_at(through.render_as_string(hide_password=False), tmp_path) as registry:
        registry.locale_alias("bar", "de")
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match=r"timeout|didn't answer"):
            registry.locale_aliases()
        assert time.monotonic() - began < SOON
        proxy.thaw()
        with open_at(url, tmp_path) as other:
            other.locale_alias("ar-EG", "arz")
        assert [alias.locale for alias in registry.locale_aliases()] == ["ar-EG", "bar"]


def test_an_answer_that_comes_too_late_is_not_taken_for_another(
    new_schema: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "ANSWER_TIMEOUT", 0.5)
    with open_at(new_schema(), tmp_path) as registry:
        database = registry._catalog._database
        with (
            pytest.raises(RegistryUnavailableError, match=r"didn't answer within 0.5 seconds"),
            database.reading() as connection,
        ):
            connection.exec_driver_sql("SELECT 'late' FROM pg_sleep(2)").all()
        with database.reading() as connection:
            assert connection.exec_driver_sql("SELECT 'now'").scalar() == "now"


def test_a_reader_can_not_write(new_schema: Callable[[], str], tmp_path: Path) -> None:
    with (
        open_at(new_schema(), tmp_path) as registry,
        pytest.raises(RegistryError, match="read-only transaction"),
        registry._catalog._database.reading() as connection,
    ):
        connection.exec_driver_sql("UPDATE generation SET number = 7")


def test_connections_all_in_use(
    new_schema: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("_POOL_SIZE", 1), ("_POOL_OVERFLOW", 0), ("_POOL_TIMEOUT", 0.1)):
        monkeypatch.setattr(postgresql, name, value)
    with open_at(new_schema(), tmp_path) as registry:
        with (
            registry._catalog._database.reading(),
            pytest.raises(RegistryUnavailableError, match="all connections were in use"),
        ):
            registry.versions()
        assert registry.versions() == []


def test_the_revision_is_recorded_once(new_schema: Callable[[], str]) -> None:
    url = new_schema()
    for _ in range(2):
        Catalog(sa.make_url(url)).close()
    assert run(url, "SELECT version_num FROM alembic_version") == [(migrations.HEAD,)]
