"""The catalogue's database: an SQLite file in WAL mode at the schema of this release.

Transactions are begun here and not by `sqlite3`, as SQLAlchemy's documentation of the SQLite
dialect describes ("Using SQLAlchemy to emit BEGIN in lieu of SQLite's transaction control").
Those that write take the lock at once: one that reads first and writes then fails with "database
is locked", without waiting, when another has written in between.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..core.errors import RegistryError, RegistryNotFoundError
from . import migrations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another writer."""

_WRITES = "isogloss_writes"


class Database:
    """A database and the two kinds of transaction on it; may be used by several threads."""

    def __init__(self, path: Path) -> None:
        """Open the file; it is made, or its schema brought up to date, where need be.

        Raises:
            RegistryNotFoundError: the file can't be used, belongs to something else, or was
                written by a newer release.
        """
        self.path = path
        url = sa.URL.create("sqlite", database=str(path))
        self._engine = sa.create_engine(url, connect_args={"timeout": LOCK_TIMEOUT})
        sa.event.listen(self._engine, "connect", _prepare_connection)
        sa.event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(**{_WRITES: True})
        try:
            self._bring_up_to_date()
        except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
            self.close()
            reason = error.orig if isinstance(error, sa.exc.DatabaseError) else error
            raise RegistryNotFoundError(
                f"{path} can't be used as a registry: {reason}; give another folder"
            ) from None
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the database from its first query on.

        Raises:
            RegistryError: the database can't be read.
        """
        with self._clear_errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the write lock from its beginning; all or nothing of it stays.

        Raises:
            RegistryError: the database can't be written, or is locked for too long.
        """
        with self._clear_errors(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the connections; the database opens them again when it is used again."""
        self._engine.dispose()

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.IntegrityError:
            raise  # our own mistake
        except sa.exc.DatabaseError as error:
            raise RegistryError(
                f"the registry's database {self.path} can't be used: {error.orig}; "
                "check the disk and the permissions, or try again"
            ) from error

    def _bring_up_to_date(self) -> None:
        with self._engine.begin() as connection:
            revision = self._revision(connection)
        self._use_wal()
        if revision == migrations.HEAD:
            return
        with self._writer.begin() as connection:
            # Does nothing where another process has been first.
            migrations.upgrade(connection)

    def _revision(self, connection: sa.Connection) -> str | None:
        """The schema's revision; None for an empty database."""
        tables = sa.inspect(connection).get_table_names()
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise RegistryNotFoundError(
                f"{self.path} is no registry: its tables are {', '.join(tables)}; "
                "give another folder"
            )
        revision = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        if revision is not None and revision not in migrations.REVISIONS:
            raise RegistryNotFoundError(
                f"{self.path} has schema {revision!r}, and this release of isogloss knows none "
                f"after {migrations.HEAD!r}; install a newer release"
            )
        return None if revision is None else str(revision)

    def _use_wal(self) -> None:
        """Switch to write-ahead logging, which the file then keeps: readers never wait."""
        # SQLite doesn't wait for other connections here, whatever the timeout.
        end = time.monotonic() + LOCK_TIMEOUT
        connection = self._engine.raw_connection()
        try:
            while True:
                try:
                    connection.cursor().execute("PRAGMA journal_mode = WAL")
                except sqlite3.OperationalError as error:
                    locked = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                    if not locked or time.monotonic() > end:
                        raise
                    time.sleep(0.01)
                else:
                    return
        finally:
            connection.close()


def _prepare_connection(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    # In WAL mode only FULL keeps what was committed through a power failure.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
