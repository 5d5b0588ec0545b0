"""The catalogue: which versions there are, where aliases point, and where they pointed before."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from ..core.errors import UnknownAliasError, UnknownVersionError
from .database import Database, announce
from .records import Alias, AliasChange, LocaleAlias, Published, StoredFile, Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path
    from types import TracebackType

    from .records import Action

METADATA = sa.MetaData()

VERSIONS = sa.Table(
    "versions",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("locale", sa.String(255), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("task_type", sa.String(64), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("rank", sa.Integer),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("base", sa.String(255), nullable=False),
    sa.Column("base_fingerprint", sa.String(64)),
    sa.Column("metrics", sa.JSON, nullable=False),
    sa.Column("data_digest", sa.String),
    # No foreign key: the parent may be in another registry.
    sa.Column("parent", sa.String),
    sa.Column("manifest", sa.JSON, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("created_at", sa.String),
    sa.Column("published_at", sa.String(32), nullable=False),
    sa.Column("published_by", sa.String(255), nullable=False),
    sa.Index("ix_versions_locale_task", "locale", "task"),
    sa.Index("ix_versions_task", "task"),
)

ALIASES = sa.Table(
    "aliases",
    METADATA,
    sa.Column("locale", sa.String(255), primary_key=True),
    sa.Column("task", sa.String(64), primary_key=True),
    sa.Column("alias", sa.String(64), primary_key=True),
    sa.Column(
        "digest",
        sa.String(64),
        sa.ForeignKey("versions.digest", name="fk_aliases_digest"),
        nullable=False,
    ),
    sa.Column("updated_at", sa.String(32), nullable=False),
    # The primary key is the index by locale and task.
    sa.Index("ix_aliases_task", "task"),
)

ALIAS_HISTORY = sa.Table(
    "alias_history",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("locale", sa.String(255), nullable=False),
    sa.Column("task", sa.String(64), nullable=False),
    sa.Column("alias", sa.String(64), nullable=False),
    # No foreign keys: what was live at a time stays known when the version is gone.
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("previous", sa.String(64)),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("changed_at", sa.String(32), nullable=False),
    sa.Column("changed_by", sa.String(255), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Index("ix_alias_history_locale_task", "locale", "task"),
    sa.Index("ix_alias_history_task", "task"),
)

# One row. A process that keeps what it has read looks here whether that is still true.
GENERATION = sa.Table(
    "generation",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

LOCALE_ALIASES = sa.Table(
    "locale_aliases",
    METADATA,
    sa.Column("locale", sa.String(255), primary_key=True),
    sa.Column("instead", sa.String(255), nullable=False),
    sa.Column("changed_at", sa.String(32), nullable=False),
    sa.Column("changed_by", sa.String(255), nullable=False),
)


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

    def publish(self, version: Version, *, alias: str) -> Version:
        """Add a version, unless there is one of this digest, and point the alias to it.

        Returns:
            The version as it is in the catalogue: where it was there before, with the time and
            the account of its first publication.
        """
        with self._database.writing() as connection:
            stored = _version(connection, version.digest)
            if stored is None:
                connection.execute(sa.insert(VERSIONS).values(_row(version)))
                stored = version
            _point(connection, stored, alias, action="publish", by=version.published_by)
            return stored

    def promote(self, digest: str, *, alias: str, by: str, reason: str | None = None) -> None:
        """Point the alias of a version's locale and task to it.

        Raises:
            UnknownVersionError: no version has this digest.
        """
        with self._database.writing() as connection:
            version = _version(connection, digest)
            if version is None:
                raise UnknownVersionError(f"no version {digest} in this registry; publish it first")
            _point(connection, version, alias, action="promote", by=by, reason=reason)

    def rollback(
        self, locale: str, task: str, *, alias: str, by: str, reason: str | None = None
    ) -> Version:
        """Point the alias to where it was before the last move that has not been rolled back.

        Returns:
            The version that it points to now.

        Raises:
            UnknownAliasError: no such alias, or it has never pointed elsewhere.
        """
        with self._database.writing() as connection:
            targets: list[str] = []
            for change in reversed(_history(connection, locale, task, alias)):
                if change.action == "rollback":
                    targets.pop()
                else:
                    targets.append(change.digest)
            if len(targets) < 2:
                problem = "has no earlier version" if targets else "doesn't exist"
                raise UnknownAliasError(
                    f"can't roll back: alias {alias!r} of {task}/{locale} {problem}; "
                    "promote a version instead"
                )
            version = _version(connection, targets[-2])
            if version is None:
                raise UnknownAliasError(
                    f"can't roll back: version {targets[-2]}, to which alias {alias!r} of "
                    f"{task}/{locale} pointed before, is gone; promote another instead"
                )
            _point(connection, version, alias, action="rollback", by=by, reason=reason)
            return version

    def version(self, digest: str) -> Version | None:
        """The version of this digest."""
        with self._database.reading() as connection:
            return _version(connection, digest)

    def versions(
        self,
        *,
        locale: str | None = None,
        task: str | None = None,
        prefix: str = "",
        limit: int | None = None,
    ) -> list[Version]:
        """Versions, newest first.

        Args:
            locale: only those of this locale.
            task: only those of this task.
            prefix: only those whose digest begins so.
            limit: no more than so many.
        """
        query = (
            sa.select(VERSIONS)
            .where(*_matches(VERSIONS, locale=locale, task=task))
            .where(VERSIONS.c.digest.startswith(prefix, autoescape=True))
            .order_by(VERSIONS.c.published_at.desc(), VERSIONS.c.digest)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [_to_version(row) for row in connection.execute(query)]

    def aliases(
        self, *, locale: str | None = None, task: str | None = None, alias: str | None = None
    ) -> list[Alias]:
        """Aliases, sorted by task, locale and alias."""
        here = _matches(ALIASES, locale=locale, task=task, alias=alias)
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
            return _history(connection, locale, task, alias)

    def listening(self) -> AbstractContextManager[Callable[[float], bool]]:
        """As `Database.listening`: a connection that hears of changes."""
        return self._database.listening()

    def generation(self) -> int:
        """A number that grows with every change of what may answer for a locale."""
        with self._database.reading() as connection:
            return _generation(connection)

    def published(self, *, task: str, alias: str) -> Published:
        """What may answer for a locale, of one task and alias; all of it at one time."""
        here = _matches(ALIASES, task=task, alias=alias)
        digests = sa.select(ALIASES.c.locale, ALIASES.c.digest).where(*here)
        instead = sa.select(LOCALE_ALIASES.c.locale, LOCALE_ALIASES.c.instead)
        with self._database.reading() as connection:
            return Published(
                generation=_generation(connection),
                digests=dict(connection.execute(digests).all()),
                locale_aliases=dict(connection.execute(instead).all()),
            )

    def set_locale_alias(self, locale: str, instead: str, *, by: str) -> None:
        """Have a locale answered as another, whatever it was answered as before."""
        values = {"instead": instead, "changed_at": utc_now(), "changed_by": by}
        with self._database.writing() as connection:
            connection.execute(
                sa.delete(LOCALE_ALIASES).where(*_matches(LOCALE_ALIASES, locale=locale))
            )
            connection.execute(sa.insert(LOCALE_ALIASES).values(locale=locale, **values))
            _next_generation(connection)

    def remove_locale_alias(self, locale: str) -> None:
        """Have a locale answered as itself again.

        Raises:
            UnknownAliasError: it is no alias.
        """
        gone = sa.delete(LOCALE_ALIASES).where(*_matches(LOCALE_ALIASES, locale=locale))
        with self._database.writing() as connection:
            if connection.execute(gone).rowcount == 0:
                raise UnknownAliasError(
                    f"{locale} is no alias of a locale in this registry; "
                    "`isogloss alias-locale list` shows those there are"
                )
            _next_generation(connection)

    def locale_aliases(self) -> list[LocaleAlias]:
        """The locales that are answered as others, sorted."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(LOCALE_ALIASES)).all()
        return sorted(
            (LocaleAlias(**row._mapping) for row in found), key=lambda alias: alias.locale
        )


def utc_now() -> str:
    """The time as the catalogue writes it; such strings sort as the times do."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _point(
    connection: sa.Connection,
    version: Version,
    alias: str,
    *,
    action: Action,
    by: str,
    reason: str | None = None,
) -> None:
    """Move an alias and write that down; nothing where it points to the version already."""
    key = {"locale": version.locale, "task": version.task, "alias": alias}
    here = _matches(ALIASES, **key)
    previous = connection.scalar(sa.select(ALIASES.c.digest).where(*here))
    if previous == version.digest:
        return
    now = utc_now()
    moved = {"digest": version.digest, "updated_at": now}
    if previous is None:
        connection.execute(sa.insert(ALIASES).values(**key, **moved))
    else:
        connection.execute(sa.update(ALIASES).where(*here).values(moved))
    connection.execute(
        sa.insert(ALIAS_HISTORY).values(
            **key,
            digest=version.digest,
            previous=previous,
            action=action,
            changed_at=now,
            changed_by=by,
            reason=reason,
        )
    )
    _next_generation(connection)


def _generation(connection: sa.Connection) -> int:
    number = connection.scalar(sa.select(GENERATION.c.number))
    assert isinstance(number, int)
    return number


def _next_generation(connection: sa.Connection) -> None:
    """To be called in every transaction that changes what may answer."""
    connection.execute(sa.update(GENERATION).values(number=GENERATION.c.number + 1))
    announce(connection)


def _version(connection: sa.Connection, digest: str) -> Version | None:
    row = connection.execute(sa.select(VERSIONS).where(VERSIONS.c.digest == digest)).one_or_none()
    return None if row is None else _to_version(row)


def _history(connection: sa.Connection, locale: str, task: str, alias: str) -> list[AliasChange]:
    columns = [column for column in ALIAS_HISTORY.c if column is not ALIAS_HISTORY.c.id]
    query = (
        sa.select(*columns)
        .where(*_matches(ALIAS_HISTORY, locale=locale, task=task, alias=alias))
        .order_by(ALIAS_HISTORY.c.id.desc())
    )
    return [AliasChange(**row._mapping) for row in connection.execute(query)]


def _matches(table: sa.Table, **values: str | None) -> list[sa.ColumnElement[bool]]:
    """The conditions that columns have these values; None stands for any."""
    return [table.c[name] == value for name, value in values.items() if value is not None]


def _row(version: Version) -> dict[str, Any]:
    values = asdict(version)
    values["manifest"] = values.pop("files")
    return values


def _to_version(row: sa.Row[Any]) -> Version:
    values = dict(row._mapping)
    values["labels"] = tuple(values["labels"])
    values["files"] = tuple(StoredFile(**entry) for entry in values.pop("manifest"))
    return Version(**values)
