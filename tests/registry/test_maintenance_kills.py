from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import MakeAdapter

pytestmark = pytest.mark.slow

PUBLISH: dict[str, Any] = {"locale": "de", "task": "intent", "smoke": False}

# Does something in children that kill themselves before their n-th step (a flush to disk, a
# deletion, an SQL statement, a commit), for n = 1, 2, … until one comes through. Each child goes
# on with what the one before has left.
KILLED = """
import json, os, signal, sys
from datetime import timedelta
from sqlalchemy import Engine, event
from isogloss.registry import Registry
import isogloss.adapters.files, isogloss.registry.archive

what, place, stride, *arguments = sys.argv[1:]

def child(at):
    steps = 0
    def step(*_):
        nonlocal steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
    def before(function):
        def call(*arguments, **options):
            step()
            return function(*arguments, **options)
        return call
    registry = Registry.open(place)
    for name in ("fsync", "unlink", "utime"):
        setattr(os, name, before(getattr(os, name)))
    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)
    if what == "import":
        registry.import_archive(arguments[0])
    else:
        registry.collect_garbage(dry_run=False, older_than=timedelta(), versions=True, keep_days=0)

at, ends = 1, []
while True:
    process = os.fork()
    if process == 0:
        child(at)
        os._exit(0)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    with Registry.open(place) as registry:
        report = registry.verify()
        damage = [finding.problem for finding in report.findings if finding.is_damage]
        if damage:
            sys.exit(f"step {at}: {damage}")
    if ends[-1] != -signal.SIGKILL:
        break
    at += int(stride)
print(json.dumps(ends))
"""


def killed(what: str, place: Path, *arguments: str, stride: int = 1) -> int:
    """How often it was killed before it came through."""
    command = [sys.executable, "-P", "-c", KILLED, what, str(place), str(stride), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *ends, last = json.loads(done.stdout)
    assert last == 0
    assert set(ends) <= {-signal.SIGKILL}
    return len(ends)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
def test_a_killed_import_leaves_whole_versions(
    registry: Registry, new_place: Callable[[str], Path], make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    for seed in range(3):
        registry.publish(make_adapter(seed), **PUBLISH)
    registry.rollback("de", "intent")
    registry.locale_alias("bar", "de")
    registry.export_archive(tmp_path / "all.tar")
    place = new_place("target")
    Registry.open(place).close()
    assert killed("import", place, str(tmp_path / "all.tar"), stride=2) >= 20
    with Registry.open(place) as target:
        assert target.verify().is_sound
        assert {version.digest for version in target.versions()} == {
            version.digest for version in registry.versions()
        }
        assert target.history("de", "intent") == registry.history("de", "intent")
        assert target.aliases() == registry.aliases()
        assert target.resolve("bar", "intent").version == registry.resolve("de", "intent").version


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
def test_a_killed_collection_takes_nothing_that_is_needed(
    registry: Registry, place: Path, make_adapter: MakeAdapter
) -> None:
    kept = registry.publish(make_adapter(0), **PUBLISH)
    for seed in range(1, 6):
        registry.publish(make_adapter(seed), alias=None, **PUBLISH)
        registry._blobs.put(f"nobody's {seed}".encode())
    assert killed("gc", place) >= 10
    assert registry.versions() == [kept]
    assert registry.verify().findings == ()
    done = registry.collect_garbage(dry_run=False, older_than=timedelta(), versions=True)
    assert (done.versions, done.blobs) == ((), 0)
