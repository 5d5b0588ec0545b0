"""Which adapters are in slots, and which batches are using them.

A batch leases its adapters: while it runs, their slots are neither emptied nor overwritten. All
slots of a lease are taken at once, so that two batches never wait for each other; those that must
wait do so in the order in which they came. Files are read outside of any lock.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..core.errors import InputError, SlotTooSmallError
from .eviction import Eviction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..adapters.heads import Head
    from ..core.bank import Bank
    from ..registry import Version
    from .host_cache import HostAdapter, HostCache


class Resident:
    """An adapter in its slot. Its fields are read by anyone, and changed by the residency."""

    __slots__ = (
        "content",
        "failed",
        "gone",
        "head",
        "head_bytes",
        "leases",
        "names",
        "nbytes",
        "pinned",
        "ready",
        "slot",
    )

    def __init__(self, adapter: HostAdapter, slot: int, *, nbytes: int) -> None:
        self.content = adapter.content
        self.slot = slot
        self.nbytes = nbytes
        self.head: Head | None = adapter.head
        self.head_bytes = adapter.head_bytes
        self.leases = 0
        self.pinned = False
        # The digests and names of the versions that have this content.
        self.names: dict[str, str] = {}
        # It is in its slot, or never will be.
        self.ready = threading.Event()
        self.failed = False
        # No later lease finds it; its slot is freed when the last one ends.
        self.gone = False


class Residency:
    """The slots of one engine, filled through a host cache.

    The key is the digest of a version's content: other content under the same name is another
    version, and the same content under two names takes one slot.

    Args:
        bank: the slots.
        host: where adapters come from.
    """

    def __init__(self, bank: Bank, host: HostCache) -> None:
        self._bank = bank
        self._host = host
        self._changed = threading.Condition(threading.Lock())
        self._free = list(reversed(range(bank.slots)))
        self._by_content: dict[str, Resident] = {}
        self._by_digest: dict[str, Resident] = {}
        self._eviction = Eviction(bank.slots)
        # Leases that wait for slots, the first in front.
        self._queue: deque[object] = deque()

    @contextmanager
    def lease(self, versions: Iterable[Version]) -> Iterator[Mapping[str, Resident]]:
        """Within it, versions stay in their slots.

        Brings in those that are not there yet, and waits while other batches use the slots that
        it needs.

        Args:
            versions: what one batch uses.

        Returns:
            The residents, by the version's digest.

        Raises:
            InputError: more versions than slots that others haven't pinned.
            SlotTooSmallError: a version that is larger than a slot.
            RegistryError: damaged files.
            AdapterError, BaseMismatchError: a version that doesn't fit this base.
        """
        needed = {version.digest: version for version in versions}
        while True:
            held = self._lease_residents(needed)
            if held is None:
                held = self._lease_missing(needed)
            try:
                for resident in held.values():
                    if not resident.ready.is_set():
                        resident.ready.wait()
                # What another batch failed to fill is tried again: the error is that batch's own.
                if not any(resident.failed for resident in held.values()):
                    yield held
                    return
            finally:
                self._release(held)

    def pin(self, version: Version) -> None:
        """Bring a version in and keep it until it is unloaded.

        Raises:
            InputError, AdapterError, BaseMismatchError, RegistryError: as `lease` does.
        """
        with self.lease([version]) as held, self._changed:
            held[version.digest].pinned = True
            self._changed.notify_all()  # who waits may now wait in vain

    def unload(self, digest: str) -> bool:
        """Take a version out, pinned or not; says whether it was in a slot.

        Batches that use it finish with it; the slot is free after the last of them.
        """
        with self._changed:
            resident = self._by_digest.get(digest)
            if resident is None:
                return False
            self._forget(resident)
            if resident.leases == 0:
                self._vacate(resident)
            return True

    def pinned(self) -> set[str]:
        """Digests of the versions that stay in their slots."""
        with self._changed:
            return {digest for digest, found in self._by_digest.items() if found.pinned}

    def residents(self) -> list[Resident]:
        """What is in slots now."""
        with self._changed:
            return list(self._by_content.values())

    def _lease_residents(self, needed: Mapping[str, Version]) -> dict[str, Resident] | None:
        """The quick way: all are there, and nobody waits."""
        with self._changed:
            if self._queue:
                return None
            held = {}
            for digest in needed:
                resident = self._by_digest.get(digest)
                if resident is None:
                    return None
                held[digest] = resident
            for resident in held.values():
                resident.leases += 1
            self._eviction.note([resident.content for resident in held.values()])
            return held

    def _lease_missing(self, needed: Mapping[str, Version]) -> dict[str, Resident]:
        """Load what isn't there, wait for slots, and fill them."""
        adapters: dict[str, HostAdapter] = {}
        self._load(needed, adapters)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(
                        lambda: self._queue[0] is ticket and self._fits(needed, adapters)
                    )
                    # What was in a slot a moment ago may have gone while this lease waited.
                    if all(digest in adapters or digest in self._by_digest for digest in needed):
                        held, mine = self._reserve(needed, adapters)
                        break
                self._load(needed, adapters)
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            self._fill(mine, adapters)
        except BaseException:
            self._release(held)
            raise
        return held

    def _load(self, needed: Mapping[str, Version], adapters: dict[str, HostAdapter]) -> None:
        """Have the adapters in hand that are not in slots; no lock is held."""
        for digest, version in needed.items():
            if digest in self._by_digest or digest in adapters:
                continue
            adapter = self._host.get(version)
            size = self._size(adapter)
            if size > self._bank.slot_bytes:
                raise SlotTooSmallError(
                    f"{version.name} takes {size:,} bytes, a slot {self._bank.slot_bytes:,}; "
                    "open the hub with larger slots (slot_bytes=)"
                )
            adapters[digest] = adapter

    def _size(self, adapter: HostAdapter) -> int:
        """Bytes that an adapter takes in a slot."""
        return adapter.image.values.numel() * self._bank.arena.itemsize

    def _contents(
        self, needed: Iterable[str], adapters: Mapping[str, HostAdapter]
    ) -> dict[str, str]:
        """The content of each version whose content is at hand."""
        contents = {}
        for digest in needed:
            known = self._by_digest.get(digest) or adapters.get(digest)
            if known is not None:
                contents[digest] = known.content
        return contents

    def _fits(self, needed: Mapping[str, Version], adapters: Mapping[str, HostAdapter]) -> bool:
        """Whether a lease finds its slots now.

        Raises:
            InputError: it never will.
        """
        contents = set(self._contents(needed, adapters).values())
        pinned = sum(
            resident.pinned and resident.content not in contents
            for resident in self._by_content.values()
        )
        if len(contents) + pinned > self._bank.slots:
            raise InputError(
                f"{len(contents)} adapters are needed at once, and of {self._bank.slots} slots "
                f"others have pinned {pinned}; open the hub with more slots, or unload some"
            )
        missing = len(contents - self._by_content.keys())
        if missing <= len(self._free):
            return True
        may_go = sum(
            resident.leases == 0 and not resident.pinned and resident.content not in contents
            for resident in self._by_content.values()
        )
        return missing <= len(self._free) + may_go

    def _reserve(
        self, needed: Mapping[str, Version], adapters: Mapping[str, HostAdapter]
    ) -> tuple[dict[str, Resident], list[Resident]]:
        """Take all slots of a lease; the second list are those to be filled."""
        contents = self._contents(needed, adapters)
        wanted = set(contents.values())
        self._eviction.note(list(wanted))
        held: dict[str, Resident] = {}
        mine = []
        for digest, version in needed.items():
            resident = self._by_content.get(contents[digest])
            if resident is None:
                adapter = adapters[digest]
                resident = Resident(adapter, self._take_slot(wanted), nbytes=self._size(adapter))
                self._by_content[resident.content] = resident
                self._eviction.add(resident.content)
                mine.append(resident)
            resident.names[digest] = version.name
            self._by_digest[digest] = resident
            resident.leases += 1
            held[digest] = resident
        return held, mine

    def _take_slot(self, wanted: set[str]) -> int:
        if not self._free:
            victim = self._eviction.victim(
                lambda content: (
                    content not in wanted
                    and self._by_content[content].leases == 0
                    and not self._by_content[content].pinned
                )
            )
            assert victim is not None, "a lease takes slots only where they suffice"
            resident = self._by_content[victim]
            self._forget(resident)
            self._free.append(resident.slot)  # not emptied: it is overwritten at once
        return self._free.pop()

    def _fill(self, mine: Iterable[Resident], adapters: Mapping[str, HostAdapter]) -> None:
        """Copy adapters into the slots that were taken for them; no lock is held."""
        images = {adapter.content: adapter.image for adapter in adapters.values()}
        try:
            for resident in mine:
                self._bank.put(resident.slot, images[resident.content])
                resident.ready.set()
        except BaseException:
            with self._changed:
                for resident in mine:
                    if not resident.ready.is_set():
                        resident.failed = True
                        self._forget(resident)
                        resident.ready.set()
            raise

    def _forget(self, resident: Resident) -> None:
        """Let no later lease find it."""
        if resident.gone:
            return
        resident.gone = True
        del self._by_content[resident.content]
        self._eviction.remove(resident.content)
        for digest in resident.names:
            del self._by_digest[digest]

    def _vacate(self, resident: Resident) -> None:
        """Free the slot of a forgotten adapter that nobody leases any more."""
        self._bank.clear(resident.slot)
        self._free.append(resident.slot)
        self._changed.notify_all()

    def _release(self, held: Mapping[str, Resident]) -> None:
        with self._changed:
            for resident in held.values():
                resident.leases -= 1
                if resident.gone and resident.leases == 0:
                    self._vacate(resident)
            if self._queue:
                self._changed.notify_all()
