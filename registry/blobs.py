"""Content by its digest, on disk: `<folder>/sha256/ab/abcdef…`."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from pathlib import Path

from ..core.errors import DamagedBlobError, InputError

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobStore:
    """A folder of immutable blobs, each named by the sha256 of its content.

    Any number of processes may read and write at once. A blob appears whole and on disk, or not
    at all: what a killed writer leaves is a hidden file that no digest leads to.
    """

    def __init__(self, folder: str | Path) -> None:
        """Use a folder; it is made when something is put there.

        Args:
            folder: where the blobs are.
        """
        self.folder = Path(folder)

    def path(self, digest: str) -> Path:
        """Where the blob of this digest lies, if it is there.

        Raises:
            InputError: not the 64 hex digits of a sha256.
        """
        if not _DIGEST.fullmatch(digest):
            raise InputError(f"{digest!r} is no sha256; expected 64 hex digits in lower case")
        return self.folder / "sha256" / digest[:2] / digest

    def put(self, content: bytes) -> str:
        """Store content; when this returns, it outlives a crash of the machine.

        Content that is there already is compared and, where it was damaged, written again.

        Returns:
            The digest.

        Raises:
            OSError: the disk is full, the folder can't be written.
        """
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        make_folder(path.parent)
        if not _holds(path, content):
            _write(path, content)
        # Also when the blob was there: another writer may not have come this far yet.
        _sync_folder(path.parent)
        return digest

    def get(self, digest: str) -> bytes:
        """Read a blob; its hash is checked on every read.

        Raises:
            DamagedBlobError: missing, unreadable, or its bytes don't match the digest.
            InputError: not the 64 hex digits of a sha256.
        """
        path = self.path(digest)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedBlobError(
                f"blob {digest} can't be read at {path}: {error.strerror}; "
                "publish its adapter again, or restore the file from a backup"
            ) from None
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise DamagedBlobError(
                f"blob {digest} is damaged at {path}: its {len(content)} bytes have sha256 "
                f"{found}; publish its adapter again, or restore the file from a backup"
            )
        return content

    def has(self, digest: str) -> bool:
        """Whether there is a blob of this digest; its bytes are not looked at.

        Raises:
            InputError: not the 64 hex digits of a sha256.
        """
        return self.path(digest).is_file()


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
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
