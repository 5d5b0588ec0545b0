from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from isogloss.core.bank import Bank
from isogloss.core.encoder import load_encoder
from isogloss.core.engine import Engine
from isogloss.core.errors import DamagedBlobError, InputError, SlotTooSmallError
from isogloss.serving.host_cache import HostCache
from isogloss.serving.residency import Residency

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isogloss import Registry, Version
    from isogloss.core.delta import SlotImage

    from ..conftest import TinyBase
    from .conftest import Damage, PublishLora

SECONDS = 10


class Bench:
    """Two slots over a registry with five versions."""

    def __init__(self, registry: Registry, base: Path, publish: PublishLora, slots: int) -> None:
        self.versions = [publish(base, "de", seed=seed) for seed in range(5)]
        self.registry = registry
        self.base = base
        self.engine = Engine(load_encoder(base, device="cpu"), slots=slots)
        self.host = HostCache(registry, self.engine.encoder, capacity=1 << 24)
        self.residency = Residency(self.engine.bank, self.host)

    def use(self, *numbers: int) -> dict[int, int]:
        """Lease versions for a moment; the slot of each."""
        with self.residency.lease([self.versions[number] for number in numbers]) as held:
            return {number: held[self.versions[number].digest].slot for number in numbers}

    def there(self) -> set[int]:
        """Which versions are in slots."""
        digests = {d for resident in self.residency.residents() for d in resident.names}
        return {n for n, version in enumerate(self.versions) if version.digest in digests}

    def holds(self, slot: int, number: int) -> bool:
        """Whether a slot holds a version's very floats."""
        image = self.host.get(self.versions[number]).image
        return bool((self.engine.bank.arena[slot, : len(image.values)] == image.values).all())


@pytest.fixture
def bench(registry: Registry, tiny_base: TinyBase, publish_lora: PublishLora) -> Iterator[Bench]:
    made = Bench(registry, tiny_base("xlm-roberta"), publish_lora, slots=2)
    yield made
    # Whatever happened: nobody waits, nobody leases, and no slot is lost.
    assert not made.residency._queue
    residents = made.residency.residents()
    assert all(resident.leases == 0 for resident in residents)
    slots = [resident.slot for resident in residents] + made.residency._free
    assert sorted(slots) == list(range(made.engine.bank.slots))


def test_versions_come_and_go(bench: Bench) -> None:
    slots = bench.use(0, 1)
    assert sorted(slots.values()) == [0, 1]
    assert bench.use(0, 1) == slots
    assert all(bench.holds(slot, number) for number, slot in slots.items())
    bench.use(0)
    assert bench.use(2) == {2: slots[1]}
    assert bench.there() == {0, 2}
    assert bench.holds(slots[1], 2)
    assert bench.use() == {}


def test_a_hit_moves_no_weight(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.use(0, 1)
    copies: list[int] = []
    put = Bank.put

    def counted(bank: Bank, slot: int, image: SlotImage) -> None:
        copies.append(slot)
        put(bank, slot, image)

    monkeypatch.setattr(Bank, "put", counted)
    for number in (0, 1, 0, 1):
        bench.use(number)
    assert copies == []
    bench.use(2)
    assert len(copies) == 1


def test_what_is_hot_outlives_a_scan(bench: Bench) -> None:
    for _ in range(20):
        bench.use(0)
    for number in (1, 2, 3, 4, 1, 2, 3, 4):
        bench.use(number)
        assert 0 in bench.there()


def test_a_leased_slot_is_not_overwritten(bench: Bench) -> None:
    with bench.residency.lease([bench.versions[0]]) as held:
        slot = held[bench.versions[0].digest].slot
        for number in (1, 2, 3, 4):
            bench.use(number)
            assert bench.holds(slot, 0)
    assert 0 in bench.there()


def test_unloading_what_a_batch_uses_waits_for_the_batch(bench: Bench) -> None:
    version = bench.versions[0]
    with bench.residency.lease([version]) as held:
        slot = held[version.digest].slot
        assert bench.residency.unload(version.digest)
        assert not bench.residency.unload(version.digest)
        assert bench.there() == set()
        assert bench.holds(slot, 0)
        assert bench.use(1)[1] != slot
        # The same version again takes another slot, while the old one is still in use.
        assert bench.use(0)[0] != slot
        assert bench.holds(slot, 0)
    assert sorted(bench.use(1, 2).values()) == [0, 1]


def test_pinned_versions_stay(bench: Bench) -> None:
    bench.residency.pin(bench.versions[0])
    assert bench.residency.pinned() == {bench.versions[0].digest}
    for number in (1, 2, 3, 4):
        bench.use(number)
        assert bench.there() == {0, number}
    with pytest.raises(InputError, match="2 adapters are needed at once, and of 2 slots"):
        bench.use(1, 2)
    bench.residency.pin(bench.versions[1])
    with pytest.raises(InputError, match="others have pinned 2"):
        bench.use(2)
    assert bench.residency.unload(bench.versions[0].digest)
    assert set(bench.use(2)) == {2}


def test_more_than_there_are_slots(bench: Bench) -> None:
    with pytest.raises(InputError, match="3 adapters are needed at once"):
        bench.use(0, 1, 2)


def test_a_batch_waits_for_another_to_end(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool:
        with bench.residency.lease([bench.versions[0]]):
            waiting = pool.submit(bench.use, 1, 2)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        assert set(waiting.result(SECONDS)) == {1, 2}


def test_batches_that_wait_come_in_their_order(bench: Bench) -> None:
    """One that needs all slots isn't overtaken for ever by small ones, even by hits."""
    ended: list[str] = []

    def use(name: str, *numbers: int) -> None:
        bench.use(*numbers)
        ended.append(name)

    with ThreadPoolExecutor(2) as pool:
        with bench.residency.lease([bench.versions[0]]):
            large = pool.submit(use, "large", 1, 2)
            while not bench.residency._queue:
                threading.Event().wait(0.01)
            small = pool.submit(use, "small", 0)
            with pytest.raises(TimeoutError):
                small.result(0.2)
        large.result(SECONDS)
        small.result(SECONDS)
    assert ended == ["large", "small"]


def test_pinning_ends_a_wait_that_would_never_end(bench: Bench) -> None:
    with ThreadPoolExecutor(1) as pool, bench.residency.lease([bench.versions[0]]):
        waiting: Future[dict[int, int]] = pool.submit(bench.use, 1, 2)
        while not bench.residency._queue:
            threading.Event().wait(0.01)
        with bench.residency._changed:  # as `pin` does, but while others are waiting
            next(iter(bench.residency._by_content.values())).pinned = True
            bench.residency._changed.notify_all()
        with pytest.raises(InputError, match="others have pinned 1"):
            waiting.result(SECONDS)


def test_a_damaged_version_fails_alone(bench: Bench, damage: Damage) -> None:
    bench.use(0, 1)
    damage(bench.versions[2])
    with pytest.raises(DamagedBlobError):
        bench.use(3, 2)
    assert bench.there() == {0, 1}
    assert set(bench.use(0, 3)) == {0, 3}


def test_a_version_larger_than_a_slot(
    registry: Registry, tiny_base: TinyBase, publish_lora: PublishLora
) -> None:
    base = tiny_base("xlm-roberta")
    small = publish_lora(base, "de", seed=1, rank=2)
    large = publish_lora(base, "de", seed=2, rank=9)
    encoder = load_encoder(base, device="cpu")
    host = HostCache(registry, encoder, capacity=1 << 20)
    engine = Engine(encoder, slots=1, slot_bytes=host.get(small).image.nbytes)
    residency = Residency(engine.bank, host)
    with residency.lease([small]):
        pass
    with (
        pytest.raises(SlotTooSmallError, match=r"intent/de@.* larger slots"),
        residency.lease([large]),
    ):
        pass
    assert [r.names for r in residency.residents()] == [{small.digest: small.name}]


def test_a_copy_that_fails_is_tried_again_by_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, may_fail = threading.Event(), threading.Event()
    put = Bank.put
    failed: list[int] = []

    def fail_once(bank: Bank, slot: int, image: SlotImage) -> None:
        if not failed:
            failed.append(slot)
            started.set()
            assert may_fail.wait(SECONDS)
            raise MemoryError("no room on the device")
        put(bank, slot, image)

    monkeypatch.setattr(Bank, "put", fail_once)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(bench.use, 0, 1)
        assert started.wait(SECONDS)
        second = pool.submit(bench.use, 0)
        may_fail.set()
        with pytest.raises(MemoryError):
            first.result(SECONDS)
        ((_, slot),) = second.result(SECONDS).items()
    assert bench.holds(slot, 0)
    assert bench.there() == {0}


def test_the_same_content_takes_one_slot(bench: Bench, tmp_path: Path) -> None:
    other = bench.registry.publish(tmp_path / "lora-intent-de-0", base=bench.base, locale="nl")
    with bench.residency.lease([bench.versions[0], other, bench.versions[1]]) as held:
        assert held[other.digest] is held[bench.versions[0].digest]
        assert held[other.digest].leases == 2
    (shared,) = [r for r in bench.residency.residents() if len(r.names) == 2]
    assert set(shared.names.values()) == {bench.versions[0].name, other.name}
    bench.use(2, 3)
    assert bench.there() == {2, 3}


def test_many_threads_see_only_what_they_lease(bench: Bench) -> None:
    """Each holds its slots for a while and finds its own floats in them, all along."""
    wrong: list[int] = []

    def ask(seed: int) -> None:
        for step in range(60):
            numbers = sorted({(seed + step) % 5, (seed * step) % 5})
            versions: list[Version] = [bench.versions[number] for number in numbers]
            with bench.residency.lease(versions) as held:
                for number, version in zip(numbers, versions, strict=True):
                    if not bench.holds(held[version.digest].slot, number):
                        wrong.append(number)
            if step % 7 == seed:
                bench.residency.unload(bench.versions[step % 5].digest)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(ask, seed) for seed in range(6)]:
            done.result(60)
    assert wrong == []
