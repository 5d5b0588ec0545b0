"""The registry: publish adapters, find them by locale, move their aliases, read them back."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ..core.base import locate_base
from ..core.errors import InputError
from ..core.locale import check_registered, parse_locale
from .governance import Governance
from .maintenance import KEEP_DAYS, MaintainedRegistry, days_ago
from .names import account, check_name, check_names
from .promotion import PRODUCTION, Promoter, read_terms
from .publishing import describe_version, restore_files, store_files
from .records import ANYTHING, Version
from .signing import sign as sign_version
from .trials import Candidate, Trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..adapters.files import CheckedFolder
    from .blobs import BlobStore
    from .catalog import Catalog
    from .policy import Policy
    from .promotion import MoveOptions
    from .records import Expected, Removal


class Registry(MaintainedRegistry):
    """A catalogue, and a store with the content of every version.

    They are `registry.db` and `blobs/` in a folder, or a PostgreSQL database and an object store.
    May be used by several threads, and the places by several processes, at once. Every method
    that looks into it raises RegistryError where the catalogue can't be read or written, and its
    kind RegistryUnavailableError where it can't be reached now.
    """

    def __init__(self, catalog: Catalog, blobs: BlobStore, *, policy: Policy | None = None) -> None:
        super().__init__(catalog, blobs, policy=policy)
        self._trials = Trials()
        self._promoter = Promoter(catalog, self._trials, self.read, policy)
        self.rules = Governance(catalog, self.version)
        """Protected aliases, gates, and whose signatures count."""

    def close(self) -> None:
        """Close the connections to the catalogue, and let go of what versions were tried on."""
        self._trials.close()
        super().close()

    def publish(
        self,
        folder: str | Path,
        *,
        locale: str | None = None,
        task: str | None = None,
        alias: str | None = PRODUCTION,
        labels: Sequence[str] | None = None,
        base: str | Path | None = None,
        trust_base: bool = False,
        author: str | None = None,
        sign: str | Path | None = None,
        **options: Unpack[MoveOptions],
    ) -> Version:
        """Check an adapter folder, store it, and point an alias to it.

        Either all of this happens or nothing that anyone can see. The same content is one version,
        however often it is published; the alias then moves to it where it points elsewhere.

        Args:
            folder: an adapter folder, ours or one that PEFT wrote.
            locale: BCP 47 tag; needed for a plain PEFT folder, else as recorded.
            task: the task's name; likewise.
            alias: the alias to point to it; None: none.
            labels: labels in the order of the outputs, for a plain PEFT folder.
            base: name or folder of the base; else the one recorded.
            trust_base: accept an adapter whose base can't be found.
            author: who made it; None: the account that publishes it.
            sign: file of a private Ed25519 key (PEM) to sign the version with.
            **options: as `MoveOptions` describes.

        Raises:
            AdapterError: one of its kinds for each check that fails.
            BaseModelError: no such base, or another one than the adapter was trained on.
            InvalidLocaleError: a locale that is no BCP 47 tag.
            InputError: an alias or task that is no name, or no locale and task at all.
            RegistryError: as `promote`, or the content can't be stored.
        """
        # Reading isogloss.json needs pydantic, and looking at a registry shouldn't.
        from ..adapters.files import read_adapter_folder

        check_names(alias=alias, task=task)
        checked = read_adapter_folder(
            Path(folder), locale=locale, task=task, labels=labels, base=base, trust_base=trust_base
        )
        return self.publish_checked(checked, alias=alias, author=author, sign=sign, **options)

    def publish_checked(
        self,
        checked: CheckedFolder,
        *,
        alias: str | None = PRODUCTION,
        author: str | None = None,
        sign: str | Path | None = None,
        **options: Unpack[MoveOptions],
    ) -> Version:
        """Store a folder that has been read and checked already, and point an alias to it.

        Args:
            checked: what `read_adapter_folder` gave.
            alias: as in `publish`, and so are `author`, `sign` and the options.
            author: who made it.
            sign: file of a private key.
            **options: as `MoveOptions` describes.

        Raises:
            InputError: an alias or task that is no name.
            RegistryError: as `publish`.
        """
        check_names(alias=alias, task=checked.spec.task)
        version = describe_version(checked, author=author)
        signatures = () if sign is None else (sign_version(version.digest, Path(sign)),)
        terms = read_terms(alias or PRODUCTION, self._known(options))

        def commit(expected: str | Expected | None, reason: str | None) -> Version:
            # The content first: a version that can be seen can be read.
            store_files(self._blobs, checked.files)
            return self._catalog.publish(
                version,
                alias=alias,
                reason=reason,
                expected=expected,
                force=terms.force,
                signatures=signatures,
                settle=partial(restore_files, self._blobs, checked.files),
            )

        if alias is None:
            if terms.requirements or terms.data is not None or terms.expected is not ANYTHING:
                raise InputError(
                    "what is published without an alias is compared with nothing; leave expected, "
                    "require and data out, or give them to promote"
                )
            self._catalog.check_move(version, alias=None, signatures=signatures)
            return commit(ANYTHING, None)
        candidate = Candidate(
            version=version,
            read=lambda: checked.files,
            base=None if checked.base is None else checked.base.folder,
            signatures=signatures,
        )
        return self._promoter.move(candidate, terms, commit)

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

    def promote(
        self,
        version: Version | str,
        *,
        alias: str = PRODUCTION,
        base: str | Path | None = None,
        **options: Unpack[MoveOptions],
    ) -> None:
        """Point an alias of the version's locale and task to it; nothing where it does already.

        Args:
            version: the version, or its name as `version` takes it.
            alias: the alias to move.
            base: name or folder of its base, to try it out on; None: look on this machine.
            **options: as `MoveOptions` describes.

        Raises:
            UnknownVersionError: no such version in this registry.
            InputError: an alias that is no name, or a requirement that is none.
            ConflictError: the alias doesn't point to what was expected.
            ProtectedAliasError: it is protected, and force or the reason is missing.
            GateError: a requirement of the call, or of a gate, doesn't hold.
            SmokeTestError: the version can't answer.
            SignatureError: signatures are required, and the version has none that counts.
        """
        check_name("alias", alias)
        found = self.version(version if isinstance(version, str) else version.digest)
        terms = read_terms(alias, self._known(options))

        def commit(expected: str | Expected | None, reason: str | None) -> None:
            self._catalog.promote(
                found.digest,
                alias=alias,
                by=account(),
                reason=reason,
                expected=expected,
                force=terms.force,
            )

        self._promoter.move(
            Candidate(
                version=found,
                read=partial(self.read, found),
                base=None if base is None else locate_base(base).folder,
            ),
            terms,
            commit,
        )

    def rollback(
        self,
        locale: str,
        task: str,
        *,
        alias: str = PRODUCTION,
        reason: str | None = None,
        expected: Version | str | Expected | None = ANYTHING,
        force: bool = False,
    ) -> Version:
        """Point an alias to the version before; a second time, to the one before that.

        Gates and the smoke forward don't count here: that version has answered before.

        Args:
            locale: BCP 47 tag; of this very locale, not of one that it would resolve to.
            task: the task's name.
            alias: the alias to move.
            reason: kept in the history.
            expected: as in `MoveOptions`.
            force: likewise.

        Returns:
            The version that it points to now.

        Raises:
            UnknownAliasError: no such alias, or no version before.
            InvalidLocaleError: not a BCP 47 tag.
            InputError: a task or alias that is no name.
            RegistryError: as `promote`.
        """
        check_names(task=task, alias=alias)
        return self._catalog.rollback(
            str(parse_locale(locale)),
            task,
            alias=alias,
            by=account(),
            reason=reason,
            expected=self._digest(expected),
            force=force,
        )

    def remove_version(
        self, version: Version | str, *, reason: str | None = None, keep_days: float = KEEP_DAYS
    ) -> Removal:
        """Take out a version that nothing needs; the history of aliases stays.

        Its content stays in the store until garbage is collected.

        Args:
            version: the version, or its name.
            reason: kept in the list of removals.
            keep_days: versions that an alias came to, or left, in so many days stay.

        Raises:
            UnknownVersionError: no such version.
            VersionInUseError: an alias, a mixture or the recent history needs it.
            InputError: a negative number of days.
        """
        found = self.version(version if isinstance(version, str) else version.digest)
        return self._catalog.remove(
            found.digest, by=account(), since=days_ago(keep_days), reason=reason
        )

    def protect(self, alias: str) -> None:
        """As `rules.protect`: have an alias move only by force and for a reason."""
        self.rules.protect(alias)

    def require_signatures(self, required: bool = True) -> None:
        """As `rules.require_signatures`: refuse what no trusted key has signed."""
        self.rules.require_signatures(required)

    def needed(self, *, keep_days: float = KEEP_DAYS) -> dict[str, str]:
        """The versions that `remove_version` refuses to remove: digest → why."""
        return self._catalog.needs(since=days_ago(keep_days))

    def _known(self, options: MoveOptions) -> MoveOptions:
        """The same options, with the digest of the version that is expected."""
        expected = self._digest(options.get("expected", ANYTHING))
        return {**options, "expected": expected}

    def _digest(self, expected: Version | str | Expected | None) -> str | Expected | None:
        if isinstance(expected, str):
            return self.version(expected).digest
        return expected.digest if isinstance(expected, Version) else expected
