"""The weights file of an adapter, looked at without torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import AdapterConfigError, MalformedWeightsError, NonFiniteWeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from numpy.typing import NDArray

MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 20_000
MAX_SHOWN = 300
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
        header = json.loads(content[8 : 8 + size].decode(), object_pairs_hook=unique_keys)
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


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of a JSON file, for `json.loads`: of two equal keys readers may take either one.

    Raises:
        ValueError: a key occurs twice.
    """
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
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _malformed(
            f"tensor {name} is of type {str(dtype)[:20]}; expected {', '.join(DTYPE_BYTES)}"
        )
    elements = 1
    for extent in shape:
        elements *= extent
    if end - begin != elements * DTYPE_BYTES[dtype]:
        raise _malformed(f"tensor {name} of shape {list(shape)} has {end - begin} bytes")
    return TensorInfo(dtype=dtype, shape=shape, begin=offset + begin, end=offset + end)


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _malformed(problem: str) -> MalformedWeightsError:
    # Names and shapes may be of any length, and hold line breaks.
    shown = " ".join(problem.split())[:MAX_SHOWN]
    return MalformedWeightsError(
        f"adapter_model.safetensors is damaged: {shown}; save or copy the adapter again"
    )


def load_arrays(
    content: bytes, tensors: Mapping[str, TensorInfo]
) -> dict[str, NDArray[np.float32]]:
    """The values of all tensors in fp32, each of its shape.

    Where the file has fp32 they are views of it that can't be written to: an adapter is loaded
    while requests wait, and fresh memory takes longer than all else about it.

    Raises:
        NonFiniteWeightsError: a value is NaN or infinite.
    """
    # One pass over the whole file is much faster than one a tensor.
    first = min((info.begin for info in tensors.values()), default=len(content))
    if all(info.dtype == "F32" for info in tensors.values()):
        flat: NDArray[np.float32] = np.frombuffer(content, dtype="<f4", offset=first)
        if not flat.flags.aligned:  # a header of an odd length
            flat = flat.copy()
        arrays = {
            name: flat[(info.begin - first) // 4 : (info.end - first) // 4].reshape(info.shape)
            for name, info in tensors.items()
        }
        if _is_finite(flat):
            return arrays
    else:
        arrays = {name: _widened(content, info) for name, info in tensors.items()}
    for name, array in arrays.items():
        if not _is_finite(array):
            raise NonFiniteWeightsError(
                f"adapter_model.safetensors: {name} holds NaN or infinity; train the adapter again"
            )
    return arrays


def as_tensor(array: NDArray[np.float32]) -> torch.Tensor:
    """A tensor on the same memory, which must not be written to where the array can't be."""
    import torch
    from torch.utils.dlpack import from_dlpack

    if array.flags.writeable:
        return torch.from_numpy(array)
    try:
        tensor: torch.Tensor = from_dlpack(array)
    except BufferError:  # numpy before 2.1 shares only what can be written to
        tensor = torch.from_numpy(array.copy())
    return tensor


def check_range(module: str, field: str, up: NDArray[np.float32]) -> None:
    """Check that a scale has left all values finite.

    Raises:
        AdapterConfigError: it has not.
    """
    # The product is fast, and finite for all but the most extreme values.
    if not np.isfinite(np.vdot(up, up)) and not np.isfinite(up).all():
        raise AdapterConfigError(
            f"adapter_config.json: {field} carries the update of {module} out of single "
            "precision's range; make it smaller"
        )


def _widened(content: bytes, info: TensorInfo) -> NDArray[np.float32]:
    raw = content[info.begin : info.end]
    if info.dtype == "BF16":  # numpy has no such type; these are the upper halves of fp32 values
        values = (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, dtype="<f4" if info.dtype == "F32" else "<f2").astype(
            np.float32
        )
    return values.reshape(info.shape)


def _is_finite(array: NDArray[np.float32]) -> bool:
    # Both carry NaN along, and neither makes an array as np.isfinite does.
    return array.size == 0 or bool(np.isfinite(array.max()) and np.isfinite(array.min()))
