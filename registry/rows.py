"""Rows of the catalogue's tables as records, and the generation that every change raises."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ..core.errors import UnknownVersionError
from .database import announce
from .records import StoredFile, Version
from .tables import GENERATION, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .database import Database


def to_row(version: Version) -> dict[str, Any]:
    """The columns of a version."""
    values = asdict(version)
    values["manifest"] = values.pop("files")
    return values


def to_version(row: sa.Row[Any]) -> Version:
    """The version that a row of `VERSIONS` holds."""
    values = dict(row._mapping)
    values["labels"] = tuple(values["labels"])
    values["files"] = tuple(StoredFile(**entry) for entry in values.pop("manifest"))
    # None where it was published by an earlier release.
    values["tools"] = values["tools"] or {}
    values["parts"] = tuple(values["parts"] or ())
    return Version(**values)


def find_version(connection: sa.Connection, digest: str) -> Version | None:
    """The version of a digest."""
    row = connection.execute(sa.select(VERSIONS).where(VERSIONS.c.digest == digest)).one_or_none()
    return None if row is None else to_version(row)


def need_version(connection: sa.Connection, digest: str) -> Version:
    """The version of a digest.

    Raises:
        UnknownVersionError: there is none.
    """
    version = find_version(connection, digest)
    if version is None:
        raise UnknownVersionError(f"no version {digest} in this registry; publish it first")
    return version


def check_parts(connection: sa.Connection, version: Version) -> None:
    """Check that the versions that a mixture uses are there.

    Raises:
        UnknownVersionError: one isn't.
    """
    if not version.parts:
        return
    there = sa.select(VERSIONS.c.digest).where(VERSIONS.c.digest.in_(version.parts))
    missing = sorted({*version.parts} - {*connection.scalars(there)})
    if missing:
        raise UnknownVersionError(
            f"{version.name} mixes version {missing[0]}, which is not in this registry; "
            "publish that first"
        )


def matches(table: sa.Table, **values: str | None) -> Sequence[sa.ColumnElement[bool]]:
    """The conditions that columns have these values; None stands for any."""
    return [table.c[name] == value for name, value in values.items() if value is not None]


def begins(prefix: str) -> Sequence[sa.ColumnElement[bool]]:
    """The conditions that a version's digest begins so."""
    digest = VERSIONS.c.digest
    if not prefix:
        return []
    # An index serves the range: no hex digit comes after g. It doesn't serve LIKE.
    return [digest >= prefix, digest < f"{prefix}g", digest.startswith(prefix, autoescape=True)]


def follows(version: Version) -> Sequence[sa.ColumnElement[bool]]:
    """The conditions that a version comes after this one, newest first, then by digest."""
    published, digest = VERSIONS.c.published_at, VERSIONS.c.digest
    same = sa.and_(published == version.published_at, digest > version.digest)
    # The first condition alone is one that an index can serve.
    return [
        published <= version.published_at,
        sa.or_(published < version.published_at, same),
    ]


def read_generation(connection: sa.Connection) -> int:
    """The generation, as this transaction sees it."""
    number = connection.scalar(sa.select(GENERATION.c.number))
    assert isinstance(number, int)
    return number


def glance_generation(database: Database) -> int:
    """The generation, as of now, in the least time."""
    number = database.glance("SELECT number FROM generation")
    assert isinstance(number, int)
    return number


def next_generation(connection: sa.Connection) -> None:
    """To be called in every transaction that changes what may answer."""
    connection.execute(sa.update(GENERATION).values(number=GENERATION.c.number + 1))
    announce(connection)
