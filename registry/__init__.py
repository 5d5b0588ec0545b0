"""Published adapters: where they are kept, and which of them answers for a locale."""

from __future__ import annotations

from .matching import LocaleMatcher, Match
from .policy import Blend, Policy
from .records import Alias, AliasChange, LocaleAlias, Resolution, StoredFile, Version
from .registry import Registry
from .resolution import LocaleMatch, LocaleResolver

__all__ = [
    "Alias",
    "AliasChange",
    "Blend",
    "LocaleAlias",
    "LocaleMatch",
    "LocaleMatcher",
    "LocaleResolver",
    "Match",
    "Policy",
    "Registry",
    "Resolution",
    "StoredFile",
    "Version",
]
