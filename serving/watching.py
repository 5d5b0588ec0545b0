"""Hearing of a registry's changes on behalf of something that serves."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..registry import Registry
    from ..registry.changes import WatchState
    from ..registry.following import Follower

Owner = TypeVar("Owner")
_LOG = logging.getLogger(__name__)


def follow(registry: Registry, owner: Owner, on_change: Callable[[Owner], object]) -> Follower:
    """Answers for an owner; the watch ends with the owner, though nobody stopped it.

    When the registry goes away and comes back it is logged.

    Args:
        registry: what is followed.
        owner: for whom; the watch doesn't keep it alive.
        on_change: is called with the owner when a change has been taken up.

    Returns:
        A follower, not started yet.
    """
    alive = weakref.ref(owner)

    def tell(_: int) -> None:
        found = alive()
        if found is not None:
            on_change(found)

    follower = registry.follow(tell, _report)
    weakref.finalize(owner, follower.stop, wait=False)
    return follower


def _report(state: WatchState) -> None:
    if state.status == "away":
        _LOG.warning("the registry is away, and what is known goes on answering: %s", state.reason)
    else:
        _LOG.info("changes of the registry are heard of")
