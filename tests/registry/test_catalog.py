from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from isogloss.core.errors import RegistryError, UnknownAliasError, UnknownVersionError
from isogloss.registry import AliasChange, StoredFile, Version, sqlite
from isogloss.registry.catalog import Catalog
from isogloss.registry.location import locate
from isogloss.registry.records import manifest_digest
from isogloss.registry.times import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def catalog(place: Path) -> Iterator[Catalog]:
    location = locate(place, database=None, blobs=None)
    location.prepare(create=True)
    with Catalog(location.database) as opened:
        yield opened


def version(content: str, *, locale: str = "gsw-CH", task: str = "intent") -> Version:
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    files = (StoredFile(path="isogloss.json", size=len(content), sha256=sha256),)
    return Version(
        digest=manifest_digest(files),
        locale=locale,
        task=task,
        task_type="sequence-classification",
        kind="lora",
        rank=8,
        labels=("grüezi", "ade"),
        base="mini",
        base_fingerprint=None,
        metrics={"macro_f1": 0.75},
        data_digest=None,
        parent=None,
        files=files,
        bytes=len(content),
        created_at=None,
        published_at=utc_now(),
        published_by="heidi",
    )


def publish(catalog: Catalog, content: str, alias: str = "production") -> Version:
    return catalog.publish(version(content), alias=alias)


def history(catalog: Catalog) -> list[AliasChange]:
    return catalog.history("gsw-CH", "intent", alias="production")


def rollback(catalog: Catalog, alias: str = "production") -> Version:
    return catalog.rollback("gsw-CH", "intent", alias=alias, by="peter", reason="too many grüezi")


def test_a_version_comes_back_as_it_was_put_in(catalog: Catalog) -> None:
    published = publish(catalog, "one")
    assert catalog.version(published.digest) == published
    assert catalog.versions() == [published]
    assert catalog.version("0" * 64) is None
    assert published.name == f"intent/gsw-CH@{published.digest[:12]}"
    assert len({published, catalog.version(published.digest)}) == 1


def test_a_version_keeps_its_first_publication(catalog: Catalog) -> None:
    first = publish(catalog, "one")
    again = publish(catalog, "one")
    assert again == first
    assert again.published_at < utc_now()
    assert len(history(catalog)) == 1


def test_versions_are_found_by_locale_task_and_prefix_newest_first(catalog: Catalog) -> None:
    one = catalog.publish(version("one"), alias="production")
    two = catalog.publish(version("two", locale="bar"), alias="production")
    three = catalog.publish(version("three", task="search"), alias="production")
    assert catalog.versions() == [three, two, one]
    assert catalog.versions(task="intent") == [two, one]
    assert catalog.versions(locale="gsw-CH") == [three, one]
    assert catalog.versions(locale="gsw-CH", task="intent") == [one]
    assert catalog.versions(prefix=two.digest[:8]) == [two]
    assert catalog.versions(prefix="%") == []
    assert catalog.versions(limit=2) == [three, two]
    assert [alias.digest for alias in catalog.aliases(alias="production")] == [
        two.digest,
        one.digest,
        three.digest,
    ]


def test_an_alias_moves_and_its_history_says_so(catalog: Catalog) -> None:
    one, two = publish(catalog, "one"), publish(catalog, "two")
    catalog.promote(one.digest, alias="production", by="peter", reason="two is worse")
    assert [alias.digest for alias in catalog.aliases()] == [one.digest]
    newest, second, oldest = history(catalog)
    assert newest == AliasChange(
        locale="gsw-CH",
        task="intent",
        alias="production",
        digest=one.digest,
        previous=two.digest,
        action="promote",
        changed_at=newest.changed_at,
        changed_by="peter",
        reason="two is worse",
    )
    assert (second.digest, second.previous, second.action) == (two.digest, one.digest, "publish")
    assert (oldest.digest, oldest.previous, oldest.changed_by) == (one.digest, None, "heidi")
    assert oldest.changed_at < second.changed_at < newest.changed_at
    assert catalog.aliases()[0].updated_at == newest.changed_at


def test_an_alias_that_points_there_already_has_not_moved(catalog: Catalog) -> None:
    one = publish(catalog, "one")
    catalog.promote(one.digest, alias="production", by="peter")
    assert len(history(catalog)) == 1


def test_aliases_move_on_their_own(catalog: Catalog) -> None:
    one, two = publish(catalog, "one"), publish(catalog, "two", alias="canary")
    assert {alias.alias: alias.digest for alias in catalog.aliases()} == {
        "production": one.digest,
        "canary": two.digest,
    }
    with pytest.raises(UnknownAliasError, match="'canary' of intent/gsw-CH has no earlier"):
        rollback(catalog, "canary")


def test_rolling_back_again_goes_further_back(catalog: Catalog) -> None:
    one, two = publish(catalog, "one"), publish(catalog, "two")
    publish(catalog, "three")
    assert rollback(catalog) == two
    assert rollback(catalog) == one
    with pytest.raises(UnknownAliasError, match="has no earlier version; promote a version"):
        rollback(catalog)
    assert catalog.aliases()[0].digest == one.digest
    assert [change.action for change in history(catalog)] == ["rollback"] * 2 + ["publish"] * 3
    assert history(catalog)[0].reason == "too many grüezi"


def test_rolling_back_passes_over_what_was_rolled_back(catalog: Catalog) -> None:
    one = publish(catalog, "one")
    publish(catalog, "two")
    rollback(catalog)
    three = publish(catalog, "three")
    catalog.promote(one.digest, alias="production", by="peter")
    assert rollback(catalog) == three
    assert rollback(catalog) == one


def test_rolling_back_what_does_not_exist(catalog: Catalog) -> None:
    with pytest.raises(UnknownAliasError, match="'production' of intent/gsw-CH doesn't exist"):
        rollback(catalog)


def test_only_versions_of_this_catalogue_can_be_promoted(catalog: Catalog) -> None:
    with pytest.raises(UnknownVersionError, match="publish it first"):
        catalog.promote("0" * 64, alias="production", by="peter")
    assert catalog.aliases() == []


def test_a_version_that_an_alias_points_to_can_not_be_deleted(catalog: Catalog) -> None:
    publish(catalog, "one")
    with (
        pytest.raises(Exception, match=r"(?i)foreign key constraint"),
        catalog._database.writing() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM versions")
    assert len(catalog.versions()) == 1


def test_the_connection_is_set_up_to_lose_nothing(path: Path) -> None:
    with Catalog(path) as catalog, catalog._database.reading() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 30_000,
    }


def test_readers_do_not_wait_for_a_writer(catalog: Catalog) -> None:
    one = publish(catalog, "one")
    with catalog._database.writing() as writer:
        writer.exec_driver_sql("DELETE FROM aliases")
        assert [alias.digest for alias in catalog.aliases()] == [one.digest]


def test_a_lock_that_is_never_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOCK_TIMEOUT", 0.1)
    with Catalog(path) as catalog, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryError, match=r"database is locked.*try again"):
            publish(catalog, "one")
        other.execute("ROLLBACK")
        assert publish(catalog, "one") in catalog.versions()


def test_making_a_catalogue_waits_for_another_that_does(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.3, other.execute, ["COMMIT"])
        release.start()
        with Catalog(path) as catalog:
            assert catalog.versions() == []
        release.join()


def test_another_process_makes_the_catalogue_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_opening = sqlite.SQLite.finish_opening

    def finish_after_another(opened: sqlite.SQLite) -> None:
        monkeypatch.setattr(sqlite.SQLite, "finish_opening", finish_opening)
        with Catalog(path) as first:
            publish(first, "one")
        finish_opening(opened)

    monkeypatch.setattr(sqlite.SQLite, "finish_opening", finish_after_another)
    with Catalog(path) as second:
        assert len(second.versions()) == 1


def test_threads_share_a_catalogue(catalog: Catalog) -> None:
    start = threading.Barrier(8)
    failures: list[Exception] = []

    def work(name: int) -> None:
        start.wait()
        try:
            for number in range(5):
                publish(catalog, f"{name}-{number}")
                catalog.versions(task="intent")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(catalog.versions()) == 40
    changes = history(catalog)
    assert len(changes) == 40
    assert all(later.previous == earlier.digest for later, earlier in pairwise(changes))


# Each process opens every catalogue, so that they make the same one at the same time.
OPEN_ALL = """
import sys
from pathlib import Path
from isogloss.registry.catalog import Catalog
for number in range(20):
    with Catalog(Path(sys.argv[1]) / f"{number}.db") as catalog:
        catalog.versions()
"""


def test_processes_make_the_same_catalogue_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", OPEN_ALL, str(tmp_path)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate()[1].decode() for process in processes]
    assert errors == [""] * 4
    assert len(list(tmp_path.glob("*.db"))) == 20


def test_the_digest_of_a_version_is_that_of_its_manifest() -> None:
    files = [
        StoredFile(path="b.json", size=2, sha256="22"),
        StoredFile(path="a.json", size=1, sha256="11"),
    ]
    canonical = (
        '[{"path":"a.json","sha256":"11","size":1},{"path":"b.json","sha256":"22","size":2}]'
    )
    assert json.loads(canonical)
    assert manifest_digest(files) == hashlib.sha256(canonical.encode()).hexdigest()
    assert manifest_digest(reversed(files)) == manifest_digest(files)
