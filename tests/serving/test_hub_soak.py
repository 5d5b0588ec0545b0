"""What takes minutes: many rows, many adapters, many swaps, and not one wrong answer."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from isogloss import Hub

if TYPE_CHECKING:
    from pathlib import Path

    from isogloss import Registry

    from ..conftest import TinyBase
    from .conftest import PublishLora

ROWS = 200_000
ROWS_A_CALL = 1000
THREADS = 2
TEXTS = ("wo isch", "fox", "bitte", "mi pedido", "el perro", "no", "dónde", "lazy dog")
LOCALES = tuple(f"de-x-{number:03}" for number in range(100))
VERSIONS_A_LOCALE = 3


@pytest.mark.slow
def test_every_answer_is_of_the_adapter_that_it_names(
    registry: Registry, tiny_base: TinyBase, publish_lora: PublishLora
) -> None:
    """300 adapters over 24 slots, promoted, rolled back and unloaded at random meanwhile."""
    base = tiny_base("xlm-roberta")
    versions = {
        locale: [
            publish_lora(base, locale, seed=VERSIONS_A_LOCALE * number + copy)
            for copy in range(VERSIONS_A_LOCALE)
        ]
        for number, locale in enumerate(LOCALES)
    }
    expected: dict[tuple[str, str], np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    with Hub(registry, base=base, slots=1) as alone:
        for locale, own in versions.items():
            for version in own:
                for text in TEXTS:
                    (found,) = alone.predict(
                        [text], task="intent", locale=locale, adapter=version.name
                    )
                    expected[version.name, text] = np.array(found.logits)
    answers: list[int] = []
    used: set[str] = set()
    wrong: list[str] = []

    def ask(hub: Hub, seed: int) -> None:
        generator = random.Random(seed)
        while sum(answers) < ROWS:
            texts = generator.choices(TEXTS, k=ROWS_A_CALL)
            locales = generator.choices(LOCALES, k=ROWS_A_CALL)
            for text, prediction in zip(
                texts, hub.predict(texts, task="intent", locale=locales), strict=True
            ):
                name = str(prediction.adapter)
                used.add(name)
                distance = np.abs(np.array(prediction.logits) - expected[name, text]).max()
                if distance > 1e-5:
                    wrong.append(f"{name} {text!r}: {distance}")
            answers.append(ROWS_A_CALL)

    def disturb(hub: Hub, stop: threading.Event) -> None:
        generator = random.Random(0)
        while not stop.wait(0.03):
            locale = generator.choice(LOCALES)
            if generator.random() < 0.3:
                hub.unload(generator.choice(versions[locale]).name)
            else:
                registry.promote(generator.choice(versions[locale]))

    stop = threading.Event()
    # Room for a third of the adapters in host memory: the others come from disk each time.
    with Hub(registry, base=base, slots=24, host_cache_bytes=230_000) as hub:
        with ThreadPoolExecutor(THREADS + 1) as pool:
            disturbing = pool.submit(disturb, hub, stop)
            try:
                for asking in [pool.submit(ask, hub, seed) for seed in range(THREADS)]:
                    asking.result()
            finally:
                stop.set()
            disturbing.result()
        assert hub.memory().host_cache_bytes <= 230_000
    assert wrong == []
    assert sum(answers) >= ROWS
    assert len(used) > 250


@pytest.mark.slow
def test_memory_does_not_grow_with_loads(
    registry: Registry, tiny_base: TinyBase, publish_lora: PublishLora
) -> None:
    base: Path = tiny_base("xlm-roberta")
    locales = LOCALES[:20]
    for number, locale in enumerate(locales):
        publish_lora(base, locale, seed=number)
    process = psutil.Process()
    with Hub(registry, base=base, slots=4, host_cache_bytes=12_000) as hub:

        def cycle(times: int) -> int:
            for number in range(times):
                assert hub.unload(hub.load(locales[number % 20], "intent"))
            return process.memory_info().rss

        before = cycle(1000)
        after = cycle(10_000)
        assert hub.memory().adapters == {}
    assert after <= 1.01 * before
