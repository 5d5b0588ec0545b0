"""Write the folder of a bottleneck adapter; those of other kinds are written by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .card import write_card
from .describe import SPEC_FILE, WEIGHTS_FILE, check_labels
from .files import CARD_FILE
from .layout import check_tensors, check_values, complete_spec, expected_tensors, parse_layout
from .weights import load_arrays, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ..core.base import EncoderShape
    from .spec import AdapterSpec


def write_bottleneck_folder(
    folder: Path,
    spec: AdapterSpec,
    tensors: Mapping[str, NDArray[np.float32]],
    shape: EncoderShape,
) -> None:
    """Write `isogloss.json`, `adapter_model.safetensors` and a card; check them first.

    Args:
        folder: where to; made if it isn't there.
        spec: the adapter, with the form of its bottlenecks.
        tensors: by the names that `bottleneck.py` lists, and the head's as in transformers'
            models (`classifier.weight`).
        shape: the base's.

    Raises:
        AdapterError: tensors that don't fit the spec or the base, or aren't finite.
    """
    from safetensors.numpy import save

    content = save(dict(tensors), metadata={"format": "pt"})
    header = read_header(content)
    layout = parse_layout(spec, None, shape, header)
    check_labels(spec, header)
    check_tensors(header, expected_tensors(spec, layout, shape))
    check_values(layout, load_arrays(content, header))
    spec = complete_spec(spec, layout, shape)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC_FILE).write_bytes(spec.to_json())
    (folder / WEIGHTS_FILE).write_bytes(content)
    (folder / CARD_FILE).write_text(write_card(spec), encoding="utf-8")
