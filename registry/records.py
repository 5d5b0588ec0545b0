"""What the registry knows: versions, aliases and their history, and what answers for a locale."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .resolution import Stage

Action = Literal["publish", "promote", "rollback"]
"""What moved an alias."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """One file of a version."""

    path: str
    """Its name in the adapter folder, such as `adapter_model.safetensors`."""
    size: int
    """Bytes."""
    sha256: str
    """Digest of its content, and so the name of its blob."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """One published adapter; it never changes."""

    digest: str
    """sha256 over the names and contents of its files, 64 hex digits."""
    locale: str
    """Canonical BCP 47 tag."""
    task: str
    """The task's name, such as `intent`."""
    task_type: str
    """What the head does, such as `sequence-classification`."""
    kind: str
    """How it changes the base, such as `lora`."""
    rank: int | None
    """Rank of a LoRA adapter."""
    labels: tuple[str, ...]
    """Labels in the order of the head's outputs."""
    base: str
    """Name of the base."""
    base_fingerprint: str | None
    """Digest of the base's config and weights; None: not known."""
    metrics: Mapping[str, float] = field(hash=False)
    """Figures on the dev set, 0..1."""
    data_digest: str | None
    """sha256 of the training rows."""
    parent: str | None
    """Digest of the version from which training went on."""
    files: tuple[StoredFile, ...]
    """Its files, sorted by path."""
    bytes: int
    """Size of its files together."""
    created_at: str | None
    """When it was trained; UTC, ISO 8601."""
    published_at: str
    """When it was first published; UTC, ISO 8601, microseconds."""
    published_by: str
    """The account that published it."""

    @property
    def name(self) -> str:
        """Short name: `intent/gsw-CH@3f2c9a01d4e8`."""
        return f"{self.task}/{self.locale}@{self.digest[:12]}"


@dataclass(frozen=True, kw_only=True)
class Alias:
    """A movable name for one version of a locale and task."""

    locale: str
    """Canonical BCP 47 tag."""
    task: str
    """The task's name."""
    alias: str
    """The alias itself, such as `production`."""
    digest: str
    """The version that it points to."""
    updated_at: str
    """When it was last moved; UTC, ISO 8601, microseconds."""


@dataclass(frozen=True, kw_only=True)
class AliasChange:
    """One move of an alias."""

    locale: str
    """Canonical BCP 47 tag."""
    task: str
    """The task's name."""
    alias: str
    """The alias itself."""
    digest: str
    """The version that it points to since."""
    previous: str | None
    """The version that it pointed to before; None: it was new."""
    action: Action
    """What moved it."""
    changed_at: str
    """UTC, ISO 8601, microseconds."""
    changed_by: str
    """The account that moved it."""
    reason: str | None
    """Why, in the words of whoever moved it."""


@dataclass(frozen=True, kw_only=True)
class LocaleAlias:
    """A locale that is answered as another."""

    locale: str
    """Canonical BCP 47 tag: `bar`, `ar-EG`."""
    instead: str
    """What takes its place, likewise: `de`, `arz`."""
    changed_at: str
    """UTC, ISO 8601, microseconds."""
    changed_by: str
    """The account that declared it."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """The state of the catalogue that resolution looks at."""

    generation: int
    """Its generation."""
    digests: Mapping[str, str] = field(hash=False)
    """Locale → digest of the version that answers there, for one task and alias."""
    locale_aliases: Mapping[str, str] = field(hash=False)
    """Locale → the one that takes its place."""


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """Which version answers for a requested locale, and why."""

    requested: str
    """The locale, as it was requested; several are joined by commas."""
    locale: str | None
    """The locale of the version that answers; None: nothing but the bare base."""
    version: Version | None
    """The version that answers."""
    stage: Stage
    """How it was found; `base` where nothing was."""
    distance: int | None
    """CLDR's distance between the two locales; None: at `default` and `base`, and where the
    version was asked for by name."""
    trace: tuple[str, ...]
    """What was tried and what was refused, in order, one line each."""
    script_changed: bool = False
    """Whether the version was trained on another script than that of the request."""
    blend: tuple[tuple[str, float], ...] = ()
    """Names of versions and their weights, where the policy asks for a blend; with a sum of 1."""


def manifest_digest(files: Iterable[StoredFile]) -> str:
    """The digest of a version: sha256 over its files' names, sizes and digests.

    The bytes hashed are JSON, a list of `{"path", "sha256", "size"}` sorted by path, with sorted
    keys and without whitespace.
    """
    entries = sorted((asdict(file) for file in files), key=lambda entry: str(entry["path"]))
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
