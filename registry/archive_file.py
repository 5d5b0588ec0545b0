"""The file that a registry is carried in: a tar of plain files; equal content gives equal bytes.

    registry/<sha256>.json      {"format": 1, "locale_aliases": [["bar", "de"], …]}
    versions/<sha256>.json      a version's list of files, who published it and when, its signatures
    blobs/<sha256>              the content of its files, those that came before left out
    aliases/<sha256>.json       where an alias points, and its history

Each file is named by its own digest. Each version is followed by its blobs, and aliases come last,
so that it is read in one go. It is read without `tarfile`'s own reader, which follows links, sparse
files and extended headers of any size: there is one header of 512 bytes (POSIX.1-1988, ustar) for
each file, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from ..core.errors import ArchiveError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK = 512
_MIB = 1 << 20
_NAME = re.compile(r"(registry|versions|blobs|aliases)/([0-9a-f]{64})(\.json)?")
# Folders that there may be, and how large a file of each may be.
_LIMITS = {"registry": 16 * _MIB, "versions": _MIB, "blobs": 256 * _MIB, "aliases": 16 * _MIB}


class ArchiveWriter:
    """Writes an archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def add(self, folder: str, content: bytes) -> None:
        """Add a file to one of the folders.

        Raises:
            InputError: more bytes than are read back.
            OSError: they can't be written.
        """
        digest = hashlib.sha256(content).hexdigest()
        name = f"{folder}/{digest}" if folder == "blobs" else f"{folder}/{digest}.json"
        if len(content) > _LIMITS[folder]:
            raise InputError(
                f"a file of {folder} would have {len(content):,} bytes, more than an import reads; "
                "export locales or tasks by themselves"
            )
        info = tarfile.TarInfo(name)
        info.size = len(content)
        self._file.write(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        self._file.write(content)
        self._file.write(bytes(-len(content) % _BLOCK))

    def finish(self) -> None:
        """Write the mark that nothing is missing.

        Raises:
            OSError: it can't be written.
        """
        self._file.write(bytes(2 * _BLOCK))


class ArchiveReader:
    """Reads an archive; nothing it says is believed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._left: int | None = None
        self.total = os.fstat(file.fileno()).st_size
        """Bytes of the archive."""
        self._name = ""
        self.folder = ""
        """Folder of the file that it stands at."""
        self.digest = ""
        """What the digest of that file should be."""
        self.size = 0
        """Its bytes."""

    @property
    def position(self) -> int:
        """How many bytes of the archive have been read."""
        return self._file.tell()

    def next(self) -> bool:
        """Go on to the next file; False at the end.

        Raises:
            ArchiveError: there is no file that may be there.
        """
        assert self._left is None, "every file is read"
        block = self._read(_BLOCK)
        if not any(block):
            rest = self._file.read(20 * _BLOCK + 1)
            # tar fills up to 20 blocks.
            if len(rest) not in range(_BLOCK, 20 * _BLOCK) or any(rest):
                raise self._damaged("it goes on, or breaks off, after its end")
            return False
        try:
            info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        except (tarfile.HeaderError, ValueError):
            raise self._damaged(
                f"what follows {self._name or 'its beginning'} is no file"
            ) from None
        if info.type != tarfile.REGTYPE:
            raise self._damaged(f"{info.name!r:.80} is no regular file")
        parts = _NAME.fullmatch(info.name)
        if parts is None or (parts[1] == "blobs") != (parts[3] is None):
            raise self._damaged(f"no file {info.name!r:.80} may be there")
        if not 0 <= info.size <= _LIMITS[parts[1]]:
            raise self._damaged(
                f"{info.name} has {info.size:,} bytes; {_LIMITS[parts[1]]:,} is the limit"
            )
        self.folder, self.digest = parts[1], parts[2]
        self._name, self.size, self._left = info.name, info.size, info.size
        return True

    def content(self) -> bytes:
        """The content of the file that it stands at; its digest is checked.

        Raises:
            ArchiveError: it is damaged, or there is less than was said.
        """
        assert self._left is not None, "a file is read once"
        content = self._read(self._left)
        if any(self._read(-self._left % _BLOCK)):
            raise self._damaged(f"{self._name} goes on after its end")
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise self._damaged(f"{self._name} doesn't have the digest that it is named by")
        self._left = None
        return content

    def _read(self, size: int) -> bytes:
        content = self._file.read(size)
        if len(content) != size:
            raise self._damaged("it breaks off")
        return content

    def _damaged(self, problem: str) -> ArchiveError:
        return ArchiveError(
            f"the archive is damaged or none that `isogloss export` wrote: {problem}; "
            "copy or export it again"
        )


@contextmanager
def writing(path: Path) -> Iterator[ArchiveWriter]:
    """Within it: a writer; the file is there when all has been written, and not before.

    Raises:
        InputError: there is such a file, or it can't be written.
    """
    if path.exists():
        raise InputError(f"{path} is there already; give another path")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            writer = ArchiveWriter(file)
            yield writer
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"{path} can't be written: {error.strerror}; give another path, or make room"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def reading(path: Path) -> Iterator[ArchiveReader]:
    """Within it: a reader, before the first file.

    Raises:
        ArchiveError: it can't be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ArchiveError(
            f"the archive {path} can't be read: {error.strerror}; check the path"
        ) from None
    with file:
        yield ArchiveReader(file)
