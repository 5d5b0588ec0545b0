"""Many threads, promotions while traffic flows, and loads that fail beside it."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from isogloss import Hub, Prediction
from isogloss.core.errors import DamagedBlobError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isogloss import Registry, Version

    from ..conftest import TinyBase
    from .conftest import Damage, PublishLora

TEXTS = ["wo isch mys päckli", "the quick brown fox jumps over the lazy dog", "päckli " * 500]


@pytest.fixture
def folder(tiny_base: TinyBase) -> Path:
    return tiny_base("xlm-roberta")


def expected_of(hub: Hub, versions: list[Version]) -> dict[str, list[Prediction]]:
    """What each version answers, alone."""
    return {
        version.name: [
            hub.predict([text], task="intent", locale="de", adapter=version.name)[0]
            for text in TEXTS
        ]
        for version in versions
    }


def agree(found: list[Prediction], expected: dict[str, list[Prediction]]) -> bool:
    """One version answered all of a call, and each answer is that version's own."""
    (name,) = {str(prediction.adapter) for prediction in found}
    return all(
        one.logits == pytest.approx(other.logits, abs=1e-5) and one.truncated == other.truncated
        for one, other in zip(found, expected[name], strict=True)
    )


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came true")


def test_threads_share_a_hub(registry: Registry, folder: Path, publish_lora: PublishLora) -> None:
    """More adapters than slots, and long texts, for which the tokenizer's state changes."""
    locales = ["de", "es", "fr", "it"]
    versions = [publish_lora(folder, locale, seed=n) for n, locale in enumerate(locales)]
    with Hub(registry, base=folder, slots=2) as hub:
        expected = expected_of(hub, versions)

        def ask(locale: str) -> bool:
            return all(
                agree(hub.predict(TEXTS, task="intent", locale=locale), expected) for _ in range(15)
            )

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, locales))


def test_promotions_while_traffic_flows(
    registry: Registry, folder: Path, publish_lora: PublishLora
) -> None:
    """No call fails or mixes two versions, and one that begins later sees the new version."""
    versions = [publish_lora(folder, "de", seed=seed) for seed in range(4)]
    with Hub(registry, base=folder, slots=2) as hub:
        expected = expected_of(hub, versions)
        stop = threading.Event()
        answered: list[str] = []

        def ask() -> None:
            while not stop.is_set():
                found = hub.predict(TEXTS, task="intent", locale="de-CH")
                assert agree(found, expected)
                answered.append(str(found[0].adapter))

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask) for _ in range(3)]
            try:
                for step in range(24):
                    if step % 3 == 2:
                        current = registry.rollback("de", "intent")
                    else:
                        current = versions[step % 4]
                        registry.promote(current)
                    (found,) = hub.predict(TEXTS[:1], task="intent", locale="de")
                    assert found.adapter == current.name
            finally:
                stop.set()
            for one in asking:
                one.result(30)
    assert len(set(answered)) > 1


def test_a_load_that_fails_disturbs_nobody(
    registry: Registry, folder: Path, publish_lora: PublishLora, damage: Damage
) -> None:
    good = [publish_lora(folder, locale, seed=n) for n, locale in enumerate(("de", "es", "fr"))]
    bad = publish_lora(folder, "it", seed=9)
    with Hub(registry, base=folder, slots=2) as hub:
        expected = expected_of(hub, good)
        mend = damage(bad)

        def fail() -> None:
            for _ in range(30):
                with pytest.raises(DamagedBlobError, match="damaged"):
                    hub.predict(TEXTS, task="intent", locale="it")

        def ask(locale: str) -> None:
            for _ in range(15):
                assert agree(hub.predict(TEXTS, task="intent", locale=locale), expected)

        with ThreadPoolExecutor(4) as pool:
            done = [pool.submit(fail), *(pool.submit(ask, locale) for locale in ("de", "es", "fr"))]
            for one in done:
                one.result(60)
        with pytest.raises(DamagedBlobError):
            hub.predict(TEXTS, task="intent", locale=["de", "it", "de"])
        assert bad.name not in hub.memory().adapters
        mend()
        assert hub.predict(TEXTS[:1], task="intent", locale="it")[0].adapter == bad.name


# -- reading ahead


def test_loading_in_the_background(
    registry: Registry, folder: Path, publish_lora: PublishLora
) -> None:
    version = publish_lora(folder, "de", seed=1)
    with Hub(registry, base=folder) as hub:
        assert hub.load("de-AT", "intent", wait=False) == version.name
        wait_until(lambda: hub.memory().host_cache_bytes > 0)
        assert hub.memory().adapters == {}
        hub.predict(TEXTS[:1], task="intent", locale="de")
        assert list(hub.memory().adapters) == [version.name]


def test_what_other_aliases_point_to_is_read_ahead(
    registry: Registry, folder: Path, publish_lora: PublishLora
) -> None:
    publish_lora(folder, "de", seed=1)
    canary = publish_lora(folder, "de", seed=2, alias="canary")
    with Hub(registry, base=folder) as hub:
        hub.prefetch("de", "intent")
        wait_until(lambda: canary in hub._host)


def test_other_routes_are_looked_after_when_one_has_moved(
    registry: Registry, folder: Path, publish_lora: PublishLora
) -> None:
    locales = ["de", "es", "fr"]
    for number, locale in enumerate(locales):
        publish_lora(folder, locale, seed=number)
    with Hub(registry, base=folder, watch=False) as hub:
        hub.predict(TEXTS, task="intent", locale=locales)
        new = [publish_lora(folder, locale, seed=10 + n) for n, locale in enumerate(locales)]
        assert not any(version in hub._host for version in new)
        hub.predict(TEXTS[:1], task="intent", locale="de")
        wait_until(lambda: all(version in hub._host for version in new))


def test_what_fails_in_the_background_is_logged(
    registry: Registry,
    folder: Path,
    publish_lora: PublishLora,
    damage: Damage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    version = publish_lora(folder, "de", seed=1)
    mend = damage(version)
    with Hub(registry, base=folder) as hub, caplog.at_level(logging.WARNING):
        hub.load("de", "intent", wait=False)
        wait_until(lambda: "could not be read ahead" in caplog.text)
        with pytest.raises(DamagedBlobError):
            hub.predict(TEXTS[:1], task="intent", locale="de")
        mend()
        assert hub.predict(TEXTS[:1], task="intent", locale="de")[0].adapter == version.name
