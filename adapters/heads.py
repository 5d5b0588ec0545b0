"""Classification heads as transformers has them, one per adapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from ..core.bank import LowRank
    from ..core.base import EncoderShape

XLM_ROBERTA = "xlm-roberta-classification"
BERT = "bert-classification"
KEY_PREFIX = "base_model.model.classifier."


def head_name(shape: EncoderShape) -> str:
    """Which classification head adapters on this base have."""
    return XLM_ROBERTA if shape.model_type == "xlm-roberta" else BERT


def head_tensors(shape: EncoderShape, labels: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a classification head's tensors in a PEFT folder."""
    width = shape.hidden_size
    if shape.model_type == "xlm-roberta":
        return {
            f"{KEY_PREFIX}dense.weight": (width, width),
            f"{KEY_PREFIX}dense.bias": (width,),
            f"{KEY_PREFIX}out_proj.weight": (labels, width),
            f"{KEY_PREFIX}out_proj.bias": (labels,),
        }
    return {f"{KEY_PREFIX}weight": (labels, width), f"{KEY_PREFIX}bias": (labels,)}


def head_outputs(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """How many outputs the head among these tensors has; None: there is no head."""
    for name in ("out_proj.weight", "weight"):
        shape = shapes.get(KEY_PREFIX + name)
        if shape:
            return shape[0]
    return None


@dataclass(frozen=True, kw_only=True)
class Dense:
    """A linear layer's parameters."""

    # [out, in]
    weight: torch.Tensor
    # [out]
    bias: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """`[rows, in]` → `[rows, out]`."""
        import torch

        return torch.nn.functional.linear(features, self.weight, self.bias)


@dataclass(frozen=True, kw_only=True)
class ClassificationHead:
    """`[rows, width]` hidden states of the first token → `[rows, labels]` logits."""

    hidden: Dense
    """XLM-R: the head's own layer. BERT: the base's pooler."""
    hidden_update: LowRank | None
    """What the adapter adds to the base's pooler, if it targets it."""
    output: Dense
    """To the labels."""
    own_bytes: int
    """Bytes of the tensors that belong to the adapter."""

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Logits `[rows, labels]`."""
        hidden = self.hidden(features)
        if self.hidden_update is not None:
            hidden = hidden + self.hidden_update(features)
        return self.output(hidden.tanh())


def build_head(
    tensors: Mapping[str, torch.Tensor],
    shape: EncoderShape,
    *,
    pooler: Dense | None,
    pooler_update: LowRank | None,
    device: torch.device,
) -> ClassificationHead:
    """Build the head of one adapter.

    Args:
        tensors: the adapter's tensors, as named in its folder.
        shape: the base's.
        pooler: the base's pooler (BERT).
        pooler_update: the adapter's update of it.
        device: where it computes.
    """
    own = {
        name.removeprefix(KEY_PREFIX): tensor.float().to(device)
        for name, tensor in tensors.items()
        if name.startswith(KEY_PREFIX)
    }
    own_bytes = sum(tensor.numel() * tensor.element_size() for tensor in own.values())
    if shape.model_type == "xlm-roberta":
        return ClassificationHead(
            hidden=Dense(weight=own["dense.weight"], bias=own["dense.bias"]),
            hidden_update=None,
            output=Dense(weight=own["out_proj.weight"], bias=own["out_proj.bias"]),
            own_bytes=own_bytes,
        )
    assert pooler is not None
    return ClassificationHead(
        hidden=pooler,
        hidden_update=pooler_update,
        output=Dense(weight=own["weight"], bias=own["bias"]),
        own_bytes=own_bytes + (pooler_update.bytes if pooler_update is not None else 0),
    )
