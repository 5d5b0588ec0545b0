"""The tensors of an encoder's checkpoint, read one by one.

Files are read, not mapped: mapped pages would stay in memory beside what is made of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from .base import INDEX_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .base import BaseFiles

# safetensors' names of the data types that weights may have
DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}
# Numbers that are read at once.
BLOCK_ITEMS = 1 << 20


class Checkpoint:
    """An encoder's tensors by the names of its modules, whatever head was saved with it.

    Args:
        base: where they are.

    Raises:
        ValueError, OSError: files that are no safetensors, or can't be read.
    """

    def __init__(self, base: BaseFiles) -> None:
        self._places: dict[str, _Place] = {}
        for path in _files(base):
            for stored, place in _read_header(path).items():
                name = stored.removeprefix(f"{base.shape.prefix}.")
                # Checkpoints converted from TensorFlow call LayerNorm's parameters so.
                name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
                self._places[name] = place

    def __contains__(self, name: str) -> bool:
        """Whether there is such a tensor."""
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        return self._places[name].shape

    def read(self, name: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """A tensor in the data type that is asked for."""
        place = self._places[name]
        values = torch.empty(place.items, dtype=dtype)
        for begin in range(0, place.items, BLOCK_ITEMS):
            end = min(begin + BLOCK_ITEMS, place.items)
            values[begin:end] = place.read(begin, end)
        return values.view(place.shape)

    def blocks(self, name: str) -> Iterator[torch.Tensor]:
        """The rows of a matrix `[rows, columns]` in fp32, some at a time, in their order."""
        place = self._places[name]
        rows, columns = place.shape
        step = max(1, BLOCK_ITEMS // columns)
        for begin in range(0, rows, step):
            end = min(begin + step, rows)
            yield place.read(begin * columns, end * columns).float().view(-1, columns)


class _Place:
    """Where a tensor lies in a file."""

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...], begin: int, end: int):
        self.shape = shape
        self.items = torch.Size(shape).numel()
        self._path, self._dtype, self._begin = path, DTYPES[dtype], begin
        if end - begin != self.items * self._dtype.itemsize:
            raise ValueError(f"{path.name} states a wrong extent")

    def read(self, first: int, last: int) -> torch.Tensor:
        """Items `first` to `last`, as they are stored."""
        values = torch.empty(last - first, dtype=self._dtype)
        with self._path.open("rb") as file:
            file.seek(self._begin + first * values.itemsize)
            if file.readinto(values.view(torch.uint8).numpy().data) != values.nbytes:
                raise ValueError(f"{self._path.name} is cut off")
        return values


def _files(base: BaseFiles) -> list[Path]:
    if (base.folder / WEIGHTS_FILE).is_file():
        return [base.folder / WEIGHTS_FILE]
    index = json.loads((base.folder / INDEX_FILE).read_text(encoding="utf-8"))
    return [base.folder / name for name in sorted(set(index["weight_map"].values()))]


def _read_header(path: Path) -> dict[str, _Place]:
    """Format: https://huggingface.co/docs/safetensors/index#format."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    places = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        if entry["dtype"] in DTYPES:
            places[name] = _Place(path, entry["dtype"], tuple(entry["shape"]), begin, end)
    return places
