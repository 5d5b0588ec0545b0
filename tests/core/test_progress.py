from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

from isogloss.core import progress
from isogloss.core.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

WORK = """
import sys
from isogloss.core.progress import Progress
with Progress("train", total=4, done=1, unit="rows", enabled=sys.argv[1] == "on") as bar:
    bar.advance(note="loss 0.5")
    bar.say("epoch 1: 0.75")
    bar.advance(2, note="loss 0.25")
    if len(sys.argv) > 2:
        raise KeyboardInterrupt
print("result")
"""


def on_a_terminal(arguments: Sequence[str]) -> tuple[str, str]:
    """What a program writes to standard output (a pipe) and to standard error (a terminal)."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", WORK, *arguments],
            stdout=subprocess.PIPE,
            stderr=slave,
        )
        os.close(slave)
        seen = b""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if not select.select([master], [], [], 1)[0]:
                continue
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # Linux says so when the other side is closed
                break
            if not part:
                break
            seen += part
        output, _ = process.communicate(timeout=60)
    finally:
        os.close(master)
    return output.decode(), seen.decode()


def test_a_bar_on_a_terminal() -> None:
    output, screen = on_a_terminal(["on"])
    assert output == "result\n"
    assert re.search(r"train: +25%", screen)  # from where the earlier run stopped
    assert "1/4" in screen
    # The line that stays has a line of its own, and the bar is gone at the end.
    assert "epoch 1: 0.75\r\n" in screen
    assert screen.rstrip(" ").endswith("\r")
    assert "\n" not in screen.partition("epoch 1: 0.75\r\n")[2]


def test_an_interruption_takes_the_bar_away() -> None:
    output, screen = on_a_terminal(["on", "interrupt"])
    assert output == ""
    before_traceback = screen.partition("Traceback")[0]
    assert before_traceback != screen
    assert before_traceback.rstrip(" ").endswith("\r")


def test_nothing_on_a_terminal_when_switched_off() -> None:
    assert on_a_terminal(["off"]) == ("result\n", "")


def test_plain_lines_elsewhere() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", WORK, "on"],
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    # The work is too short for a line of its own; what is said is said at once.
    assert (done.stdout, done.stderr) == ("result\n", "epoch 1: 0.75\n")


def test_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Progress("train", total=2_000, unit="rows") as bar:
        for number in range(1, 1_801):
            now += 0.1
            bar.advance(note=f"loss {number}" if number % 2 else "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11  # in 180 seconds, one each after more than 15
    assert lines[0].startswith("train: 15")
    assert all(re.fullmatch(r"train: [\d,]+/2,000 rows( loss \d+)?", line) for line in lines)
    assert bar.done == 1_800


def test_switched_off(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    with Progress("train", total=2, enabled=False) as bar:
        bar.advance()
        bar.say("hello")
    assert capsys.readouterr() == ("", "")
    with Progress("train", total=2) as bar:
        bar.advance()
    assert capsys.readouterr() == ("", "train: 1/2 steps\n")
