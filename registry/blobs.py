"""Content by its digest: what a store of blobs does, and one on disk, `<folder>/sha256/ab/abcdef…`.

Another, on file systems that are reached over a network, is in `object_store.py`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..core.errors import DamagedBlobError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

# How many blobs are remembered as checked.
MAX_CHECKED = 100_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = re.compile(r"\.[0-9a-f]{64}\.[0-9a-f]{16}\.tmp")


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A blob, as a listing shows it."""

    digest: str
    """The digest that it claims to have; its content has not been looked at."""
    size: int
    """Bytes."""
    modified_at: float
    """When it was last put, in seconds since 1970, by the clock of the store."""


class BlobStore(Protocol):
    """Immutable blobs, each named by the sha256 of its content.

    Any number of processes may read, put and delete at once. A blob appears whole and durable, or
    not at all.
    """

    place: str
    """Where it is, for messages: nothing secret."""

    def put(self, content: bytes) -> str:
        """Store content; when this returns, it outlives a crash of the machine.

        Content that is there already is compared and, where it was damaged, written again. It
        counts as put now, so that whoever deletes what is old passes it over.

        Returns:
            The digest.

        Raises:
            RegistryUnavailableError: the store can't be reached.
            OSError: the disk is full, the folder can't be written.
        """

    def get(self, digest: str, *, recheck: bool = True) -> bytes:
        """Read a blob; its hash is checked.

        Args:
            digest: of the content.
            recheck: also where this process has checked it before; without it, a file that hasn't
                changed since isn't hashed again.

        Raises:
            DamagedBlobError: missing, unreadable, or its bytes don't match the digest.
            RegistryUnavailableError: the store can't be reached.
            InputError: not the 64 hex digits of a sha256.
        """

    def has(self, digest: str) -> bool:
        """Whether there is a blob of this digest; its bytes are not looked at.

        Raises:
            RegistryUnavailableError: the store can't be reached.
            InputError: not the 64 hex digits of a sha256.
        """

    def blobs(self) -> Iterator[Blob]:
        """All blobs, in no order; those that are put or deleted meanwhile may be among them.

        Raises:
            RegistryUnavailableError: the store can't be reached.
            OSError: the folder can't be read.
        """

    def delete(self, digest: str) -> None:
        """Delete a blob; nothing where there is none.

        Raises:
            RegistryUnavailableError: the store can't be reached.
            OSError: it can't be deleted.
            InputError: not the 64 hex digits of a sha256.
        """

    def delete_unfinished(self, *, age: float) -> int:
        """Delete what writers left that were killed, when it is so many seconds old.

        Returns:
            How many there were.

        Raises:
            RegistryUnavailableError: the store can't be reached.
            OSError: one can't be deleted.
        """


class FolderBlobs:
    """Blobs in a folder. What a killed writer leaves is a hidden file that no digest leads to."""

    def __init__(self, folder: str | Path) -> None:
        """Use a folder; it is made when something is put there.

        Args:
            folder: where the blobs are.
        """
        self.folder = Path(folder)
        self.place = str(self.folder)
        # What was found right, by digest: the file's identity, size and times then.
        self._checked: dict[str, tuple[int, ...]] = {}

    def path(self, digest: str) -> Path:
        """Where the blob of this digest lies, if it is there.

        Raises:
            InputError: not the 64 hex digits of a sha256.
        """
        check_digest(digest)
        return self.folder / "sha256" / digest[:2] / digest

    def put(self, content: bytes) -> str:
        """As `BlobStore.put`."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        make_folder(path.parent)
        if not (_holds(path, content) and _touch(path)):
            _write(path, content)
        # Also when the blob was there: another writer may not have come this far yet.
        _sync_folder(path.parent)
        return digest

    def get(self, digest: str, *, recheck: bool = True) -> bytes:
        """As `BlobStore.get`."""
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                stamp = _stamp(os.fstat(file.fileno()))
                content = file.read()
        except OSError as error:
            raise missing_blob(digest, str(path), error.strerror or "unreadable") from None
        if recheck or self._checked.get(digest) != stamp:
            check_content(digest, content, str(path))
            if len(self._checked) >= MAX_CHECKED:
                self._checked.clear()
            self._checked[digest] = stamp
        return content

    def has(self, digest: str) -> bool:
        """As `BlobStore.has`."""
        return self.path(digest).is_file()

    def blobs(self) -> Iterator[Blob]:
        """As `BlobStore.blobs`."""
        for path in self._files():
            if not is_blob(path.parts[-3:]):
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # deleted since it was listed
                continue
            yield Blob(digest=path.name, size=status.st_size, modified_at=status.st_mtime)

    def delete(self, digest: str) -> None:
        """As `BlobStore.delete`."""
        self.path(digest).unlink(missing_ok=True)

    def delete_unfinished(self, *, age: float) -> int:
        """As `BlobStore.delete_unfinished`."""
        count = 0
        for path in self._files():
            if not is_unfinished(path.name):
                continue
            try:
                if path.stat().st_mtime <= time.time() - age:
                    path.unlink()
                    count += 1
            except FileNotFoundError:  # its writer lives, and has given it its name
                continue
        return count

    def _files(self) -> Iterator[Path]:
        for folder in _list(self.folder / "sha256"):
            if folder.is_dir():
                yield from _list(folder)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written, replaced or restored."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def check_digest(digest: str) -> None:
    """Check a digest before it becomes part of a path.

    Raises:
        InputError: not the 64 hex digits of a sha256.
    """
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"{digest!r} is no sha256; expected 64 hex digits in lower case")


def check_content(digest: str, content: bytes, place: str) -> None:
    """Check what was read.

    Raises:
        DamagedBlobError: the bytes don't match the digest.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise DamagedBlobError(
            f"blob {digest} is damaged at {place}: its {len(content)} bytes have sha256 "
            f"{found}; publish its adapter again, or restore the file from a backup"
        )


def missing_blob(digest: str, place: str, reason: str) -> DamagedBlobError:
    """The error for a blob that can't be read."""
    return DamagedBlobError(
        f"blob {digest} can't be read at {place}: {reason}; "
        "publish its adapter again, or restore the file from a backup"
    )


def is_blob(parts: tuple[str, ...]) -> bool:
    """Whether the last parts of a path, `sha256`, `ab`, `abcdef…`, are those of a blob."""
    return (
        len(parts) == 3
        and parts[0] == "sha256"
        and bool(_DIGEST.fullmatch(parts[2]))
        and parts[1] == parts[2][:2]
    )


def is_unfinished(name: str) -> bool:
    """Whether a file is one that becomes a blob when it is whole."""
    return bool(_UNFINISHED.fullmatch(name))


def unfinished_name(digest: str) -> str:
    """A name for a blob that isn't whole yet, another on each call."""
    return f".{digest}.{secrets.token_hex(8)}.tmp"


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:  # nothing was put there yet
        return []


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _touch(path: Path) -> bool:
    """Have a file count as new; False where it was deleted since it was looked at."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(unfinished_name(path.name))
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on disk before anything is put into it.

    Raises:
        OSError: it can't be made, or is a file.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    # Windows can't open a folder, and keeps its directories by a journal.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
