"""Whether a registry is sound: all content hashed again, catalogue and store held side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ..core.errors import DamagedBlobError, IsoglossError, SignatureError
from ..core.locale import parse_locale
from ..core.progress import Progress
from .publishing import recorded
from .records import manifest_digest
from .signing import check_signed, is_valid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .blobs import BlobStore
    from .catalog import Catalog
    from .records import Signature, Version
    from .signing import Trust
    from .upkeep import AliasState

_SPEC_FILE = "isogloss.json"

FindingKind = Literal[
    "blob-missing",
    "blob-damaged",
    "blob-orphaned",
    "version-digest",
    "version-record",
    "version-part",
    "signature-invalid",
    "signature-missing",
    "alias-dangling",
    "alias-history",
]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that isn't as it should be."""

    kind: FindingKind
    """What sort of thing."""
    subject: str
    """What it is about: a version's name, an alias, a blob's digest."""
    problem: str
    """What is wrong with it, on one line."""
    is_damage: bool = True
    """Whether something is lost or untrue; else it is only in the way."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and what was found."""

    versions: int
    """Versions in the catalogue."""
    aliases: int
    """Aliases in the catalogue."""
    blobs: int
    """Blobs that were hashed."""
    bytes: int
    """Their size together."""
    findings: tuple[Finding, ...]
    """What was found; damage first."""

    @property
    def is_sound(self) -> bool:
        """Whether nothing is damaged."""
        return not any(finding.is_damage for finding in self.findings)


def verify(catalog: Catalog, blobs: BlobStore, *, show_progress: bool = False) -> Verification:
    """Look at everything in a registry; others may publish meanwhile.

    Raises:
        RegistryError: the catalogue or the store can't be used.
        InputError: there are signatures, and `cryptography` is missing.
    """
    return _Look(catalog, blobs).at_all(show_progress=show_progress)


@dataclass
class _Look:
    """One look at a registry, while it lasts."""

    catalog: Catalog
    blobs: BlobStore
    findings: list[Finding] = field(default_factory=list)
    # Digest → what is wrong with the blob, or its size.
    hashed: dict[str, DamagedBlobError | int] = field(default_factory=dict)

    def at_all(self, *, show_progress: bool) -> Verification:
        # First of all: blobs that are put after this are no orphans.
        listed = {blob.digest for blob in self.blobs.blobs()}
        trust = self.catalog.rules.trust()
        signatures: dict[str, list[Signature]] = {}
        for signature in self.catalog.rules.signatures():
            signatures.setdefault(signature.digest, []).append(signature)
        states = self.catalog.upkeep.states()
        live = {state.alias.digest for state in states}
        seen: dict[str, tuple[str, str]] = {}
        parts: list[tuple[Version, str]] = []
        total = len(listed)
        with Progress("verify", total=total, unit="blobs", enabled=show_progress) as progress:
            for version in self.catalog.upkeep.versions():
                before = len(self.hashed)
                seen[version.digest] = (version.locale, version.task)
                parts += [(version, part) for part in version.parts]
                self.findings += self.at_version(version)
                self.findings += _at_signatures(
                    version,
                    trust,
                    signatures.get(version.digest, []),
                    is_live=version.digest in live,
                )
                progress.advance(len(self.hashed) - before, note=version.name)
            for digest in sorted(listed - self.hashed.keys()):
                self.findings += self.at_orphan(digest)
                progress.advance()
        for version, part in parts:
            if part not in seen:
                problem = f"it mixes version {part}, which is not in the catalogue"
                self.findings.append(_finding("version-part", version.name, problem))
        for state in states:
            self.findings += self.at_alias(state, seen)
        return Verification(
            versions=len(seen),
            aliases=len(states),
            blobs=len(self.hashed),
            bytes=sum(size for size in self.hashed.values() if isinstance(size, int)),
            findings=tuple(sorted(self.findings, key=lambda finding: not finding.is_damage)),
        )

    def at_version(self, version: Version) -> list[Finding]:
        found = []
        if manifest_digest(version.files) != version.digest:
            problem = "its list of files is not the one that its digest stands for"
            found.append(_finding("version-digest", version.name, problem))
        spec = None
        for file in version.files:
            # Of files that versions have in common, this one is read again.
            if file.path == _SPEC_FILE or file.sha256 not in self.hashed:
                content = self.hash(file.sha256)
                spec = content if file.path == _SPEC_FILE else spec
            result = self.hashed[file.sha256]
            if result == file.size:
                continue
            # Where the version has gone meanwhile, garbage collection may have been faster.
            if self.catalog.version(version.digest) is None:
                return []
            kind: FindingKind = "blob-damaged"
            if isinstance(result, int):
                wrong = f"its blob has {result:,} bytes, the catalogue says {file.size:,}"
            else:
                wrong = str(result)
                if not self.blobs.has(file.sha256):
                    kind = "blob-missing"
            found.append(_finding(kind, version.name, f"{file.path}: {wrong}"))
        if spec is not None:
            found += _at_record(version, spec)
        return found

    def hash(self, digest: str) -> bytes | None:
        """Read and hash a blob; None where it isn't good."""
        try:
            content = self.blobs.get(digest)
        except DamagedBlobError as error:
            self.hashed[digest] = error
            return None
        self.hashed[digest] = len(content)
        return content

    def at_orphan(self, digest: str) -> Iterator[Finding]:
        if self.hash(digest) is not None:
            problem = "no version refers to it; `isogloss gc` deletes it when it is old enough"
            yield _finding("blob-orphaned", digest, problem, is_damage=False)
        elif self.blobs.has(digest):
            yield _finding(
                "blob-damaged", digest, f"no version refers to it, and {self.hashed[digest]}"
            )

    def at_alias(self, state: AliasState, seen: dict[str, tuple[str, str]]) -> Iterator[Finding]:
        alias = state.alias
        name = f"{alias.alias} of {alias.task}/{alias.locale}"
        place = seen.get(alias.digest)
        if place is None:
            version = self.catalog.version(alias.digest)
            place = None if version is None else (version.locale, version.task)
        if place is None:
            problem = f"it points to version {alias.digest}, which is not in the catalogue"
            yield _finding("alias-dangling", name, problem)
        elif place != (alias.locale, alias.task):
            problem = f"it points to a version of {place[1]}/{place[0]}"
            yield _finding("alias-dangling", name, problem)
        last = state.history[-1].digest if state.history else None
        if last != alias.digest:
            problem = f"it points to {alias.digest[:12]}, its history ends at {str(last)[:12]}"
            yield _finding("alias-history", name, problem)


def _at_record(version: Version, content: bytes) -> Iterator[Finding]:
    """Whether the catalogue says of a version what its own files say."""
    # Needs pydantic, and looking at a registry shouldn't.
    from ..adapters.spec import AdapterSpec

    try:
        expected = recorded(AdapterSpec.from_json(content))
    except IsoglossError as error:
        yield _finding("version-record", version.name, str(error))
        return
    # Canonical forms change with CLDR; what was published before keeps the one of its time.
    expected["locale"] = str(parse_locale(expected["locale"]))
    actual = {name: getattr(version, name) for name in expected}
    actual["locale"] = str(parse_locale(version.locale))
    wrong = [name for name, value in expected.items() if actual[name] != value]
    if wrong:
        problem = (
            f"the catalogue says {wrong[0]} is {str(actual[wrong[0]])[:80]}, "
            f"{_SPEC_FILE} {str(expected[wrong[0]])[:80]}"
        )
        yield _finding("version-record", version.name, problem)


def _at_signatures(
    version: Version, trust: Trust, signatures: list[Signature], *, is_live: bool
) -> Iterator[Finding]:
    for signature in signatures:
        public = trust.keys.get(signature.key_id)
        if public is not None and not is_valid(signature, public):
            problem = f"the signature by key {signature.key_id} is none of this version"
            yield _finding("signature-invalid", version.name, problem)
    try:
        check_signed(version, trust, signatures)
    except SignatureError as error:
        yield _finding("signature-missing", version.name, str(error), is_damage=is_live)


def _finding(kind: FindingKind, subject: str, problem: str, *, is_damage: bool = True) -> Finding:
    return Finding(kind=kind, subject=subject, problem=problem, is_damage=is_damage)
