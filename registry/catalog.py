"""The catalogue: which versions there are, where aliases point, and where they pointed before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import sqlalchemy as sa

from ..core.errors import UnknownAliasError, VersionInUseError
from . import history
from .database import Database
from .records import ANYTHING, Alias, LocaleAlias, Published, Removal
from .rows import (
    begins,
    check_parts,
    find_version,
    follows,
    glance_generation,
    matches,
    need_version,
    next_generation,
    read_generation,
    to_row,
    to_version,
)
from .rules import Rules, add_signature, check_trusted
from .tables import ALIASES, LOCALE_ALIASES, REMOVALS, SIGNATURES, VERSIONS
from .times import utc_now
from .upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path
    from types import TracebackType

    from .records import AliasChange, Expected, Signature, Version


class Catalog:
    """Queries and changes; each method is one transaction.

    Every method raises RegistryError where the database can't be read or written. Locales, tasks,
    aliases and digests are taken as they are: whoever calls has checked them.
    """

    def __init__(self, where: Path | sa.URL, *, create: bool = True) -> None:
        """Open the database; it is made, or its schema brought up to date, where need be.

        Args:
            where: an SQLite file, or the URL of a PostgreSQL database.
            create: make the tables where there are none.

        Raises:
            RegistryNotFoundError: it can't be used, belongs to something else, was written by a
                newer release, or there is nothing and `create` is False.
            RegistryUnavailableError: its server can't be reached.
        """
        self._database = Database(where, create=create)
        self.rules = Rules(self._database)
        self.upkeep = Upkeep(self._database)

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    def __enter__(self) -> Self:
        """Give the catalogue itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the database's connections."""
        self.close()

    def publish(
        self,
        version: Version,
        *,
        alias: str | None,
        reason: str | None = None,
        expected: str | Expected | None = ANYTHING,
        force: bool = False,
        signatures: Iterable[Signature] = (),
        settle: Callable[[], object] | None = None,
    ) -> Version:
        """Add a version, unless there is one of this digest, and point the alias to it.

        Args:
            version: what to add.
            alias: the alias to move; None: none.
            reason: kept in the history.
            expected: digest of the version to which the alias must point now; None: it must be
                new.
            force: move an alias that is protected.
            signatures: kept beside the version.
            settle: called within the transaction; while it runs no garbage is collected.

        Returns:
            The version as it is in the catalogue: where it was there before, with the time and
            the account of its first publication.

        Raises:
            UnknownVersionError: a mixture of versions that aren't here.
            RegistryError: as `promote`.
        """
        with self._database.writing() as connection:
            stored = find_version(connection, version.digest)
            if stored is None:
                check_parts(connection, version)
                connection.execute(sa.insert(VERSIONS).values(to_row(version)))
                stored = version
                if settle is not None:
                    settle()
            for signature in signatures:
                add_signature(connection, signature)
            if alias is None:
                check_trusted(connection, stored)
            else:
                history.point(
                    connection,
                    stored,
                    alias,
                    action="publish",
                    by=version.published_by,
                    reason=reason,
                    expected=expected,
                    force=force,
                )
            return stored

    def check_move(
        self,
        version: Version,
        *,
        alias: str | None,
        reason: str | None = None,
        expected: str | Expected | None = ANYTHING,
        force: bool = False,
        signatures: Iterable[Signature] = (),
    ) -> str | None:
        """Check what `publish` and `promote` would, before anything is stored.

        Returns:
            The digest to which the alias points now; None: nowhere yet.

        Raises:
            RegistryError: as `promote`.
        """
        with self._database.reading() as connection:
            if alias is None:
                check_trusted(connection, version, signatures)
                return None
            found = history.check_move(
                connection,
                version,
                alias,
                reason=reason,
                expected=expected,
                force=force,
                signatures=signatures,
            )
            return None if found is None else found[0]

    def promote(
        self,
        digest: str,
        *,
        alias: str,
        by: str,
        reason: str | None = None,
        expected: str | Expected | None = ANYTHING,
        force: bool = False,
    ) -> None:
        """Point the alias of a version's locale and task to it.

        Raises:
            UnknownVersionError: no version has this digest.
            ConflictError: the alias doesn't point to `expected`.
            ProtectedAliasError: it is protected, and force or the reason is missing.
            SignatureError: signatures are required, and the version has none that counts.
        """
        with self._database.writing() as connection:
            version = need_version(connection, digest)
            history.point(
                connection,
                version,
                alias,
                action="promote",
                by=by,
                reason=reason,
                expected=expected,
                force=force,
            )

    def rollback(
        self,
        locale: str,
        task: str,
        *,
        alias: str,
        by: str,
        reason: str | None = None,
        expected: str | Expected | None = ANYTHING,
        force: bool = False,
    ) -> Version:
        """Point the alias to where it was before the last move that has not been rolled back.

        Returns:
            The version that it points to now.

        Raises:
            UnknownAliasError: no such alias, or it has never pointed elsewhere.
            RegistryError: as `promote`.
        """
        with self._database.writing() as connection:
            version = history.rollback_target(connection, locale, task, alias)
            history.point(
                connection,
                version,
                alias,
                action="rollback",
                by=by,
                reason=reason,
                expected=expected,
                force=force,
            )
            return version

    def remove(self, digest: str, *, by: str, since: str, reason: str | None = None) -> Removal:
        """Take out a version that nothing needs; the history of aliases stays.

        Args:
            digest: the version's.
            by: the account that does it.
            since: moves of aliases at this time or later keep both of their versions.
            reason: kept in the list of removals.

        Raises:
            UnknownVersionError: no version has this digest.
            VersionInUseError: something needs it.
        """
        with self._database.writing() as connection:
            version = need_version(connection, digest)
            why = history.needs(connection, since, digest=digest).get(digest)
            if why is not None:
                raise VersionInUseError(
                    f"{version.name} can't be removed: {why}; let it be until nothing needs it"
                )
            removal = Removal(
                digest=digest,
                locale=version.locale,
                task=version.task,
                removed_at=utc_now(),
                removed_by=by,
                reason=reason,
            )
            connection.execute(sa.delete(SIGNATURES).where(SIGNATURES.c.digest == digest))
            connection.execute(sa.delete(VERSIONS).where(VERSIONS.c.digest == digest))
            columns = [column.name for column in REMOVALS.c if column is not REMOVALS.c.id]
            connection.execute(
                sa.insert(REMOVALS).values({name: getattr(removal, name) for name in columns})
            )
            next_generation(connection)
            return removal

    def removals(self) -> list[Removal]:
        """The versions that were taken out, newest first."""
        columns = [column for column in REMOVALS.c if column is not REMOVALS.c.id]
        query = sa.select(*columns).order_by(REMOVALS.c.id.desc())
        with self._database.reading() as connection:
            return [Removal(**row._mapping) for row in connection.execute(query)]

    def needs(self, *, since: str) -> dict[str, str]:
        """What may not be removed, and why: digest → the first reason; `since` as in `remove`."""
        with self._database.reading() as connection:
            return history.needs(connection, since)

    def version(self, digest: str) -> Version | None:
        """The version of this digest."""
        with self._database.reading() as connection:
            return find_version(connection, digest)

    def versions(
        self,
        *,
        locale: str | None = None,
        task: str | None = None,
        prefix: str = "",
        limit: int | None = None,
        after: Version | None = None,
    ) -> list[Version]:
        """Versions, newest first.

        Args:
            locale: only those of this locale.
            task: only those of this task.
            prefix: only those whose digest begins so.
            limit: no more than so many.
            after: only those that come after this one.
        """
        query = (
            sa.select(VERSIONS)
            .where(*matches(VERSIONS, locale=locale, task=task))
            .where(*begins(prefix))
            .where(*(() if after is None else follows(after)))
            .order_by(VERSIONS.c.published_at.desc(), VERSIONS.c.digest)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [to_version(row) for row in connection.execute(query)]

    def aliases(
        self,
        *,
        locale: str | None = None,
        task: str | None = None,
        alias: str | None = None,
        digests: Collection[str] | None = None,
    ) -> list[Alias]:
        """Aliases, sorted by task, locale and alias; of all versions, or of these."""
        here = [*matches(ALIASES, locale=locale, task=task, alias=alias)]
        if digests is not None:
            here.append(ALIASES.c.digest.in_(digests))
        with self._database.reading() as connection:
            found = connection.execute(sa.select(ALIASES).where(*here)).all()
        # Not by the database, which may sort as people of some country do.
        return sorted(
            (Alias(**row._mapping) for row in found),
            key=lambda alias: (alias.task, alias.locale, alias.alias),
        )

    def history(self, locale: str, task: str, *, alias: str) -> list[AliasChange]:
        """The moves of an alias, newest first."""
        with self._database.reading() as connection:
            return history.changes(connection, locale, task, alias)

    def live_at(self, locale: str, task: str, *, alias: str, at: str) -> AliasChange | None:
        """The move that an alias's target at a time came from; None: it didn't exist yet."""
        with self._database.reading() as connection:
            return history.live_at(connection, locale, task, alias, at)

    @property
    def database(self) -> Database:
        """Where it is kept."""
        return self._database

    def generation(self) -> int:
        """A number that grows with every change of what may answer for a locale."""
        return glance_generation(self._database)

    def published(self, *, task: str, alias: str) -> Published:
        """What may answer for a locale, of one task and alias; all of it at one time."""
        here = matches(ALIASES, task=task, alias=alias)
        digests = sa.select(ALIASES.c.locale, ALIASES.c.digest).where(*here)
        instead = sa.select(LOCALE_ALIASES.c.locale, LOCALE_ALIASES.c.instead)
        with self._database.reading() as connection:
            return Published(
                generation=read_generation(connection),
                digests=dict(connection.execute(digests).all()),
                locale_aliases=dict(connection.execute(instead).all()),
            )

    def set_locale_alias(self, locale: str, instead: str, *, by: str) -> None:
        """Have a locale answered as another, whatever it was answered as before."""
        values = {"instead": instead, "changed_at": utc_now(), "changed_by": by}
        with self._database.writing() as connection:
            connection.execute(
                sa.delete(LOCALE_ALIASES).where(*matches(LOCALE_ALIASES, locale=locale))
            )
            connection.execute(sa.insert(LOCALE_ALIASES).values(locale=locale, **values))
            next_generation(connection)

    def remove_locale_alias(self, locale: str) -> None:
        """Have a locale answered as itself again.

        Raises:
            UnknownAliasError: it is no alias.
        """
        gone = sa.delete(LOCALE_ALIASES).where(*matches(LOCALE_ALIASES, locale=locale))
        with self._database.writing() as connection:
            if connection.execute(gone).rowcount == 0:
                raise UnknownAliasError(
                    f"{locale} is no alias of a locale in this registry; "
                    "`isogloss alias-locale list` shows those there are"
                )
            next_generation(connection)

    def locale_aliases(self) -> list[LocaleAlias]:
        """The locales that are answered as others, sorted."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(LOCALE_ALIASES)).all()
        return sorted(
            (LocaleAlias(**row._mapping) for row in found), key=lambda alias: alias.locale
        )
