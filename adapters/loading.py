"""An adapter's files, to tensors on the base's device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.engine import POOLER
from ..core.errors import BaseMismatchError
from .files import CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE, check_tensors
from .heads import ClassificationHead, Dense, build_head, head_tensors
from .lora import LoraLayout
from .spec import AdapterSpec
from .weights import check_finite, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from ..core.bank import LowRank
    from ..core.encoder import Encoder
    from ..core.engine import Engine
    from ..core.packing import Row


@dataclass(frozen=True, kw_only=True)
class LoadedAdapter:
    """An adapter in memory, ready for a slot."""

    spec: AdapterSpec
    """What it is."""
    updates: dict[str, LowRank]
    """Low-rank updates by module of the encoder."""
    head: ClassificationHead
    """Its head."""

    @property
    def bytes(self) -> int:
        """Bytes of its tensors, head included."""
        return sum(update.bytes for update in self.updates.values()) + self.head.own_bytes


def load_adapter(files: Mapping[str, bytes], encoder: Encoder) -> LoadedAdapter:
    """Build an adapter from the files of a version or a checked folder.

    Everything that depends on this base is checked again: the files may come from a registry that
    was filled against another one.

    Raises:
        BaseMismatchError: it was trained on another base.
        AdapterError: files that don't fit the base, or one another.
    """
    from safetensors.torch import load

    spec = AdapterSpec.from_json(files[SPEC_FILE])
    if spec.base_fingerprint is not None and spec.base_fingerprint != encoder.fingerprint:
        raise BaseMismatchError(
            f"{spec.task}/{spec.locale} was trained on {spec.base} with fingerprint "
            f"{spec.base_fingerprint[:12]}, but {encoder.name} has {encoder.fingerprint[:12]}; "
            "load the base that it was trained on"
        )
    shape = encoder.shape
    layout = LoraLayout.parse(json.loads(files[CONFIG_FILE]), shape)
    header = read_header(files[WEIGHTS_FILE])
    check_tensors(header, layout.tensors(shape) | head_tensors(shape, len(spec.labels)))
    check_finite(files[WEIGHTS_FILE], header)
    tensors = load(files[WEIGHTS_FILE])
    updates = {
        name: update.to(encoder.device, encoder.dtype)
        for name, update in layout.build(tensors, shape).items()
    }
    head = build_head(
        tensors,
        shape,
        pooler=_pooler(encoder),
        pooler_update=updates.pop(POOLER, None),
        device=encoder.device,
    )
    return LoadedAdapter(spec=spec, updates=updates, head=head)


def _pooler(encoder: Encoder) -> Dense | None:
    if encoder.shape.model_type != "bert":
        return None
    weight = encoder.model.get_parameter(f"{POOLER}.weight")
    bias = encoder.model.get_parameter(f"{POOLER}.bias")
    return Dense(weight=weight.float(), bias=bias.float())


def classify(
    engine: Engine, rows: Sequence[Row], heads: Mapping[int, ClassificationHead]
) -> list[torch.Tensor]:
    """Logits of each row, in the order given.

    Args:
        engine: the resident base, the rows' adapters in their slots.
        rows: tokenized rows, each with a slot.
        heads: the head of each slot in use.

    Returns:
        For each row `[labels of its adapter]`, fp32, on the CPU.
    """
    import torch

    with torch.inference_mode():
        batch, hidden = engine.forward(rows)
        first_tokens = hidden[batch.starts].float()
        packed: list[torch.Tensor] = []
        for segment in batch.segments:
            assert segment.slot is not None, "a row without an adapter has no head"
            part = first_tokens[segment.first_row : segment.last_row]
            packed.extend(heads[segment.slot](part).cpu())
    logits: list[torch.Tensor] = [packed[0]] * len(rows)
    for place, result in zip(batch.order.tolist(), packed, strict=True):
        logits[place] = result
    return logits
