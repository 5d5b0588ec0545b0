"""What the registry knows: versions, aliases and their history, and what answers for a locale."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .resolution import Stage

Action = Literal["publish", "promote", "rollback"]
"""What moved an alias."""


class Expected(Enum):
    """Stands for "wherever the alias points", where None is "nowhere yet"."""

    ANYTHING = "anything"


ANYTHING: Final = Expected.ANYTHING
"""No expectation: an alias is moved wherever it points."""


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
    author: str | None = None
    """Who made it, in the words of whoever published it."""
    tools: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Releases of isogloss, peft and torch where it was published."""
    parts: tuple[str, ...] = ()
    """Digests of the versions that a mixture uses; none for the other kinds."""

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
class Removal:
    """A version that was taken out of the registry."""

    digest: str
    """What it was named by."""
    locale: str
    """Canonical BCP 47 tag."""
    task: str
    """The task's name."""
    removed_at: str
    """UTC, ISO 8601, microseconds."""
    removed_by: str
    """The account that removed it."""
    reason: str | None
    """Why, in the words of whoever removed it."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What versions must reach before an alias may point to them."""

    pattern: str
    """Tasks that it is for: a name, or a pattern such as `intent*` or `*`."""
    alias: str
    """The alias that it guards."""
    requires: tuple[str, ...]
    """Requirements, as `gates.py` reads them; all must hold."""
    changed_at: str
    """UTC, ISO 8601, microseconds."""
    changed_by: str
    """The account that set it."""


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    """A public key whose signatures count, or counted."""

    id: str
    """The first 16 hex digits of sha256 over the 32 bytes of the key."""
    public: str
    """The 32 bytes of an Ed25519 public key (RFC 8032), 64 hex digits."""
    name: str
    """Whose it is."""
    trusted_at: str
    """UTC, ISO 8601, microseconds."""
    trusted_by: str
    """The account that added it."""
    revoked_at: str | None
    """When it stopped to count; None: it counts."""
    revoked_by: str | None
    """The account that revoked it."""
    reason: str | None
    """Why it was revoked."""


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A signature of one version; see `signing.py` for what is signed."""

    digest: str
    """The version's digest."""
    key_id: str
    """`TrustedKey.id` of the key that signed."""
    signature: str
    """The 64 bytes of Ed25519, 128 hex digits."""
    signed_at: str
    """UTC, ISO 8601, microseconds."""


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
