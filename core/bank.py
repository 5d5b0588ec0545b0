"""Slots that hold adapters' low-rank updates, and the linear layer that applies them.

Each wrapped linear computes the base's product once for the whole packed batch, then adds to each
segment of tokens the update of that segment's adapter. Loading an adapter is putting tensors into
a slot: no module is added, removed or renamed while serving.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .packing import PackedBatch


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """An update of a linear layer: `x → x downᵀ upᵀ`, any scale folded into `up`."""

    # [rank, in]
    down: torch.Tensor
    # [out, rank]
    up: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """`[rows, in]` → `[rows, out]`."""
        return (features @ self.down.T) @ self.up.T

    def to(self, device: torch.device, dtype: torch.dtype) -> LowRank:
        """The same update elsewhere or in another precision."""
        return LowRank(down=self.down.to(device, dtype), up=self.up.to(device, dtype))

    @property
    def bytes(self) -> int:
        """Bytes of both tensors."""
        return self.down.nbytes + self.up.nbytes


class Bank:
    """The slots of one resident base.

    Args:
        encoder: the frozen base; its linears are wrapped in place.
        linears: names of the modules to wrap.
        slots: how many adapters fit at once.
    """

    def __init__(self, encoder: nn.Module, linears: Iterable[str], *, slots: int) -> None:
        self.slots = slots
        # A thread's own batch: two threads may run forwards at once.
        self._current = threading.local()
        self._linears: dict[str, AdapterLinear] = {}
        for name in linears:
            parent = encoder.get_submodule(name.rpartition(".")[0])
            child = name.rpartition(".")[2]
            wrapped = AdapterLinear(getattr(parent, child), self)
            setattr(parent, child, wrapped)
            self._linears[name] = wrapped

    @contextmanager
    def routing(self, batch: PackedBatch) -> Iterator[None]:
        """Within it, this thread's forward computes `batch`."""
        self._current.batch = batch
        try:
            yield
        finally:
            self._current.batch = None

    @property
    def batch(self) -> PackedBatch | None:
        """The batch that this thread computes."""
        return getattr(self._current, "batch", None)

    def put(self, slot: int, updates: Mapping[str, LowRank]) -> None:
        """Put an adapter into a slot, over whatever was there."""
        for name, linear in self._linears.items():
            linear.updates[slot] = updates.get(name)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self.put(slot, {})

    def bytes(self) -> int:
        """Bytes of all updates in all slots."""
        return sum(
            update.bytes
            for linear in self._linears.values()
            for update in linear.updates
            if update is not None
        )


class AdapterLinear(nn.Module):
    """A frozen linear layer that adds to each segment its adapter's update."""

    def __init__(self, base: nn.Linear, bank: Bank) -> None:
        super().__init__()
        self.base = base
        self.bank = bank
        self.updates: list[LowRank | None] = [None] * bank.slots

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[1, tokens, in]` → `[1, tokens, out]`."""
        output: torch.Tensor = self.base(features)
        batch = self.bank.batch
        if batch is None:
            return output
        for segment in batch.segments:
            update = self.updates[segment.slot] if segment.slot is not None else None
            if update is not None:
                part = slice(segment.begin, segment.end)
                output[0, part] += update(features[0, part])
        return output
