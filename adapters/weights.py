"""The weights file of an adapter, looked at without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import MalformedWeightsError, NonFiniteWeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 20_000
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor of a safetensors file."""

    dtype: str
    """As safetensors names it: `F32`."""
    shape: tuple[int, ...]
    """Its extents."""
    begin: int
    """First byte, counted from the start of the file."""
    end: int
    """Byte after the last."""


def read_header(content: bytes) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file; every byte of the file is accounted for.

    Stricter than the format (https://github.com/huggingface/safetensors): keys may not repeat,
    and only floating-point tensors are taken.

    Raises:
        MalformedWeightsError: the header or the extents are wrong.
    """
    if len(content) < 8:
        raise _malformed(f"{len(content)} bytes are too few for a header")
    size = int.from_bytes(content[:8], "little")
    if size > min(MAX_HEADER_BYTES, len(content) - 8):
        raise _malformed(f"it says that its header has {size:,} bytes")
    try:
        header = json.loads(content[8 : 8 + size].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"its header can't be read ({error})") from None
    if not isinstance(header, dict):
        raise _malformed("its header is no JSON object")
    metadata = header.pop("__metadata__", None)
    texts = _metadata_texts({} if metadata is None else metadata)
    try:
        "".join([*header, *texts]).encode()
    except UnicodeEncodeError:  # JSON's escapes can bring in lone surrogates
        raise _malformed("a name or a text of its metadata is no Unicode") from None
    if len(header) > MAX_TENSORS:
        raise _malformed(f"it has {len(header):,} tensors; {MAX_TENSORS:,} is the limit")
    tensors = {name: _tensor_info(name, entry, 8 + size) for name, entry in header.items()}
    at = 8 + size
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if info.begin != at:
            raise _malformed(f"tensor {name} begins at byte {info.begin}, expected {at}")
        at = info.end
    if at != len(content):
        raise _malformed(f"its tensors end at byte {at}, the file at {len(content)}")
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _metadata_texts(metadata: Any) -> list[str]:
    if isinstance(metadata, dict) and all(isinstance(text, str) for text in metadata.values()):
        return [*metadata.keys(), *metadata.values()]
    raise _malformed("its metadata are no strings")


def _tensor_info(name: str, entry: Any, offset: int) -> TensorInfo:
    try:
        dtype = entry["dtype"]
        shape = tuple(_natural(extent) for extent in entry["shape"])
        begin, end = (_natural(value) for value in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise _malformed(f"the header's entry for {name} lacks or misstates a field") from None
    if dtype not in DTYPE_BYTES:
        raise _malformed(
            f"tensor {name} is of type {str(dtype)[:20]}; expected {', '.join(DTYPE_BYTES)}"
        )
    elements = 1
    for extent in shape:
        elements *= extent
    if elements == 0 or end - begin != elements * DTYPE_BYTES[dtype]:
        raise _malformed(f"tensor {name} of shape {list(shape)} has {end - begin} bytes")
    return TensorInfo(dtype=dtype, shape=shape, begin=offset + begin, end=offset + end)


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _malformed(problem: str) -> MalformedWeightsError:
    return MalformedWeightsError(
        f"adapter_model.safetensors is damaged: {problem}; save or copy the adapter again"
    )


def check_finite(content: bytes, tensors: Mapping[str, TensorInfo]) -> None:
    """Check that no value is NaN or infinite.

    Raises:
        NonFiniteWeightsError: one is.
    """
    for name, info in tensors.items():
        if not is_finite(content[info.begin : info.end], info.dtype):
            raise NonFiniteWeightsError(
                f"adapter_model.safetensors: {name} holds NaN or infinity; train the adapter again"
            )


def is_finite(content: bytes, dtype: str) -> bool:
    """Whether all values are finite."""
    if dtype == "BF16":  # numpy has no such type; these are the upper halves of fp32 values
        values: NDArray[Any] = np.frombuffer(content, dtype="<u2").astype(np.uint32) << 16
        return bool(np.isfinite(values.view(np.float32)).all())
    return bool(np.isfinite(np.frombuffer(content, dtype="<f4" if dtype == "F32" else "<f2")).all())
