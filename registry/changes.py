"""Tells a process that keeps what it has read when the catalogue has changed, or is away.

    with Watcher(catalog, on_change=reload, on_state=report) as watcher:
        ...
        watcher.state.status        # "watching", or "away" with a reason and since when

PostgreSQL announces changes (LISTEN and NOTIFY) in the transaction that makes them; an SQLite file
is looked at every quarter of a second. Announcements that were missed while a connection was lost
are made up for: the generation is read again after every connect, and every few seconds. The
latter is all there is behind a pooler that lends connections by the transaction, such as PgBouncer.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Self

from ..core.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from .catalog import Catalog

INTERVAL = 0.25
"""Seconds between two looks at an SQLite file, and the longest that stopping takes."""

HEARTBEAT = 5.0
"""Seconds after which the generation is read though nothing was announced."""

# Whoever comes back is heard of within a second.
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 0.5

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WatchState:
    """Whether changes are heard of."""

    status: Literal["watching", "away"]
    """`away`: not now, and what the process has read may be out of date."""
    since: datetime
    """When that began; UTC."""
    reason: str | None = None
    """Why it is away; None while watching."""


class Watcher:
    """A thread that calls back when the catalogue's generation has changed.

    Both callbacks run in that thread, one at a time; what they raise is logged, and the watch
    goes on. Neither is called any more when `stop` has returned.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        on_change: Callable[[int], object],
        on_state: Callable[[WatchState], object] | None = None,
    ) -> None:
        """Prepare to watch; `start` begins.

        Args:
            catalog: what is watched.
            on_change: gets the generation: once at the beginning, then whenever it is another.
                Several changes that come fast may be told as one.
            on_state: gets the state: once at the beginning, then whenever `status` is another.
        """
        self._catalog = catalog
        self._on_change = on_change
        self._on_state = on_state
        self._generation: int | None = None
        self._state = _away("the watch has not begun")
        self._told: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="isogloss-watcher", daemon=True)

    @property
    def state(self) -> WatchState:
        """Whether changes are heard of, since when, and why not."""
        return self._state

    def start(self) -> Self:
        """Begin; a watcher can be started once."""
        self._thread.start()
        return self

    def stop(self, *, wait: bool = True) -> None:
        """End; also from within a callback.

        Args:
            wait: until its thread has ended, and nothing is told any more.
        """
        self._stop.set()
        if wait and self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self._state = _away("the watch has ended")

    def __enter__(self) -> Self:
        """Begin."""
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self.stop()

    def _run(self) -> None:
        delay = _FIRST_DELAY
        while not self._stop.is_set():
            try:
                with self._catalog.database.listening() as wait:
                    self._look()
                    self._enter(WatchState(status="watching", since=datetime.now(UTC)))
                    delay = _FIRST_DELAY
                    self._listen(wait)
            except RegistryError as error:
                self._enter(_away(str(error)))
            # A thread that ended unseen would leave a state that is no longer true.
            except Exception as error:
                _log.exception("the registry's watcher failed, and tries again")
                self._enter(_away(f"the watch failed: {error}"))
            self._stop.wait(delay)
            delay = min(2 * delay, _LONGEST_DELAY)

    def _listen(self, wait: Callable[[float], bool]) -> None:
        looked = time.monotonic()
        while not self._stop.is_set():
            if wait(INTERVAL) or time.monotonic() - looked > HEARTBEAT:
                self._look()
                looked = time.monotonic()

    def _look(self) -> None:
        generation = self._catalog.generation()
        if generation != self._generation:
            self._generation = generation
            self._tell(self._on_change, generation)

    def _enter(self, state: WatchState) -> None:
        if state.status == self._told:
            # For as long as before, perhaps for another reason.
            self._state = replace(state, since=self._state.since)
            return
        self._state, self._told = state, state.status
        if self._on_state is not None:
            self._tell(self._on_state, state)

    def _tell(self, callback: Callable[..., object], what: object) -> None:
        if self._stop.is_set():
            return
        try:
            callback(what)
        # It is not this thread's to mend, and without the thread nothing would be heard any more.
        except Exception:
            _log.exception("a callback of the registry's watcher failed")


def _away(reason: str) -> WatchState:
    return WatchState(status="away", since=datetime.now(UTC), reason=reason)
