"""A hub on PostgreSQL goes on while the server is stopped and started."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from isogloss import Hub, Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..conftest import PeftAdapter, TinyBase
    from .conftest import PostgresServer

TEXT = "wo isch mys päckli"


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never came true")


def test_a_database_that_stops_and_starts_under_a_serving_hub(
    postgres_server: PostgresServer,
    tmp_path: Path,
    tiny_base: TinyBase,
    peft_adapter: PeftAdapter,
) -> None:
    def open_registry() -> Registry:
        return Registry.open(database=postgres_server.url, blobs=tmp_path / "blobs")

    base = tiny_base("xlm-roberta")
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

    def state() -> str:
        assert hub.state is not None
        return hub.state.status

    with open_registry() as registry:
        one, two = (
            registry.publish(peft_adapter(base), locale="de", task="intent", base=base)
            for _ in range(2)
        )
        with Hub(registry, base=base) as hub:
            hub.predict([TEXT], task="intent", locale="de-AT")
            wait_until(lambda: state() == "watching")
            threads = [threading.Thread(target=ask) for _ in range(2)]
            for thread in threads:
                thread.start()
            postgres_server.stop()
            wait_until(lambda: state() == "away")
            count = len(answered)
            wait_until(lambda: len(answered) > count + 5)
            assert set(answered) == {two.name}
            postgres_server.start()
            with open_registry() as other:
                other.promote(one, base=base)
            wait_until(lambda: answered[-1] == one.name)
            wait_until(lambda: state() == "watching")
            stop.set()
            for thread in threads:
                thread.join()
    assert failures == []
    assert list(dict.fromkeys(answered)) == [two.name, one.name]
