from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from isogloss.core.errors import RegistryUnavailableError
from isogloss.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import MakeAdapter

# What happens in as many processes as one says, forked by a warm parent so that they are all
# there at once. Each has its number, and fails with what it prints.
AT_ONCE = """
import json, os, sys, traceback
from isogloss.registry import Registry
import alembic.command, isogloss.adapters.files, isogloss.registry.postgresql
import sqlalchemy.dialects.postgresql.psycopg, sqlalchemy.dialects.sqlite.pysqlite

count, place, what, *folders = sys.argv[1:]
start, go = os.pipe()

def opening(number):
    with Registry.open(place) as registry:
        assert registry.versions() == []

def changing(number):
    with Registry.open(place) as registry:
        if number % 4 == 0:
            for folder in folders:
                registry.publish(folder, locale="gsw-CH", task="intent", alias="canary")
        for turn in range(6):
            versions = registry.versions()
            if not versions:
                continue
            version = versions[(number + turn) % len(versions)]
            registry.promote(version, alias="stable", reason=f"{number} {turn}")

children = []
for number in range(int(count)):
    child = os.fork()
    if child == 0:
        os.close(go)
        os.read(start, 1)
        try:
            {"opening": opening, "changing": changing}[what](number)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(child)
os.close(go)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]))
"""


def at_once(count: int, place: Path, what: str, *folders: Path) -> None:
    command = [sys.executable, "-P", "-c", AT_ONCE, str(count), str(place), what]
    done = subprocess.run(
        [*command, *map(str, folders)], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [0] * count


def test_processes_make_one_registry_at_once(place: Path) -> None:
    at_once(32, place, "opening")
    with Registry.open(place, create=False) as registry:
        with registry._catalog._database.reading() as connection:
            found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
            generations = connection.exec_driver_sql("SELECT number FROM generation").all()
        assert len(found) == 1
        assert list(map(tuple, generations)) == [(0,)]


def test_processes_publish_and_promote_at_once(place: Path, make_adapter: MakeAdapter) -> None:
    folders = [make_adapter(seed) for seed in range(4)]
    at_once(32, place, "changing", *folders)
    with Registry.open(place, create=False) as registry:
        versions = {version.digest for version in registry.versions()}
        assert len(versions) == len(registry.versions()) == 4
        assert [alias.alias for alias in registry.aliases()] == ["canary", "stable"]
        moves = 0
        for alias in registry.aliases():
            changes = registry.history("gsw-CH", "intent", alias=alias.alias)
            moves += len(changes)
            # Each move starts where the one before ended: none was made unseen.
            assert changes[-1].previous is None
            assert all(later.previous == earlier.digest for later, earlier in pairwise(changes))
            assert all(change.digest != change.previous for change in changes)
            assert alias.digest == changes[0].digest
            assert alias.updated_at == changes[0].changed_at
        assert registry._catalog.generation() == moves


def test_a_file_that_was_replaced_is_opened_again(
    tmp_path: Path, make_adapter: MakeAdapter
) -> None:
    with Registry.open(tmp_path / "one") as one, Registry.open(tmp_path / "two") as two:
        one.publish(make_adapter(1), locale="de", task="intent", alias="canary")
        version = two.publish(make_adapter(2), locale="bar", task="intent", alias="canary")
        two.close()
        assert [found.locale for found in one.versions()] == ["de"]
        (tmp_path / "one").rename(tmp_path / "old")
        with pytest.raises(RegistryUnavailableError, match=r"unable to open.*try again") as caught:
            one.versions()
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "one").exists()
        (tmp_path / "two").rename(tmp_path / "one")
        assert one.versions() == [version]
        assert one.read(version)
