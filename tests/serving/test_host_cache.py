from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from isogloss.core.encoder import Encoder, load_encoder
from isogloss.core.errors import DamagedBlobError
from isogloss.serving.host_cache import HostCache

if TYPE_CHECKING:
    from pathlib import Path

    from isogloss import Registry, Version

    from ..conftest import TinyBase
    from .conftest import Damage, PublishLora


@pytest.fixture
def folder(tiny_base: TinyBase) -> Path:
    return tiny_base("xlm-roberta")


@pytest.fixture
def encoder(folder: Path) -> Encoder:
    return load_encoder(folder, device="cpu")


@pytest.fixture
def reads(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Digests of the versions that were read, in order."""
    seen: list[str] = []
    read = registry.read

    def counted(version: Version, *, recheck: bool = True) -> dict[str, bytes]:
        seen.append(version.digest)
        return read(version, recheck=recheck)

    monkeypatch.setattr(registry, "read", counted)
    return seen


def test_a_version_is_read_once(
    registry: Registry, encoder: Encoder, folder: Path, publish_lora: PublishLora, reads: list[str]
) -> None:
    version = publish_lora(folder, "de", seed=1)
    cache = HostCache(registry, encoder, capacity=1 << 20)
    assert version not in cache
    first = cache.get(version)
    assert cache.get(version) is first
    assert version in cache
    assert reads == [version.digest]
    assert cache.nbytes == first.nbytes == first.image.nbytes + first.head_bytes
    assert first.shift == 0


def test_no_more_is_kept_than_fits(
    registry: Registry, encoder: Encoder, folder: Path, publish_lora: PublishLora, reads: list[str]
) -> None:
    versions = [publish_lora(folder, "de", seed=seed) for seed in range(5)]
    one = HostCache(registry, encoder, capacity=1 << 20).get(versions[0]).nbytes
    cache = HostCache(registry, encoder, capacity=3 * one)
    for version in versions:
        cache.get(version)
        assert cache.nbytes <= 3 * one
        assert version in cache
    assert [version in cache for version in versions] == [False, False, True, True, True]
    reads.clear()
    cache.get(versions[0])
    assert reads == [versions[0].digest]


def test_a_cache_of_nothing_still_serves(
    registry: Registry, encoder: Encoder, folder: Path, publish_lora: PublishLora, reads: list[str]
) -> None:
    version = publish_lora(folder, "de", seed=1)
    cache = HostCache(registry, encoder, capacity=0)
    assert cache.get(version).content == cache.get(version).content
    assert len(reads) == 2
    assert cache.nbytes == 0


def test_the_same_content_under_two_names_is_kept_once(
    registry: Registry, encoder: Encoder, folder: Path, publish_lora: PublishLora, tmp_path: Path
) -> None:
    version = publish_lora(folder, "de", seed=1)
    other = registry.publish(tmp_path / "lora-intent-de-1", base=folder, locale="nl", task="topic")
    different = publish_lora(folder, "de", seed=2)
    assert len({version.digest, other.digest, different.digest}) == 3
    cache = HostCache(registry, encoder, capacity=1 << 20)
    first = cache.get(version)
    assert cache.get(other) is first
    assert cache.nbytes == first.nbytes
    assert cache.get(different).content != first.content
    assert cache.nbytes == 2 * first.nbytes


def test_other_content_under_the_same_name_is_other_content(
    registry: Registry, encoder: Encoder, folder: Path, publish_lora: PublishLora
) -> None:
    cache = HostCache(registry, encoder, capacity=1 << 20)
    first = cache.get(publish_lora(folder, "de", seed=1))
    second = cache.get(publish_lora(folder, "de", seed=2))
    assert not torch.equal(first.image.values, second.image.values)
    promoted = registry.resolve("de", "intent").version
    assert promoted is not None
    assert cache.get(promoted) is second


def test_a_failed_load_leaves_nothing_behind(
    registry: Registry,
    encoder: Encoder,
    folder: Path,
    publish_lora: PublishLora,
    damage: Damage,
) -> None:
    version = publish_lora(folder, "de", seed=1)
    mend = damage(version)
    cache = HostCache(registry, encoder, capacity=1 << 20)
    for _ in range(2):
        with pytest.raises(DamagedBlobError):
            cache.get(version)
    assert version not in cache
    assert cache.nbytes == 0
    mend()
    assert cache.get(version).nbytes == cache.nbytes


def test_threads_wait_for_one_load(
    registry: Registry,
    encoder: Encoder,
    folder: Path,
    publish_lora: PublishLora,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = publish_lora(folder, "de", seed=1)
    started, may_go_on = threading.Event(), threading.Event()
    read = registry.read
    count = []

    def slow(asked: Version, *, recheck: bool = True) -> dict[str, bytes]:
        count.append(asked)
        started.set()
        assert may_go_on.wait(10)
        return read(asked, recheck=recheck)

    monkeypatch.setattr(registry, "read", slow)
    cache = HostCache(registry, encoder, capacity=1 << 20)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(cache.get, version) for _ in range(4)]
        assert started.wait(10)
        may_go_on.set()
        assert len({id(one.result(10)) for one in found}) == 1
    assert len(count) == 1


def test_a_load_holds_up_no_other(
    registry: Registry,
    encoder: Encoder,
    folder: Path,
    publish_lora: PublishLora,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, quick = publish_lora(folder, "de", seed=1), publish_lora(folder, "de", seed=2)
    started, may_go_on = threading.Event(), threading.Event()
    read = registry.read

    def held_up(asked: Version, *, recheck: bool = True) -> dict[str, bytes]:
        if asked.digest == slow.digest:
            started.set()
            assert may_go_on.wait(10)
        return read(asked, recheck=recheck)

    monkeypatch.setattr(registry, "read", held_up)
    cache = HostCache(registry, encoder, capacity=1 << 20)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cache.get, slow)
        assert started.wait(10)
        assert cache.get(quick).nbytes == cache.nbytes
        assert not waiting.done()
        may_go_on.set()
        assert waiting.result(10) is cache.get(slow)


def test_what_is_known_of_versions_stays_bounded(
    registry: Registry,
    encoder: Encoder,
    folder: Path,
    publish_lora: PublishLora,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isogloss.serving.host_cache._KNOWN_AT_MOST", 3)
    version = publish_lora(folder, "de", seed=1)
    files = registry.read(version)
    monkeypatch.setattr(registry, "read", lambda _, **__: files)
    cache = HostCache(registry, encoder, capacity=1 << 20)
    for number in range(10):
        cache.get(replace(version, digest=f"{number:064}"))
        assert len(cache._known) <= 3
    assert cache.nbytes == cache.get(version).nbytes
