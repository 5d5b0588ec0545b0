"""What an adapter adds to the base, on the host: low-rank updates, bottlenecks, a prefix.

A `Delta` is made of tensors by name of the module that they change; a `SlotImage` is the same as
one contiguous tensor, ready to be copied into a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Activation = Literal["relu", "gelu", "swish", "tanh"]
ACTIVATIONS: Mapping[Activation, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}
# Parts begin at multiples of this many floats: a cache line, and the widest vector register.
ALIGNMENT = 16


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """An update of a linear layer: `x → x downᵀ upᵀ`, any scale folded into `up`.

    With a gain (DoRA, Liu et al., 2024, https://arxiv.org/abs/2402.09353) the base's product is
    scaled as well: `W x → gain · W x + up down x`, the bias left alone.
    """

    # [rank, in]
    down: torch.Tensor
    # [out, rank]
    up: torch.Tensor
    # [out]: DoRA's magnitude over the norm of the updated weight's rows; `up` holds it too
    gain: torch.Tensor | None = None

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """`[rows, in]` → `[rows, out]`, the gain left out."""
        return (features @ self.down.T) @ self.up.T

    def to(self, device: torch.device, dtype: torch.dtype) -> LowRank:
        """The same update elsewhere or in another precision."""
        return LowRank(
            down=self.down.to(device, dtype),
            up=self.up.to(device, dtype),
            gain=None if self.gain is None else self.gain.to(device, dtype),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        gain = 0 if self.gain is None else self.gain.nbytes
        return self.down.nbytes + self.up.nbytes + gain


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """Two small layers after a module: `h → h + up act(down h + down_bias) + up_bias`.

    Houlsby et al., 2019 (https://arxiv.org/abs/1902.00751) and Pfeiffer et al., 2021
    (https://arxiv.org/abs/2005.00247); any scale is folded into `up` and `up_bias`. After a
    LayerNorm (Pfeiffer's placement) the layers read what it gives, and their sum is added to what
    it was given, which it then normalises again.
    """

    # [size, width]
    down: torch.Tensor
    # [size]
    down_bias: torch.Tensor
    # [width, size]
    up: torch.Tensor
    # [width]
    up_bias: torch.Tensor
    activation: Activation

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(part.nbytes for part in (self.down, self.down_bias, self.up, self.up_bias))


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Keys and values that each layer's attention finds before those of the text.

    Li and Liang, 2021 (https://arxiv.org/abs/2101.00190).
    """

    # [layers, length, width]
    keys: torch.Tensor
    # [layers, length, width]
    values: torch.Tensor
    shifts_positions: bool
    """Whether the text's positions are counted from the prefix's end, as PEFT trains it."""

    @property
    def length(self) -> int:
        """How many keys each layer gets."""
        return self.keys.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self.keys.nbytes + self.values.nbytes


@dataclass(frozen=True, kw_only=True)
class Delta:
    """All that one adapter adds to the base, heads apart."""

    low_rank: dict[str, LowRank] = field(default_factory=dict)
    """By the linear module that each changes."""
    bottlenecks: dict[str, Bottleneck] = field(default_factory=dict)
    """By the linear or LayerNorm module after which each acts."""
    prefix: Prefix | None = None
    """Keys and values for every layer."""

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        low_rank = sum(update.nbytes for update in self.low_rank.values())
        bottlenecks = sum(layer.nbytes for layer in self.bottlenecks.values())
        return low_rank + bottlenecks + (self.prefix.nbytes if self.prefix else 0)


@dataclass(frozen=True, kw_only=True)
class LowRankPlace:
    """Where a low-rank update lies in an image; counted in floats."""

    down: int
    up: int
    gain: int | None
    rank: int


@dataclass(frozen=True, kw_only=True)
class BottleneckPlace:
    """Where a bottleneck lies in an image; counted in floats."""

    down: int
    down_bias: int
    up: int
    up_bias: int
    size: int
    activation: Activation


@dataclass(frozen=True, kw_only=True)
class PrefixPlace:
    """Where a prefix lies in an image; counted in floats."""

    keys: int
    values: int
    length: int
    shifts_positions: bool


@dataclass(frozen=True, kw_only=True)
class Places:
    """What an image or a slot holds, and where."""

    low_rank: dict[str, LowRankPlace]
    """By module."""
    bottlenecks: dict[str, BottleneckPlace]
    """By module."""
    prefix: PrefixPlace | None
    """Of all layers."""
    floats: int
    """How many there are in all."""


@dataclass(frozen=True, kw_only=True)
class SlotImage:
    """A delta as one contiguous tensor, laid out as it will lie in a slot."""

    # [floats]; `up` matrices stand transposed, [rank, out]: each token adds up rows of them
    values: torch.Tensor
    places: Places
    """What it holds, and where."""

    @classmethod
    def of(cls, delta: Delta) -> SlotImage:
        """Lay a delta out."""
        parts: list[tuple[int, torch.Tensor]] = []
        size = 0

        def place(tensor: torch.Tensor) -> int:
            nonlocal size
            at = size
            parts.append((at, tensor))
            size += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
            return at

        low_rank = {
            module: LowRankPlace(
                down=place(update.down),
                up=place(update.up.T),
                gain=None if update.gain is None else place(update.gain),
                rank=update.down.shape[0],
            )
            for module, update in delta.low_rank.items()
        }
        bottlenecks = {
            module: BottleneckPlace(
                down=place(layer.down),
                down_bias=place(layer.down_bias),
                up=place(layer.up.T),
                up_bias=place(layer.up_bias),
                size=layer.down.shape[0],
                activation=layer.activation,
            )
            for module, layer in delta.bottlenecks.items()
        }
        prefix = None
        if delta.prefix is not None:
            prefix = PrefixPlace(
                keys=place(delta.prefix.keys),
                values=place(delta.prefix.values),
                length=delta.prefix.length,
                shifts_positions=delta.prefix.shifts_positions,
            )
        values = torch.empty(size)
        flat = values.numpy()  # many small copies: numpy's cost half of torch's
        for at, tensor in parts:
            flat[at : at + tensor.numel()].reshape(tensor.shape)[:] = tensor.numpy()
        places = Places(low_rank=low_rank, bottlenecks=bottlenecks, prefix=prefix, floats=size)
        return cls(values=values, places=places)

    @property
    def prefix(self) -> PrefixPlace | None:
        """Where its prefix lies, if it has one."""
        return self.places.prefix

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.values.nbytes
