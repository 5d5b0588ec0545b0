"""Deleting what nothing needs: blobs without a version, and versions that nothing points to.

A publisher stores its blobs first and then, in one transaction, its version. Between the two its
blobs belong to nothing. They are safe all the same: blobs are deleted only under the lock that
transactions take which write, after a look at what versions there are, and a publisher looks, in
its transaction, whether its blobs are still there, and stores them again where they aren't.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ..core.errors import InputError, UnknownVersionError, VersionInUseError
from .names import account
from .times import written
from .upkeep import References

if TYPE_CHECKING:
    from .blobs import Blob, BlobStore
    from .catalog import Catalog
    from .records import Version

MIN_AGE = timedelta(days=1)
"""Blobs and versions that are younger are left alone: somebody may be about to use them."""

MAX_AGE = timedelta(days=36_500)
"""More than any registry is old."""

# A writer takes less than this for one blob, else it is dead.
_WRITING = timedelta(hours=1)
# So long others may have to wait for the lock at a time.
_LOCKED_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What was deleted, or would be."""

    dry_run: bool
    """Whether nothing was deleted."""
    versions: tuple[str, ...]
    """Names of the versions, sorted."""
    blobs: int
    """How many blobs."""
    bytes: int
    """Their size together."""
    unfinished: int
    """How many files that killed writers had left; a dry run doesn't look for them."""


def collect_garbage(
    catalog: Catalog,
    blobs: BlobStore,
    *,
    dry_run: bool = True,
    older_than: timedelta = MIN_AGE,
    versions_since: str | None = None,
) -> Garbage:
    """Delete what nothing needs; others may publish meanwhile.

    Args:
        catalog: of the registry.
        blobs: of the same.
        dry_run: only say what would be deleted.
        older_than: leave alone what was put or published since.
        versions_since: also delete versions that no alias and no mixture needs, and no move of an
            alias at this time or later; None: no versions.

    Raises:
        InputError: an age below zero, or beyond `MAX_AGE`.
        RegistryError: the catalogue or the store can't be used.
        OSError: a blob can't be deleted.
    """
    if not timedelta() <= older_than <= MAX_AGE:
        raise InputError(
            f"the age is {older_than}; give how old things must be to be deleted, from 0 to "
            f"{MAX_AGE.days} days"
        )
    before = datetime.now(UTC) - older_than
    gone = []
    if versions_since is not None:
        gone = _unneeded(catalog, before, versions_since)
        if not dry_run:
            gone = [version for version in gone if _remove(catalog, version, versions_since)]
    removed = {version.digest for version in gone}
    # Listed before the catalogue is read: what is put after that is too young anyway.
    old = [blob for blob in blobs.blobs() if blob.modified_at <= before.timestamp()]
    references = References()
    for version in catalog.upkeep.versions():
        if version.digest not in removed:
            references.add(version)
    garbage = [blob for blob in old if blob.digest not in references]
    unfinished = 0
    if not dry_run:
        garbage = _delete(catalog, blobs, garbage, references)
        age = max(older_than, _WRITING).total_seconds()
        unfinished = blobs.delete_unfinished(age=age)
    return Garbage(
        dry_run=dry_run,
        versions=tuple(sorted(version.name for version in gone)),
        blobs=len(garbage),
        bytes=sum(blob.size for blob in garbage),
        unfinished=unfinished,
    )


def _unneeded(catalog: Catalog, before: datetime, since: str) -> list[Version]:
    needed = catalog.needs(since=since)
    end = written(before)
    return [
        version
        for version in catalog.upkeep.versions()
        if version.published_at <= end and version.digest not in needed
    ]


def _remove(catalog: Catalog, version: Version, since: str) -> bool:
    try:
        catalog.remove(version.digest, by=account(), since=since, reason="nothing needed it")
    # An alias was moved to it, or another collector was faster, since the look above.
    except (VersionInUseError, UnknownVersionError):
        return False
    return True


def _delete(
    catalog: Catalog, blobs: BlobStore, garbage: list[Blob], references: References
) -> list[Blob]:
    """Delete blobs that are garbage still; gives those."""
    deleted = []
    at = 0
    while at < len(garbage):
        with catalog.upkeep.standstill(references):
            end = time.monotonic() + _LOCKED_SECONDS
            while at < len(garbage) and time.monotonic() < end:
                blob = garbage[at]
                if blob.digest not in references:
                    blobs.delete(blob.digest)
                    deleted.append(blob)
                at += 1
    return deleted
