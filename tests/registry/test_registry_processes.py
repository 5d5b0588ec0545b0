from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

import isogloss.registry
from isogloss.registry import Registry, Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import MakeAdapter

    NewPlace = Callable[[str], Path]

pytestmark = pytest.mark.slow


def publish(
    registry: Registry, folder: Path, locale: str = "gsw-CH", task: str = "intent"
) -> Version:
    return registry.publish(folder, locale=locale, task=task)


# Publishes in a child that kills itself before its n-th step (a flush to disk, an SQL statement,
# a commit), for n = 1, 2, … until one comes through. `opening` counts while the registry is made.
KILLED = """
import json, os, signal, sys
from sqlalchemy import Engine, event
from isogloss.registry import Registry
import isogloss.adapters.files

what, adapter, places = sys.argv[1], sys.argv[2], sys.argv[3:]

def child(at):
    steps, armed = 0, False
    def step(*_):
        nonlocal steps
        steps += armed
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
    fsync = os.fsync
    def step_fsync(descriptor):
        step()
        fsync(descriptor)
    os.fsync = step_fsync
    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)
    armed = what == "opening"
    registry = Registry.open(places[at - 1])
    armed = True
    registry.publish(adapter, locale="gsw-CH", task="intent", smoke=False)

ends = []
for at in range(1, len(places) + 1):
    process = os.fork()
    if process == 0:
        child(at)
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    if ends[-1] != -signal.SIGKILL:
        break
print(json.dumps(ends))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize(("what", "steps", "most"), [("publishing", 15, 60), ("opening", 30, 120)])
def test_a_killed_publish_leaves_nothing(
    what: str, steps: int, most: int, new_place: NewPlace, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter()
    places = [new_place(str(number)) for number in range(most)]
    command = [sys.executable, "-P", "-c", KILLED, what, str(folder), *map(str, places)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *killed, completed = json.loads(done.stdout)
    assert completed == 0
    assert len(killed) >= steps
    for place in places[: len(killed)]:
        with Registry.open(place) as registry:
            assert registry.versions() == []
            assert registry.aliases() == []
            assert registry.locale_aliases() == []
            version = publish(registry, folder)
            assert registry.resolve("gsw-CH", "intent").version == version
            assert registry.read(version)
    with Registry.open(places[len(killed)]) as registry:
        assert len(registry.versions()) == 1


# 32 children open the registry at once, which makes it; each publishes folders that its neighbours
# publish, too, and promotes what it finds there.
CROWD = """
import os, sys, time, traceback
from isogloss.registry import Registry
import alembic.command
import isogloss.adapters.files, isogloss.registry.postgresql

place, *folders = sys.argv[1:]
start = time.time() + 1

def child(number):
    time.sleep(max(0, start - time.time()))
    with Registry.open(place) as registry:
        for step in range(2):
            folder = folders[(number + step) % len(folders)]
            version = registry.publish(folder, locale="gsw-CH", task="intent", smoke=False)
            assert registry.read(version)
            for other in registry.versions()[::9]:
                registry.promote(other, alias="canary", reason=str(number))
            assert registry.resolve("gsw-CH", "intent").version is not None

children = []
for number in range(32):
    process = os.fork()
    if process == 0:
        try:
            child(number)
            os._exit(0)
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(1)
    children.append(process)
assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children] == [0] * 32
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork")
def test_32_processes_publish_and_promote_at_once(place: Path, make_adapter: MakeAdapter) -> None:
    folders = [str(make_adapter(seed)) for seed in range(40)]
    command = [sys.executable, "-P", "-c", CROWD, str(place), *folders]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with Registry.open(place, create=False) as registry:
        versions = registry.versions()
        digests = [version.digest for version in versions]
        assert len(set(digests)) == len(digests) == 33
        for alias in registry.aliases():
            changes = registry.history("gsw-CH", "intent", alias=alias.alias)
            assert alias.digest == changes[0].digest
            assert changes[-1].previous is None
            assert all(later.previous == earlier.digest for later, earlier in pairwise(changes))
            assert all(later.digest != later.previous for later in changes)
            assert {change.digest for change in changes} <= set(digests)
        published = registry.history("gsw-CH", "intent")
        # Each moved the alias when it was new, and whenever it stood elsewhere.
        assert {change.digest for change in published} == set(digests)
        assert registry.verify().findings == ()


def test_threads_share_a_registry(registry: Registry, make_adapter: MakeAdapter) -> None:
    folders = [make_adapter(seed) for seed in range(12)]
    failures: list[Exception] = []

    def work(mine: list[Path]) -> None:
        try:
            for folder in mine:
                assert registry.read(publish(registry, folder))
                assert registry.resolve("gsw-CH", "intent").version is not None
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(folders[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(registry.versions()) == 12


LOOK = """
import sys
from isogloss.registry import Registry
heavy = {"torch", "transformers", "peft"}
with Registry.open(sys.argv[1], create=False) as registry:
    assert registry.resolve("gsw-CH", "intent").version in registry.versions()
    assert not (heavy | {"alembic", "numpy", "pydantic"}) & sys.modules.keys()
    registry.publish(sys.argv[2], locale="gsw-CH", task="intent", smoke=False)
    assert not heavy & sys.modules.keys()
"""


def test_looking_imports_nothing_heavy(
    place: Path, registry: Registry, make_adapter: MakeAdapter
) -> None:
    folder = make_adapter()
    publish(registry, folder)
    command = [sys.executable, "-P", "-c", LOOK, str(place), str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_public_names_are_there() -> None:
    for name in isogloss.registry.__all__:
        assert getattr(isogloss.registry, name)
