from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Counts pages that are mapped anew while a tensor of 20 MB is made and dropped ten times.
COUNT = """
import resource
import torch
from isogloss.core.allocation import keep_freed_memory

taken = keep_freed_memory()
def use():
    for _ in range(10):
        torch.zeros(5_000_000)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
print(taken, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="tunes glibc")
@pytest.mark.parametrize("switch", ["0", "1"])
def test_freed_memory_is_used_again(monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    monkeypatch.setenv("ISOGLOSS_MALLOC", switch)
    done = subprocess.run(
        [sys.executable, "-P", "-c", COUNT], capture_output=True, text=True, check=True
    )
    taken, faults = done.stdout.split()
    assert taken == str(switch == "1")
    if switch == "1":
        assert int(faults) < 100
