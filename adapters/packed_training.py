"""The packed forward with gradients: rows of a training step through the frozen base, unpadded.

What a step computes is what its gradients need: no padding, no graph below the lowest layer that is
trained, and, where a task reads each text's first token only, no last layer for the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..core.attention import NAME, register
from ..core.engine import LAYOUTS
from ..core.packing import pack
from .trained_prefix import SLOT, TrainedPrefix, trains_prefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from ..core.base import EncoderShape
    from ..core.packing import PackedBatch, Row
    from .state_cache import StateCache


class PackedEncoder:
    """The encoder inside a task's model, with whatever PEFT put around its layers.

    From then on the model takes packed rows only. Gradient checkpointing is transformers' own:
    `model.activation_checkpointing_enable({"use_reentrant": False})`.

    Args:
        model: transformers' XLM-R or BERT, bare or with a head, or PEFT's model of it.
        shape: the encoder's.
        first_layer: the lowest layer that is trained; None: the lowest with a trainable parameter.
            Layers below it compute without dropout, as they do at serving time.
        cache: keeps what the layers below `first_layer` give for each row.
        shifts_positions: with a prefix, count a text's positions from its end, as PEFT does.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: EncoderShape,
        *,
        first_layer: int | None = None,
        cache: StateCache | None = None,
        shifts_positions: bool = True,
    ) -> None:
        register()
        self.shape = shape
        self.encoder = encoder_of(model)
        self.encoder.config._attn_implementation = NAME
        self.layers: Any = self.encoder.get_submodule("encoder.layer")
        self.prefix: TrainedPrefix | None = None
        if trains_prefix(model):
            self.prefix = TrainedPrefix(model, shape, shifts_positions=shifts_positions)
            first_layer = 0  # every layer has its part of a prefix
        self.first_layer = lowest_trained(self.encoder) if first_layer is None else first_layer
        self.cache = cache

    def __call__(
        self, rows: Sequence[Row], *, first_tokens: bool = False
    ) -> tuple[torch.Tensor, PackedBatch]:
        """Run rows.

        Args:
            rows: tokenized texts, as long as the base takes, less a prefix that shifts positions.
            first_tokens: give the first token of each row only.

        Returns:
            The last hidden states `[tokens, width]` in packed order, where the batch tells each
            row's place; or `[rows, width]` in the order of `rows`, if only first tokens are wanted.
        """
        if self.prefix is not None:
            self.prefix.read()
        batch = self._pack(rows)
        hidden = self._below(rows, batch)
        above = self.layers[self.first_layer :]
        if not first_tokens:
            return self._run(above, hidden, batch)[0], batch
        starts = [begin for begin, _ in batch.rows]
        if len(above) == 0:
            return hidden[0, starts], batch
        hidden = self._run(above[:-1], hidden, batch)
        return self._run_for(above[-1], hidden, batch, starts)[0], batch

    def _pack(self, rows: Sequence[Row]) -> PackedBatch:
        device = self.encoder.get_parameter("embeddings.LayerNorm.weight").device
        place = None if self.prefix is None else self.prefix.place
        if place is not None:
            rows = [replace(row, mix=((SLOT, 1.0),)) for row in rows]
        layout = LAYOUTS.get(device.type, "adapter")
        return pack(rows, self.shape, device, prefix=lambda _: place, by=layout)

    def _below(self, rows: Sequence[Row], batch: PackedBatch) -> torch.Tensor:
        """What enters the lowest trained layer, `[1, tokens, width]`."""
        if self.first_layer == 0:
            return self._embed(batch)
        if self.cache is None:
            return self._frozen(batch)
        found = {row: self.cache.get(row) for row in rows}
        missing = [row for row, states in found.items() if states is None]
        if missing:
            computed = self._pack(missing)
            fresh = self._frozen(computed)[0]
            for row, (begin, end) in zip(missing, computed.rows, strict=True):
                found[row] = fresh[begin:end]
                self.cache.put(row, fresh[begin:end])
        by_place = sorted(zip(batch.rows, rows, strict=True), key=lambda placed: placed[0])
        parts = [states for _, row in by_place if (states := found[row]) is not None]
        return torch.cat([part.to(batch.token_ids.device) for part in parts]).unsqueeze(0)

    @torch.no_grad()
    def _frozen(self, batch: PackedBatch) -> torch.Tensor:
        below = [self.encoder.get_submodule("embeddings"), *self.layers[: self.first_layer]]
        for module in below:
            module.eval()
        return self._run(self.layers[: self.first_layer], self._embed(batch), batch)

    def _embed(self, batch: PackedBatch) -> torch.Tensor:
        hidden: torch.Tensor = self.encoder.get_submodule("embeddings")(
            input_ids=batch.token_ids,
            position_ids=batch.position_ids,
            token_type_ids=batch.type_ids,
        )
        return hidden

    def _run(self, layers: Sequence[Any], hidden: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        for layer in layers:
            hidden = layer(hidden, None, plan=batch, bank=self.prefix)
        return hidden

    def _run_for(
        self, layer: Any, hidden: torch.Tensor, batch: PackedBatch, tokens: Sequence[int]
    ) -> torch.Tensor:
        """A layer's result `[1, len(tokens), width]` for some tokens, which attend to all.

        After attention a layer computes token by token, so the others can be left out.
        """
        attended, _ = layer.attention.self(hidden, None, plan=batch, bank=self.prefix)
        attended = layer.attention.output(attended[:, tokens], hidden[:, tokens])
        result: torch.Tensor = layer.feed_forward_chunk(attended)
        return result


def classification_logits(model: nn.Module, first_tokens: torch.Tensor) -> torch.Tensor:
    """What a classifier's own head, or the copy of it that PEFT trains, makes of first tokens.

    Args:
        model: transformers' XLM-R or BERT for sequence classification, or PEFT's model of it.
        first_tokens: last hidden states `[rows, width]`.

    Returns:
        `[rows, labels]`.
    """
    inner = _unwrapped(model)
    # The heads take the first token of each row by themselves.
    features = first_tokens.unsqueeze(1)
    if inner.config.model_type == "bert":
        features = inner.dropout(inner.base_model.pooler(features))
    logits: torch.Tensor = inner.classifier(features)
    return logits


def encoder_of(model: nn.Module) -> Any:
    """The encoder inside a model with a head, or inside PEFT's model of either."""
    return _unwrapped(model).base_model


def lowest_trained(encoder: nn.Module) -> int:
    """The lowest layer with a trainable parameter; the number of layers if there is none."""
    layers: Any = encoder.get_submodule("encoder.layer")
    if any(
        parameter.requires_grad for parameter in encoder.get_submodule("embeddings").parameters()
    ):
        return 0
    trained = (
        number
        for number, layer in enumerate(layers)
        if any(parameter.requires_grad for parameter in layer.parameters())
    )
    return next(trained, len(layers))


def _unwrapped(model: nn.Module) -> Any:
    outer: Any = model
    return outer.get_base_model() if hasattr(outer, "get_base_model") else outer
