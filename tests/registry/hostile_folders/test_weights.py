"""Weights that are damaged, foreign, or made to hurt, for every kind of adapter."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Files, Refused, Write

Header = dict[str, Any]
KINDS = ("peft", "lora", "prefix", "bottleneck")
WEIGHTS = "adapter_model.safetensors"


def split(content: bytes) -> tuple[Header, bytes]:
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def join(header: bytes | Header, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def first(header: Header) -> tuple[str, Header]:
    name = min(name for name in header if name != "__metadata__")
    return name, header[name]


def edited(edit: Callable[[Header], object]) -> Callable[[bytes], bytes]:
    """Weights whose header was edited; the data stays."""

    def apply(content: bytes) -> bytes:
        header, data = split(content)
        edit(header)
        return join(header, data)

    return apply


def entry(**fields: Any) -> Callable[[bytes], bytes]:
    """Weights of which one tensor is described otherwise."""
    return edited(lambda header: first(header)[1].update(fields))


def valued(dtype: str, bits: int, at: int) -> Callable[[bytes], bytes]:
    """Weights of another type, all zero but for one value."""

    def apply(content: bytes) -> bytes:
        header, _ = split(content)
        width = {"F32": 4, "F16": 2, "BF16": 2}[dtype]
        end = 0
        for info in header.values():
            begin, end = end, end + int(np.prod(info["shape"])) * width
            info.update(dtype=dtype, data_offsets=[begin, end])
        data = bytearray(end)
        data[at * width : (at + 1) * width or None] = bits.to_bytes(width, "little")
        return join(header, bytes(data))

    return apply


def grown(name: str, shape: list[int]) -> Callable[[bytes], bytes]:
    """Weights with one tensor more."""

    def apply(content: bytes) -> bytes:
        header, data = split(content)
        more = bytes(4 * int(np.prod(shape)))
        header[name] = {
            "dtype": "F32",
            "shape": shape,
            "data_offsets": [len(data), len(data) + len(more)],
        }
        return join(header, data + more)

    return apply


def without(which: int) -> Callable[[bytes], bytes]:
    """Weights with one tensor less."""

    def apply(content: bytes) -> bytes:
        header, data = split(content)
        names = sorted(header, key=lambda name: header[name]["data_offsets"])
        arrays = {name: data[slice(*header[name]["data_offsets"])] for name in names}
        del arrays[names[which]]
        at, rest = 0, {}
        for name, array in arrays.items():
            rest[name] = {**header[name], "data_offsets": [at, at + len(array)]}
            at += len(array)
        return join(rest, b"".join(arrays.values()))

    return apply


def renamed(new: str) -> Callable[[bytes], bytes]:
    return edited(lambda header: header.update({new: header.pop(first(header)[0])}))


def duplicated(content: bytes) -> bytes:
    header, data = split(content)
    name, info = first(header)
    text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(info)}}}"
    return join(text.encode(), data)


def overlapping(header: Header) -> None:
    """Two tensors of the same size on the same bytes, and the rest unused."""
    one, other = sorted(header, key=lambda name: header[name]["data_offsets"])[:2]
    header[other]["data_offsets"] = header[one]["data_offsets"]
    header[other]["shape"] = header[one]["shape"]


def zipped(_: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": [1.0]}))
    return buffer.getvalue()


MUTATIONS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "seven bytes": lambda content: content[:7],
    "no header": lambda _: bytes(8),
    "header of 2^63 bytes": lambda content: (1 << 63).to_bytes(8, "little") + content[8:],
    "header beyond the end": lambda content: len(content).to_bytes(8, "little") + content[8:],
    "header a byte short": lambda content: (
        (int.from_bytes(content[:8], "little") - 1).to_bytes(8, "little") + content[8:]
    ),
    "header bomb": lambda content: join(b"{" + b" " * (9 << 20) + b"}", b""),
    "header is text": lambda content: join(b"not JSON at all", split(content)[1]),
    "header is a list": lambda content: join(b"[1, 2]", split(content)[1]),
    "header is null": lambda content: join(b"null", split(content)[1]),
    "header is nested": lambda content: join(b'{"a":' * 50_000 + b"1" + b"}" * 50_000, b""),
    "header is Latin-1": lambda content: join('{"ä": 1}'.encode("latin-1"), b""),
    "header has NaN": lambda content: join(b'{"a": NaN}', b""),
    "no tensors": lambda _: join({}, b""),
    "only metadata": lambda _: join({"__metadata__": {"format": "pt"}}, b""),
    "metadata of numbers": edited(lambda header: header.update(__metadata__={"format": 1})),
    "metadata is nested": edited(lambda header: header.update(__metadata__={"a": {"b": "c"}})),
    "metadata is a list": edited(lambda header: header.update(__metadata__=["pt"])),
    "metadata is no Unicode": edited(lambda header: header.update(__metadata__={"a": "\ud800"})),
    "a key twice": duplicated,
    "a byte less": lambda content: content[:-1],
    "half of it": lambda content: content[: len(content) // 2],
    "a byte more": lambda content: content + b"\0",
    "a megabyte more": lambda content: content + bytes(1 << 20),
    "hidden behind it": lambda content: content + zipped(b""),
    "overlap": edited(overlapping),
    "extents reversed": edited(lambda header: first(header)[1]["data_offsets"].reverse()),
    "negative extent": entry(data_offsets=[-8, 0]),
    "fractional extent": entry(data_offsets=[0.0, 8.0]),
    "boolean extent": entry(data_offsets=[False, True]),
    "three extents": entry(data_offsets=[0, 4, 8]),
    "extents of text": entry(data_offsets=["0", "8"]),
    "extent of 2^70": entry(data_offsets=[0, 1 << 70]),
    "shape of 2^70": entry(shape=[1 << 35, 1 << 35]),
    "shape overflows to 0": entry(shape=[1 << 32, 1 << 32]),
    "negative shape": entry(shape=[-2, -8]),
    "empty shape": entry(shape=[]),
    "zero in the shape": entry(shape=[0, 8]),
    "shape of text": entry(shape="ab"),
    "shape is null": entry(shape=None),
    "shape of a thousand": entry(shape=[1] * 1000),
    "int64": entry(dtype="I64"),
    "float64": entry(dtype="F64"),
    "float8": entry(dtype="F8_E4M3"),
    "bool": entry(dtype="BOOL"),
    "unknown type": entry(dtype="Q4_K"),
    "type is a list": entry(dtype=["F32"]),
    "type is missing": edited(lambda header: first(header)[1].pop("dtype")),
    "entry is null": edited(lambda header: header.update({first(header)[0]: None})),
    "NaN": valued("F32", 0x7FC00000, 0),
    "NaN at the end": valued("F32", 0x7FC00001, -1),
    "signalling NaN": valued("F32", 0x7F800001, 5),
    "infinity": valued("F32", 0x7F800000, 3),
    "minus infinity": valued("F32", 0xFF800000, 3),
    "NaN in half": valued("F16", 0x7E00, 2),
    "infinity in half": valued("F16", 0x7C00, -1),
    "NaN in bfloat16": valued("BF16", 0x7FC0, 2),
    "infinity in bfloat16": valued("BF16", 0xFF80, -1),
    "one tensor more": grown("base_model.model.roberta.pooler.dense.weight", [8, 8]),
    "one empty tensor more": grown("surplus", [0]),
    "code for a name": grown("__import__('os').system('id')", [1]),
    "a tensor less": without(0),
    "another tensor less": without(-1),
    "renamed": renamed("base_model.model.roberta.encoder.layer.0.renamed.weight"),
    "renamed to a path": renamed("../../../etc/passwd"),
    "renamed to nothing": renamed(""),
    "renamed to two lines": renamed("two\nlines"),
    "renamed to a megabyte": renamed("a" * (1 << 20)),
    "a megabyte of a type": entry(dtype="F32" * (1 << 18)),
    "layer that isn't": renamed("base_model.model.roberta.encoder.layer.99999999999.x.weight"),
    "pickle in disguise": lambda _: pickle.dumps({"weight": [1.0]}),
    "zip in disguise": zipped,
    "20,001 tensors": lambda _: join(
        {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(20_001)},
        b"",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_folders_that_are_changed_here_are_good(
    kind: str, good: dict[str, Files], write: Write, checked: Callable[[Path], Files]
) -> None:
    content = good[kind][WEIGHTS]
    folder = write({**good[kind], WEIGHTS: join(*split(content))})
    assert "isogloss.json" in checked(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_weights(
    mutation: str, kind: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    content = MUTATIONS[mutation](good[kind][WEIGHTS])
    assert content != good[kind][WEIGHTS]
    refused(write({**good[kind], WEIGHTS: content}))
