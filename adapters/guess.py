"""The shape of a base that nobody can look at, as far as an adapter's tensors imply it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.base import EncoderShape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .spec import AdapterSpec
    from .weights import TensorInfo

# No base is wider, nor has more layers.
MAX_WIDTH, MAX_LAYERS = 1 << 16, 999


def guess_shape(
    spec: AdapterSpec, config: Mapping[str, Any] | None, header: Mapping[str, TensorInfo]
) -> EncoderShape:
    """A shape that config and tensors imply; sizes that they don't imply are 0."""
    shapes = {name: info.shape for name, info in header.items() if info.shape}
    is_bert = any(".bert." in name for name in shapes) or (
        spec.task_type in ("sequence-classification", "reranking")
        and not any(name.endswith("classifier.dense.weight") for name in shapes)
        and not any(".roberta." in name for name in shapes)
    )
    layers = [
        int(part)
        for name in shapes
        for part in name.split(".")
        if part.isascii() and part.isdigit() and len(part) <= 3
    ]
    width = _natural(config, "token_dim", MAX_WIDTH) or _width(shapes)
    return EncoderShape(
        model_type="bert" if is_bert else "xlm-roberta",
        vocab_size=0,
        hidden_size=width,
        layers=_natural(config, "num_layers", MAX_LAYERS) or max(layers, default=-1) + 1,
        intermediate_size=_wide(shapes) or 4 * width,
        max_position_embeddings=0,
        pad_token_id=0,
    )


def _natural(config: Mapping[str, Any] | None, key: str, limit: int) -> int:
    value = (config or {}).get(key)
    return value if isinstance(value, int) and 0 < value <= limit else 0


def _width(shapes: Mapping[str, tuple[int, ...]]) -> int:
    for name, shape in shapes.items():
        at, _, part = name.rpartition(".lora_")
        if part.startswith("A") and not _reads_wide(at):
            return shape[-1]
        if part.startswith("B") and _reads_wide(at):
            return shape[0]
        if name.endswith((".down.weight", "classifier.weight", "qa_outputs.weight")):
            return shape[-1]
    return 0


def _wide(shapes: Mapping[str, tuple[int, ...]]) -> int:
    for name, shape in shapes.items():
        at, _, part = name.rpartition(".lora_")
        if part.startswith("B") and at.endswith("intermediate.dense"):
            return shape[0]
        if part.startswith("A") and _reads_wide(at):
            return shape[-1]
    return 0


def _reads_wide(module: str) -> bool:
    """Whether a module reads the wide, feed-forward side."""
    return module.endswith("output.dense") and not module.endswith("attention.output.dense")
