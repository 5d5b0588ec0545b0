"""Slots that hold adapters, and the modules that apply them.

All slots are one tensor, set aside once. Loading an adapter is one copy into a free slot and a new
line in the routing tables; no module is added, removed or renamed while serving. Each wrapped
module computes the base's own result once for the whole packed batch, then adds to each run of
tokens what that run's adapters say.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from . import native
from .delta import ACTIVATIONS
from .errors import SlotTooSmallError
from .quantized import Int8Linear

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .base import EncoderShape
    from .delta import BottleneckPlace, Places, PrefixPlace, SlotImage
    from .int8 import KernelArguments
    from .packing import PackedBatch, Run

# A slot holds an adapter of this rank on every linear module, unless said otherwise.
DEFAULT_RANK = 16


class Bank:
    """The slots of one resident base.

    Args:
        encoder: the frozen base; its linears and output norms are wrapped in place.
        shape: the base's.
        linears: names of the linear modules to wrap.
        slots: how many adapters fit at once.
        slot_bytes: bytes of each slot; None: what a LoRA adapter of rank 16 on every linear needs.
        device: where the slots are.
        dtype: their data type.
    """

    def __init__(
        self,
        encoder: nn.Module,
        shape: EncoderShape,
        linears: Iterable[str],
        *,
        slots: int,
        slot_bytes: int | None = None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.slots = slots
        self._width = shape.hidden_size
        item = dtype.itemsize
        floats = -(-(slot_bytes or default_slot_bytes(shape, item)) // item)
        # [slots, floats]. On the CPU the system gives memory only where an adapter is written.
        self.arena = torch.empty(slots, floats, dtype=dtype, device=device)
        self._held: list[Places | None] = [None] * slots
        # A thread's own batch: several threads may run forwards at once.
        self._current = threading.local()
        self._linears: dict[str, AdapterLinear] = {}
        self._norms: dict[str, AdapterNorm] = {}
        for name in linears:
            wrapped = AdapterLinear(encoder.get_submodule(name), self)
            _replace(encoder, name, wrapped)
            self._linears[name] = wrapped
        for layer in range(shape.layers):
            name = f"encoder.layer.{layer}.output.LayerNorm"
            norm = AdapterNorm(encoder.get_submodule(name), self)
            _replace(encoder, name, norm)
            self._norms[name] = norm

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

    def put(self, slot: int, image: SlotImage) -> None:
        """Copy an adapter into a slot that no running batch uses, over whatever was there.

        Raises:
            SlotTooSmallError: it doesn't fit.
        """
        floats = image.places.floats
        if floats > self.arena.shape[1]:
            raise SlotTooSmallError(
                f"the adapter takes {floats * self.arena.itemsize:,} bytes, a slot "
                f"{self.slot_bytes:,}; open the hub with larger slots (slot_bytes=)"
            )
        self.clear(slot)
        self.arena[slot, :floats].copy_(image.values)
        begin = slot * self.arena.shape[1]
        for name, place in image.places.low_rank.items():
            linear = self._linears[name]
            linear.table[slot] = (begin + place.down, begin + place.up, place.rank)
            linear.used.add(slot)
            if place.gain is not None:
                linear.gains[slot] = place.gain
        for name, layer in image.places.bottlenecks.items():
            (self._linears.get(name) or self._norms[name]).bottlenecks[slot] = layer
        self._held[slot] = image.places

    def clear(self, slot: int) -> None:
        """Empty a slot that no running batch uses."""
        held, self._held[slot] = self._held[slot], None
        if held is None:
            return
        for name in held.low_rank:
            self._linears[name].table[slot] = 0
            self._linears[name].used.discard(slot)
            self._linears[name].gains.pop(slot, None)
        for name in held.bottlenecks:
            del (self._linears.get(name) or self._norms[name]).bottlenecks[slot]

    def prefix(self, slot: int) -> PrefixPlace | None:
        """The prefix that a slot's adapter has."""
        held = self._held[slot]
        return held.prefix if held is not None else None

    def prefixes(
        self, slots: Sequence[int | None], layer: int, *, heads: int, longest: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values of several prefixes.

        Args:
            slots: one for each row; None: the row has none.
            layer: number of the layer.
            heads: how many attention heads there are.
            longest: pad to this length; None: all are equally long.

        Returns:
            Two tensors `[rows, heads, length, width of a head]`.
        """
        keys: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        for slot in slots:
            place = self.prefix(slot) if slot is not None else None
            length = place.length if place is not None else 0
            blank = self.arena.new_zeros((longest or length) - length, self._width)
            for found, at in (
                (keys, place.keys if place else 0),
                (values, place.values if place else 0),
            ):
                part = self._part(slot or 0, at + layer * length * self._width, length, self._width)
                found.append(torch.cat([part, blank]) if blank.numel() else part)
        # [rows, length, heads, width of a head]
        shape = (len(slots), -1, heads, self._width // heads)
        return (
            torch.stack(keys).view(shape).transpose(1, 2),
            torch.stack(values).view(shape).transpose(1, 2),
        )

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot."""
        return self.arena.shape[1] * self.arena.itemsize

    def used_bytes(self) -> int:
        """Bytes of the adapters that are in slots."""
        return sum(held.floats for held in self._held if held) * self.arena.itemsize

    def low_rank(self, linear: AdapterLinear, features: torch.Tensor, output: torch.Tensor) -> None:
        """Add the updates of a batch's adapters to `output` `[tokens, out]`, in place."""
        batch = self.batch
        assert batch is not None
        if linear.gains:
            for run in batch.runs:
                self._scale(linear, run, output)
        kernels = self._kernels()
        if kernels is not None:
            kernels.over_rows(
                "isogloss_low_rank",
                len(output),
                *(features, output, features.shape[1], output.shape[1]),
                *self.kernel_arguments(linear, batch),
            )
            return
        floats = self.arena.flatten()
        for run in batch.runs:
            for slot, weight in run.mix:
                down, up, rank = linear.places[slot].tolist()
                if not rank:
                    continue
                part = slice(run.begin, run.end)
                inner = (
                    features[part] @ floats[down : down + rank * features.shape[1]].view(rank, -1).T
                )
                output[part].addmm_(
                    inner, floats[up : up + rank * output.shape[1]].view(rank, -1), alpha=weight
                )

    def fuses(self, linear: AdapterLinear) -> bool:
        """Whether a layer's updates can be added in the pass that finishes its own product."""
        # A gain scales the finished product, before anything is added to it.
        return (
            isinstance(linear.base, Int8Linear) and not linear.gains and self._kernels() is not None
        )

    def kernel_arguments(self, linear: AdapterLinear, batch: PackedBatch) -> KernelArguments:
        """What `isogloss_low_rank` takes after the layer's own arguments."""
        return (self.arena, linear.places, batch.segments, batch.weights, len(batch.segments))

    def _kernels(self) -> native.Native | None:
        usable = self.arena.device.type == "cpu" and self.arena.dtype == torch.float32
        return native.load() if usable else None

    def _scale(self, linear: AdapterLinear, run: Run, output: torch.Tensor) -> None:
        """DoRA: `W x` becomes `W x (1 + Σ weight (gain - 1))`, before anything is added to it."""
        gains = [
            (self._part(slot, at, output.shape[1]) - 1) * weight
            for slot, weight in run.mix
            if (at := linear.gains.get(slot)) is not None
        ]
        if gains:
            part = output[run.begin : run.end]
            bias = cast("torch.Tensor | None", linear.base.bias)
            product = part - bias if bias is not None else part
            part.addcmul_(product, torch.stack(gains).sum(0))

    def bottlenecks(
        self, layers: Mapping[int, BottleneckPlace], hidden: torch.Tensor, norm: nn.Module | None
    ) -> None:
        """Apply the bottlenecks of a batch's adapters to `hidden` `[tokens, width]`, in place.

        Args:
            layers: those of one module, by slot.
            hidden: what the module gives; with a norm, what the norm is given.
            norm: what a bottleneck reads through.
        """
        batch = self.batch
        assert batch is not None
        for run in batch.runs:
            for slot, weight in run.mix:
                layer = layers.get(slot)
                if layer is None:
                    continue
                part = hidden[run.begin : run.end]
                down = self._part(slot, layer.down, layer.size, self._width)
                up = self._part(slot, layer.up, layer.size, self._width)
                inner = torch.addmm(
                    self._part(slot, layer.down_bias, layer.size),
                    norm(part) if norm is not None else part,
                    down.T,
                )
                change = torch.addmm(
                    self._part(slot, layer.up_bias, self._width),
                    ACTIVATIONS[layer.activation](inner),
                    up,
                )
                part.add_(change, alpha=weight)

    def _part(self, slot: int, at: int, *shape: int) -> torch.Tensor:
        """A view of a slot."""
        size = torch.Size(shape).numel()
        return self.arena[slot, at : at + size].view(shape)


class AdapterLinear(nn.Module):
    """A frozen linear layer that adds to each run of tokens what its adapters say.

    Args:
        base: the layer.
        bank: the slots.
    """

    def __init__(self, base: nn.Module, bank: Bank) -> None:
        super().__init__()
        self.base = base
        self._bank = bank
        # [slots, 3]: where down [rank, in] and up [rank, out] begin in the arena, and the rank
        self.places = torch.zeros(bank.slots, 3, dtype=torch.int64)
        # The same memory: writing a line of it takes a tenth of the time.
        self.table = self.places.numpy()
        # Slots whose adapters change this layer, and what some of them have besides.
        self.used: set[int] = set()
        self.gains: dict[int, int] = {}
        self.bottlenecks: dict[int, BottleneckPlace] = {}

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[1, tokens, in]` → `[1, tokens, out]`."""
        batch = self._bank.batch
        runs = batch is not None and bool(batch.runs)
        output: torch.Tensor
        if batch is not None and runs and self.used and self._bank.fuses(self):
            output = self.base(features, low_rank=self._bank.kernel_arguments(self, batch))
        else:
            output = self.base(features)
            if runs and self.used:
                self._bank.low_rank(self, features[0], output[0])
        if runs and self.bottlenecks:
            self._bank.bottlenecks(self.bottlenecks, output[0], None)
        return output


class AdapterNorm(nn.Module):
    """A frozen LayerNorm, before which bottlenecks of Pfeiffer's placement add theirs.

    Args:
        base: the LayerNorm.
        bank: the slots.
    """

    def __init__(self, base: nn.Module, bank: Bank) -> None:
        super().__init__()
        self.base = base
        self._bank = bank
        self.bottlenecks: dict[int, BottleneckPlace] = {}

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[1, tokens, width]` → the same."""
        batch = self._bank.batch
        if batch is not None and batch.runs and self.bottlenecks:
            self._bank.bottlenecks(self.bottlenecks, hidden[0], self.base)
        output: torch.Tensor = self.base(hidden)
        return output


def default_slot_bytes(shape: EncoderShape, item: int = 4) -> int:
    """Bytes of a LoRA adapter of rank DEFAULT_RANK on every linear module."""
    return DEFAULT_RANK * item * sum(rows + columns for rows, columns in shape.linears().values())


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
