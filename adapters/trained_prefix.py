"""The prefix that PEFT trains, as the packed attention asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.delta import PrefixPlace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from ..core.base import EncoderShape

# One prefix at a time is trained: every row's is in this slot.
SLOT = 0


class TrainedPrefix:
    """Keys and values with gradients; read anew for every forward.

    Args:
        model: PEFT's model for prefix tuning.
        shape: the encoder's.
        shifts_positions: count a text's positions from the prefix's end, as PEFT does.
    """

    def __init__(self, model: nn.Module, shape: EncoderShape, *, shifts_positions: bool) -> None:
        config: Any = model.active_peft_config
        self._model: Any = model
        self._shape = shape
        self.place = PrefixPlace(
            keys=0,
            values=0,
            length=config.num_virtual_tokens,
            shifts_positions=shifts_positions,
        )
        # [key or value, layers, length, width]
        self._values: torch.Tensor | None = None

    def read(self) -> None:
        """Compute the prefix from its parameters, through its projection if it has one."""
        name = self._model.active_adapter
        encoder = self._model.prompt_encoder[name]
        tokens = self._model.prompt_tokens[name][: self.place.length]
        # [1, length, layers · 2 · width]
        flat = encoder(tokens.unsqueeze(0).to(encoder.embedding.weight.device))
        split = flat.view(self.place.length, self._shape.layers, 2, self._shape.hidden_size)
        self._values = split.permute(2, 1, 0, 3)

    def prefixes(
        self,
        slots: Sequence[int | None],
        layer: int,
        *,
        heads: int,
        longest: int | None = None,  # noqa: ARG002  (all are equally long)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """A layer's keys and values `[rows, heads, length, width of a head]`."""
        assert self._values is not None, "read it first"
        split = (heads, self._shape.hidden_size // heads)
        keys, values = (
            part[layer].unflatten(1, split).transpose(0, 1).expand(len(slots), -1, -1, -1)
            for part in self._values
        )
        return keys, values


def trains_prefix(model: nn.Module) -> bool:
    """Whether it is PEFT's model for prefix tuning."""
    config: Any = getattr(model, "active_peft_config", None)
    return getattr(config, "peft_type", None) == "PREFIX_TUNING"
