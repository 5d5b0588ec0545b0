"""Published adapters: where they are kept, and which of them answers for a locale."""

from __future__ import annotations

from .changes import Watcher, WatchState
from .following import Follower
from .matching import LocaleMatcher, Match
from .policy import Blend, Policy
from .promotion import Intention, MoveOptions
from .records import (
    ANYTHING,
    Alias,
    AliasChange,
    Gate,
    LocaleAlias,
    Removal,
    Resolution,
    Signature,
    StoredFile,
    TrustedKey,
    Version,
)
from .registry import Registry
from .resolution import LocaleMatch, LocaleResolver

__all__ = [
    "ANYTHING",
    "Alias",
    "AliasChange",
    "Blend",
    "Follower",
    "Gate",
    "Intention",
    "LocaleAlias",
    "LocaleMatch",
    "LocaleMatcher",
    "LocaleResolver",
    "Match",
    "MoveOptions",
    "Policy",
    "Registry",
    "Removal",
    "Resolution",
    "Signature",
    "StoredFile",
    "TrustedKey",
    "Version",
    "WatchState",
    "Watcher",
]
