"""The catalogue in an SQLite file, in WAL mode: readers never wait, and one writer at a time.

Transactions are begun here and not by `sqlite3`, as SQLAlchemy's documentation of the SQLite
dialect describes ("Using SQLAlchemy to emit BEGIN in lieu of SQLite's transaction control").
Those that write take the lock at once: one that reads first and writes then fails with "database
is locked", without waiting, when another has written in between.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..core.errors import RegistryNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another writer."""

_WRITES = "isogloss_writes"

# The disk or the folder is gone, as opposed to a file that holds something else.
_AWAY = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR}


class SQLite:
    """An SQLite file; it is made when the database is prepared, and never again behind its back."""

    driver_error: type[Exception] = sqlite3.Error
    is_near = True

    def __init__(self, path: Path) -> None:
        self.place = str(path)
        self._path = path.absolute()
        url = sa.URL.create("sqlite", database=str(path))
        self.reader = sa.create_engine(url, creator=self._connect)
        sa.event.listen(self.reader, "connect", self._set_up)
        sa.event.listen(self.reader, "checkout", self._check_file)
        sa.event.listen(self.reader, "begin", _begin)
        self.writer: sa.Engine = self.reader.execution_options(**{_WRITES: True})
        # For glances: without a pool they take a hundredth of the time.
        self._lock = threading.Lock()
        self._glancer: tuple[sqlite3.Connection, tuple[int, int] | None] | None = None

    def prepare(self, *, create: bool) -> bool:
        """Make the file where there is none; a file without tables is a registry to be.

        Raises:
            RegistryNotFoundError: there is none and `create` is False, or it can't be made.
        """
        if not create and not self._path.is_file():
            raise RegistryNotFoundError(
                f"no registry at {self.place}; publish an adapter there first, or give another "
                "place"
            )
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDONLY, 0o644))
        except OSError as error:
            raise RegistryNotFoundError(
                f"no registry can be made at {self.place}: {error.strerror}; give another place"
            ) from None
        return True

    def finish_opening(self) -> None:
        """Switch to write-ahead logging, which the file then keeps."""
        # SQLite doesn't wait for other connections here, whatever the timeout.
        end = time.monotonic() + LOCK_TIMEOUT
        connection = self.reader.raw_connection()
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

    def glance(self, query: str) -> object:
        """The one value that a query gives; it sees all that was committed before."""
        with self._lock:
            file = _identity(self._path)
            if self._glancer is not None and self._glancer[1] != file:
                self._glancer[0].close()
                self._glancer = None
            if self._glancer is None:
                self._glancer = self._connect(), file
            return self._glancer[0].execute(query).fetchone()[0]

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed."""
        with self._lock:
            if self._glancer is not None:
                self._glancer[0].close()
                self._glancer = None
        self.reader.dispose()

    def is_away(self, error: BaseException | None, *, opening: bool) -> bool:
        """Whether the file can't be reached now, but may be later."""
        code = getattr(error, "sqlite_errorcode", None)
        return not opening and code is not None and code & 0xFF in _AWAY

    @contextmanager
    def listening(self) -> Iterator[Callable[[float], bool]]:
        """Within it: a function that waits so many seconds and says whether anything changed.

        It looks at `PRAGMA data_version`, which reads one counter in shared memory.
        """
        file = _identity(self._path)
        with closing(self._connect()) as connection:
            last = _data_version(connection)

            def wait(seconds: float) -> bool:
                nonlocal last
                time.sleep(seconds)
                if _identity(self._path) != file:
                    raise sqlite3.OperationalError("the file was moved or replaced")
                before, last = last, _data_version(connection)
                return last != before

            yield wait

    def _connect(self) -> sqlite3.Connection:
        # Without mode=rw SQLite would make an empty database where the file has gone.
        return sqlite3.connect(
            f"{self._path.as_uri()}?mode=rw",
            uri=True,
            timeout=LOCK_TIMEOUT,
            check_same_thread=False,
        )

    def _set_up(self, connection: sqlite3.Connection, record: sa.pool.ConnectionPoolEntry) -> None:
        record.info["file"] = _identity(self._path)
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        # In WAL mode only FULL keeps what was committed through a power failure.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    def _check_file(
        self, _connection: object, record: sa.pool.ConnectionPoolEntry, _proxy: object
    ) -> None:
        """Have the pool connect again where the file was replaced: the old one would live on."""
        if record.info["file"] != _identity(self._path):
            raise sa.exc.DisconnectionError


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _identity(path: Path) -> tuple[int, int] | None:
    """What tells this file from another of the same name; None: there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _data_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA data_version").fetchone()[0])
