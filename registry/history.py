"""Moves of aliases: who, when, why; where one pointed at a time, and what may not be removed.

The functions work within a transaction of the catalogue's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..core.errors import ConflictError, UnknownAliasError
from .records import ANYTHING, AliasChange, Version
from .rows import find_version, matches, next_generation
from .rules import check_protection, check_trusted
from .tables import ALIAS_HISTORY, ALIASES, VERSIONS
from .times import utc_now

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .records import Action, Expected, Signature

_COLUMNS = [column for column in ALIAS_HISTORY.c if column is not ALIAS_HISTORY.c.id]


def point(
    connection: sa.Connection,
    version: Version,
    alias: str,
    *,
    action: Action,
    by: str,
    reason: str | None = None,
    expected: str | Expected | None = ANYTHING,
    force: bool = False,
) -> None:
    """Move an alias and write that down; nothing where it points to the version already.

    Raises:
        ConflictError: it doesn't point to `expected`.
        ProtectedAliasError: it is protected, and force or the reason is missing.
        SignatureError: the registry requires signatures, and the version has none that counts.
    """
    current = check_move(connection, version, alias, reason=reason, expected=expected, force=force)
    previous, since = current or (None, "")
    if previous == version.digest:
        return
    key = {"locale": version.locale, "task": version.task, "alias": alias}
    # Clocks differ between machines; the moves of one alias still follow one another.
    now = max(utc_now(), since)
    moved = {"digest": version.digest, "updated_at": now}
    if previous is None:
        connection.execute(sa.insert(ALIASES).values(**key, **moved))
    else:
        connection.execute(sa.update(ALIASES).where(*matches(ALIASES, **key)).values(moved))
    connection.execute(
        sa.insert(ALIAS_HISTORY).values(
            **key,
            digest=version.digest,
            previous=previous,
            action=action,
            changed_at=now,
            changed_by=by,
            reason=reason,
        )
    )
    next_generation(connection)


def check_move(
    connection: sa.Connection,
    version: Version,
    alias: str,
    *,
    reason: str | None,
    expected: str | Expected | None,
    force: bool,
    signatures: Iterable[Signature] = (),
) -> tuple[str, str] | None:
    """Check that an alias may be moved so.

    Args:
        connection: the transaction.
        version: where it is to point.
        alias: the alias.
        reason: why it is moved.
        expected: where it must point now.
        force: whether it may be moved though it is protected.
        signatures: some of the version's that are not in the catalogue yet.

    Returns:
        The digest to which it points, and since when; None: nowhere yet.

    Raises:
        RegistryError: as `point`.
    """
    key = {"locale": version.locale, "task": version.task, "alias": alias}
    query = sa.select(ALIASES.c.digest, ALIASES.c.updated_at).where(*matches(ALIASES, **key))
    row = connection.execute(query).one_or_none()
    previous = None if row is None else row.digest
    if expected is not ANYTHING and expected != previous:
        raise ConflictError(_conflict(connection, key, expected))
    if previous != version.digest:
        check_protection(connection, alias, force=force, reason=reason)
        check_trusted(connection, version, signatures)
    return None if row is None else (row.digest, row.updated_at)


def changes(connection: sa.Connection, locale: str, task: str, alias: str) -> list[AliasChange]:
    """The moves of an alias, newest first."""
    return [_change(row) for row in connection.execute(_of(locale, task, alias))]


def live_at(
    connection: sa.Connection, locale: str, task: str, alias: str, at: str
) -> AliasChange | None:
    """The move by which an alias pointed, at a time, to where it did; None: it didn't exist yet."""
    query = _of(locale, task, alias).where(ALIAS_HISTORY.c.changed_at <= at).limit(1)
    row = connection.execute(query).one_or_none()
    return None if row is None else _change(row)


def rollback_target(connection: sa.Connection, locale: str, task: str, alias: str) -> Version:
    """Where an alias pointed before the last move that has not been rolled back.

    Raises:
        UnknownAliasError: no such alias, it has never pointed elsewhere, or that version is gone.
    """
    targets: list[str] = []
    for change in reversed(changes(connection, locale, task, alias)):
        if change.action == "rollback":
            targets.pop()
        else:
            targets.append(change.digest)
    if len(targets) < 2:
        problem = "has no earlier version" if targets else "doesn't exist"
        raise UnknownAliasError(
            f"can't roll back: alias {alias!r} of {task}/{locale} {problem}; "
            "promote a version instead"
        )
    version = find_version(connection, targets[-2])
    if version is None:
        raise UnknownAliasError(
            f"can't roll back: version {targets[-2]}, to which alias {alias!r} of "
            f"{task}/{locale} pointed before, is gone; promote another instead"
        )
    return version


def needs(connection: sa.Connection, since: str, *, digest: str | None = None) -> dict[str, str]:
    """What may not be removed, and why: digest → the first reason.

    Args:
        connection: the transaction.
        since: moves of aliases at this time or later keep both of their versions.
        digest: look at this version alone.
    """
    found: dict[str, str] = {}
    for row in connection.execute(sa.select(ALIASES).where(*matches(ALIASES, digest=digest))):
        found.setdefault(row.digest, f"alias {row.alias!r} of {row.task}/{row.locale} points to it")
    mixtures = sa.select(VERSIONS).where(VERSIONS.c.kind == "mixture")
    for row in connection.execute(mixtures):
        for part in row.parts or ():
            if digest in (None, part):
                name = f"{row.task}/{row.locale}@{row.digest[:12]}"
                found.setdefault(part, f"mixture {name} uses it")
    recent = sa.select(*_COLUMNS).where(ALIAS_HISTORY.c.changed_at >= since)
    if digest is not None:
        named = (ALIAS_HISTORY.c.digest == digest, ALIAS_HISTORY.c.previous == digest)
        recent = recent.where(sa.or_(*named))
    for row in connection.execute(recent):
        why = f"alias {row.alias!r} of {row.task}/{row.locale} was moved at {row.changed_at[:19]}Z"
        for end, name in (("to", row.digest), ("away from", row.previous)):
            if name is not None and digest in (None, name):
                found.setdefault(name, f"{why} {end} it")
    return found


def _of(locale: str, task: str, alias: str) -> sa.Select[Any]:
    return (
        sa.select(*_COLUMNS)
        .where(*matches(ALIAS_HISTORY, locale=locale, task=task, alias=alias))
        .order_by(ALIAS_HISTORY.c.id.desc())
    )


def _change(row: sa.Row[Any]) -> AliasChange:
    return AliasChange(**row._mapping)


def _conflict(connection: sa.Connection, key: dict[str, str], expected: object) -> str:
    newest = next(iter(changes(connection, key["locale"], key["task"], key["alias"])), None)
    if newest is None:
        now = "doesn't exist"
    else:
        why = f" ({newest.reason})" if newest.reason else ""
        now = (
            f"points to {newest.digest[:12]} since {newest.changed_at[:19]}Z, moved by "
            f"{newest.changed_by}{why}"
        )
    was = "not to exist" if expected is None else f"to point to {str(expected)[:12]}"
    return (
        f"alias {key['alias']!r} of {key['task']}/{key['locale']} was expected {was}, but it {now};"
        " look at that version, then expect it or let it be"
    )
