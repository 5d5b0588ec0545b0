"""What upkeep asks of the catalogue: all of it, page by page, and a standstill."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..core.errors import ConflictError, UnknownVersionError
from .history import changes
from .records import Alias, AliasChange
from .rows import find_version, matches, next_generation, to_version
from .rules import check_protection, check_trusted
from .tables import ALIAS_HISTORY, ALIASES, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .database import Database
    from .records import Version

_PAGE = 500


@dataclass(frozen=True, kw_only=True)
class AliasState:
    """An alias and how it came to point where it does."""

    alias: Alias
    """Where it points."""
    history: tuple[AliasChange, ...]
    """Its moves, oldest first."""


class References:
    """The blobs that versions refer to, as of the last time that the catalogue was looked at."""

    def __init__(self) -> None:
        self._versions: set[str] = set()
        self._blobs: set[str] = set()

    def __contains__(self, digest: object) -> bool:
        return digest in self._blobs

    def __len__(self) -> int:
        return len(self._blobs)

    def add(self, version: Version) -> None:
        """Count a version's blobs as referred to; they stay so when it goes."""
        if version.digest not in self._versions:
            self._versions.add(version.digest)
            self._blobs.update(file.sha256 for file in version.files)

    def unknown(self, digests: list[str]) -> list[str]:
        """Those of some versions that were not added yet."""
        return [digest for digest in digests if digest not in self._versions]


class Upkeep:
    """Queries for `maintenance.py` and `archive.py`; they raise RegistryError as they fail."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def versions(self, *, locale: str | None = None, task: str | None = None) -> Iterator[Version]:
        """All versions, or those of a locale or task, by digest.

        They are read a page at a time, each page in a transaction of its own: those that are
        published or removed meanwhile may be among them.
        """
        last = ""
        while True:
            page = (
                sa.select(VERSIONS)
                .where(*matches(VERSIONS, locale=locale, task=task))
                .where(VERSIONS.c.digest > last)
                .order_by(VERSIONS.c.digest)
                .limit(_PAGE)
            )
            with self._database.reading() as connection:
                found = [to_version(row) for row in connection.execute(page)]
            yield from found
            if len(found) < _PAGE:
                return
            last = found[-1].digest

    def count_versions(self, *, locale: str | None = None, task: str | None = None) -> int:
        """How many versions there are, or of a locale or task."""
        query = sa.select(sa.func.count()).select_from(VERSIONS)
        query = query.where(*matches(VERSIONS, locale=locale, task=task))
        with self._database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def states(self, *, locale: str | None = None, task: str | None = None) -> list[AliasState]:
        """All aliases with their histories, or those of a locale or task, as of one time.

        Sorted by task, locale and alias.
        """
        columns = [column for column in ALIAS_HISTORY.c if column is not ALIAS_HISTORY.c.id]
        moves = (
            sa.select(*columns)
            .where(*matches(ALIAS_HISTORY, locale=locale, task=task))
            .order_by(ALIAS_HISTORY.c.id)
        )
        aliases = sa.select(ALIASES).where(*matches(ALIASES, locale=locale, task=task))
        histories: dict[tuple[str, str, str], list[AliasChange]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(moves):
                change = AliasChange(**row._mapping)
                histories.setdefault((change.task, change.locale, change.alias), []).append(change)
            found = [Alias(**row._mapping) for row in connection.execute(aliases)]
        keyed = {(alias.task, alias.locale, alias.alias): alias for alias in found}
        return [
            AliasState(alias=alias, history=tuple(histories.get(key, ())))
            for key, alias in sorted(keyed.items())
        ]

    def merge(self, state: AliasState, *, force: bool, reason: str | None) -> bool:
        """Bring an alias to where it is elsewhere, with the moves that it has made there.

        Args:
            state: what it is there; its history has been checked.
            force: move it although it is protected.
            reason: why, for one that is protected.

        Returns:
            Whether anything was missing here.

        Raises:
            ConflictError: it has made other moves here.
            UnknownVersionError: its version isn't here.
            ProtectedAliasError: it is protected, and force or the reason is missing.
            SignatureError: the version has no signature that counts, where one is required.
        """
        alias = state.alias
        key = {"locale": alias.locale, "task": alias.task, "alias": alias.alias}
        here = matches(ALIASES, **key)
        name = f"alias {alias.alias!r} of {alias.task}/{alias.locale}"
        with self._database.writing() as connection:
            there = tuple(reversed(changes(connection, alias.locale, alias.task, alias.alias)))
            if there[: len(state.history)] == state.history:
                return False
            if state.history[: len(there)] != there:
                raise ConflictError(
                    f"{name} has moved here in another way, and points to "
                    f"{there[-1].digest[:12]} since {there[-1].changed_at[:19]}Z; import without "
                    "aliases, and promote the version that you want"
                )
            version = find_version(connection, alias.digest)
            if version is None or (version.locale, version.task) != (alias.locale, alias.task):
                raise UnknownVersionError(
                    f"{name} points to version {alias.digest}, of which there is none for that "
                    "locale and task; import its version, too"
                )
            check_protection(connection, alias.alias, force=force, reason=reason)
            check_trusted(connection, version)
            values = asdict(alias)
            if there:
                connection.execute(sa.update(ALIASES).where(*here).values(values))
            else:
                connection.execute(sa.insert(ALIASES).values(values))
            for change in state.history[len(there) :]:
                connection.execute(sa.insert(ALIAS_HISTORY).values(asdict(change)))
            next_generation(connection)
            return True

    @contextmanager
    def standstill(self, references: References) -> Iterator[None]:
        """Within it nobody publishes; the references are brought up to date at its beginning."""
        with self._database.writing() as connection:
            there = list(connection.scalars(sa.select(VERSIONS.c.digest)))
            unknown = references.unknown(there)
            for start in range(0, len(unknown), _PAGE):
                some = unknown[start : start + _PAGE]
                query = sa.select(VERSIONS).where(VERSIONS.c.digest.in_(some))
                for row in connection.execute(query):
                    references.add(to_version(row))
            yield
