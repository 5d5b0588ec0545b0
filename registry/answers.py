"""Which version answers for a locale; resolvers are kept while the catalogue stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import UnknownVersionError
from .records import Resolution
from .resolution import LocaleResolver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .catalog import Catalog
    from .policy import Policy
    from .records import Published, Version
    from .resolution import LocaleMatch

# Anyone can ask for tasks that there are none of.
_MOST_KEPT = 256


class Answers:
    """Answers for locales; may be used by several threads.

    Every answer looks at the catalogue's generation first, so that a version promoted by another
    process answers the next request.
    """

    def __init__(self, catalog: Catalog, policy: Policy | None = None) -> None:
        """Keep nothing yet."""
        self._catalog = catalog
        self._policy = policy
        # By task and alias. Threads that find the same thing missing make it twice, to no harm.
        self._kept: dict[tuple[str, str], _Kept] = {}

    def resolve(self, request: str | Sequence[str], task: str, alias: str) -> Resolution:
        """Find the version that answers.

        Raises:
            InvalidLocaleError: an ill-formed request.
            UnknownVersionError: the version was removed after it had been found.
        """
        kept = self._kept.get((task, alias))
        if kept is None or kept.generation != self._catalog.generation():
            published = self._catalog.published(task=task, alias=alias)
            kept = _Kept(self._catalog, published, self._policy)
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[task, alias] = kept
        return kept.resolve(request)


class _Kept:
    """A resolver, and the versions that have answered, as of one generation."""

    def __init__(self, catalog: Catalog, published: Published, policy: Policy | None) -> None:
        self.generation = published.generation
        self._catalog = catalog
        self._digests = published.digests
        self._resolver = LocaleResolver(published.digests, published.locale_aliases, policy)
        self._versions: dict[str, Version] = {}

    def resolve(self, request: str | Sequence[str]) -> Resolution:
        match: LocaleMatch = self._resolver.resolve(request)
        return Resolution(
            requested=match.requested,
            locale=match.locale,
            version=None if match.locale is None else self._version(match.locale),
            stage=match.stage,
            distance=match.distance,
            trace=match.trace,
            script_changed=match.script_changed,
            blend=tuple((self._version(tag).name, weight) for tag, weight in match.blend),
        )

    def _version(self, tag: str) -> Version:
        found = self._versions.get(tag)
        if found is None:
            digest = self._digests[tag]
            found = self._catalog.version(digest)
            if found is None:
                raise UnknownVersionError(f"version {digest} has just been removed; try again")
            self._versions[tag] = found
        return found
