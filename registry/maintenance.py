"""What looks after a registry: verification, garbage collection, export and import."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .garbage import MIN_AGE, collect_garbage
from .names import canonical, check_names
from .times import written
from .verification import verify
from .view import RegistryView

if TYPE_CHECKING:
    from .archive import Exported, Imported
    from .garbage import Garbage
    from .verification import Verification

KEEP_DAYS = 30
"""Days for which a version that an alias pointed to can't be removed."""

_MOST_DAYS = 36_500


class MaintainedRegistry(RegistryView):
    """The part of a registry that keeps it sound, and carries it elsewhere."""

    def verify(self, *, show_progress: bool = False) -> Verification:
        """Hash all content again, and hold catalogue and store side by side; changes nothing.

        Raises:
            RegistryUnavailableError: the catalogue or the store can't be reached.
            InputError: there are signatures, and `cryptography` is missing.
        """
        return verify(self._catalog, self._blobs, show_progress=show_progress)

    def collect_garbage(
        self,
        *,
        dry_run: bool = True,
        older_than: timedelta = MIN_AGE,
        versions: bool = False,
        keep_days: float = KEEP_DAYS,
    ) -> Garbage:
        """Delete content that no version refers to; others may publish meanwhile.

        Args:
            dry_run: only say what would be deleted.
            older_than: leave alone what was stored or published since.
            versions: also remove versions that nothing needs, as `Registry.remove_version` would.
            keep_days: versions that an alias came to, or left, in so many days stay.

        Raises:
            InputError: an age or a number of days below zero, or beyond all measure.
            RegistryUnavailableError: the catalogue or the store can't be reached.
            OSError: a file can't be deleted.
        """
        return collect_garbage(
            self._catalog,
            self._blobs,
            dry_run=dry_run,
            older_than=older_than,
            versions_since=days_ago(keep_days) if versions else None,
        )

    def export_archive(
        self,
        path: str | Path,
        *,
        locale: str | None = None,
        task: str | None = None,
        show_progress: bool = False,
    ) -> Exported:
        """Write all of the registry, or of a locale or task, to one file.

        The same content gives the same bytes. Aliases come with their histories, versions with
        their signatures; what the registry demands and whom it trusts doesn't come along.

        Raises:
            UnknownVersionError: there is nothing to be exported.
            DamagedBlobError: content is damaged or missing.
            InputError: the file is there already, or can't be written; a task that is no name.
            InvalidLocaleError: not a BCP 47 tag.
        """
        from .archive import export_archive

        check_names(task=task)
        return export_archive(
            self._catalog,
            self._blobs,
            Path(path),
            locale=canonical(locale),
            task=task,
            show_progress=show_progress,
        )

    def import_archive(
        self,
        path: str | Path,
        *,
        aliases: bool = True,
        force: bool = False,
        reason: str | None = None,
        show_progress: bool = False,
    ) -> Imported:
        """Bring in what a registry has exported, each version whole or not at all, aliases last.

        Args:
            path: the file.
            aliases: bring in aliases, with their histories, too.
            force: move aliases that are protected or have gates.
            reason: why, for those that are protected.
            show_progress: on standard error.

        Raises:
            ArchiveError: the file is damaged, was tampered with, or is none of ours.
            AdapterError: one of its kinds for each check of a version that fails.
            RegistryError: an alias that may not move so, or content that can't be stored.
        """
        from .archive import import_archive

        return import_archive(
            self._catalog,
            self._blobs,
            Path(path),
            aliases=aliases,
            force=force,
            reason=reason,
            show_progress=show_progress,
        )


def days_ago(days: float) -> str:
    """The time so many days ago, as the catalogue writes it.

    Raises:
        InputError: a number below zero, or beyond all measure.
    """
    if not 0 <= days <= _MOST_DAYS:
        raise InputError(f"keep_days is {days}; give a number from 0 to {_MOST_DAYS}")
    return written(datetime.now(UTC) - timedelta(days=days))
