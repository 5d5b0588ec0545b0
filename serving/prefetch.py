"""Reading adapters into host memory before anyone waits for them."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..core.errors import IsoglossError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..registry import Registry, Resolution, Version
    from ..registry.following import Follower
    from .host_cache import HostCache

# The routes that are asked about again when one of them has moved.
_ROUTES_KEPT = 1024
_LOG = logging.getLogger(__name__)

Route = tuple[str, str, str]
"""Locale as requested, task, alias."""


class Prefetcher:
    """A thread in the background that fills the host cache; it holds up no batch.

    What can't be read is logged: whoever asks for it gets the error.

    Args:
        registry: where versions are looked up.
        host: where they are kept.
        resolver: says which version answers; None: the registry.
    """

    def __init__(
        self, registry: Registry, host: HostCache, resolver: Registry | Follower | None = None
    ) -> None:
        self._registry = registry
        self._resolver = registry if resolver is None else resolver
        self._host = host
        # Started when there is something to do.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="isogloss-prefetch")
        self._lock = threading.Lock()
        # Latest last, each with the digest that answered.
        self._routes: dict[Route, str] = {}
        self._catching_up = False
        self._closed = False

    def read(self, version: Version) -> None:
        """Read a version in the background."""
        self._worker.submit(self._quietly, lambda: self._read([version]))

    def read_next(self, version: Version) -> None:
        """Read in the background what any alias of a version's locale and task points to."""

        def versions() -> Iterable[Version]:
            aliases = self._registry.aliases(locale=version.locale, task=version.task)
            return [self._registry.version(alias.digest) for alias in aliases]

        self._worker.submit(self._quietly, lambda: self._read(versions()))

    def saw(self, route: Route, resolution: Resolution) -> None:
        """Note who answers; where it is another one than before, look after the other routes.

        A promotion seldom comes alone, and so the versions that the next requests will need are
        read already when these come.
        """
        assert resolution.version is not None
        digest = resolution.version.digest
        with self._lock:
            before = self._routes.pop(route, None)
            self._routes[route] = digest
            if len(self._routes) > _ROUTES_KEPT:
                del self._routes[next(iter(self._routes))]
            if before in {None, digest}:
                return
        self.catch_up()

    def catch_up(self) -> None:
        """Read in the background what the routes that were seen resolve to now."""
        with self._lock:
            if self._catching_up or self._closed:
                return
            self._catching_up = True
            self._worker.submit(self._quietly, self._catch_up)

    def close(self) -> None:
        """End the thread; what it has not begun is dropped."""
        with self._lock:
            self._closed = True
        self._worker.shutdown(cancel_futures=True)

    def _catch_up(self) -> None:
        with self._lock:
            self._catching_up = False
            routes = dict(self._routes)
        for (locale, task, alias), digest in routes.items():
            version = self._resolver.resolve(locale, task, alias=alias).version
            if version is not None and version.digest != digest:
                self._read([version])

    def _read(self, versions: Iterable[Version]) -> None:
        for version in versions:
            if version not in self._host:
                self._host.get(version)

    def _quietly(self, work: Callable[[], None]) -> None:
        try:
            work()
        except IsoglossError as error:
            _LOG.warning("an adapter could not be read ahead of traffic: %s", error)
