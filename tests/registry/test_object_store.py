from __future__ import annotations

import hashlib
import secrets
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fsspec.core import url_to_fs
from moto.server import ThreadedMotoServer

from isogloss.core.errors import DamagedBlobError, InputError, RegistryUnavailableError
from isogloss.registry import Registry, object_store
from isogloss.registry.blobs import FolderBlobs
from isogloss.registry.object_store import ObjectBlobs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isogloss.registry.blobs import BlobStore

    from .conftest import MakeAdapter

CONTENT = b"\x00weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SOON = 10.0
KINDS = ("folder", "memory", "moved", "s3")


class S3Place:
    """A bucket of one test, and a client that looks into it past the store."""

    def __init__(self, endpoint: str) -> None:
        self.bucket = f"bucket-{secrets.token_hex(6)}"
        self.options = {"endpoint_url": endpoint}
        self.url = f"s3://{self.bucket}/some/adapters"
        self.fs, self.root = url_to_fs(self.url, **self.options, use_listings_cache=False)
        self.fs.mkdir(self.bucket)

    def store(self) -> ObjectBlobs:
        return ObjectBlobs(self.url, self.options)

    def path(self, digest: str) -> str:
        return f"{self.root}/sha256/{digest[:2]}/{digest}"


@pytest.fixture
def s3(s3_endpoint: str) -> S3Place:
    return S3Place(s3_endpoint)


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStore]:
    if request.param == "folder":
        yield FolderBlobs(tmp_path / "blobs")
    elif request.param == "moved":  # a file system on which nothing is known of its writes
        yield ObjectBlobs(f"local://{tmp_path}/blobs")
    elif request.param == "memory":
        name = secrets.token_hex(6)
        yield ObjectBlobs(f"memory://{name}")
        memory = url_to_fs("memory://")[0]
        for path in memory.find(f"/{name}"):
            memory.rm_file(path)
    else:
        place: S3Place = request.getfixturevalue("s3")
        yield place.store()


def test_what_was_put_comes_back(store: BlobStore) -> None:
    assert not store.has(DIGEST)
    assert store.put(CONTENT) == DIGEST
    assert store.put(CONTENT) == DIGEST
    assert store.has(DIGEST)
    assert store.get(DIGEST) == CONTENT
    assert store.get(store.put(b"")) == b""


def test_all_are_listed_and_can_be_deleted(store: BlobStore) -> None:
    assert list(store.blobs()) == []
    before = time.time()
    digests = {store.put(str(number).encode() * number) for number in range(5)}
    found = {blob.digest: blob for blob in store.blobs()}
    assert found.keys() == digests
    assert sorted(blob.size for blob in found.values()) == [0, 1, 2, 3, 4]
    assert all(before - 2 < blob.modified_at < time.time() + 2 for blob in found.values())
    for digest in digests:
        store.delete(digest)
        store.delete(digest)
        assert not store.has(digest)
    assert list(store.blobs()) == []


def test_a_missing_blob_is_named(store: BlobStore) -> None:
    store.put(b"another")
    with pytest.raises(DamagedBlobError, match=f"{DIGEST} can't be read at .*publish its adapter"):
        store.get(DIGEST)


@pytest.mark.parametrize("name", ["", "abc", DIGEST.upper(), f"{DIGEST}\n", f"../../{DIGEST[6:]}"])
def test_only_digests_lead_anywhere(store: BlobStore, name: str) -> None:
    for ask in (store.get, store.has, store.delete):
        with pytest.raises(InputError, match="64 hex digits"):
            ask(name)


def test_many_writers_of_one_blob(store: BlobStore) -> None:
    start = threading.Barrier(6)
    results: list[str] = []

    def write() -> None:
        start.wait()
        results.extend(store.put(CONTENT) for _ in range(3))

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DIGEST] * 18
    assert store.get(DIGEST) == CONTENT
    assert [blob.digest for blob in store.blobs()] == [DIGEST]


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"X", CONTENT + b"\x00"])
def test_damage_in_a_bucket_is_found_on_reading_and_mended_by_putting(
    s3: S3Place, damage: bytes
) -> None:
    store = s3.store()
    store.put(CONTENT)
    s3.fs.pipe_file(s3.path(DIGEST), damage)
    with pytest.raises(DamagedBlobError, match=f"{DIGEST} is damaged at s3://{s3.bucket}"):
        store.get(DIGEST)
    store.put(CONTENT)
    assert store.get(DIGEST) == CONTENT


def test_an_object_is_created_only_where_there_is_none(
    s3: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3.store()
    fs, _ = store._connect()
    modes: list[str] = []
    put = fs.pipe_file

    def spy(path: str, content: bytes, mode: str = "overwrite") -> Any:
        modes.append(mode)
        return put(path, content, mode=mode)

    monkeypatch.setattr(fs, "pipe_file", spy)
    store.put(CONTENT)
    store.put(CONTENT)
    assert modes == ["create", "create"]
    s3.fs.pipe_file(s3.path(DIGEST), b"damaged")
    store.put(CONTENT)
    assert modes[2:] == ["create", "overwrite"]


def test_what_is_old_is_written_again_and_counts_as_new(
    s3: S3Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = s3.store()
    store.put(CONTENT)
    monkeypatch.setattr(object_store, "REFRESH_AFTER", 0.5)
    time.sleep(1.1)
    (before,) = store.blobs()
    store.put(CONTENT)
    (after,) = store.blobs()
    assert after.modified_at > before.modified_at


def test_a_store_that_knows_no_conditions(s3: S3Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = s3.store()
    fs, _ = store._connect()
    put = fs.pipe_file

    def refuse(path: str, content: bytes, mode: str = "overwrite") -> Any:
        if mode == "create":
            raise OSError(38, "A header you provided implies functionality that is not implemented")
        return put(path, content)

    monkeypatch.setattr(fs, "pipe_file", refuse)
    assert store.get(store.put(CONTENT)) == CONTENT


def test_no_bucket(s3: S3Place) -> None:
    nowhere = ObjectBlobs("s3://nowhere-at-all/adapters", s3.options)
    for ask in (
        lambda: nowhere.put(CONTENT),
        lambda: nowhere.get(DIGEST),
        lambda: nowhere.has(DIGEST),
        lambda: list(nowhere.blobs()),
    ):
        with pytest.raises(RegistryUnavailableError, match=r"s3://nowhere-at-all/adapters"):
            ask()


def test_a_store_that_is_away_and_comes_back(s3: S3Place) -> None:
    # What is stored is kept in this process, whatever server shows it.
    first = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    first.start()
    _, port = first.get_host_and_port()
    store = ObjectBlobs(s3.url, {"endpoint_url": f"http://127.0.0.1:{port}"})
    store.put(CONTENT)
    first.stop()
    for ask in (
        lambda: store.get(DIGEST),
        lambda: store.has(DIGEST),
        lambda: store.put(b"more"),
        lambda: store.delete(DIGEST),
        lambda: list(store.blobs()),
    ):
        began = time.monotonic()
        with pytest.raises(RegistryUnavailableError, match="check that the store is") as caught:
            ask()
        assert time.monotonic() - began < SOON
        assert "\n" not in str(caught.value)
    second = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    second.start()
    assert store.get(DIGEST) == CONTENT
    second.stop()


def test_what_a_killed_writer_left_is_no_blob_and_can_be_deleted(tmp_path: Path) -> None:
    for store in (FolderBlobs(tmp_path / "a"), ObjectBlobs(f"local://{tmp_path}/b")):
        folder = Path(tmp_path / store.place[-1]) / "sha256" / DIGEST[:2]
        store.put(CONTENT)
        leftover = folder / f".{DIGEST}.0123456789abcdef.tmp"
        leftover.write_bytes(CONTENT[:3])
        assert [blob.digest for blob in store.blobs()] == [DIGEST]
        assert store.delete_unfinished(age=60) == 0
        assert leftover.exists()
        assert store.delete_unfinished(age=0) == 1
        assert [path.name for path in folder.iterdir()] == [DIGEST]


def test_a_move_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectBlobs(f"local://{tmp_path}/blobs")
    fs, _ = store._connect()

    def full(*_: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fs, "mv", full)
    with pytest.raises(RegistryUnavailableError, match="No space left"):
        store.put(CONTENT)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_secrets_are_not_shown() -> None:
    store = ObjectBlobs("memory://user:hunter2@place/x?token=hunter3")
    assert store.place == "memory://place/x"
    assert "hunter" not in repr(store)
    away = ObjectBlobs("s3://bucket", {"endpoint_url": "http://127.0.0.1:9", "secret": "hunter2"})
    with pytest.raises(RegistryUnavailableError) as caught:
        away.get(DIGEST)
    assert "hunter2" not in str(caught.value)


def test_a_kind_of_url_that_nobody_knows() -> None:
    with pytest.raises(InputError, match=r"blobs can't be kept at nothing://x.*another URL"):
        ObjectBlobs("nothing://x")


def test_a_registry_in_a_bucket(s3: S3Place, tmp_path: Path, make_adapter: MakeAdapter) -> None:
    settings = tmp_path / "registry.toml"
    settings.write_text(
        f'database = "registry.db"\nblobs = "{s3.url}"\n'
        f'[blob_options]\nendpoint_url = "{s3.options["endpoint_url"]}"\n'
    )
    folder = make_adapter()
    with Registry.open(settings) as registry:
        version = registry.publish(folder, locale="gsw-CH", task="intent", alias="canary")
    with Registry.open(settings, create=False) as registry:
        weights = "adapter_model.safetensors"
        assert registry.read(version)[weights] == (folder / weights).read_bytes()
        s3.fs.rm_file(s3.path(version.files[0].sha256))
        with pytest.raises(DamagedBlobError, match="there is none"):
            registry.read(version)
