"""What turns hidden states into answers, one head per adapter, any of them side by side.

The names and shapes are those of transformers' models with a head. What each kind computes stands
in `head_kinds.py`, the base's own masked-LM head in `lm_head.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import InputError
from .head_kinds import ClassificationHead, Dense, EmbeddingHead, Head, TokenHead

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..core.base import EncoderShape
    from ..core.delta import LowRank
    from ..core.packing import PackedBatch
    from .spec import AdapterSpec, TaskType

__all__ = [
    "ClassificationHead",
    "Dense",
    "EmbeddingHead",
    "Head",
    "MixedHead",
    "TokenHead",
    "apply_heads",
    "build_head",
    "head_name",
    "head_outputs",
    "head_tensors",
    "mix_heads",
]

XLM_ROBERTA = "xlm-roberta-classification"
BERT = "bert-classification"
TOKENS = "token-classification"
ANSWER = "question-answering"
# What PEFT puts before a head's tensors: for LoRA and its like.
KEY_PREFIX = "base_model.model."
# The last layer of each head that adapters bring along.
OUTPUT_LAYERS = {
    XLM_ROBERTA: "classifier.out_proj",
    BERT: "classifier",
    TOKENS: "classifier",
    ANSWER: "qa_outputs",
}


def head_name(shape: EncoderShape, task_type: TaskType = "sequence-classification") -> str | None:
    """Which head adapters for a task have on this base; None: no tensors of their own."""
    if task_type in ("sequence-classification", "reranking"):
        return XLM_ROBERTA if shape.model_type == "xlm-roberta" else BERT
    if task_type == "token-classification":
        return TOKENS
    return ANSWER if task_type == "question-answering" else None


def head_tensors(
    shape: EncoderShape,
    outputs: int,
    task_type: TaskType = "sequence-classification",
    *,
    key_prefix: str = KEY_PREFIX,
) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a head's tensors in an adapter folder.

    Args:
        shape: the base's.
        outputs: how many outputs it has.
        task_type: what the adapter does.
        key_prefix: what stands before its names in that folder.
    """
    width = shape.hidden_size
    name = head_name(shape, task_type)
    if name is None:
        return {}
    layers = {OUTPUT_LAYERS[name]: outputs}
    if name == XLM_ROBERTA:
        layers["classifier.dense"] = width
    expected: dict[str, tuple[int, ...]] = {}
    for layer, rows in layers.items():
        expected[f"{key_prefix}{layer}.weight"] = (rows, width)
        expected[f"{key_prefix}{layer}.bias"] = (rows,)
    return expected


def head_outputs(shapes: Mapping[str, tuple[int, ...]], *, key_prefix: str) -> int | None:
    """How many outputs the head among these tensors has; None: there is no head."""
    for layer in dict.fromkeys(OUTPUT_LAYERS.values()):
        shape = shapes.get(f"{key_prefix}{layer}.weight")
        if shape:
            return shape[0]
    return None


@dataclass(frozen=True, kw_only=True)
class MixedHead:
    """The weighted sum of several heads' answers; `mix_heads` makes it."""

    parts: tuple[tuple[Head, float], ...]
    """Each head with its weight; the weights sum up to 1."""

    def __call__(
        self, hidden: torch.Tensor, rows: Sequence[tuple[int, int]]
    ) -> Sequence[torch.Tensor]:
        """What each of the heads gives for a row, summed."""
        (head, weight), *others = self.parts
        sums = [weight * answer for answer in head(hidden, rows)]
        for head, weight in others:
            for place, answer in enumerate(head(hidden, rows)):
                if answer.shape != sums[place].shape:
                    raise InputError(
                        f"a mixture has heads with answers of shapes {list(sums[place].shape)} and "
                        f"{list(answer.shape)}; mix adapters of one task with the same labels"
                    )
                sums[place] += weight * answer
        return sums

    @property
    def own_bytes(self) -> int:
        """Its tensors are counted with their adapters."""
        return 0

    def to(self, device: torch.device) -> MixedHead:
        """The same heads elsewhere."""
        return MixedHead(parts=tuple((head.to(device), weight) for head, weight in self.parts))


def mix_heads(parts: Sequence[tuple[Head, float]]) -> Head:
    """The head of a mixture: of one head it is that head itself.

    Args:
        parts: each head with its weight, at least one; equal heads count as one.

    Raises:
        InputError: weights that sum up to nothing, or embeddings of several poolings.
    """
    weights: dict[Head, float] = {}
    for head, weight in parts:
        weights[head] = weights.get(head, 0.0) + weight
    if len(weights) == 1:
        return next(iter(weights))
    total = sum(weights.values())
    if total <= 0:
        raise InputError(f"the weights of a mixture's heads sum up to {total:g}; expected above 0")
    if any(isinstance(head, EmbeddingHead) for head in weights):
        raise InputError("a mixture pools in several ways (mean and cls); mix adapters of one")
    return MixedHead(parts=tuple((head, weight / total) for head, weight in weights.items()))


def apply_heads(
    batch: PackedBatch, hidden: torch.Tensor, heads: Sequence[Head | None]
) -> list[torch.Tensor | None]:
    """Answers for all rows of a batch, rows of the same head together.

    Args:
        batch: the packed batch.
        hidden: its last hidden states `[tokens, width]`.
        heads: the head of each row of the request; None: nobody asks for its answer.

    Returns:
        For each row of the request what its head gives, fp32, on the CPU.
    """
    import torch

    places: dict[Head, list[int]] = {}
    for place, head in enumerate(heads):
        if head is not None:
            places.setdefault(head, []).append(place)
    answers: list[torch.Tensor | None] = [None] * len(heads)
    with torch.inference_mode():
        for head, own in places.items():
            found = head(hidden, [batch.rows[place] for place in own])
            for place, answer in zip(own, found, strict=True):
                answers[place] = answer.cpu()
    return answers


def build_head(
    spec: AdapterSpec,
    arrays: Mapping[str, NDArray[np.float32]],
    shape: EncoderShape,
    *,
    key_prefix: str,
    pooler: Dense | None,
    pooler_update: LowRank | None,
) -> Head | None:
    """The head of one adapter; None for masked-LM, whose head is the base's own.

    Args:
        spec: the adapter.
        arrays: its tensors, as named in its folder.
        shape: the base's.
        key_prefix: what stands before the head's names in that folder.
        pooler: the base's pooler (BERT).
        pooler_update: the adapter's update of it.
    """
    import torch

    def layer(name: str) -> Dense:
        at = f"{key_prefix}{name}"
        # Copies, so that a head doesn't keep the whole file in memory.
        return Dense(
            weight=torch.from_numpy(arrays[f"{at}.weight"].copy()),
            bias=torch.from_numpy(arrays[f"{at}.bias"].copy()),
        )

    if spec.task_type == "embedding":
        return EmbeddingHead(pooling=spec.pooling or "mean")
    name = head_name(shape, spec.task_type)
    if name is None:
        return None
    output = layer(OUTPUT_LAYERS[name])
    if name in (TOKENS, ANSWER):
        return TokenHead(output=output)
    if name == XLM_ROBERTA:
        hidden = layer("classifier.dense")
        own_bytes = hidden.nbytes + output.nbytes
    else:
        assert pooler is not None, "BERT's classification head reads through the base's pooler"
        hidden = pooler
        own_bytes = output.nbytes + (pooler_update.nbytes if pooler_update is not None else 0)
    return ClassificationHead(
        hidden=hidden, hidden_update=pooler_update, output=output, own_bytes=own_bytes
    )
