"""The engine: packed rows through the resident base, each with its own adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .bank import Bank
from .linears import model_bytes
from .packing import pack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .encoder import Encoder
    from .packing import Layout, PackedBatch, Row

POOLER = "pooler.dense"
# What stands together in a packed batch: on a CPU views without copies count, elsewhere few calls.
LAYOUTS: Mapping[str, Layout] = {"cpu": "length"}
# Precisions that round activations.
ROUNDING = frozenset({"int8", "bitsandbytes"})


class Engine:
    """One resident base with its slots; threads may run forwards at once.

    Args:
        encoder: the base, loaded for packed batches.
        slots: how many adapters fit at once.
        slot_bytes: bytes of each slot; None: what a LoRA adapter of rank 16 on every linear needs.
    """

    def __init__(self, encoder: Encoder, *, slots: int, slot_bytes: int | None = None) -> None:
        self.encoder = encoder
        # The pooler sees rows, not packed tokens; heads apply it.
        linears = [name for name in encoder.shape.linears() if name != POOLER]
        self.bank = Bank(
            encoder.model,
            encoder.shape,
            linears,
            slots=slots,
            slot_bytes=slot_bytes,
            device=encoder.device,
            dtype=encoder.dtype,
        )

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> tuple[PackedBatch, torch.Tensor]:
        """Run rows through the base and their adapters.

        Args:
            rows: tokenized rows, each with the slots of its adapters.

        Returns:
            The packed batch, and the last hidden states `[tokens, width]` in packed order.
        """
        batch = pack(
            rows,
            self.encoder.shape,
            self.encoder.device,
            prefix=self.bank.prefix,
            by=LAYOUTS.get(self.encoder.device.type, "adapter"),
            # Rounding to int8 turns the last bit of a sum into a whole step: there a row's products
            # must not depend on its neighbours.
            join=self.encoder.precision not in ROUNDING,
        )
        with self.bank.routing(batch):
            # BERT's pooler runs too, on the packed row's first token; nobody reads it.
            hidden = self.encoder.model(
                input_ids=batch.token_ids,
                position_ids=batch.position_ids,
                token_type_ids=batch.type_ids,
                plan=batch,
                bank=self.bank,
            )
        return batch, hidden.last_hidden_state[0]

    def parameter_bytes(self) -> int:
        """Bytes of the base's tensors."""
        return model_bytes(self.encoder.model)
