"""Which tensors an adapter must have: what its kind says of them, and what its head says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.errors import (
    AdapterConfigError,
    TensorKeysError,
    TensorShapeError,
    UnsupportedAdapterError,
)
from .adalora import AdaLoraLayout
from .bottleneck import BottleneckLayout
from .heads import KEY_PREFIX, head_name, head_tensors
from .lora import LoraLayout
from .prefix import PrefixLayout

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ..core.base import EncoderShape
    from .spec import AdapterSpec, Kind
    from .weights import TensorInfo

Layout = LoraLayout | AdaLoraLayout | PrefixLayout | BottleneckLayout
# PEFT's name for a kind → ours
PEFT_KINDS: dict[str, Kind] = {"LORA": "lora", "ADALORA": "lora", "PREFIX_TUNING": "prefix"}
# What stands before a head's names in a folder; PEFT wraps models in another way for a prefix.
HEAD_PREFIXES: dict[Kind, str] = {"lora": KEY_PREFIX, "prefix": "base_model.", "bottleneck": ""}


def check_config(config: Mapping[str, Any]) -> Kind:
    """The kind of a PEFT config.

    Raises:
        UnsupportedAdapterError: a kind that isn't served.
    """
    named = config.get("peft_type")
    kind = PEFT_KINDS.get(named) if isinstance(named, str) else None
    if kind is None:
        raise UnsupportedAdapterError(
            f"adapter_config.json: peft_type is {named!r:.80}; this release serves "
            f"{', '.join(PEFT_KINDS)}"
        )
    return kind


def parse_layout(
    spec: AdapterSpec, config: Mapping[str, Any] | None, shape: EncoderShape, names: Collection[str]
) -> Layout:
    """What an adapter's kind says of its tensors.

    Args:
        spec: what it is.
        config: PEFT's config; None for a bottleneck adapter, which has none.
        shape: the base's.
        names: the names of its tensors.

    Raises:
        AdapterError: a config that is wrong, isn't served, or doesn't fit the base.
    """
    if config is None:
        if spec.kind != "bottleneck" or spec.bottleneck is None:
            raise AdapterConfigError(
                f"isogloss.json: kind is {spec.kind!r} and there is no adapter_config.json; only a "
                "bottleneck adapter, with its form under `bottleneck`, does without"
            )
        return BottleneckLayout.of(spec.bottleneck, shape)
    kind = check_config(config)
    if spec.kind != kind:
        raise UnsupportedAdapterError(
            f"isogloss.json: kind is {spec.kind!r}, but the config is {config['peft_type']}"
        )
    if kind == "prefix":
        return PrefixLayout.parse(config, shape, positions=spec.prefix_positions or "shifted")
    if config["peft_type"] == "ADALORA":
        return AdaLoraLayout.parse(config, shape, task_type=spec.task_type, names=names)
    return LoraLayout.parse(config, shape, task_type=spec.task_type, names=names)


def expected_outputs(spec: AdapterSpec) -> int:
    """How many outputs the head of an adapter has."""
    fixed = {"reranking": 1, "question-answering": 2}
    return fixed.get(spec.task_type, len(spec.labels))


def expected_tensors(
    spec: AdapterSpec, layout: Layout, shape: EncoderShape
) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all tensors of an adapter, its head's among them."""
    head = head_tensors(
        shape, expected_outputs(spec), spec.task_type, key_prefix=HEAD_PREFIXES[spec.kind]
    )
    return layout.tensors(shape) | head


def check_tensors(
    header: Mapping[str, TensorInfo], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that exactly the expected tensors are there, each in its shape.

    Raises:
        TensorKeysError: missing or extra tensors.
        TensorShapeError: a tensor of another shape.
    """
    file = "adapter_model.safetensors"
    missing = sorted(expected.keys() - header.keys())
    extra = sorted(header.keys() - expected.keys())
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"lacks {len(missing)} tensors, {missing[0]} first")
        if extra:
            # The name may be of any length, and hold line breaks.
            name = " ".join(extra[0].split())[:200]
            parts.append(f"has {len(extra)} that the config doesn't account for, {name} first")
        raise TensorKeysError(f"{file} {' and '.join(parts)}")
    for name, info in sorted(header.items()):
        if info.shape != expected[name]:
            raise TensorShapeError(
                f"{file}: {name} is {list(info.shape)}; the base and the config need "
                f"{list(expected[name])}"
            )


def check_values(layout: Layout, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Check that no scale carries values out of fp32's range; needs no torch.

    Raises:
        AdapterConfigError: one does.
    """
    if isinstance(layout, BottleneckLayout):
        layout.scaled(arrays)
    elif not isinstance(layout, PrefixLayout):
        layout.updates(arrays)


def complete_spec(spec: AdapterSpec, layout: Layout, shape: EncoderShape) -> AdapterSpec:
    """The spec with what config and tensors say, whatever was recorded."""
    spec = replace(
        spec,
        rank=None,
        targets=(),
        head=head_name(shape, spec.task_type),
        pooling=(spec.pooling or "mean") if spec.task_type == "embedding" else None,
        prefix_length=None,
        prefix_positions=None,
    )
    if isinstance(layout, BottleneckLayout):
        return spec
    spec = replace(spec, bottleneck=None)
    if isinstance(layout, PrefixLayout):
        return replace(spec, prefix_length=layout.length, prefix_positions=layout.positions)
    return replace(spec, rank=layout.rank, targets=layout.targets)
