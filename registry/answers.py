"""Which version answers for a locale; resolvers are kept while the catalogue stays the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.errors import RegistryUnavailableError, SignatureError, UnknownVersionError
from .records import Resolution
from .resolution import LocaleResolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .catalog import Catalog
    from .policy import Policy
    from .records import Published, Version
    from .resolution import LocaleMatch

# Anyone can ask for tasks that there are none of.
_MOST_KEPT = 256


class Answers:
    """Answers for locales; may be used by several threads.

    Every call looks at the catalogue's generation first, so that a version promoted by another
    process answers the next request.
    """

    def __init__(
        self,
        catalog: Catalog,
        policy: Policy | None = None,
        *,
        admit: Callable[[Version], object] | None = None,
        generation: Callable[[], int | None] | None = None,
    ) -> None:
        """Keep nothing yet.

        Args:
            catalog: where to look.
            policy: how far an answer may be.
            admit: raises where a version may not answer.
            generation: gives the generation that answers must be of, or None where the catalogue
                is away: what is kept answers then. None: read it, and fail where it is away.
        """
        self._catalog = catalog
        self._admit = admit
        self._policy = policy
        self._generation = catalog.generation if generation is None else generation
        self._may_be_away = generation is not None
        # By task and alias. Threads that find the same thing missing make it twice, to no harm.
        self._kept: dict[tuple[str, str], _Kept] = {}

    def resolve(self, request: str | Sequence[str], task: str, alias: str) -> Resolution:
        """Find the version that answers.

        Raises:
            InvalidLocaleError: an ill-formed request.
            UnknownVersionError: the version was removed after it had been found.
            SignatureError: signatures are required, and the version has none that counts.
        """
        return self._current(task, alias, self._generation()).resolve(request)

    def resolve_all(
        self, requests: Iterable[str | Sequence[str]], task: str, alias: str
    ) -> list[Resolution]:
        """Find the versions that answer, all of them at one time.

        Raises:
            RegistryError, InvalidLocaleError: as `resolve`.
        """
        kept = self._current(task, alias, self._generation())
        return [kept.resolve(request) for request in requests]

    def refresh(self, generation: int) -> None:
        """Bring what has answered before up to a generation, so that no request waits for it.

        Raises:
            RegistryUnavailableError: the catalogue is away.
        """
        for (task, alias), kept in list(self._kept.items()):
            self._current(task, alias, generation).prepare(kept.answered())

    def _current(self, task: str, alias: str, generation: int | None) -> _Kept:
        kept = self._kept.get((task, alias))
        if kept is not None and generation in {None, kept.generation}:
            return kept
        try:
            published = self._catalog.published(task=task, alias=alias)
        except RegistryUnavailableError:
            if kept is None or not self._may_be_away:
                raise
            return kept
        known = {} if kept is None else dict(kept.versions)
        kept = _Kept(self._catalog, published, self._policy, self._admit, known)
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[task, alias] = kept
        return kept


class _Kept:
    """A resolver, and the versions that have answered, as of one generation."""

    def __init__(
        self,
        catalog: Catalog,
        published: Published,
        policy: Policy | None,
        admit: Callable[[Version], object] | None,
        known: Mapping[str, Version],
    ) -> None:
        self._admit = admit
        self.generation = published.generation
        self._catalog = catalog
        self._digests = published.digests
        self._resolver = LocaleResolver(published.digests, published.locale_aliases, policy)
        # By digest. Versions never change, so those of the generation before still hold; whether
        # they may answer is asked again.
        digests = set(published.digests.values())
        self.versions = {digest: known[digest] for digest in known if digest in digests}
        self._admitted: dict[str, Version] = {}

    def answered(self) -> list[str]:
        """The locales whose versions have answered."""
        return list(self._admitted)

    def prepare(self, tags: Iterable[str]) -> None:
        """Look up the versions of some locales ahead of requests."""
        for tag in tags:
            if tag not in self._digests:
                continue
            try:
                self._version(tag)
            # Whoever asks for this one gets the error.
            except (UnknownVersionError, SignatureError):
                continue

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
        admitted = self._admitted.get(tag)
        if admitted is not None:
            return admitted
        digest = self._digests[tag]
        found = self.versions.get(digest) or self._catalog.version(digest)
        if found is None:
            raise UnknownVersionError(f"version {digest} has just been removed; try again")
        self.versions[digest] = found
        if self._admit is not None:
            self._admit(found)
        self._admitted[tag] = found
        return found
