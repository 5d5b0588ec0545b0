from __future__ import annotations

import json
import signal
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from isogloss.registry import Registry

    from .conftest import MakeAdapter

pytestmark = pytest.mark.slow

PROCESSES, ROUNDS = 32, 4

# Each child promotes what it was given, if the alias still points to what it has just seen there.
PROMOTERS = """
import json, os, sys, time
from isogloss.registry import Registry
from isogloss.core.errors import ConflictError

place, rounds, names = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
start = time.time() + 1

def child(number, out):
    result = {"won": 0, "lost": 0}
    with Registry.open(place, create=False) as registry:
        time.sleep(max(0, start - time.time()))
        for turn in range(rounds):
            current = registry.aliases(alias="production")[0].digest
            others = [name for name in names if name != current]
            target = others[(number + turn) % len(others)]
            try:
                registry.promote(target, expected=current, reason=str(number), smoke=False)
                result["won"] += 1
            except ConflictError:
                result["lost"] += 1
    os.write(out, (json.dumps(result) + "\\n").encode())

results, out = os.pipe()
children = []
for number in range(32):
    process = os.fork()
    if process == 0:
        try:
            child(number, out)
            os._exit(0)
        finally:
            os._exit(1)
    children.append(process)
os.close(out)
assert [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in children] == [0] * 32
with open(results) as lines:
    print(json.dumps([json.loads(line) for line in lines]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork")
def test_promoters_do_not_overwrite_one_another_unseen(
    place: Path, registry: Registry, make_adapter: MakeAdapter
) -> None:
    digests = [
        registry.publish(make_adapter(seed), locale="de", task="t", smoke=False).digest
        for seed in range(4)
    ]
    before = len(registry.history("de", "t"))
    command = [sys.executable, "-P", "-c", PROMOTERS, str(place), str(ROUNDS), *digests]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    results = json.loads(done.stdout)
    assert len(results) == PROCESSES
    assert sum(result["won"] + result["lost"] for result in results) == PROCESSES * ROUNDS
    changes = registry.history("de", "t")
    assert len(changes) - before == sum(result["won"] for result in results) > 0
    assert all(later.previous == earlier.digest for later, earlier in pairwise(changes))
    assert all(later.changed_at >= earlier.changed_at for later, earlier in pairwise(changes))
    (alias,) = registry.aliases()
    assert (alias.digest, alias.updated_at) == (changes[0].digest, changes[0].changed_at)
    assert len(registry.versions()) == 4


# Promotes in a child that kills itself before its n-th step, for n = 1, 2, … until one comes
# through; prints the exit statuses, and where alias and history stood after each.
KILLED = """
import itertools, json, os, signal, sys
from sqlalchemy import Engine, event
from isogloss.registry import Registry

place, old, new = sys.argv[1:]

def child(at):
    steps = 0
    def step(*_):
        nonlocal steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
    with Registry.open(place, create=False) as registry:
        event.listen(Engine, "before_cursor_execute", step)
        event.listen(Engine, "commit", step)
        registry.promote(new, require="accuracy<=1", data=None, expected=old, smoke=False)

ends = []
for at in itertools.count(1):
    process = os.fork()
    if process == 0:
        try:
            child(at)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with Registry.open(place, create=False) as registry:
        newest = registry.history("de", "t")
        ends.append([status, registry.aliases()[0].digest, newest[0].digest, len(newest)])
    if status != -signal.SIGKILL or ends[-1][1] == new:
        break
print(json.dumps(ends))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs fork and SIGKILL")
def test_a_killed_promotion_happens_or_does_not(
    place: Path, registry: Registry, base: Path, make_adapter: MakeAdapter
) -> None:
    from isogloss.adapters.spec import AdapterSpec

    folders = [make_adapter(seed) for seed in range(2)]
    for folder in folders:
        spec = AdapterSpec(
            locale="de", task="t", labels=("a", "b", "c"), base="b", metrics={"accuracy": 0.5}
        )
        (folder / "isogloss.json").write_bytes(spec.to_json())
    new, old = (registry.publish(folder, base=base, smoke=False).digest for folder in folders)
    command = [sys.executable, "-P", "-c", KILLED, str(place), old, new]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *killed, last = json.loads(done.stdout)
    assert len(killed) >= 12
    for status, alias, newest, moves in killed:
        assert (status, alias, newest, moves) == (-signal.SIGKILL, old, old, 2)
    assert last[1:] == [new, new, 3]
    assert registry.history("de", "t")[0].previous == old
