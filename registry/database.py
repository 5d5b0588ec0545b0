"""The catalogue's database, at the schema of this release, and its transactions.

What differs between SQLite and PostgreSQL is in `sqlite.py` and `postgresql.py`.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import sqlalchemy as sa

from ..core.errors import (
    InputError,
    RegistryError,
    RegistryNotFoundError,
    RegistryUnavailableError,
)
from . import migrations
from .sqlite import SQLite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_MOST_TABLES_NAMED = 5


class Backend(Protocol):
    """A kind of database."""

    place: str
    """Where it is, for messages: nothing secret."""
    reader: sa.Engine
    """Its transactions see one state of the database from their first query on."""
    writer: sa.Engine
    """Its transactions hold the write lock from their beginning."""
    driver_error: type[Exception]
    """What the driver itself raises."""
    is_near: bool
    """Whether it is asked without a server."""

    def prepare(self, *, create: bool) -> bool:
        """Before the first connection.

        Returns:
            Whether tables may be made where there are none.

        Raises:
            RegistryNotFoundError: there is nothing and `create` is False.
        """

    def finish_opening(self) -> None:
        """After it was seen that the database belongs to a registry, or to nothing."""

    def glance(self, query: str) -> object:
        """The one value that a query gives; in the least time in which it can be had."""

    def is_away(self, error: BaseException | None, *, opening: bool) -> bool:
        """Whether the driver's error says that the database can't be reached now."""

    def listening(self) -> AbstractContextManager[Callable[[float], bool]]:
        """A connection of its own; waits so many seconds and says whether anything changed."""

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed."""


class Database:
    """A database and the two kinds of transaction on it; may be used by several threads.

    Where it was away and is back, the next transaction finds it: nothing need be opened again.
    """

    def __init__(self, where: Path | sa.URL, *, create: bool = True) -> None:
        """Open it; it is made, or its schema brought up to date, where need be.

        Args:
            where: an SQLite file, or the URL of a PostgreSQL database.
            create: make the registry's tables where there are none.

        Raises:
            RegistryNotFoundError: it can't be used, belongs to something else, was written by a
                newer release, or there is nothing and `create` is False.
            RegistryUnavailableError: its server can't be reached.
            InputError: a URL of another kind of database, or psycopg is missing.
        """
        self._backend = _backend(where)
        self._writes = 0
        self.place = self._backend.place
        self._secrets = _secrets(where) if isinstance(where, sa.URL) else []
        create = self._backend.prepare(create=create)
        try:
            self._bring_up_to_date(create=create)
        except (sa.exc.DatabaseError, sa.exc.InterfaceError, self._backend.driver_error) as error:
            self.close()
            cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            if self._backend.is_away(cause, opening=True):
                raise self._away(cause) from None
            raise RegistryNotFoundError(
                f"{self.place} can't be used as a registry: {self._reason(cause)}; "
                "give another place"
            ) from None
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database from its first query on.

        Raises:
            RegistryUnavailableError: the database can't be reached.
            RegistryError: the database can't be read.
        """
        with self._clear_errors(), self._backend.reader.begin() as connection:
            yield connection

    @property
    def is_near(self) -> bool:
        """Whether a glance takes microseconds, as no server is asked."""
        return self._backend.is_near

    @property
    def writes(self) -> int:
        """How many transactions that write were ended through this object."""
        return self._writes

    def glance(self, query: str) -> object:
        """The one value that a query gives, in less time than a transaction takes.

        Raises:
            RegistryUnavailableError: the database can't be reached.
            RegistryError: the database can't be read.
        """
        with self._clear_errors():
            return self._backend.glance(query)

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its beginning; all or nothing of it stays.

        Raises:
            RegistryUnavailableError: the database can't be reached. Where the connection broke
                while the end of the transaction was on its way, it may have been committed.
            RegistryError: the database can't be written, or is locked for too long.
        """
        with self._clear_errors():
            try:
                with self._backend.writer.begin() as connection:
                    yield connection
            finally:
                # Also where it failed: its end may have been what didn't come back.
                self._writes += 1

    @contextmanager
    def listening(self) -> Iterator[Callable[[float], bool]]:
        """A connection that hears of changes, also those of other processes.

        Gives a function that waits for as many seconds as it is told, and says whether anything
        was changed; it may say so too often, never too seldom.

        Raises:
            RegistryUnavailableError: the database can't be reached, also while waiting.
        """
        try:
            with self._backend.listening() as wait:
                yield wait
        except self._backend.driver_error as error:
            raise self._away(error) from error

    def close(self) -> None:
        """Close the connections; the database opens them again when it is used again."""
        self._backend.close()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise  # our own mistake
        except sa.exc.TimeoutError as error:
            raise RegistryUnavailableError(
                f"the registry's database {self.place} can't be asked: all connections were in "
                "use for too long; ask from fewer threads, or try again"
            ) from error
        except (sa.exc.DBAPIError, self._backend.driver_error) as error:
            cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            if self._backend.is_away(cause, opening=False):
                raise self._away(cause) from error
            raise RegistryError(
                f"the registry's database {self.place} can't be used: {self._reason(cause)}; "
                "check the disk and the permissions, or try again"
            ) from error

    def _away(self, error: BaseException | None) -> RegistryUnavailableError:
        return RegistryUnavailableError(
            f"the registry's database {self.place} can't be reached: {self._reason(error)}; "
            "check that it is there, and try again"
        )

    def _reason(self, error: BaseException | None) -> str:
        """The driver's words, on one line and without the password."""
        words = " ".join(str(error).split())
        for secret in self._secrets:
            words = words.replace(secret, "***")
        return words

    def _bring_up_to_date(self, *, create: bool) -> None:
        with self._backend.reader.begin() as connection:
            revision = self._revision(connection)
        if revision is None and not create:
            raise RegistryNotFoundError(
                f"no registry at {self.place}; publish an adapter there first, or give another "
                "place"
            )
        self._backend.finish_opening()
        if revision == migrations.HEAD:
            return
        with self._backend.writer.begin() as connection:
            # Does nothing where another process has been first.
            migrations.upgrade(connection)

    def _revision(self, connection: sa.Connection) -> str | None:
        """The schema's revision; None for an empty database."""
        tables = sa.inspect(connection).get_table_names()
        if not tables:
            return None
        if "alembic_version" not in tables:
            named = ", ".join(sorted(tables)[:_MOST_TABLES_NAMED])
            raise RegistryNotFoundError(
                f"{self.place} is no registry: its tables are {named}; give another place"
            )
        revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if revision is not None and revision not in migrations.REVISIONS:
            raise RegistryNotFoundError(
                f"{self.place} has schema {revision!r}, and this release of isogloss knows none "
                f"after {migrations.HEAD!r}; install a newer release"
            )
        return None if revision is None else str(revision)


def announce(connection: sa.Connection) -> None:
    """Tell those who listen, when and if this transaction is committed.

    To be called in every transaction that changes what they wait for.
    """
    # Listeners to an SQLite file see that it was written.
    if connection.dialect.name == "postgresql":
        from .postgresql import announce as announce_there

        announce_there(connection)


def _secrets(url: sa.URL) -> list[str]:
    values = [url.password, *(url.query.get(name) for name in ("password", "sslpassword"))]
    return [value for value in values if isinstance(value, str) and value]


def _backend(where: Path | sa.URL) -> Backend:
    if isinstance(where, Path):
        return SQLite(where)
    if where.get_backend_name() != "postgresql":
        raise InputError(
            f"a registry can't be in a database of kind {where.get_backend_name()!r}; "
            "give a file or a URL that begins with postgresql://"
        )
    try:
        from .postgresql import PostgreSQL
    except ImportError as error:
        raise InputError(
            f"a registry in PostgreSQL needs psycopg, which can't be imported ({error}); "
            "pip install 'isogloss[postgres]'"
        ) from error
    return PostgreSQL(where)
