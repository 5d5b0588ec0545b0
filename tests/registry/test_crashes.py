"""Processes that are killed at random points; afterwards each operation has happened, or hasn't."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import pytest

from isogloss.adapters.spec import AdapterSpec
from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import MakeAdapter

    NewPlace = Callable[[str], Path]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL"),
]

TRIALS = 100

# Forks a child for each trial, so that nothing is imported anew, and kills it: every other time
# after a random time, else at a random one of all the calls that it makes, which hits what is
# quick as often as what is slow. After each it looks at the registry.
KILLER = """
import json, os, random, signal, sys, time, traceback
from datetime import timedelta
from isogloss.registry import Registry
import isogloss.adapters.files, isogloss.registry.archive, isogloss.registry.postgresql

what, place, trials, *things = sys.argv[1:]
chance = random.Random(what)

def operate(registry, thing):
    if what == "publish":
        registry.publish(thing, locale="de", task="t", smoke=False)
    elif what == "promote":
        registry.promote(thing, require="accuracy<=1", reason="better", smoke=False)
    elif what == "import":
        registry.import_archive(thing)
    else:
        registry.collect_garbage(
            dry_run=False, older_than=timedelta(), versions=True, keep_days=0
        )

def prepare(registry, thing):
    if what == "gc":
        registry.publish(thing, locale="de", task="t", alias=None, smoke=False)
        for _ in range(5):
            registry._blobs.put(chance.randbytes(64))

def child(thing, at):
    calls = 0
    def count(*_):
        nonlocal calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
    with Registry.open(place, create=False) as registry:
        if at is not None:
            sys.setprofile(count)
        operate(registry, thing)
        sys.setprofile(None)
    return calls

def fork(thing, *, at=None, after=None):
    results, out = os.pipe()
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        try:
            os.write(out, str(child(thing, at)).encode())
            os._exit(0)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(out)
    if after is not None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with open(results) as lines:
        return status, time.monotonic() - began, int(lines.read() or 0)

def look(thing, status):
    with Registry.open(place, create=False) as registry:
        report = registry.verify()
        assert report.is_sound, report.findings
        return {
            "status": status,
            "thing": thing,
            "versions": [version.name for version in registry.versions()],
            "removed": [removal.digest for removal in registry.rules.removals()],
            "aliases": {
                f"{alias.locale} {alias.alias}": moves(registry, alias)
                for alias in registry.aliases()
            },
        }

def moves(registry, alias):
    changes = registry.history(alias.locale, "t", alias=alias.alias)
    assert changes[0].digest == alias.digest
    return [(change.digest, change.previous) for change in changes]

def next_thing():
    thing = things[0]
    things.append(things.pop(0))
    with Registry.open(place) as registry:
        prepare(registry, thing)
    return thing

found = []
for whole in ({"at": -1}, {}, {}):
    thing = next_thing()
    status, seconds, counted = fork(thing, **whole)
    calls = max(counted, 1) if whole else calls
    found.append(look(thing, status))
for trial in range(int(trials)):
    thing = next_thing()
    if trial % 2:
        how = {"after": chance.uniform(0, seconds)}
    else:
        how = {"at": chance.randint(1, calls)}
    found.append(look(thing, fork(thing, **how)[0]))
print(json.dumps(found))
"""


class Look(TypedDict):
    """What a registry held after a trial."""

    thing: str
    status: int
    versions: list[str]
    removed: list[str]
    aliases: dict[str, list[tuple[str, str | None]]]


def run(what: str, place: Path, things: list[str]) -> list[Look]:
    """The looks, three of them after whole runs; what holds whatever was killed is checked."""
    command = [sys.executable, "-P", "-c", KILLER, what, str(place), str(TRIALS), *things]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    found: list[Look] = json.loads(done.stdout)
    assert [look["status"] for look in found[:3]] == [0] * 3
    assert {look["status"] for look in found[3:]} <= {0, -signal.SIGKILL}
    killed = [look for look in found if look["status"]]
    assert len(killed) > TRIALS // 2
    for look in found:
        for moves in look["aliases"].values():
            assert all(later[1] == earlier[0] for later, earlier in pairwise(moves))
            assert moves[-1][1] is None
    return found


def names_of(look: Look) -> set[str]:
    return {name.partition("@")[2] for name in look["versions"]}


@pytest.fixture
def folders(make_adapter: MakeAdapter) -> list[str]:
    return [str(make_adapter(seed)) for seed in range(TRIALS + 4)]


def test_killed_publishers(new_place: NewPlace, folders: list[str]) -> None:
    found = run("publish", new_place("registry"), folders)
    happened = 3
    for before, after in pairwise(found[2:]):
        new = set(after["versions"]) - set(before["versions"])
        moves = after["aliases"]["de production"]
        if not new:
            assert after["status"] != 0
            assert moves == before["aliases"]["de production"]
        else:
            (name,) = new
            assert moves[1:] == before["aliases"]["de production"]
            assert moves[0][0].startswith(name.partition("@")[2])
            happened += 1
    assert len(found[-1]["versions"]) == len(found[-1]["aliases"]["de production"]) == happened


def test_killed_promotions(place: Path, make_adapter: MakeAdapter, base: Path) -> None:
    folders = [make_adapter(seed) for seed in range(7)]
    with Registry.open(place) as registry:
        for folder in folders:
            spec = AdapterSpec(
                locale="de", task="t", labels=("a", "b", "c"), base="b", metrics={"accuracy": 0.5}
            )
            (folder / "isogloss.json").write_bytes(spec.to_json())
        digests = [registry.publish(folder, base=base, smoke=False).digest for folder in folders]
    for before, after in pairwise(run("promote", place, digests)):
        was, now = before["aliases"]["de production"], after["aliases"]["de production"]
        assert now in (was, [[after["thing"], was[0][0]], *was])
        assert after["status"] != 0 or now[0][0] == after["thing"]
        assert len(after["versions"]) == 7


def test_killed_imports(new_place: NewPlace, tmp_path: Path, folders: list[str]) -> None:
    archives = []
    with Registry.open(tmp_path / "source") as source:
        for number in range(TRIALS + 3):
            # What two have in common is one blob.
            for folder in (folders[number], folders[number - 1]):
                locale = f"de-x-n{number}"
                source.publish(folder, locale=locale, task="t", labels=["a", "b", "c"], smoke=False)
            archives.append(str(tmp_path / f"{number}.tar"))
            source.export_archive(archives[-1], locale=f"de-x-n{number}")
        place = new_place("registry")
        found = run("import", place, archives)
        for look in found:
            locale = f"de-x-n{Path(look['thing']).stem}"
            names = [name for name in look["versions"] if f"/{locale}@" in name]
            moves = look["aliases"].get(f"{locale} production")
            assert look["status"] != 0 or moves is not None
            assert moves is None or len(moves) == len(names) == 2
        with Registry.open(place) as registry:
            for archive in archives:
                registry.import_archive(archive)
            assert set(registry.versions()) == set(source.versions())
            assert registry.aliases() == source.aliases()
            for alias in source.aliases():
                assert registry.history(alias.locale, "t") == source.history(alias.locale, "t")
            assert registry.verify().is_sound


def test_killed_collectors(place: Path, folders: list[str]) -> None:
    with Registry.open(place) as registry:
        live = registry.publish(folders[0], locale="de", task="t", smoke=False)
    for look in run("gc", place, folders[1:]):
        assert live.name in look["versions"]
        ((name, moves),) = look["aliases"].items()
        assert (name, [tuple(move) for move in moves]) == ("de production", [(live.digest, None)])
        assert look["status"] != 0 or look["versions"] == [live.name]
        assert not {digest[:12] for digest in look["removed"]} & names_of(look)
    with Registry.open(place) as registry:
        registry.collect_garbage(dry_run=False, older_than=timedelta(), versions=True, keep_days=0)
        assert registry.versions() == [live]
        assert registry.verify().findings == ()
        assert registry.read(live)
