"""From a checked folder to a version: its record, and its content in the store."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ..core.errors import RegistryError
from ..core.locale import parse_locale
from .names import account
from .records import StoredFile, Version, manifest_digest
from .times import utc_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..adapters.files import CheckedFolder
    from ..adapters.spec import AdapterSpec
    from .blobs import BlobStore

_TOOLS = ("isogloss", "peft", "torch")


def describe_version(checked: CheckedFolder, *, author: str | None = None) -> Version:
    """The version that a folder's content makes; nothing is stored yet.

    Args:
        checked: what `read_adapter_folder` gave.
        author: who made it; None: the account that publishes it.
    """
    files = tuple(
        StoredFile(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for path, content in sorted(checked.files.items())
    )
    return Version(
        digest=manifest_digest(files),
        **recorded(checked.spec),
        files=files,
        bytes=sum(file.size for file in files),
        published_at=utc_now(),
        published_by=account(),
        author=author or account(),
        tools=_tools(),
    )


def recorded(spec: AdapterSpec) -> dict[str, Any]:
    """What the catalogue keeps of a version's `isogloss.json`, by the names of its fields."""
    return {
        "locale": str(parse_locale(spec.locale)),
        "task": spec.task,
        "task_type": spec.task_type,
        "kind": spec.kind,
        "rank": spec.rank,
        "labels": spec.labels,
        "base": spec.base,
        "base_fingerprint": spec.base_fingerprint,
        "metrics": spec.metrics,
        "data_digest": spec.data_digest,
        "parent": spec.parent,
        "created_at": spec.created_at,
    }


def store_files(blobs: BlobStore, files: Mapping[str, bytes]) -> None:
    """Store a version's content; afterwards it is there to stay, also after a power failure.

    Raises:
        RegistryError: it can't be stored.
    """
    try:
        for content in files.values():
            blobs.put(content)
    except OSError as error:
        raise RegistryError(
            f"the adapter can't be stored in {blobs.place}: {error.strerror}; "
            "check the disk and the permissions"
        ) from error


def restore_files(blobs: BlobStore, files: Mapping[str, bytes]) -> None:
    """Store again what garbage collection has deleted since `store_files`.

    To be called while none can run.

    Raises:
        RegistryError: it can't be stored.
    """
    gone = {
        path: content
        for path, content in files.items()
        if not blobs.has(hashlib.sha256(content).hexdigest())
    }
    store_files(blobs, gone)


@cache
def _tools() -> Mapping[str, str]:
    """The releases that are installed here."""
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
