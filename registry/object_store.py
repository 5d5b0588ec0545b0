"""Blobs on any file system that fsspec reaches: `s3://bucket/prefix`, `gs://…`, `sftp://…`.

Where the store can create an object only if there is none (S3: `If-None-Match: *`), that is asked
for. Object stores show a new object whole or not at all; elsewhere content is written under
another name and then moved. Content that is there already is compared before it is believed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ..core.errors import InputError, IsoglossError, RegistryUnavailableError
from .blobs import (
    Blob,
    check_content,
    check_digest,
    is_blob,
    is_unfinished,
    missing_blob,
    unfinished_name,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REFRESH_AFTER = 3600.0
"""Seconds after which content that is put again is also written again, so that it counts as new.
Whoever deletes what is old must leave what is younger than twice this."""

_BUCKETS = {"s3", "s3a", "gs", "gcs"}
# Creating fails where there is an object, and objects appear whole.
_CONDITIONAL = {*_BUCKETS, "memory"}

# A store that is away is noticed in seconds, not after five times five attempts.
_S3_OPTIONS: Mapping[str, Any] = {
    "connect_timeout": 3,
    "read_timeout": 30,
    "retries": {"max_attempts": 2, "mode": "standard"},
}
_S3_ATTEMPTS = 2

_MODIFIED = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class ObjectBlobs:
    """Blobs below a URL; implements `BlobStore`."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        """Use a place; nothing is connected to yet.

        Args:
            url: where the blobs are.
            options: arguments of fsspec's file system, such as `endpoint_url` of s3fs.

        Raises:
            InputError: fsspec knows no such kind of URL, or lacks the package for it.
        """
        self.place = show(url)
        self._url = url.rstrip("/")
        self._options = dict(options or {})
        self._protocol = url.partition("://")[0]
        self._connected: tuple[int, Any, str] | None = None
        self._check_protocol()

    def put(self, content: bytes) -> str:
        """As `BlobStore.put`."""
        digest = hashlib.sha256(content).hexdigest()
        with self._reaching() as (fs, root):
            path = _path(root, digest)
            if self._protocol in _CONDITIONAL:
                if not _create(fs, path, content) and not _holds(fs, path, content):
                    fs.pipe_file(path, content)
            elif not _holds(fs, path, content):
                _move_in(fs, path, digest, content)
        return digest

    def get(self, digest: str, *, recheck: bool = True) -> bytes:  # noqa: ARG002
        """As `BlobStore.get`."""
        check_digest(digest)
        with self._reaching() as (fs, root):
            try:
                content: bytes = fs.cat_file(_path(root, digest))
            except (FileNotFoundError, IsADirectoryError):
                self._check_bucket(fs, root)
                raise missing_blob(digest, self.place, "there is none") from None
        check_content(digest, content, self.place)
        return content

    def has(self, digest: str) -> bool:
        """As `BlobStore.has`."""
        check_digest(digest)
        with self._reaching() as (fs, root):
            found: bool = fs.isfile(_path(root, digest))
            if not found:
                self._check_bucket(fs, root)
        return found

    def blobs(self) -> Iterator[Blob]:
        """As `BlobStore.blobs`."""
        for path, entry in self._entries():
            if is_blob(tuple(path.split("/")[-3:])):
                yield Blob(
                    digest=path.rsplit("/", 1)[-1],
                    size=int(entry["size"]),
                    modified_at=_modified_at(entry),
                )

    def delete(self, digest: str) -> None:
        """As `BlobStore.delete`."""
        check_digest(digest)
        with self._reaching() as (fs, root):
            _delete(fs, _path(root, digest))

    def delete_unfinished(self, *, age: float) -> int:
        """As `BlobStore.delete_unfinished`."""
        old = [
            path
            for path, entry in self._entries()
            if is_unfinished(path.rsplit("/", 1)[-1]) and _modified_at(entry) <= time.time() - age
        ]
        with self._reaching() as (fs, _):
            return sum(_delete(fs, path) for path in old)

    def _entries(self) -> list[tuple[str, dict[str, Any]]]:
        with self._reaching() as (fs, root):
            try:
                found = fs.find(f"{root}/sha256", detail=True)
            except FileNotFoundError:
                found = {}
            if not found:
                self._check_bucket(fs, root)
            return list(found.items())

    @contextmanager
    def _reaching(self) -> Iterator[tuple[Any, str]]:
        """Within it: the file system, and the path on it below which the blobs are."""
        try:
            yield self._connect()
        except IsoglossError:
            raise
        # Every file system raises errors of its own.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            for secret in self._secrets():
                reason = reason.replace(secret, "***")
            raise RegistryUnavailableError(
                f"the registry's blobs at {self.place} can't be reached: {reason}; "
                "check that the store is there and lets you in, and try again"
            ) from error

    def _connect(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        # Connections and the thread that serves them don't survive a fork.
        if self._connected is None or self._connected[0] != os.getpid():
            options = {"use_listings_cache": False, "skip_instance_cache": True, **self._options}
            if self._protocol in ("s3", "s3a"):
                options["config_kwargs"] = {**_S3_OPTIONS, **options.get("config_kwargs", {})}
            fs, root = url_to_fs(self._url, **options)
            if self._protocol in ("s3", "s3a"):
                fs.retries = _S3_ATTEMPTS
            self._connected = os.getpid(), fs, root.rstrip("/")
        _, fs, root = self._connected
        return fs, root

    def _check_bucket(self, fs: Any, root: str) -> None:
        """Tell a bucket that is gone from an object that is."""
        bucket = root.split("/", maxsplit=1)[0]
        if self._protocol in _BUCKETS and not fs.exists(bucket):
            raise FileNotFoundError(f"there is no bucket {bucket!r}")

    def _check_protocol(self) -> None:
        from fsspec import get_filesystem_class

        try:
            get_filesystem_class(self._protocol)
        except (ImportError, ValueError) as error:
            extra = (
                "pip install 'isogloss[s3]'" if self._protocol in ("s3", "s3a") else "install it"
            )
            raise InputError(
                f"blobs can't be kept at {self.place}: {' '.join(str(error).split())}; "
                f"{extra}, or give another URL"
            ) from error

    def _secrets(self) -> list[str]:
        texts = [value for value in self._options.values() if isinstance(value, str)]
        password = urlsplit(self._url).password
        return [text for text in (*texts, password) if text and text not in self.place]


def show(url: str) -> str:
    """The URL without anything that may be secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _path(root: str, digest: str) -> str:
    return f"{root}/sha256/{digest[:2]}/{digest}"


def _create(fs: Any, path: str, content: bytes) -> bool:
    """Create an object; False where there is one, or the store can't tell."""
    try:
        fs.pipe_file(path, content, mode="create")
    except FileExistsError:
        return False
    except OSError as error:
        # 501: a store that doesn't know the condition. 409: another writer at the same moment.
        response = getattr(error.__cause__, "response", {})
        code = response.get("Error", {}).get("Code")
        if error.errno != errno.ENOSYS and code != "ConditionalRequestConflict":
            raise
        return False
    return True


def _holds(fs: Any, path: str, content: bytes) -> bool:
    """Whether an object is there that has this content and is new enough."""
    try:
        entry = fs.info(path)
        return (
            entry["type"] == "file"
            and entry["size"] == len(content)
            and _modified_at(entry) > time.time() - REFRESH_AFTER
            and fs.cat_file(path) == content
        )
    except FileNotFoundError:
        return False


def _move_in(fs: Any, path: str, digest: str, content: bytes) -> None:
    parent = path.rsplit("/", 1)[0]
    fs.makedirs(parent, exist_ok=True)
    temporary = f"{parent}/{unfinished_name(digest)}"
    try:
        fs.pipe_file(temporary, content)
        fs.mv(temporary, path)
    except BaseException:
        _delete(fs, temporary)
        raise


def _delete(fs: Any, path: str) -> bool:
    """Delete a file; False where there was none."""
    try:
        fs.rm_file(path)
    except FileNotFoundError:
        return False
    return True


def _modified_at(entry: Mapping[str, Any]) -> float:
    """Seconds since 1970; now, so that it counts as new, where the file system doesn't say."""
    for name in _MODIFIED:
        value = entry.get(name)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return time.time()
