"""The registry: publish adapters, find them by locale, move their aliases, read them back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..core.errors import (
    InputError,
    RegistryError,
    UnknownAliasError,
    UnknownVersionError,
)
from ..core.locale import check_registered, parse_locale
from .answers import Answers
from .catalog import Catalog, utc_now
from .changes import Watcher
from .location import locate
from .names import account, canonical, check_name, check_names
from .records import StoredFile, Version, manifest_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from ..adapters.files import CheckedFolder
    from .blobs import BlobStore
    from .changes import WatchState
    from .policy import Policy
    from .records import Alias, AliasChange, LocaleAlias, Resolution

PRODUCTION = "production"
"""The alias that answers unless another is asked for."""

_VERSION_NAME = re.compile(
    r"(?:(?P<task>[^/@]+)/(?P<locale>[^/@]+)@)?(?P<digest>[0-9a-fA-F]{6,64})"
)


class Registry:
    """A catalogue, and a store with the content of every version.

    They are `registry.db` and `blobs/` in a folder, or a PostgreSQL database and an object store.
    May be used by several threads, and the places by several processes, at once. Every method
    that looks into it raises RegistryError where the catalogue can't be read or written, and its
    kind RegistryUnavailableError where it can't be reached now.
    """

    def __init__(self, catalog: Catalog, blobs: BlobStore, *, policy: Policy | None = None) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._answers = Answers(catalog, policy)

    @classmethod
    def open(
        cls,
        folder: str | Path | None = None,
        *,
        database: str | Path | None = None,
        blobs: str | Path | None = None,
        create: bool = True,
        policy: Policy | None = None,
    ) -> Registry:
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

    def publish(
        self,
        folder: str | Path,
        *,
        locale: str | None = None,
        task: str | None = None,
        alias: str = PRODUCTION,
        labels: Sequence[str] | None = None,
        base: str | Path | None = None,
        trust_base: bool = False,
    ) -> Version:
        """Check an adapter folder, store it, and point an alias to it.

        Either all of this happens or nothing that anyone can see. The same content is one version,
        however often it is published; the alias then moves to it where it points elsewhere.

        Args:
            folder: an adapter folder, ours or one that PEFT wrote.
            locale: BCP 47 tag; needed for a plain PEFT folder, else as recorded.
            task: the task's name; likewise.
            alias: the alias to point to it.
            labels: labels in the order of the outputs, for a plain PEFT folder.
            base: name or folder of the base; else the one recorded.
            trust_base: accept an adapter whose base can't be found.

        Raises:
            AdapterError: one of its kinds for each check that fails.
            BaseModelError: no such base, or another one than the adapter was trained on.
            InvalidLocaleError: a locale that is no BCP 47 tag.
            InputError: an alias or task that is no name, or no locale and task at all.
            RegistryError: the content can't be stored.
        """
        # Reading isogloss.json needs pydantic, and looking at a registry shouldn't.
        from ..adapters.files import read_adapter_folder

        check_name("alias", alias)
        if task is not None:
            check_name("task", task)
        checked = read_adapter_folder(
            Path(folder), locale=locale, task=task, labels=labels, base=base, trust_base=trust_base
        )
        return self.publish_checked(checked, alias=alias)

    def publish_checked(self, checked: CheckedFolder, *, alias: str = PRODUCTION) -> Version:
        """Store a folder that has been read and checked already, and point an alias to it.

        Args:
            checked: what `read_adapter_folder` gave.
            alias: the alias to point to it.

        Raises:
            InputError: an alias or task that is no name.
            RegistryError: the content can't be stored.
        """
        spec = checked.spec
        check_name("alias", alias)
        check_name("task", spec.task)
        # The content first: a version that can be seen can be read.
        try:
            files = tuple(
                StoredFile(path=path, size=len(content), sha256=self._blobs.put(content))
                for path, content in sorted(checked.files.items())
            )
        except OSError as error:
            raise RegistryError(
                f"the adapter can't be stored in {self._blobs.place}: {error.strerror}; "
                "check the disk and the permissions"
            ) from error
        version = Version(
            digest=manifest_digest(files),
            locale=str(parse_locale(spec.locale)),
            task=spec.task,
            task_type=spec.task_type,
            kind=spec.kind,
            rank=spec.rank,
            labels=spec.labels,
            base=spec.base,
            base_fingerprint=spec.base_fingerprint,
            metrics=spec.metrics,
            data_digest=spec.data_digest,
            parent=spec.parent,
            files=files,
            bytes=sum(file.size for file in files),
            created_at=spec.created_at,
            published_at=utc_now(),
            published_by=account(),
        )
        return self._catalog.publish(version, alias=alias)

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

    def locale_alias(self, locale: str, instead: str) -> None:
        """Have a locale answered as another, in every task: `("bar", "de")`, `("ar-EG", "arz")`.

        Adapters that are published under the locale itself go first. Longer requests follow:
        bar-AT is answered as de-AT.

        Raises:
            InvalidLocaleError: not a BCP 47 tag, or a subtag that is not registered.
            InputError: both are the same locale.
        """
        tags = [parse_locale(tag) for tag in (locale, instead)]
        for tag in tags:
            check_registered(tag)
        if tags[0] == tags[1]:
            raise InputError(f"{locale!r} and {instead!r} are one locale; give two")
        self._catalog.set_locale_alias(str(tags[0]), str(tags[1]), by=account())

    def remove_locale_alias(self, locale: str) -> None:
        """Have a locale answered as itself again.

        Raises:
            UnknownAliasError: it is no alias.
            InvalidLocaleError: not a BCP 47 tag.
        """
        self._catalog.remove_locale_alias(str(parse_locale(locale)))

    def locale_aliases(self) -> list[LocaleAlias]:
        """The locales that are answered as others, sorted."""
        return self._catalog.locale_aliases()

    def version(self, name: str) -> Version:
        """Look up a version by name.

        Args:
            name: `intent/gsw-CH@3f2c9a`, or the digest alone; of the digest 6 or more of the
                first digits, as many as it takes to tell it from others.

        Raises:
            UnknownVersionError: no such version, several of them, or not a version's name.
            InvalidLocaleError: the name's locale is not a BCP 47 tag.
        """
        parts = _VERSION_NAME.fullmatch(name)
        if parts is None:
            raise UnknownVersionError(
                f"{name!r} is no version's name; write task/locale@digest, or the digest alone, "
                "with at least 6 of its digits"
            )
        locale = str(parse_locale(parts["locale"])) if parts["locale"] else None
        prefix = parts["digest"].lower()
        found = self._catalog.versions(locale=locale, task=parts["task"], prefix=prefix, limit=3)
        if not found:
            raise UnknownVersionError(
                f"no version {name!r} in this registry; `isogloss ls` shows those there are"
            )
        if len(found) > 1:
            names = ", ".join(
                f"{version.task}/{version.locale}@{version.digest}" for version in found
            )
            raise UnknownVersionError(
                f"{name!r} is ambiguous, it stands for {names}; write more digits of the digest"
            )
        return found[0]

    def versions(self, *, locale: str | None = None, task: str | None = None) -> list[Version]:
        """All versions, or those of a locale, of a task, or of both; newest first.

        Raises:
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task that is no name.
        """
        check_names(task=task)
        return self._catalog.versions(locale=canonical(locale), task=task)

    def aliases(
        self, *, locale: str | None = None, task: str | None = None, alias: str | None = None
    ) -> list[Alias]:
        """All aliases, or those of a locale, of a task, of a name; by task, locale and name.

        Raises:
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name.
        """
        check_names(task=task, alias=alias)
        return self._catalog.aliases(locale=canonical(locale), task=task, alias=alias)

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

    def promote(
        self, version: Version | str, *, alias: str = PRODUCTION, reason: str | None = None
    ) -> None:
        """Point an alias of the version's locale and task to it; nothing where it does already.

        Args:
            version: the version, or its name as `version` takes it.
            alias: the alias to move.
            reason: kept in the history.

        Raises:
            UnknownVersionError: no such version in this registry.
            InputError: an alias that is no name.
        """
        check_name("alias", alias)
        if isinstance(version, str):
            version = self.version(version)
        self._catalog.promote(version.digest, alias=alias, by=account(), reason=reason)

    def rollback(
        self, locale: str, task: str, *, alias: str = PRODUCTION, reason: str | None = None
    ) -> Version:
        """Point an alias to the version before; a second time, to the one before that.

        Args:
            locale: BCP 47 tag; of this very locale, not of one that it would resolve to.
            task: the task's name.
            alias: the alias to move.
            reason: kept in the history.

        Returns:
            The version that it points to now.

        Raises:
            UnknownAliasError: no such alias, or no version before.
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name.
        """
        check_names(task=task, alias=alias)
        return self._catalog.rollback(
            str(parse_locale(locale)), task, alias=alias, by=account(), reason=reason
        )

    def read(self, version: Version) -> dict[str, bytes]:
        """The files of a version, name → content; the hash of each is checked.

        Raises:
            DamagedBlobError: content is missing or doesn't match its digest.
        """
        return {file.path: self._blobs.get(file.sha256) for file in version.files}
