"""What can be looked up in a registry: versions, aliases, their history, and what answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from ..core.errors import InputError, UnknownAliasError
from ..core.locale import parse_locale
from .admission import Admission
from .answers import Answers
from .catalog import Catalog
from .changes import Watcher
from .following import Follower
from .location import locate
from .names import canonical, check_names, find_version
from .promotion import PRODUCTION
from .times import read_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from .blobs import BlobStore
    from .changes import WatchState
    from .policy import Policy
    from .records import Alias, AliasChange, LocaleAlias, Resolution, Version


class RegistryView:
    """The part of a registry that changes nothing; `Registry` has the rest."""

    def __init__(self, catalog: Catalog, blobs: BlobStore, *, policy: Policy | None = None) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._policy = policy
        self._admission = Admission(catalog)
        self._answers = Answers(catalog, policy, admit=self._admission.check)

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        database: str | Path | None = None,
        blobs: str | Path | None = None,
        create: bool = True,
        policy: Policy | None = None,
    ) -> Self:
        """Open a registry, or make an empty one.

        Args:
            folder: where it is, or a TOML file with `database` and `blobs`; None: what
                ISOGLOSS_REGISTRY names, else `registry` in the user's data folder.
            database: instead of a folder: an SQLite file or URL, or `postgresql://…`.
            blobs: together with it: a folder, or a URL that fsspec knows, such as `s3://…`.
            create: make it where there is none.
            policy: how far an adapter may be from the locale of a request; None: the default one.

        Raises:
            RegistryNotFoundError: there is none and `create` is False, the folder can't be used,
                or a newer release wrote it.
            RegistryUnavailableError: the database can't be reached.
            InputError: arguments or settings that make no sense, or a package that is missing.
        """
        location = locate(folder, database=database, blobs=blobs)
        location.prepare(create=create)
        store = location.open_blobs()
        return cls(Catalog(location.database, create=create), store, policy=policy)

    def close(self) -> None:
        """Close the connections to the catalogue."""
        self._catalog.close()

    def __enter__(self) -> Self:
        """Give the registry itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections to the catalogue."""
        self.close()

    def watch(
        self,
        on_change: Callable[[int], object],
        on_state: Callable[[WatchState], object] | None = None,
    ) -> Watcher:
        """Have functions called when something changed that may answer, or the catalogue is away.

        Args:
            on_change: gets the catalogue's generation, as `Watcher` describes.
            on_state: gets the state of the watch.

        Returns:
            A watcher, not started yet; `with` it, or its `start` and `stop`.
        """
        return Watcher(self._catalog, on_change=on_change, on_state=on_state)

    def resolve(
        self, locale: str | Sequence[str], task: str, *, alias: str = PRODUCTION
    ) -> Resolution:
        """Find the version that answers for a locale, as `LocaleResolver` does.

        Where nothing does, the resolution's version is None, and its stage is `base`.

        Args:
            locale: BCP 47 tag in any case, a list of them, or an Accept-Language header.
            task: the task's name; other tasks' adapters have no part in it.
            alias: only versions that have this alias answer.

        Raises:
            InvalidLocaleError: an ill-formed tag or header, or an empty list.
            InputError: a task or alias that is no name.
        """
        check_names(task=task, alias=alias)
        return self._answers.resolve(locale, task, alias)

    def resolve_all(
        self, locales: Iterable[str | Sequence[str]], task: str, *, alias: str = PRODUCTION
    ) -> list[Resolution]:
        """As `resolve`, for several requests at one time: nothing changes between two of them.

        Raises:
            InvalidLocaleError, InputError: as `resolve`.
        """
        check_names(task=task, alias=alias)
        return self._answers.resolve_all(locales, task, alias)

    def follow(
        self,
        on_change: Callable[[int], object] | None = None,
        on_state: Callable[[WatchState], object] | None = None,
    ) -> Follower:
        """Have answers that go on while the catalogue is away; see `Follower`.

        Args:
            on_change: is called when these answers have taken up a change.
            on_state: gets the state of the watch.

        Returns:
            A follower, not started yet; `with` it, or its `start` and `stop`.
        """
        return Follower(
            self._catalog, self._policy, self._admission, on_change=on_change, on_state=on_state
        )

    def version(self, name: str) -> Version:
        """Look up a version by name.

        Args:
            name: `intent/gsw-CH@3f2c9a`, or the digest alone; of the digest 6 or more of the
                first digits, as many as it takes to tell it from others.

        Raises:
            UnknownVersionError: no such version, several of them, or not a version's name.
            InvalidLocaleError: the name's locale is not a BCP 47 tag.
        """
        return find_version(self._catalog, name)

    def versions(
        self,
        *,
        locale: str | None = None,
        task: str | None = None,
        limit: int | None = None,
        after: Version | str | None = None,
    ) -> list[Version]:
        """All versions, or those of a locale, of a task, or of both; newest first.

        Args:
            locale: BCP 47 tag.
            task: the task's name.
            limit: no more than so many: a page.
            after: only those that come after this version, or the one of this name.

        Raises:
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task that is no name, or a limit below 1.
            UnknownVersionError: `after` is the name of none.
        """
        check_names(task=task)
        if limit is not None and limit < 1:
            raise InputError(f"limit is {limit}; give at least 1")
        if isinstance(after, str):
            after = self.version(after)
        return self._catalog.versions(locale=canonical(locale), task=task, limit=limit, after=after)

    def aliases(
        self,
        *,
        locale: str | None = None,
        task: str | None = None,
        alias: str | None = None,
        versions: Sequence[Version] | None = None,
    ) -> list[Alias]:
        """All aliases, or those of a locale, of a task, of a name; by task, locale and name.

        Args:
            locale: BCP 47 tag.
            task: the task's name.
            alias: the alias's name.
            versions: only those that point to one of these, a few hundred at most.

        Raises:
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name.
        """
        check_names(task=task, alias=alias)
        digests = None if versions is None else [version.digest for version in versions]
        return self._catalog.aliases(
            locale=canonical(locale), task=task, alias=alias, digests=digests
        )

    def history(self, locale: str, task: str, *, alias: str = PRODUCTION) -> list[AliasChange]:
        """Every move of an alias, newest first.

        Raises:
            UnknownAliasError: no such alias.
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name.
        """
        check_names(task=task, alias=alias)
        tag = str(parse_locale(locale))
        changes = self._catalog.history(tag, task, alias=alias)
        if not changes:
            raise UnknownAliasError(
                f"no alias {alias!r} of {task}/{tag} in this registry; `isogloss ls` shows those "
                "there are"
            )
        return changes

    def live_at(
        self, locale: str, task: str, at: datetime | str, *, alias: str = PRODUCTION
    ) -> AliasChange | None:
        """Where an alias pointed at a time: the move that had brought it there.

        Its `digest` is the version's, which may have been removed since. None: the alias didn't
        exist yet.

        Args:
            locale: BCP 47 tag; of this very locale.
            task: the task's name.
            at: the time, or ISO 8601 such as `2026-11-20T12:00Z`; UTC where it names no zone.
            alias: the alias.

        Raises:
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name, or no time.
        """
        check_names(task=task, alias=alias)
        tag = str(parse_locale(locale))
        return self._catalog.live_at(tag, task, alias=alias, at=read_time(at))

    def locale_aliases(self) -> list[LocaleAlias]:
        """The locales that are answered as others, sorted."""
        return self._catalog.locale_aliases()

    def read(self, version: Version, *, recheck: bool = True) -> dict[str, bytes]:
        """The files of a version, name → content; the hash of each is checked.

        Args:
            version: which.
            recheck: also files that this process has checked before and that haven't changed.

        Raises:
            DamagedBlobError: content is missing or doesn't match its digest.
            SignatureError: signatures are required, and the version has none that counts.
        """
        self._admission.check(version)
        return {file.path: self._blobs.get(file.sha256, recheck=recheck) for file in version.files}
