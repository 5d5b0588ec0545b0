"""An adapter's files, to what its slot and its head need, on the host."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.delta import Delta
from ..core.errors import BaseMismatchError
from .bottleneck import BottleneckLayout
from .describe import CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE, check_labels
from .heads import Dense, build_head
from .layout import HEAD_PREFIXES, check_tensors, expected_tensors, parse_layout
from .prefix import PrefixLayout
from .spec import AdapterSpec
from .targets import POOLER
from .weights import load_arrays, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ..core.delta import LowRank
    from ..core.encoder import Encoder
    from .heads import Head
    from .layout import Layout


@dataclass(frozen=True, kw_only=True)
class LoadedAdapter:
    """An adapter in memory, ready for a slot."""

    spec: AdapterSpec
    """What it is."""
    delta: Delta
    """What it adds to the encoder, fp32, on the host."""
    head: Head | None
    """Its head, on the encoder's device; None for masked-LM, whose head is the base's own."""

    @property
    def bytes(self) -> int:
        """Bytes of its tensors, head included."""
        return self.delta.nbytes + (self.head.own_bytes if self.head is not None else 0)


def load_adapter(files: Mapping[str, bytes], encoder: Encoder) -> LoadedAdapter:
    """Build an adapter from the files of a version or a checked folder.

    Everything that depends on this base is checked again: the files may come from a registry that
    was filled against another one.

    Raises:
        BaseMismatchError: it was trained on another base.
        AdapterError: files that don't fit the base, or one another.
    """
    spec = AdapterSpec.from_json(files[SPEC_FILE])
    if spec.base_fingerprint is not None and spec.base_fingerprint != encoder.fingerprint:
        raise BaseMismatchError(
            f"{spec.task}/{spec.locale} was trained on {spec.base} with fingerprint "
            f"{spec.base_fingerprint[:12]}, but {encoder.name} has {encoder.fingerprint[:12]}; "
            "load the base that it was trained on"
        )
    shape = encoder.shape
    config: dict[str, Any] | None = json.loads(files[CONFIG_FILE]) if CONFIG_FILE in files else None
    header = read_header(files[WEIGHTS_FILE])
    layout = parse_layout(spec, config, shape, header)
    check_labels(spec, header)
    check_tensors(header, expected_tensors(spec, layout, shape))
    arrays = load_arrays(files[WEIGHTS_FILE], header)
    delta, pooler_update = _delta(spec, layout, arrays, encoder)
    head = build_head(
        spec,
        arrays,
        shape,
        key_prefix=HEAD_PREFIXES[spec.kind],
        pooler=_pooler(encoder),
        pooler_update=pooler_update,
    )
    if head is not None:
        head = head.to(encoder.device)
    return LoadedAdapter(spec=spec, delta=delta, head=head)


def _delta(
    spec: AdapterSpec,
    layout: Layout,
    arrays: Mapping[str, NDArray[np.float32]],
    encoder: Encoder,
) -> tuple[Delta, LowRank | None]:
    """What is added to the encoder; and to BERT's pooler, which sees rows, in the head."""
    if isinstance(layout, PrefixLayout):
        return Delta(prefix=layout.build(arrays, encoder.shape)), None
    if isinstance(layout, BottleneckLayout):
        return Delta(bottlenecks=layout.build(arrays)), None
    if spec.task_type not in ("sequence-classification", "reranking"):
        layout = layout.without(POOLER)  # nothing reads it there, and XLM-R has none
    updates = layout.build(arrays, lambda module: dense_weight(encoder, module))
    pooler_update = updates.pop(POOLER, None)
    return Delta(low_rank=updates), pooler_update


def dense_weight(encoder: Encoder, module: str) -> torch.Tensor:
    """A linear module's own weight `[out, in]`, in fp32, whatever precision it computes in."""
    import torch

    from ..core.bank import AdapterLinear

    found = encoder.model.get_submodule(module)
    if isinstance(found, AdapterLinear):
        found = found.base
    if isinstance(found, torch.nn.Linear):
        return found.weight.float()
    weight: torch.Tensor = found.dense_weight()  # type: ignore[operator]
    return weight


def _pooler(encoder: Encoder) -> Dense | None:
    if encoder.shape.model_type != "bert":
        return None
    weight = encoder.model.get_parameter(f"{POOLER}.weight")
    bias = encoder.model.get_parameter(f"{POOLER}.bias")
    return Dense(weight=weight.float(), bias=bias.float())
