"""What the owners of a registry lay down: protected aliases, gates, and whose signatures count."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .gates import read_requirements
from .names import account, check_name
from .promotion import PRODUCTION
from .records import Gate, TrustedKey
from .signing import check_signed, key_id, read_public_key, sign
from .times import utc_now

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .catalog import Catalog
    from .records import Removal, Signature, Version

_PATTERN = re.compile(r"[a-z0-9*?][a-z0-9._*?-]{0,63}")


class Governance:
    """A registry's rules; every method raises RegistryError where the catalogue can't be used."""

    def __init__(self, catalog: Catalog, find: Callable[[str], Version]) -> None:
        self._catalog = catalog
        self._find = find

    def protect(self, alias: str) -> None:
        """Have an alias move, in every locale and task, only by force and for a reason.

        Raises:
            InputError: an alias that is no name.
        """
        check_name("alias", alias)
        self._catalog.rules.protect(alias, by=account())

    def unprotect(self, alias: str) -> None:
        """Have an alias move freely again; nothing where it does already.

        Raises:
            InputError: an alias that is no name.
        """
        check_name("alias", alias)
        self._catalog.rules.unprotect(alias)

    def protected(self) -> list[str]:
        """The aliases that are protected, sorted."""
        return self._catalog.rules.protected()

    def set_gate(
        self, pattern: str, require: str | Sequence[str], *, alias: str = PRODUCTION
    ) -> Gate:
        """Have an alias point only to versions that reach something.

        Args:
            pattern: the tasks that this is for: a name, or a pattern such as `intent*` or `*`. A
                gate of the same pattern and alias is replaced; of several that fit, all count.
            require: requirements such as `macro_f1>=0.9*current`; see `gates.py`.
            alias: the alias that is guarded.

        Raises:
            InputError: a pattern, an alias or a requirement that is none.
        """
        check_name("alias", alias)
        if not _PATTERN.fullmatch(pattern):
            raise InputError(
                f"{pattern!r} is no pattern of tasks; write a task's name, in which * stands for "
                "anything and ? for one character"
            )
        requirements = read_requirements(require)
        gate = Gate(
            pattern=pattern,
            alias=alias,
            requires=tuple(requirement.text for requirement in requirements),
            changed_at=utc_now(),
            changed_by=account(),
        )
        self._catalog.rules.set_gate(gate)
        return gate

    def remove_gate(self, pattern: str, *, alias: str = PRODUCTION) -> None:
        """Take a gate away.

        Raises:
            InputError: there is none.
        """
        self._catalog.rules.remove_gate(pattern, alias)

    def gates(self) -> list[Gate]:
        """All gates, by alias and pattern."""
        return self._catalog.rules.gates()

    def trust_key(self, public: str | Path, *, name: str) -> TrustedKey:
        """Have the signatures of a key count.

        Args:
            public: a public Ed25519 key in PEM.
            name: whose it is.

        Raises:
            SignatureError: no such key in this file, or one that was revoked.
            InputError: no name, or `cryptography` is missing.
        """
        name = " ".join(name.split())
        if not name or len(name) > 255:
            raise InputError("a key needs a name of at most 255 characters: say whose it is")
        raw = read_public_key(Path(public))
        key = TrustedKey(
            id=key_id(raw),
            public=raw.hex(),
            name=name,
            trusted_at=utc_now(),
            trusted_by=account(),
            revoked_at=None,
            revoked_by=None,
            reason=None,
        )
        self._catalog.rules.trust_key(key)
        return key

    def revoke_key(self, key: str, *, reason: str | None = None, force: bool = False) -> None:
        """Void all signatures of a key, for ever.

        Args:
            key: its id.
            reason: kept beside it.
            force: also where aliases then point to versions that no trusted key has signed; these
                no longer answer.

        Raises:
            InputError: this registry trusts no such key.
            VersionInUseError: versions in use would no longer answer.
        """
        self._catalog.rules.revoke_key(key, by=account(), reason=reason, force=force)

    def trusted_keys(self) -> list[TrustedKey]:
        """Trusted and revoked keys, oldest first."""
        return self._catalog.rules.trusted_keys()

    def require_signatures(self, required: bool = True) -> None:
        """Refuse to publish, promote and read what no trusted key has signed, or no longer.

        Raises:
            SignatureError: what an alias points to would be refused; nothing has changed.
        """
        self._catalog.rules.require_signatures(required, by=account())

    def requires_signatures(self) -> bool:
        """Whether unsigned versions are refused."""
        return self._catalog.rules.trust().required

    def sign(self, version: Version | str, key: str | Path) -> Signature:
        """Add a signature to a version that is published already.

        Args:
            version: the version, or its name.
            key: file of a private Ed25519 key in PEM.

        Raises:
            UnknownVersionError: no such version.
            SignatureError: no such key in this file.
        """
        found = self._find(version if isinstance(version, str) else version.digest)
        signature = sign(found.digest, Path(key))
        self._catalog.rules.add_signature(signature)
        return signature

    def signatures(self, version: Version) -> list[Signature]:
        """The signatures of a version, whether they count or not."""
        return self._catalog.rules.signatures(version.digest)

    def check_signatures(self, version: Version) -> None:
        """Check a version as if this registry required signatures.

        Raises:
            SignatureError: no key that this registry trusts has signed it.
        """
        trust = self._catalog.rules.trust()
        check_signed(version, replace(trust, required=True), self.signatures(version))

    def removals(self) -> list[Removal]:
        """The versions that were taken out, newest first."""
        return self._catalog.removals()
