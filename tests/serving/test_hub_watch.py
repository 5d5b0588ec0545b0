"""A hub goes on while its registry is away, says so, and takes up what has changed meanwhile."""

from __future__ import annotations

import gc
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from isogloss import Hub, Registry
from isogloss.core.errors import RegistryUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..conftest import TinyBase
    from .conftest import PublishLora

TEXT = "wo isch mys päckli"


@pytest.fixture
def folder(tiny_base: TinyBase) -> Path:
    return tiny_base("xlm-roberta")


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came true")


def status(hub: Hub) -> str | None:
    return None if hub.state is None else hub.state.status


def test_a_hub_outlasts_its_registry(
    registry: Registry,
    folder: Path,
    publish_lora: PublishLora,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two = (publish_lora(folder, "de", seed=seed) for seed in range(2))
    here, hidden = tmp_path / "registry", tmp_path / "hidden"
    answered: list[str | None] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                (prediction,) = hub.predict([TEXT], task="intent", locale="de-AT")
            except Exception as error:
                failures.append(error)
            else:
                answered.append(prediction.adapter)

    with caplog.at_level(logging.INFO, "isogloss"), Hub(registry, base=folder) as hub:
        hub.predict([TEXT], task="intent", locale="de-AT")
        wait_until(lambda: status(hub) == "watching")
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        here.rename(hidden)
        wait_until(lambda: status(hub) == "away")
        assert hub.state is not None
        assert "moved or replaced" in (hub.state.reason or "")
        count = len(answered)
        wait_until(lambda: len(answered) > count + 5)
        with Registry.open(hidden) as other:
            other.promote(one)
        assert set(answered) == {two.name}
        hidden.rename(here)
        wait_until(lambda: answered[-1] == one.name)
        wait_until(lambda: status(hub) == "watching")
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert list(dict.fromkeys(answered)) == [two.name, one.name]
    said = [record.getMessage() for record in caplog.records if "registry" in record.getMessage()]
    assert [message.split(",")[0] for message in said] == [
        "changes of the registry are heard of",
        "the registry is away",
        "changes of the registry are heard of",
    ]


def test_what_is_promoted_is_in_host_memory_before_anyone_asks(
    registry: Registry, folder: Path, publish_lora: PublishLora, tmp_path: Path
) -> None:
    publish_lora(folder, "de", seed=0)
    new = publish_lora(folder, "de", seed=1, alias="canary")
    with Hub(registry, base=folder) as hub:
        hub.predict([TEXT], task="intent", locale="de")
        wait_until(lambda: status(hub) == "watching")
        assert new not in hub._host
        with Registry.open(tmp_path / "registry") as other:
            other.promote(new)
        wait_until(lambda: new in hub._host)


def test_the_bare_base_answers_while_the_registry_is_away(
    registry: Registry, folder: Path, tmp_path: Path
) -> None:
    with Hub(registry, base=folder) as hub:
        before = hub.embed([TEXT], locale="de")
        (tmp_path / "registry").rename(tmp_path / "hidden")
        assert hub.embed([TEXT], locale="de") == pytest.approx(before)


def test_a_hub_that_does_not_watch(
    registry: Registry, folder: Path, publish_lora: PublishLora, tmp_path: Path
) -> None:
    one, two = (publish_lora(folder, "de", seed=seed) for seed in range(2))
    threads = threading.active_count()
    with Hub(registry, base=folder, watch=False) as hub:
        assert hub.state is None
        for version in (two, one):
            registry.promote(version)
            assert hub.predict([TEXT], task="intent", locale="de")[0].adapter == version.name
        assert not [t for t in threading.enumerate() if t.name == "isogloss-watcher"]
        (tmp_path / "registry").rename(tmp_path / "hidden")
        with pytest.raises(RegistryUnavailableError):
            hub.predict([TEXT], task="intent", locale="de")
    assert threading.active_count() <= threads


def test_a_hub_that_nobody_closes_ends_its_watch(registry: Registry, folder: Path) -> None:
    def watchers() -> int:
        return sum(thread.name == "isogloss-watcher" for thread in threading.enumerate())

    gc.collect()
    wait_until(lambda: watchers() == 0)
    hub = Hub(registry, base=folder)
    assert watchers() == 1
    del hub
    gc.collect()
    wait_until(lambda: watchers() == 0)
