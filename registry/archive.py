"""A registry, a locale or a task as one file, to be kept or carried to another registry.

What a registry demands and whom it trusts (protected aliases, gates, keys) isn't carried: that is
for its own owners to say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..adapters.files import SIZE_LIMITS, CheckedFolder, check_files
from ..core.errors import ArchiveError, ConflictError, GateError, UnknownVersionError
from ..core.progress import Progress
from . import archive_file, archive_records
from .archive_records import RegistryRecord, VersionRecord
from .gates import gates_for
from .names import account
from .publishing import describe_version, restore_files, store_files
from .signing import is_valid

if TYPE_CHECKING:
    from pathlib import Path

    from .archive_file import ArchiveReader
    from .blobs import BlobStore
    from .catalog import Catalog
    from .records import Signature, Version
    from .upkeep import AliasState


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an archive holds."""

    versions: int
    """Versions."""
    aliases: int
    """Aliases, each with its history."""
    bytes: int
    """Content of the versions together, what they have in common once."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an import has brought."""

    versions: tuple[str, ...]
    """Names of the versions that are new here, sorted."""
    known: int
    """How many versions were here before."""
    aliases: tuple[str, ...]
    """The aliases that are new here, or have moved, as `production of intent/gsw-CH`."""


def export_archive(
    catalog: Catalog,
    blobs: BlobStore,
    path: Path,
    *,
    locale: str | None = None,
    task: str | None = None,
    show_progress: bool = False,
) -> Exported:
    """Write versions, their signatures, aliases and their histories to a file.

    The same content gives the same bytes. Others may publish meanwhile; what they publish may be
    left out.

    Args:
        catalog: of the registry.
        blobs: of the same.
        path: the file; there must be none.
        locale: only this locale's.
        task: only this task's.
        show_progress: on standard error.

    Raises:
        UnknownVersionError: there is nothing to be exported.
        DamagedBlobError: content is damaged or missing.
        InputError: the file is there already, or can't be written.
        RegistryError: the catalogue or the store can't be used.
    """
    # Aliases first: the versions to which they point then stay, and are found below.
    states = catalog.upkeep.states(locale=locale, task=task)
    signatures = _by_digest(catalog.rules.signatures())
    is_whole = locale is None and task is None
    pairs = [(alias.locale, alias.instead) for alias in catalog.locale_aliases()]
    written: set[str] = set()
    versions, total = 0, 0
    count = catalog.upkeep.count_versions(locale=locale, task=task) if show_progress else 0
    with (
        archive_file.writing(path) as writer,
        Progress("export", total=count, unit="versions", enabled=show_progress) as progress,
    ):
        registry = RegistryRecord(locale_aliases=tuple(pairs) if is_whole else ())
        writer.add("registry", archive_records.to_json(registry))
        for version in catalog.upkeep.versions(locale=locale, task=task):
            record = VersionRecord(
                digest=version.digest,
                files=version.files,
                published_at=version.published_at,
                published_by=version.published_by,
                author=version.author,
                tools=dict(version.tools),
                signatures=tuple(signatures.get(version.digest, ())),
            )
            writer.add("versions", archive_records.to_json(record))
            for file in version.files:
                if file.sha256 not in written:
                    written.add(file.sha256)
                    writer.add("blobs", blobs.get(file.sha256))
                    total += file.size
            versions += 1
            progress.advance(note=version.name)
        for state in states:
            writer.add("aliases", archive_records.to_json(state))
        if not versions:
            of = f" for {task or 'any task'}/{locale or 'any locale'}" if not is_whole else ""
            raise UnknownVersionError(
                f"there is no version{of} to be exported; `isogloss ls` shows those there are"
            )
    return Exported(versions=versions, aliases=len(states), bytes=total)


def import_archive(
    catalog: Catalog,
    blobs: BlobStore,
    path: Path,
    *,
    aliases: bool = True,
    force: bool = False,
    reason: str | None = None,
    show_progress: bool = False,
) -> Imported:
    """Bring in what another registry, or this one, has exported.

    Every digest and every check of a folder that is published holds here, too. Each version is
    brought in whole or not at all, in order, and aliases last: where an import breaks off, what
    came before stays, and it can be repeated. What is here already is left as it is, but for
    content that was damaged, which is mended.

    Args:
        catalog: of the registry.
        blobs: of the same.
        path: the file.
        aliases: bring in aliases, with their histories, too.
        force: move aliases that are protected or have gates.
        reason: why, for those that are protected.
        show_progress: on standard error.

    Raises:
        ArchiveError: the file is damaged, was tampered with, or is none of ours.
        AdapterError: one of its kinds for each check of a version that fails.
        ConflictError: an alias has moved here in another way.
        GateError: an alias has a gate here, and `force` isn't given.
        RegistryError: the content can't be stored, or as `Upkeep.merge`.
    """
    new: list[str] = []
    moved: list[str] = []
    known = 0
    seen: set[str] = set()
    with (
        archive_file.reading(path) as reader,
        Progress("import", total=reader.total, unit="bytes", enabled=show_progress) as progress,
    ):
        if not reader.next() or reader.folder != "registry":
            raise _wrong("it doesn't begin with what it says of the registry")
        registry = archive_records.read_registry(reader.content())
        versions_end = False
        while reader.next():
            if reader.folder == "versions" and not versions_end:
                version, is_new = _import_version(catalog, blobs, reader, seen)
                known += not is_new
                new += [version.name] if is_new else []
                progress.advance(reader.position - progress.done, note=version.name)
            elif reader.folder == "aliases":
                versions_end = True
                state = archive_records.read_alias(reader.content())
                if aliases and _import_alias(catalog, state, force=force, reason=reason):
                    alias = state.alias
                    moved.append(f"{alias.alias} of {alias.task}/{alias.locale}")
            else:
                raise _wrong(f"{reader.folder}/{reader.digest} is not where it should be")
    if aliases:
        _import_locale_aliases(catalog, registry)
    return Imported(versions=tuple(sorted(new)), known=known, aliases=tuple(moved))


def _import_version(
    catalog: Catalog, blobs: BlobStore, reader: ArchiveReader, seen: set[str]
) -> tuple[Version, bool]:
    """Bring in a version, and say whether it is new."""
    record = archive_records.read_version(reader.content())
    files: dict[str, bytes] = {}
    came: dict[str, bytes] = {}
    for file in record.files:
        if file.path not in SIZE_LIMITS or file.size > SIZE_LIMITS[file.path]:
            raise _wrong(f"{file.path[:80]!r} of {file.size:,} bytes is no file of an adapter")
        if file.sha256 in came:
            files[file.path] = came[file.sha256]
        elif file.sha256 in seen:
            files[file.path] = blobs.get(file.sha256)
        else:
            expected = ("blobs", file.sha256, file.size)
            if not reader.next() or (reader.folder, reader.digest, reader.size) != expected:
                raise _wrong(f"{file.path} of {record.digest} is missing, or of another size")
            files[file.path] = came[file.sha256] = reader.content()
    checked = CheckedFolder(spec=check_files(files), files=files, left_out=(), base=None)
    version = replace(
        describe_version(checked),
        published_at=record.published_at,
        published_by=record.published_by,
        author=record.author,
        tools=record.tools,
    )
    if version.digest != record.digest:
        raise _wrong(f"{version.name} isn't the version {record.digest} that it should be")
    signatures = _new_signatures(catalog, version, record)
    catalog.check_move(version, alias=None, signatures=signatures)
    is_new = catalog.version(record.digest) is None
    store_files(blobs, files)
    seen.update(came)
    catalog.publish(
        version,
        alias=None,
        signatures=signatures,
        settle=lambda: restore_files(blobs, files),
    )
    return version, is_new


def _new_signatures(catalog: Catalog, version: Version, record: VersionRecord) -> list[Signature]:
    """The signatures that aren't here yet; those by keys that are trusted here must be good."""
    here = {signature.key_id for signature in catalog.rules.signatures(version.digest)}
    found = [signature for signature in record.signatures if signature.key_id not in here]
    keys = catalog.rules.trust().keys
    for signature in found:
        public = keys.get(signature.key_id)
        if public is not None and not is_valid(signature, public):
            raise _wrong(f"the signature of {version.name} by key {signature.key_id} is none")
    return found


def _import_alias(catalog: Catalog, state: AliasState, *, force: bool, reason: str | None) -> bool:
    alias = state.alias
    here = catalog.aliases(locale=alias.locale, task=alias.task, alias=alias.alias)
    moves = not here or here[0].digest != alias.digest
    if moves and not force and gates_for(catalog.rules.gates(), alias.task, alias.alias):
        raise GateError(
            f"alias {alias.alias!r} of {alias.task} has a gate here; import without aliases and "
            "promote what passes it, or import by force"
        )
    return catalog.upkeep.merge(state, force=force, reason=reason)


def _import_locale_aliases(catalog: Catalog, registry: RegistryRecord) -> None:
    here = {alias.locale: alias.instead for alias in catalog.locale_aliases()}
    for locale, instead in registry.locale_aliases:
        if here.get(locale, instead) != instead:
            raise ConflictError(
                f"{locale} is answered as {here[locale]} here, and as {instead} in the archive; "
                "remove the one here, or import without aliases"
            )
        if locale not in here:
            catalog.set_locale_alias(locale, instead, by=account())


def _by_digest(signatures: list[Signature]) -> dict[str, list[Signature]]:
    found: dict[str, list[Signature]] = {}
    for signature in signatures:
        found.setdefault(signature.digest, []).append(signature)
    return found


def _wrong(problem: str) -> ArchiveError:
    return ArchiveError(f"the archive can't be imported: {problem}; export it again")
