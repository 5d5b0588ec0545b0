"""Published adapters: where they are kept, and which of them answers for a locale."""

from __future__ import annotations

from .records import Alias, AliasChange, Resolution, StoredFile, Version
from .registry import Registry
from .resolution import LocaleMatch, LocaleResolver

__all__ = [
    "Alias",
    "AliasChange",
    "LocaleMatch",
    "LocaleResolver",
    "Registry",
    "Resolution",
    "StoredFile",
    "Version",
]
