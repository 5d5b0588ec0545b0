"""Whether a version's content may be used here: signatures, checked on reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import RegistryUnavailableError
from .signing import check_signed

if TYPE_CHECKING:
    from .catalog import Catalog
    from .records import Version
    from .signing import Trust


class Admission:
    """Checks versions before they are read; may be used by several threads.

    It looks at the catalogue's generation each time, as a key may have been revoked. While the
    catalogue is away, what was found out last holds.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._kept: _Kept | None = None

    def check(self, version: Version) -> None:
        """Check that a version is signed, where the registry requires it.

        Raises:
            SignatureError: it isn't, or not by a key that counts.
            RegistryUnavailableError: the catalogue is away, and this version was not seen before.
        """
        kept = self._now()
        if not kept.trust.required or version.digest in kept.admitted:
            return
        check_signed(version, kept.trust, self._catalog.rules.signatures(version.digest))
        kept.admitted.add(version.digest)

    def _now(self) -> _Kept:
        kept = self._kept
        try:
            generation = self._catalog.generation()
            if kept is None or kept.generation != generation:
                kept = self._kept = _Kept(generation, self._catalog.rules.trust())
        except RegistryUnavailableError:
            if kept is None:
                raise
        return kept


class _Kept:
    """What is known of one generation."""

    def __init__(self, generation: int, trust: Trust) -> None:
        self.generation = generation
        self.trust = trust
        self.admitted: set[str] = set()
