"""The registry: publish adapters, find them by locale, move their aliases, read them back."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..core.errors import (
    InputError,
    RegistryError,
    RegistryNotFoundError,
    UnknownAliasError,
    UnknownVersionError,
)
from ..core.locale import parse_locale
from ..core.settings import Settings
from .blobs import BlobStore, make_folder
from .catalog import Catalog, utc_now
from .records import Resolution, StoredFile, Version, manifest_digest
from .resolution import LocaleResolver

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from ..adapters.files import CheckedFolder
    from .records import Alias, AliasChange

PRODUCTION = "production"
"""The alias that answers unless another is asked for."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION_NAME = re.compile(
    r"(?:(?P<task>[^/@]+)/(?P<locale>[^/@]+)@)?(?P<digest>[0-9a-fA-F]{6,64})"
)


class Registry:
    """A folder with a catalogue (`registry.db`) and the content of every version (`blobs/`).

    May be used by several threads, and the folder by several processes, at once. Every method
    that looks into it raises RegistryError where the catalogue can't be read or written.
    """

    def __init__(self, catalog: Catalog, blobs: BlobStore) -> None:
        self._catalog = catalog
        self._blobs = blobs

    @classmethod
    def open(cls, folder: str | Path | None = None, *, create: bool = True) -> Registry:
        """Open a registry, or make an empty one.

        Args:
            folder: where it is; None: the folder that ISOGLOSS_REGISTRY names, else `registry` in
                the user's data folder.
            create: make it where there is none.

        Raises:
            RegistryNotFoundError: there is none and `create` is False, the folder can't be used,
                or a newer release wrote it.
        """
        folder = (
            Settings.from_environment().registry if folder is None else Path(folder).expanduser()
        )
        database = folder / "registry.db"
        try:
            is_file, is_registry = folder.exists() and not folder.is_dir(), database.is_file()
        except OSError as error:  # a name that is too long, a folder that may not be entered
            raise RegistryNotFoundError(
                f"no registry at {folder}: {error.strerror}; give another folder"
            ) from None
        if is_file:
            raise RegistryNotFoundError(
                f"{folder} is a file, and a registry is a folder; give another path"
            )
        if not create and not is_registry:
            raise RegistryNotFoundError(
                f"no registry at {folder}; publish an adapter there first, or give another folder"
            )
        try:
            make_folder(folder)
        except OSError as error:
            raise RegistryNotFoundError(
                f"no registry can be made at {folder}: {error.strerror}; give another folder"
            ) from None
        return cls(Catalog(database), BlobStore(folder / "blobs"))

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
                f"the adapter can't be stored in {self._blobs.folder}: {error.strerror}; "
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
            published_by=_account(),
        )
        return self._catalog.publish(version, alias=alias)

    def resolve(self, locale: str, task: str, *, alias: str = PRODUCTION) -> Resolution:
        """Find the version that answers for a locale.

        Where nothing does, the resolution's version is None, and its stage is `base`.

        Args:
            locale: BCP 47 tag, in any case.
            task: the task's name.
            alias: only versions that have this alias answer.

        Raises:
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name.
        """
        check_name("task", task)
        check_name("alias", alias)
        digests = {
            found.locale: found.digest for found in self._catalog.aliases(task=task, alias=alias)
        }
        match = LocaleResolver(digests).resolve(locale)
        return Resolution(
            requested=match.requested,
            locale=match.locale,
            version=self._find(digests[match.locale]) if match.locale is not None else None,
            stage=match.stage,
            distance=match.distance,
            trace=match.trace,
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
        _check_names(task=task)
        return self._catalog.versions(locale=_canonical(locale), task=task)

    def aliases(
        self, *, locale: str | None = None, task: str | None = None, alias: str | None = None
    ) -> list[Alias]:
        """All aliases, or those of a locale, of a task, of a name; by task, locale and name.

        Raises:
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name.
        """
        _check_names(task=task, alias=alias)
        return self._catalog.aliases(locale=_canonical(locale), task=task, alias=alias)

    def history(self, locale: str, task: str, *, alias: str = PRODUCTION) -> list[AliasChange]:
        """Every move of an alias, newest first.

        Raises:
            UnknownAliasError: no such alias.
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name.
        """
        _check_names(task=task, alias=alias)
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
        self._catalog.promote(version.digest, alias=alias, by=_account(), reason=reason)

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
        _check_names(task=task, alias=alias)
        return self._catalog.rollback(
            str(parse_locale(locale)), task, alias=alias, by=_account(), reason=reason
        )

    def read(self, version: Version) -> dict[str, bytes]:
        """The files of a version, name → content; the hash of each is checked.

        Raises:
            DamagedBlobError: content is missing or doesn't match its digest.
        """
        return {file.path: self._blobs.get(file.sha256) for file in version.files}

    def _find(self, digest: str) -> Version:
        version = self._catalog.version(digest)
        if version is None:
            raise UnknownVersionError(f"version {digest} has just been removed; try again")
        return version


def check_name(what: str, name: str) -> None:
    """Check the name of a task or an alias.

    Raises:
        InputError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{what} {name!r} is no name; use up to 64 of a-z, 0-9, '.', '_' and '-', "
            "a letter or digit first"
        )


def _check_names(**names: str | None) -> None:
    for what, name in names.items():
        if name is not None:
            check_name(what, name)


def _canonical(locale: str | None) -> str | None:
    return None if locale is None else str(parse_locale(locale))


def _account() -> str:
    try:
        return getpass.getuser()
    # A container may run as a user that has no name.
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else "unknown"
