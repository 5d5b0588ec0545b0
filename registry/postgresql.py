"""The catalogue in a PostgreSQL database, reached through psycopg 3.

Transactions that write first take an advisory lock of the schema, held until they end. Each of
them also moves the one generation number, so that they would have to wait for one another anyway;
taken first, the lock lets them read what they go by without conflicts and without retries, also
of rows that aren't there yet. Under READ COMMITTED, what they read after they have the lock is
what the writer before them committed.

A server that has died, been restarted, or can't be reached any more is noticed in seconds: by the
socket, by TCP's own timeouts, or by a limit on how long any one answer may take. No statement is
sent twice.
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg.abc import PQGen

CONNECT_TIMEOUT = 3
"""Seconds for a connection to be made; libpq takes whole ones, of at least 2."""

ANSWER_TIMEOUT = 10.0
"""Seconds for one answer of the server."""

LOCK_TIMEOUT = 30.0
"""Seconds to wait for another writer."""

CHANNEL = "isogloss"
"""Where changes are announced, to everyone who listens in this database."""

_WRITES = "isogloss_writes"
# A writer that hangs doesn't hold the lock for ever.
_LIMITS = (
    f"SELECT set_config('lock_timeout', '{int(LOCK_TIMEOUT)}s', true), "
    f"set_config('idle_in_transaction_session_timeout', '{int(2 * LOCK_TIMEOUT)}s', true)"
)
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('isogloss ' || current_schema(), 0))"
_POOL_SIZE, _POOL_OVERFLOW, _POOL_TIMEOUT = 5, 15, 10.0

_DEFAULTS: dict[str, Any] = {
    "application_name": "isogloss",
    "connect_timeout": CONNECT_TIMEOUT,
    # Where the machine at the other end is gone: after 5 s of silence ask, 3 times in 6 s.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": int(ANSWER_TIMEOUT * 1000),
}

_Result = TypeVar("_Result")


class _Connection(psycopg.Connection[Any]):
    """A connection that gives up where the server says nothing for too long."""

    patience = ANSWER_TIMEOUT

    def wait(
        self, gen: PQGen[_Result], interval: float = 0.1, timeout: float | None = None
    ) -> _Result:
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        end = time.monotonic() + self.patience
        try:
            return super().wait(gen, interval, self.patience)
        except psycopg.OperationalError:
            if self.closed or time.monotonic() < end:
                raise
            # Its answer may come yet, and would be taken for that of the next statement.
            self.close()
            raise psycopg.OperationalError(
                f"the server didn't answer within {self.patience:g} seconds"
            ) from None


class PostgreSQL:
    """A database on a server; its tables are in the first schema of the search path."""

    driver_error: type[Exception] = psycopg.Error
    is_near = False

    def __init__(self, url: sa.URL) -> None:
        self.place = show(url)
        engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={
                name: value for name, value in _DEFAULTS.items() if name not in url.query
            },
            pool_size=_POOL_SIZE,
            max_overflow=_POOL_OVERFLOW,
            pool_timeout=_POOL_TIMEOUT,
            pool_pre_ping=True,
            # Balancers and firewalls drop what has been open for long.
            pool_recycle=1800,
        )
        sa.event.listen(engine, "do_connect", _connect)
        sa.event.listen(engine, "begin", _begin)
        sa.event.listen(engine, "checkin", _check_in)
        self._url = url
        self._engine = engine
        self.reader: sa.Engine = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self._glancer = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.writer: sa.Engine = engine.execution_options(
            isolation_level="READ COMMITTED", **{_WRITES: True}
        )

    def prepare(self, *, create: bool) -> bool:
        """Nothing: whether there is a registry is seen from the tables."""
        return create

    def finish_opening(self) -> None:
        """Nothing to be set in the database itself."""

    def glance(self, query: str) -> object:
        """The one value that a query gives; there is no transaction to be begun and ended."""
        with self._glancer.connect() as connection:
            return connection.exec_driver_sql(query).scalar()

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed."""
        self._engine.dispose()

    def is_away(self, error: BaseException | None, *, opening: bool) -> bool:  # noqa: ARG002
        """Whether the server can't be reached now, but may be later."""
        if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return False
        state = error.sqlstate
        # 08: connection; 57P01 to 57P05: shut down, crashed, starting. 57014 is a cancelled query.
        return state is None or state.startswith(("08", "57P"))

    @contextmanager
    def listening(self) -> Iterator[Callable[[float], bool]]:
        """Within it: a function that waits so many seconds and says whether anything changed."""
        dialect = self._engine.dialect
        _, arguments = dialect.create_connect_args(self._engine.url)
        arguments = {**_DEFAULTS, **arguments, "autocommit": True}
        with closing(_Connection.connect(**arguments)) as connection:
            connection.execute(f"LISTEN {CHANNEL}")

            def wait(seconds: float) -> bool:
                return any(list(connection.notifies(timeout=seconds, stop_after=1)))

            yield wait


def announce(connection: sa.Connection) -> None:
    """Tell those who listen, when and if this transaction is committed."""
    connection.execute(sa.select(sa.func.pg_notify(CHANNEL, "")))


def show(url: sa.URL) -> str:
    """The URL without anything that may be secret."""
    host = url.host or url.query.get("host") or ""
    port = f":{url.port}" if url.port else ""
    return f"postgresql://{host}{port}/{url.database or ''}"


def _connect(
    _dialect: object, _record: object, arguments: Any, options: dict[str, Any]
) -> _Connection:
    connection = _Connection.connect(*arguments, **options)
    connection.patience = ANSWER_TIMEOUT
    return connection


def _begin(connection: sa.Connection) -> None:
    if connection.get_execution_options().get(_WRITES, False):
        driver_connection = connection.connection.driver_connection
        assert isinstance(driver_connection, _Connection)
        driver_connection.patience = LOCK_TIMEOUT + ANSWER_TIMEOUT
        connection.exec_driver_sql(_LIMITS)
        connection.exec_driver_sql(_LOCK)


def _check_in(connection: _Connection | None, _record: object) -> None:
    # None where it was found to be broken.
    if connection is not None:
        connection.patience = ANSWER_TIMEOUT
