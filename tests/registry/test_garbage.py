from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.adapters.files import read_adapter_folder
from isogloss.core.errors import InputError
from isogloss.registry.publishing import describe_version, restore_files, store_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isogloss.registry import Registry, Version

    from .conftest import MakeAdapter

NOW = timedelta()
PUBLISH: dict[str, Any] = {"locale": "de", "task": "intent", "smoke": False}


@pytest.fixture
def blob_files(tmp_path: Path) -> Callable[[], dict[str, Path]]:
    def find() -> dict[str, Path]:
        files = (tmp_path / "registry" / "blobs" / "sha256").glob("*/*")
        return {path.name: path for path in files}

    return find


@pytest.fixture
def age(blob_files: Callable[[], dict[str, Path]]) -> Callable[[], None]:
    """Makes everything in the store two days old."""

    def make_old() -> None:
        then = time.time() - 2 * 86_400
        for path in blob_files().values():
            os.utime(path, (then, then))

    return make_old


def blobs_of(*versions: Version) -> set[str]:
    return {file.sha256 for version in versions for file in version.files}


def test_a_dry_run_only_tells(
    registry: Registry, age: Callable[[], None], blob_files: Callable[[], dict[str, Path]]
) -> None:
    registry._blobs.put(b"nobody's")
    registry._blobs.put(b"nobody's either")
    age()
    found = registry.collect_garbage()
    assert (found.dry_run, found.blobs, found.bytes, found.versions) == (True, 2, 23, ())
    assert len(blob_files()) == 2
    assert registry.collect_garbage(dry_run=False).bytes == 23
    assert not blob_files()
    assert registry.collect_garbage(dry_run=False).blobs == 0


def test_what_versions_refer_to_stays(
    registry: Registry,
    make_adapter: MakeAdapter,
    age: Callable[[], None],
    blob_files: Callable[[], dict[str, Path]],
) -> None:
    versions = [registry.publish(make_adapter(seed), **PUBLISH) for seed in range(3)]
    registry._blobs.put(b"nobody's")
    age()
    assert registry.collect_garbage(dry_run=False, older_than=NOW).blobs == 1
    assert blob_files().keys() == blobs_of(*versions)
    assert registry.verify().findings == ()


def test_what_is_young_stays(
    registry: Registry, age: Callable[[], None], blob_files: Callable[[], dict[str, Path]]
) -> None:
    registry._blobs.put(b"old, and put again now")
    registry._blobs.put(b"old")
    age()
    registry._blobs.put(b"young")
    again = registry._blobs.put(b"old, and put again now")
    assert registry.collect_garbage(dry_run=False).blobs == 1
    assert len(blob_files()) == 2
    assert again in blob_files()


def test_what_killed_writers_left_goes(
    registry: Registry, age: Callable[[], None], blob_files: Callable[[], dict[str, Path]]
) -> None:
    whole = blob_files
    digest = registry._blobs.put(b"whole")
    (whole()[digest].parent / f".{digest}.0123456789abcdef.tmp").write_bytes(b"who")
    age()
    (whole()[digest].parent / f".{digest}.fedcba9876543210.tmp").write_bytes(b"whol")
    found = registry.collect_garbage(dry_run=False, older_than=NOW)
    assert (found.blobs, found.unfinished) == (1, 1)
    # The other may be under way.
    assert [path.read_bytes() for path in whole().values()] == [b"whol"]


def test_versions_go_only_when_asked_and_when_nothing_needs_them(
    registry: Registry, make_adapter: MakeAdapter, age: Callable[[], None]
) -> None:
    live, previous, candidate = (make_adapter(seed) for seed in range(3))
    kept = [registry.publish(folder, **PUBLISH) for folder in (previous, live)]
    gone = registry.publish(candidate, alias=None, **PUBLISH)
    age()
    assert registry.collect_garbage(dry_run=False, older_than=NOW).versions == ()
    told = registry.collect_garbage(older_than=NOW, versions=True)
    assert told.versions == (gone.name,)
    assert told.blobs == len(blobs_of(gone) - blobs_of(*kept))
    assert len(registry.versions()) == 3
    done = registry.collect_garbage(dry_run=False, older_than=NOW, versions=True)
    assert (done.versions, done.blobs, done.bytes) == (told.versions, told.blobs, told.bytes)
    assert {version.digest for version in registry.versions()} == {
        version.digest for version in kept
    }
    # Where the history counts no longer, the previous one goes, too.
    done = registry.collect_garbage(dry_run=False, older_than=NOW, versions=True, keep_days=0)
    assert done.versions == (kept[0].name,)
    assert registry.resolve("de", "intent").version == kept[1]
    assert registry.verify().findings == ()
    assert registry.publish(previous, **PUBLISH).digest == kept[0].digest
    assert registry.verify().findings == ()


def test_young_versions_stay(registry: Registry, make_adapter: MakeAdapter) -> None:
    registry.publish(make_adapter(), alias=None, **PUBLISH)
    assert registry.collect_garbage(dry_run=False, versions=True).versions == ()
    assert len(registry.versions()) == 1


@pytest.mark.parametrize("age", [timedelta(seconds=-1), timedelta.max])
def test_ages_that_make_no_sense(registry: Registry, age: timedelta) -> None:
    with pytest.raises(InputError, match="age"):
        registry.collect_garbage(older_than=age)


def test_blobs_that_went_before_the_transaction_are_stored_again(
    registry: Registry, make_adapter: MakeAdapter, blob_files: Callable[[], dict[str, Path]]
) -> None:
    # What a publisher does that was away for a day between its blobs and its transaction.
    checked = read_adapter_folder(make_adapter(), locale="de", task="intent")
    version = describe_version(checked)
    catalog, blobs = registry._catalog, registry._blobs
    store_files(blobs, checked.files)
    assert registry.collect_garbage(dry_run=False, older_than=NOW).blobs == len(version.files)
    assert not blob_files()
    settle = partial(restore_files, blobs, checked.files)
    catalog.publish(version, alias="production", settle=settle)
    assert registry.verify().findings == ()


# The store is slow, so that blobs lie there for a while before their version is there.
BUSY = """
import sys, time
from datetime import timedelta
from isogloss.registry import Registry
what, place, *folders = sys.argv[1:]
with Registry.open(place) as registry:
    while what == "collect":
        registry.collect_garbage(dry_run=False, older_than=timedelta(), versions=True, keep_days=0)
    put = registry._blobs.put
    registry._blobs.put = lambda content: (put(content), time.sleep(0.01))[0]
    for folder in folders:
        alias = folder.rsplit("/", 1)[-1]
        registry.publish(folder, locale="de", task="intent", alias=alias, smoke=False)
"""


def _start(what: str, place: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-c", BUSY, what, str(place), *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_collecting_while_others_publish(
    registry: Registry, place: Path, make_adapter: MakeAdapter
) -> None:
    folders = [str(make_adapter(seed)) for seed in range(20)]
    collector = _start("collect", place)
    # From both ends, so that both publish the same where they meet.
    publishers = [_start("publish", place, *order) for order in (folders, folders[::-1])]
    for process in publishers:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    assert collector.poll() is None, collector.communicate()
    collector.kill()
    collector.communicate()
    report = registry.verify()
    assert report.versions == len(folders)
    assert [finding for finding in report.findings if finding.is_damage] == []
