from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from isogloss.core.errors import DamagedBlobError, InputError
from isogloss.registry.blobs import FolderBlobs

CONTENT = b"\x00weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


def files(blobs: FolderBlobs) -> list[Path]:
    return sorted(path for path in blobs.folder.rglob("*") if path.is_file())


def test_what_was_put_comes_back(blobs: FolderBlobs) -> None:
    assert not blobs.has(DIGEST)
    assert blobs.put(CONTENT) == DIGEST
    assert blobs.has(DIGEST)
    assert blobs.get(DIGEST) == CONTENT
    assert files(blobs) == [blobs.folder / "sha256" / DIGEST[:2] / DIGEST]


def test_empty_content_is_content(blobs: FolderBlobs) -> None:
    assert blobs.get(blobs.put(b"")) == b""


def test_the_same_content_is_written_once(blobs: FolderBlobs) -> None:
    blobs.put(CONTENT)
    before = blobs.path(DIGEST).stat()
    blobs.put(CONTENT)
    assert blobs.path(DIGEST).stat().st_ino == before.st_ino
    assert len(files(blobs)) == 1


def test_what_is_put_again_counts_as_new(blobs: FolderBlobs) -> None:
    blobs.put(CONTENT)
    os.utime(blobs.path(DIGEST), (1, 1))
    assert [blob.modified_at for blob in blobs.blobs()] == [1]
    blobs.put(CONTENT)
    assert next(blobs.blobs()).modified_at > 1


def test_what_is_deleted_while_it_is_put_again_is_written(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    utime = os.utime

    def deleted_before(path: Path) -> None:
        path.unlink()
        utime(path)

    blobs.put(CONTENT)
    monkeypatch.setattr(os, "utime", deleted_before)
    blobs.put(CONTENT)
    assert blobs.get(DIGEST) == CONTENT


@pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"X", CONTENT + b"\x00"])
def test_damage_is_found_on_reading_and_mended_by_putting(
    blobs: FolderBlobs, damage: bytes
) -> None:
    blobs.put(CONTENT)
    blobs.path(DIGEST).write_bytes(damage)
    with pytest.raises(DamagedBlobError) as caught:
        blobs.get(DIGEST)
    assert DIGEST in str(caught.value)
    assert str(blobs.path(DIGEST)) in str(caught.value)

    blobs.put(CONTENT)
    assert blobs.get(DIGEST) == CONTENT
    assert len(files(blobs)) == 1


def test_a_missing_blob_is_named(blobs: FolderBlobs) -> None:
    with pytest.raises(DamagedBlobError, match=f"{DIGEST} can't be read at .*No such file"):
        blobs.get(DIGEST)


def test_a_folder_in_place_of_a_blob_is_damage(blobs: FolderBlobs) -> None:
    blobs.path(DIGEST).mkdir(parents=True)
    assert not blobs.has(DIGEST)
    with pytest.raises(DamagedBlobError, match=DIGEST):
        blobs.get(DIGEST)


@pytest.mark.parametrize("name", ["", "abc", DIGEST.upper(), f"{DIGEST}\n", f"../../{DIGEST[6:]}"])
def test_only_digests_lead_to_files(blobs: FolderBlobs, name: str) -> None:
    for ask in (blobs.get, blobs.has, blobs.path):
        with pytest.raises(InputError, match="64 hex digits"):
            ask(name)


def test_what_a_killed_writer_left_is_no_blob(blobs: FolderBlobs) -> None:
    place = blobs.path(DIGEST)
    place.parent.mkdir(parents=True)
    leftover = place.with_name(f".{DIGEST}.0123456789abcdef.tmp")
    leftover.write_bytes(CONTENT[:3])
    assert not blobs.has(DIGEST)
    assert blobs.get(blobs.put(CONTENT)) == CONTENT


def test_a_full_disk_leaves_nothing(blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    blobs.put(b"another")  # so that the folders are there
    there = files(blobs)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        blobs.put(CONTENT)
    assert files(blobs) == there


def test_the_file_is_on_disk_before_it_has_its_name(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def spy_replace(path: Path, target: Path) -> Path:
        synced.append("named")
        return replace(path, target)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    blobs.put(CONTENT)
    *folders, file, named, folder = synced
    assert folders == [blobs.folder.parent.name, "blobs", "sha256"]
    assert file.endswith(".tmp")
    assert named == "named"
    assert folder == DIGEST[:2]


def test_many_writers_of_one_blob(blobs: FolderBlobs) -> None:
    start = threading.Barrier(8)
    results: list[str] = []

    def write() -> None:
        start.wait()
        results.extend(blobs.put(CONTENT) for _ in range(10))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [DIGEST] * 80
    assert [path.name for path in files(blobs)] == [DIGEST]
