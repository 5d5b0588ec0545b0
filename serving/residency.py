"""Which adapters are in slots: brought in on demand, the longest unused one goes first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..adapters.loading import load_adapter
from ..core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..adapters.loading import LoadedAdapter
    from ..core.engine import Engine
    from ..registry import Registry, Version


@dataclass(frozen=True, kw_only=True)
class Resident:
    """An adapter in its slot."""

    version: Version
    """What it is."""
    slot: int
    """Where it is."""
    adapter: LoadedAdapter
    """Its tensors."""


class Residency:
    """The slots of one engine, filled from one registry.

    The key is the version's digest: other content under the same name is another version.
    """

    def __init__(self, engine: Engine, registry: Registry) -> None:
        self._engine = engine
        self._registry = registry
        self._free = list(reversed(range(engine.bank.slots)))
        # Longest unused first.
        self._residents: OrderedDict[str, Resident] = OrderedDict()
        self._pinned: set[str] = set()

    def bring_in(self, versions: Iterable[Version]) -> dict[str, Resident]:
        """Put versions into slots, those that are not there yet.

        Args:
            versions: what the next batch needs; no more of them than there are slots.

        Returns:
            The residents by digest.

        Raises:
            InputError: more versions than slots that aren't pinned by others.
            RegistryError: damaged files.
            AdapterError, BaseMismatchError: a version that doesn't fit this base.
        """
        needed = {version.digest: version for version in versions}
        for digest in needed:
            if digest in self._residents:
                self._residents.move_to_end(digest)
        for digest, version in needed.items():
            if digest not in self._residents:
                # Checked and built first: a version that fails leaves every slot as it is.
                adapter = load_adapter(self._registry.read(version), self._engine.encoder)
                slot = self._take_slot(needed)
                self._engine.bank.put(slot, adapter.updates)
                self._residents[digest] = Resident(version=version, slot=slot, adapter=adapter)
        return {digest: self._residents[digest] for digest in needed}

    def has_room_for(self, digests: set[str]) -> bool:
        """Whether all of these fit at once beside what others have pinned."""
        return len(self._pinned | digests) <= self._engine.bank.slots

    def pin(self, version: Version) -> None:
        """Bring a version in and keep it until it is unloaded."""
        self.bring_in([version])
        self._pinned.add(version.digest)

    def unload(self, digest: str) -> bool:
        """Empty a version's slot, pinned or not; says whether it was resident."""
        self._pinned.discard(digest)
        resident = self._residents.pop(digest, None)
        if resident is None:
            return False
        self._engine.bank.clear(resident.slot)
        self._free.append(resident.slot)
        return True

    def residents(self) -> list[Resident]:
        """What is in slots now, longest unused first."""
        return list(self._residents.values())

    def _take_slot(self, needed: Iterable[str]) -> int:
        if not self._free:
            kept = self._pinned | set(needed)
            oldest = next((digest for digest in self._residents if digest not in kept), None)
            if oldest is None:
                raise InputError(
                    f"all {self._engine.bank.slots} slots are pinned or in use by this batch; "
                    "open the hub with more slots, or unload some"
                )
            self.unload(oldest)
        return self._free.pop()
