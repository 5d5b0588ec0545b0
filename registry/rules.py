"""What the registry's owners have laid down: protected aliases, gates, keys, signatures.

The functions work within a transaction of the catalogue's; `Rules` has one for each method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from ..core.errors import InputError, ProtectedAliasError, SignatureError, VersionInUseError
from .records import Gate, Signature, TrustedKey
from .rows import next_generation, to_version
from .signing import Trust, check_signed
from .tables import ALIASES, DEMANDS, GATES, KEYS, PROTECTIONS, SIGNATURES, VERSIONS
from .times import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .database import Database
    from .records import Version

_SIGNATURES = "signatures"


class Rules:
    """Queries and changes; each method is one transaction, and raises RegistryError as it fails."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def protect(self, alias: str, *, by: str) -> None:
        """Have an alias move only by force and for a reason."""
        with self._database.writing() as connection:
            if not is_protected(connection, alias):
                values = {"alias": alias, "changed_at": utc_now(), "changed_by": by}
                connection.execute(sa.insert(PROTECTIONS).values(values))

    def unprotect(self, alias: str) -> None:
        """Have an alias move freely again; nothing where it does already."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(PROTECTIONS).where(PROTECTIONS.c.alias == alias))

    def protected(self) -> list[str]:
        """The aliases that are protected, sorted."""
        with self._database.reading() as connection:
            return sorted(connection.scalars(sa.select(PROTECTIONS.c.alias)))

    def set_gate(self, gate: Gate) -> None:
        """Set a gate, in place of that of the same pattern and alias."""
        with self._database.writing() as connection:
            _delete_gate(connection, gate.pattern, gate.alias)
            connection.execute(
                sa.insert(GATES).values(
                    pattern=gate.pattern,
                    alias=gate.alias,
                    requires=list(gate.requires),
                    changed_at=gate.changed_at,
                    changed_by=gate.changed_by,
                )
            )

    def remove_gate(self, pattern: str, alias: str) -> None:
        """Take a gate away.

        Raises:
            InputError: there is none.
        """
        with self._database.writing() as connection:
            if _delete_gate(connection, pattern, alias) == 0:
                raise InputError(
                    f"no gate for {alias!r} of tasks {pattern!r}; `isogloss gate list` shows those "
                    "there are"
                )

    def gates(self) -> list[Gate]:
        """All gates, by alias and pattern."""
        with self._database.reading() as connection:
            found = [
                Gate(**{**row._mapping, "requires": tuple(row.requires)})
                for row in connection.execute(sa.select(GATES))
            ]
        return sorted(found, key=lambda gate: (gate.alias, gate.pattern))

    def require_signatures(self, required: bool, *, by: str) -> None:
        """Refuse versions without a valid signature, or no longer.

        Raises:
            SignatureError: what an alias points to would be refused; nothing has changed.
        """
        with self._database.writing() as connection:
            connection.execute(sa.delete(DEMANDS).where(DEMANDS.c.name == _SIGNATURES))
            if required:
                values = {"name": _SIGNATURES, "changed_at": utc_now(), "changed_by": by}
                connection.execute(sa.insert(DEMANDS).values(values))
                unsigned = _live_without_signature(connection)
                if unsigned:
                    raise SignatureError(
                        f"signatures can't be required yet: {_some(unsigned)} would no longer "
                        "answer; sign them first (`isogloss keys sign`)"
                    )
            next_generation(connection)

    def trust_key(self, key: TrustedKey) -> None:
        """Have a key's signatures count.

        Raises:
            SignatureError: it was revoked.
        """
        with self._database.writing() as connection:
            row = connection.execute(sa.select(KEYS).where(KEYS.c.id == key.id)).one_or_none()
            if row is not None:
                if row.revoked_at is not None:
                    raise SignatureError(
                        f"key {key.id} of {row.name} was revoked at {row.revoked_at}; "
                        "make a new one (`isogloss keys generate`)"
                    )
                return
            columns = {column.name: getattr(key, column.name) for column in KEYS.c}
            connection.execute(sa.insert(KEYS).values(columns))
            next_generation(connection)

    def revoke_key(self, key_id: str, *, by: str, reason: str | None, force: bool) -> None:
        """Have a key's signatures count no longer.

        Raises:
            InputError: no such key.
            VersionInUseError: it alone vouches for what an alias points to, where signatures are
                required and `force` isn't given.
        """
        with self._database.writing() as connection:
            done = connection.execute(
                sa.update(KEYS)
                .where(KEYS.c.id == key_id, KEYS.c.revoked_at.is_(None))
                .values(revoked_at=utc_now(), revoked_by=by, reason=reason)
            )
            if done.rowcount == 0:
                raise InputError(
                    f"this registry trusts no key {key_id!r}; `isogloss keys list` shows those "
                    "that it does"
                )
            unsigned = [] if force else _live_without_signature(connection)
            if unsigned:
                raise VersionInUseError(
                    f"key {key_id} alone vouches for {_some(unsigned)}; sign them with another "
                    "trusted key first, or revoke by force: they then no longer answer"
                )
            next_generation(connection)

    def trusted_keys(self) -> list[TrustedKey]:
        """Trusted and revoked keys, oldest first."""
        query = sa.select(KEYS).order_by(KEYS.c.trusted_at, KEYS.c.id)
        with self._database.reading() as connection:
            return [TrustedKey(**row._mapping) for row in connection.execute(query)]

    def trust(self) -> Trust:
        """Whose signatures count."""
        with self._database.reading() as connection:
            return _trust(connection)

    def add_signature(self, signature: Signature) -> None:
        """Keep a signature of a version that is there."""
        with self._database.writing() as connection:
            add_signature(connection, signature)
            next_generation(connection)

    def signatures(self, digest: str | None = None) -> list[Signature]:
        """The signatures of one version, or of all; by digest and key."""
        with self._database.reading() as connection:
            return _signatures(connection, digest)


def is_protected(connection: sa.Connection, alias: str) -> bool:
    """Whether an alias moves only by force and for a reason."""
    query = sa.select(PROTECTIONS.c.alias).where(PROTECTIONS.c.alias == alias)
    return connection.scalar(query) is not None


def check_protection(
    connection: sa.Connection, alias: str, *, force: bool, reason: str | None
) -> None:
    """Check that an alias may be moved so.

    Raises:
        ProtectedAliasError: it is protected, and force or the reason is missing.
    """
    if is_protected(connection, alias) and not (force and reason and reason.strip()):
        raise ProtectedAliasError(
            f"alias {alias!r} is protected and was not moved; move it by force and say why "
            "(--force --reason …), or publish under another alias"
        )


def check_trusted(
    connection: sa.Connection, version: Version, signatures: Iterable[Signature] = ()
) -> None:
    """Check that a version is signed, where this registry requires it.

    Args:
        connection: the transaction.
        version: the version.
        signatures: some that are not in the catalogue yet.

    Raises:
        SignatureError: it isn't.
    """
    trust = _trust(connection)
    if trust.required:
        check_signed(version, trust, [*_signatures(connection, version.digest), *signatures])


def add_signature(connection: sa.Connection, signature: Signature) -> None:
    """Keep a signature, in place of an earlier one by the same key."""
    connection.execute(
        sa.delete(SIGNATURES).where(
            SIGNATURES.c.digest == signature.digest, SIGNATURES.c.key_id == signature.key_id
        )
    )
    columns = {column.name: getattr(signature, column.name) for column in SIGNATURES.c}
    connection.execute(sa.insert(SIGNATURES).values(columns))


def _trust(connection: sa.Connection) -> Trust:
    demanded = sa.select(DEMANDS.c.name).where(DEMANDS.c.name == _SIGNATURES)
    keys = sa.select(KEYS.c.id, KEYS.c.public).where(KEYS.c.revoked_at.is_(None))
    return Trust(
        required=connection.scalar(demanded) is not None,
        keys={row.id: row.public for row in connection.execute(keys)},
    )


def _signatures(connection: sa.Connection, digest: str | None) -> list[Signature]:
    query = sa.select(SIGNATURES)
    if digest is not None:
        query = query.where(SIGNATURES.c.digest == digest)
    found = [Signature(**row._mapping) for row in connection.execute(query)]
    return sorted(found, key=lambda signature: (signature.digest, signature.key_id))


def _live_without_signature(connection: sa.Connection) -> list[str]:
    """Names of versions that an alias points to and that this registry would now refuse."""
    trust = _trust(connection)
    if not trust.required:
        return []
    signed: dict[str, list[Signature]] = {}
    for signature in _signatures(connection, None):
        signed.setdefault(signature.digest, []).append(signature)
    live = sa.select(VERSIONS).where(VERSIONS.c.digest.in_(sa.select(ALIASES.c.digest)))
    names = []
    for row in connection.execute(live):
        version = to_version(row)
        try:
            check_signed(version, trust, signed.get(version.digest, ()))
        except SignatureError:
            names.append(version.name)
    return sorted(names)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _delete_gate(connection: sa.Connection, pattern: str, alias: str) -> int:
    where = (GATES.c.pattern == pattern, GATES.c.alias == alias)
    return connection.execute(sa.delete(GATES).where(*where)).rowcount
