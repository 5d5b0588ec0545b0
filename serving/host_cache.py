"""Adapters in host memory, between the registry and the slots."""

from __future__ import annotations

import hashlib
import json
import threading
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from ..adapters.files import CARD_FILE, SPEC_FILE
from ..adapters.loading import load_adapter
from ..core.delta import SlotImage
from .eviction import Eviction

if TYPE_CHECKING:
    from ..adapters.heads import Head
    from ..adapters.spec import AdapterSpec
    from ..core.encoder import Encoder
    from ..registry import Registry, Version

# What an adapter is called and where it comes from; all else decides what it computes.
DESCRIPTIVE = frozenset(
    {
        "base",
        "created_at",
        "data_digest",
        "format",
        "labels",
        "locale",
        "metrics",
        "parent",
        "task",
        "training",
    }
)
# How many uses make one worth half: the cache holds bytes, not a number of adapters.
_TYPICAL_ADAPTERS = 256
_KNOWN_AT_MOST = 65_536


@dataclass(frozen=True, kw_only=True)
class HostAdapter:
    """An adapter in host memory, checked and ready to be copied into a slot."""

    content: str
    """Digest of all that decides what it computes; names and labels are no part of it."""
    image: SlotImage
    """What goes into the slot."""
    head: Head | None
    """Its head, on the base's device."""

    @property
    def head_bytes(self) -> int:
        """Bytes of the head's own tensors."""
        return 0 if self.head is None else self.head.own_bytes

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors, head included."""
        return self.image.nbytes + self.head_bytes

    @property
    def shift(self) -> int:
        """How many positions its prefix takes from a text."""
        prefix = self.image.prefix
        return prefix.length if prefix is not None and prefix.shifts_positions else 0


@dataclass(frozen=True, slots=True)
class _Known:
    """What stays known of a version when its tensors have gone."""

    content: str
    shift: int


class HostCache:
    """Versions of a registry, as long as they fit into a budget.

    Threads may use it at once. Two that want the same version wait for one load; nobody waits for
    the load of another version.

    Args:
        registry: where versions are read.
        encoder: the base that they must fit.
        capacity: bytes of adapters to keep, heads included.
    """

    def __init__(self, registry: Registry, encoder: Encoder, *, capacity: int) -> None:
        self._registry = registry
        self._encoder = encoder
        self._capacity = capacity
        self._lock = threading.Lock()
        # By content, so that what has two names is kept once.
        self._adapters: dict[str, HostAdapter] = {}
        self._nbytes = 0
        self._eviction = Eviction(_TYPICAL_ADAPTERS)
        # By the version's digest.
        self._known: dict[str, _Known] = {}
        self._loading: dict[str, Future[HostAdapter]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return self._nbytes

    def __contains__(self, version: Version) -> bool:
        known = self._known.get(version.digest)
        return known is not None and known.content in self._adapters

    def get(self, version: Version) -> HostAdapter:
        """The adapter of a version, read from the registry unless it is here.

        Raises:
            DamagedBlobError: damaged files.
            AdapterError, BaseMismatchError: it doesn't fit this base.
        """
        digest = version.digest
        with self._lock:
            known = self._known.get(digest)
            found = self._adapters.get(known.content) if known is not None else None
            if found is not None:
                self._eviction.note((found.content,))
                return found
            loading = self._loading.get(digest)
            if loading is None:
                mine = self._loading[digest] = Future[HostAdapter]()
        if loading is not None:
            return loading.result()
        try:
            loaded = self._load(version)
        except BaseException as error:
            with self._lock:
                del self._loading[digest]
            mine.set_exception(error)
            raise
        with self._lock:
            kept = self._keep(digest, loaded)
            del self._loading[digest]
        mine.set_result(kept)
        return kept

    def shift(self, version: Version) -> int:
        """How many positions a version's prefix takes from a text.

        Raises:
            DamagedBlobError, AdapterError, BaseMismatchError: as `get` does.
        """
        known = self._known.get(version.digest)
        return known.shift if known is not None else self.get(version).shift

    def _load(self, version: Version) -> HostAdapter:
        loaded = load_adapter(self._registry.read(version, recheck=False), self._encoder)
        return HostAdapter(
            content=content_digest(version, loaded.spec),
            image=SlotImage.of(loaded.delta),
            head=loaded.head,
        )

    def _keep(self, digest: str, loaded: HostAdapter) -> HostAdapter:
        """Keep an adapter, or use the equal one that is here; others go where room is needed."""
        content = loaded.content
        if len(self._known) >= _KNOWN_AT_MOST:
            del self._known[next(iter(self._known))]
        self._known[digest] = _Known(content, loaded.shift)
        self._eviction.note((content,))
        equal = self._adapters.get(content)
        if equal is not None:
            return equal
        if loaded.nbytes > self._capacity:
            return loaded
        self._adapters[content] = loaded
        self._nbytes += loaded.nbytes
        self._eviction.add(content)
        while self._nbytes > self._capacity:
            # The newest has been used once; without this exception it might never be used again.
            gone = self._eviction.victim(lambda key: key != content)
            assert gone is not None, "the newest alone fits"
            self._eviction.remove(gone)
            self._nbytes -= self._adapters.pop(gone).nbytes
        return loaded


def content_digest(version: Version, spec: AdapterSpec) -> str:
    """sha256 over all that decides what an adapter computes: weights, config, kind, task type.

    The same weights published for two locales are one content.
    """
    entries = {
        "files": sorted(
            (file.path, file.sha256)
            for file in version.files
            if file.path not in {CARD_FILE, SPEC_FILE}
        ),
        "spec": {name: value for name, value in asdict(spec).items() if name not in DESCRIPTIVE},
    }
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
