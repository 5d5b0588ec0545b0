"""The engine: packed rows through the resident base, each with its own adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .bank import Bank
from .packing import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .encoder import Encoder
    from .packing import PackedBatch, Row

POOLER = "pooler.dense"


class Engine:
    """One resident base with its slots.

    Args:
        encoder: the base, loaded for packed batches.
        slots: how many adapters fit at once.
    """

    def __init__(self, encoder: Encoder, *, slots: int) -> None:
        self.encoder = encoder
        # The pooler sees rows, not packed tokens; heads apply it.
        linears = [name for name in encoder.shape.linears() if name != POOLER]
        self.bank = Bank(encoder.model, linears, slots=slots)

    @torch.inference_mode()
    def forward(self, rows: Sequence[Row]) -> tuple[PackedBatch, torch.Tensor]:
        """Run rows through the base and their adapters.

        Args:
            rows: tokenized rows, each with the slot of its adapter.

        Returns:
            The packed batch, and the last hidden states `[tokens, width]` in packed order.
        """
        batch = pack(rows, self.encoder.shape, self.encoder.device)
        with self.bank.routing(batch):
            # BERT's pooler runs too, on the packed row's first token; nobody reads it.
            hidden = self.encoder.model(
                input_ids=batch.token_ids,
                position_ids=batch.position_ids,
                token_type_ids=batch.type_ids,
                plan=batch,
            )
        return batch, hidden.last_hidden_state[0]

    def parameter_bytes(self) -> int:
        """Bytes of the base's tensors."""
        seen: dict[int, int] = {}
        for tensor in [*self.encoder.model.parameters(), *self.encoder.model.buffers()]:
            seen[tensor.data_ptr()] = tensor.nbytes
        return sum(seen.values())
