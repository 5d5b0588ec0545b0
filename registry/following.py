"""Answers for a process that serves: it hears of changes, and goes on while the catalogue is away.

    with registry.follow(on_state=report) as follower:
        follower.resolve("gsw-CH", "intent", alias="production")
        follower.state.status       # "watching", or "away" with a reason and since when

An answer is at most as old as the request, where the catalogue is an SQLite file or the change was
made through the same registry object. A change that another process makes in PostgreSQL is
announced, and heard of in milliseconds. While the catalogue is away, what it said last holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ..core.errors import RegistryUnavailableError
from .answers import Answers
from .changes import Watcher
from .names import check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from .admission import Admission
    from .catalog import Catalog
    from .changes import WatchState
    from .policy import Policy
    from .records import Resolution


class Follower:
    """Resolves as the registry does, from what a watch has heard; threads may use it at once.

    Before `start` and after `stop` each call reads the generation, and still outlasts an absence.
    """

    def __init__(
        self,
        catalog: Catalog,
        policy: Policy | None,
        admission: Admission,
        *,
        on_change: Callable[[int], object] | None = None,
        on_state: Callable[[WatchState], object] | None = None,
    ) -> None:
        """Prepare to follow; `start` begins.

        Args:
            catalog: what is followed.
            policy: how far an answer may be.
            admission: which versions may answer.
            on_change: is called, with the generation, when the answers have taken up a change.
            on_state: gets the state of the watch; both are called as `Watcher` describes.
        """
        self._catalog = catalog
        self._on_change = on_change
        self._answers = Answers(catalog, policy, admit=admission.check, generation=self._generation)
        # What the watch has heard, and how much this process had written when it did.
        self._heard: tuple[int, int] | None = None
        self._watcher = Watcher(catalog, on_change=self._take_up, on_state=on_state)

    @property
    def state(self) -> WatchState:
        """Whether changes are heard of, since when, and why not."""
        return self._watcher.state

    def start(self) -> Self:
        """Begin; a follower can be started once."""
        self._watcher.start()
        return self

    def stop(self, *, wait: bool = True) -> None:
        """End the watch.

        Args:
            wait: until its thread has ended.
        """
        self._watcher.stop(wait=wait)
        self._heard = None

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

    def resolve(self, locale: str | Sequence[str], task: str, *, alias: str) -> Resolution:
        """As `Registry.resolve`.

        Raises:
            RegistryUnavailableError: the catalogue is away, and this was never asked before.
            IsoglossError: as `Registry.resolve`.
        """
        check_names(task=task, alias=alias)
        return self._answers.resolve(locale, task, alias)

    def resolve_all(
        self, locales: Iterable[str | Sequence[str]], task: str, *, alias: str
    ) -> list[Resolution]:
        """As `Registry.resolve_all`.

        Raises:
            IsoglossError: as `resolve`.
        """
        check_names(task=task, alias=alias)
        return self._answers.resolve_all(locales, task, alias)

    def _generation(self) -> int | None:
        """The generation to answer by; None: the catalogue is away."""
        database = self._catalog.database
        heard = self._heard
        if heard is not None and not database.is_near:
            if self.state.status == "away":
                return None
            if heard[1] == database.writes:
                return heard[0]
        writes = database.writes
        try:
            generation = self._catalog.generation()
        except RegistryUnavailableError:
            return None
        if heard is not None:
            self._heard = generation, writes
        return generation

    def _take_up(self, generation: int) -> None:
        before = self._heard
        if before is not None and generation < before[0]:
            # A request has read a later one since, or an older database was put in its place.
            generation = self._catalog.generation()
        # How much was written when it was read isn't known: the next request looks for itself.
        self._heard = generation, -1
        self._answers.refresh(generation)
        if self._on_change is not None:
            self._on_change(generation)
