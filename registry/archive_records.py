"""What an archive says of versions and aliases, as JSON; read back, nothing of it is believed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..core.errors import ArchiveError, InputError, InvalidLocaleError
from ..core.locale import check_registered, parse_locale
from .names import check_names
from .records import Signature, StoredFile, manifest_digest
from .times import read_time, written
from .upkeep import AliasState

FORMAT: Literal[1] = 1
_LONGEST_NAME = 255
# Clocks differ; more than this is no such difference.
_AHEAD = timedelta(days=1)

_Record = TypeVar("_Record")


@dataclass(frozen=True, kw_only=True)
class RegistryRecord:
    """The first file of an archive."""

    locale_aliases: tuple[tuple[str, str], ...] = ()
    """Locales that are answered as others, each with that one."""
    format: Literal[1] = FORMAT
    """Version of the archive's format."""


@dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """What an archive says of a version beside its content, from which the rest follows."""

    digest: str
    """As in `Version`."""
    files: tuple[StoredFile, ...]
    """Its files, sorted by path."""
    published_at: str
    """As in `Version`."""
    published_by: str
    """As in `Version`."""
    author: str | None
    """As in `Version`."""
    tools: dict[str, str]
    """As in `Version`."""
    signatures: tuple[Signature, ...]
    """Its signatures, by key."""


def to_json(record: RegistryRecord | VersionRecord | AliasState) -> bytes:
    """The bytes of a record; equal records give equal bytes."""
    return json.dumps(asdict(record), sort_keys=True, separators=(",", ":")).encode("ascii")


def read_registry(content: bytes) -> RegistryRecord:
    """Read the first file.

    Raises:
        ArchiveError: it is none.
    """
    record = _read(_REGISTRY, content)
    for pair in record.locale_aliases:
        for tag in pair:
            _check_locale(tag)
    if len({locale for locale, _ in record.locale_aliases}) != len(record.locale_aliases):
        raise _wrong("a locale is answered as two others")
    if any(locale == instead for locale, instead in record.locale_aliases):
        raise _wrong("a locale is answered as itself")
    return record


def read_version(content: bytes) -> VersionRecord:
    """Read the record of a version.

    Raises:
        ArchiveError: it is none.
    """
    record = _read(_VERSION, content)
    digest = record.digest
    paths = [file.path for file in record.files]
    if paths != sorted(set(paths)) or any(file.size < 0 for file in record.files):
        raise _wrong(f"the files of version {digest[:64]!r} are in no order")
    if manifest_digest(record.files) != digest:
        raise _wrong(f"the files of version {digest[:64]!r} are not those that it is named by")
    _check_time(record.published_at)
    names = [record.published_by, record.author or "", *record.tools.keys(), *record.tools.values()]
    if any(len(name) > _LONGEST_NAME for name in names):
        raise _wrong(f"a name of version {digest} has more than {_LONGEST_NAME} characters")
    for signature in record.signatures:
        _check_time(signature.signed_at)
        lengths = len(signature.key_id), len(signature.signature)
        if signature.digest != digest or lengths != (16, 128):
            raise _wrong(f"a signature of version {digest} is none")
    return record


def read_alias(content: bytes) -> AliasState:
    """Read the record of an alias, and check that its history is one.

    Raises:
        ArchiveError: it is none.
    """
    state = _read(_ALIAS, content)
    alias = state.alias
    try:
        check_names(task=alias.task, alias=alias.alias)
    except InputError as error:
        raise _wrong(str(error)) from None
    _check_locale(alias.locale)
    what = f"alias {alias.alias!r} of {alias.task}/{alias.locale}"
    digests: list[str] = []
    at = ""
    for change in state.history:
        _check_time(change.changed_at)
        place = (change.locale, change.task, change.alias)
        before = digests[-1] if digests else None
        after = [*digests[:-1]] if change.action == "rollback" else [*digests, change.digest]
        if (
            place != (alias.locale, alias.task, alias.alias)
            or change.changed_at < at
            or change.previous != before
            or after[-1:] != [change.digest]
            or before == change.digest
            or len(change.changed_by) > _LONGEST_NAME
        ):
            raise _wrong(f"the history of {what} is none")
        digests, at = after, change.changed_at
    if digests[-1:] != [alias.digest] or at != alias.updated_at:
        raise _wrong(f"{what} doesn't point to where its history ends")
    return state


def _read(adapter: TypeAdapter[_Record], content: bytes) -> _Record:
    try:
        record = adapter.validate_json(content, strict=False, extra="forbid")
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise _wrong(f"{where or 'a record'}: {problem['msg']}") from None
    same: Any = record
    # Also against keys that occur twice, of which readers may take one or the other.
    if to_json(same) != content:
        raise _wrong("a record is not in the form in which it is written")
    return record


def _check_locale(tag: str) -> None:
    try:
        locale = parse_locale(tag)
        check_registered(locale)
    except InvalidLocaleError as error:
        raise _wrong(str(error)) from None
    if str(locale) != tag:
        raise _wrong(f"locale {tag!r:.80} is not canonical, {locale} is")


def _check_time(time: str) -> None:
    try:
        is_time = read_time(time) == time <= written(datetime.now(UTC) + _AHEAD)
    except InputError:
        is_time = False
    if not is_time:
        raise _wrong(f"{time!r:.80} is no time, or one to come")


def _wrong(problem: str) -> ArchiveError:
    return ArchiveError(
        f"the archive can't be imported: {problem}; export it again, with the same release"
    )


_REGISTRY = TypeAdapter(RegistryRecord)
_VERSION = TypeAdapter(VersionRecord)
_ALIAS = TypeAdapter(AliasState)
