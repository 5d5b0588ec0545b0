from __future__ import annotations

import queue
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from isogloss.registry import Registry, changes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isogloss.registry.changes import WatchState

SOON = 5.0
"""Seconds; on an idle machine it takes a fraction of one."""


class Heard:
    """What a watcher has told, in order."""

    def __init__(self) -> None:
        self.generations: queue.Queue[int] = queue.Queue()
        self.states: queue.Queue[WatchState] = queue.Queue()

    def until(self, generation: int) -> None:
        while self.generations.get(timeout=SOON) != generation:
            pass

    def state(self) -> WatchState:
        return self.states.get(timeout=4 * SOON)


@pytest.fixture
def heard() -> Heard:
    return Heard()


CHANGE = """
import sys
from isogloss.registry import Registry
with Registry.open(sys.argv[1]) as registry:
    registry.locale_alias("bar", "de")
"""


def test_changes_of_this_and_of_another_process_are_told(
    registry: Registry, place: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "HEARTBEAT", 1e9)  # or it would make up for what goes unheard
    registry.locale_alias("ar-EG", "arz")
    with registry.watch(heard.generations.put, heard.states.put) as watcher:
        heard.until(1)
        assert heard.state().status == "watching"
        assert (watcher.state.status, watcher.state.reason) == ("watching", None)
        registry.remove_locale_alias("ar-EG")
        heard.until(2)
        command = [sys.executable, "-P", "-c", CHANGE, str(place)]
        assert subprocess.run(command, check=False).returncode == 0
        heard.until(3)
    assert watcher.state.status == "away"
    registry.remove_locale_alias("bar")
    time.sleep(2 * changes.INTERVAL)
    assert heard.generations.empty()
    assert heard.states.empty()


def test_nothing_is_told_where_nothing_changed(registry: Registry, heard: Heard) -> None:
    with registry.watch(heard.generations.put):
        heard.until(0)
        assert registry.locale_aliases() == []
        time.sleep(3 * changes.INTERVAL)
    assert heard.generations.empty()


def test_a_change_that_nobody_announced_is_told(
    registry: Registry, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "HEARTBEAT", 0.1)
    with registry.watch(heard.generations.put):
        heard.until(0)
        with registry._catalog._database.writing() as connection:
            connection.exec_driver_sql("UPDATE generation SET number = 7")
        heard.until(7)


def test_a_callback_that_fails_does_not_end_the_watch(
    registry: Registry, heard: Heard, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(generation: int) -> None:
        heard.generations.put(generation)
        raise ValueError("no memory for this adapter")

    with registry.watch(fail):
        heard.until(0)
        registry.locale_alias("bar", "de")
        heard.until(1)
    assert [record.exc_text for record in caplog.records if record.exc_info]
    assert "no memory for this adapter" in caplog.text


def test_a_watch_that_fails_says_so_and_goes_on(
    registry: Registry, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = registry._catalog.generation

    def fail_once() -> int:
        monkeypatch.setattr(registry._catalog, "generation", generation)
        raise ZeroDivisionError("our own mistake")

    monkeypatch.setattr(registry._catalog, "generation", fail_once)
    with registry.watch(heard.generations.put, heard.states.put):
        state = heard.state()
        assert (state.status, state.reason) == ("away", "the watch failed: our own mistake")
        assert heard.state().status == "watching"
        heard.until(0)


def test_a_watch_can_be_ended_from_within(registry: Registry, heard: Heard) -> None:
    def end(generation: int) -> None:
        watcher.stop()
        heard.generations.put(generation)

    watcher = registry.watch(end)
    watcher.start()
    heard.until(0)
    watcher.stop()
    registry.locale_alias("bar", "de")
    time.sleep(2 * changes.INTERVAL)
    assert heard.generations.empty()


def test_a_file_that_goes_and_comes_back(
    tmp_path: Path, heard: Heard, new_registry: Callable[[Path], None]
) -> None:
    folder, hidden = tmp_path / "registry", tmp_path / "hidden"
    with Registry.open(folder) as registry:
        with registry.watch(heard.generations.put, heard.states.put) as watcher:
            heard.until(0)
            assert heard.state().status == "watching"
            folder.rename(hidden)
            gone = heard.state()
            assert gone.status == "away"
            assert "moved or replaced" in (gone.reason or "")
            new_registry(hidden)
            time.sleep(3 * changes.INTERVAL)
            assert watcher.state.status == "away"
            assert watcher.state.since == gone.since
            hidden.rename(folder)
            assert heard.state().status == "watching"
            heard.until(1)
        assert [alias.locale for alias in registry.locale_aliases()] == ["bar"]


@pytest.fixture
def new_registry() -> Callable[[Path], None]:
    """Changes a registry at a place, as another process would."""

    def change(folder: Path) -> None:
        with Registry.open(folder) as registry:
            registry.locale_alias("bar", "de")

    return change
