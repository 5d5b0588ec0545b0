from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from isogloss.adapters.files import WEIGHTS_FILE
from isogloss.adapters.weights import read_header
from isogloss.core.errors import AdapterError, MalformedWeightsError, NonFiniteWeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Read, Refused

pytestmark = pytest.mark.usefixtures("no_pickle")
RANK = 4
QUERY = "base_model.model.roberta.encoder.layer.0.attention.self.query"
OUTPUT = "base_model.model.classifier.out_proj"


def header_of(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The header, and the bytes of the tensors."""
    content = (folder / WEIGHTS_FILE).read_bytes()
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write_weights(folder: Path, header: bytes | dict[str, Any], data: bytes) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / WEIGHTS_FILE).write_bytes(len(raw).to_bytes(8, "little") + raw + data)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_truncated(plain: Path, keep: int, refused: Refused) -> None:
    path = plain / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:keep])
    refused(MalformedWeightsError, plain, WEIGHTS_FILE, "damaged")


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 9 << 20, 100_000])
def test_a_header_longer_than_the_file(plain: Path, size: int, refused: Refused) -> None:
    path = plain / WEIGHTS_FILE
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(MalformedWeightsError, plain, f"its header has {size:,} bytes")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff{}",
        '{"__metadata__": {}}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"9" * 5_000,
    ],
    ids=["empty", "cut", "deep", "deep-objects", "bytes", "utf-16", "bom", "number"],
)
def test_a_header_that_cannot_be_read(plain: Path, header: bytes, refused: Refused) -> None:
    write_weights(plain, header, b"")
    refused(MalformedWeightsError, plain, "its header can't be read")


@pytest.mark.parametrize("header", [b"[]", b"null", b"7", b'"x"'])
def test_a_header_that_is_no_object(plain: Path, header: bytes, refused: Refused) -> None:
    write_weights(plain, header, b"")
    refused(MalformedWeightsError, plain, "no JSON object")


def test_a_key_that_occurs_twice(plain: Path, refused: Refused) -> None:
    header, data = header_of(plain)
    entry = json.dumps(header[f"{OUTPUT}.bias"])
    doubled = json.dumps(header)[:-1] + f', "{OUTPUT}.bias": {entry}}}'
    write_weights(plain, doubled.encode(), data)
    refused(MalformedWeightsError, plain, "a key occurs twice")


@pytest.mark.parametrize("metadata", [[], "pt", {"format": 1}, {"format": {}}, 1])
def test_metadata_that_are_no_strings(plain: Path, metadata: object, refused: Refused) -> None:
    header, data = header_of(plain)
    write_weights(plain, header | {"__metadata__": metadata}, data)
    refused(MalformedWeightsError, plain, "metadata")


def test_overlapping_tensors(plain: Path, refused: Refused) -> None:
    header, data = header_of(plain)
    header[f"{QUERY}.lora_B.weight"]["data_offsets"] = header[f"{QUERY}.lora_A.weight"][
        "data_offsets"
    ]
    write_weights(plain, header, data)
    refused(MalformedWeightsError, plain, "begins at byte", "expected")


def test_a_gap_between_tensors(plain: Path, refused: Refused) -> None:
    header, data = header_of(plain)
    first = min(entry["data_offsets"][0] for key, entry in header.items() if key[0] != "_")
    for key, entry in header.items():
        if key != "__metadata__" and entry["data_offsets"][0] > first:
            entry["data_offsets"] = [at + 4 for at in entry["data_offsets"]]
    write_weights(plain, header, data + b"\0" * 4)
    refused(MalformedWeightsError, plain, "begins at byte", "expected")


def test_trailing_bytes(plain: Path, refused: Refused) -> None:
    with (plain / WEIGHTS_FILE).open("ab") as file:
        file.write(b"PK\x03\x04")
    refused(MalformedWeightsError, plain, "its tensors end at byte")


@pytest.mark.parametrize("dtype", ["I64", "F64", "U8", "BOOL", "F8_E4M3", "f32", "", None, 5])
def test_other_data_types(plain: Path, dtype: object, refused: Refused) -> None:
    header, data = header_of(plain)
    header[f"{OUTPUT}.bias"]["dtype"] = dtype
    write_weights(plain, header, data)
    refused(MalformedWeightsError, plain, f"{OUTPUT}.bias", str(dtype), "F32, F16, BF16")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [3.0]),
        ("shape", [-3]),
        ("shape", "3"),
        ("shape", None),
        ("shape", [True]),
        ("data_offsets", [0]),
        ("data_offsets", [0, 4, 8]),
        ("data_offsets", [0, "12"]),
        ("data_offsets", [-12, 0]),
        ("data_offsets", {"begin": 0}),
    ],
)
def test_entries_that_make_no_sense(
    plain: Path, field: str, value: object, refused: Refused
) -> None:
    header, data = header_of(plain)
    header[f"{OUTPUT}.bias"][field] = value
    write_weights(plain, header, data)
    refused(MalformedWeightsError, plain, f"{OUTPUT}.bias", "lacks or misstates a field")


@pytest.mark.parametrize("shape", [[4], [0], [2**62, 2**62], [3, 0], [], [10**200]])
def test_a_shape_that_its_bytes_do_not_fill(
    plain: Path, shape: list[int], refused: Refused
) -> None:
    header, data = header_of(plain)
    header[f"{OUTPUT}.bias"]["shape"] = shape
    write_weights(plain, header, data)
    refused(MalformedWeightsError, plain, f"{OUTPUT}.bias", "has 12 bytes")


def test_too_many_tensors(plain: Path, refused: Refused) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    write_weights(plain, {str(number): entry for number in range(20_001)}, b"")
    refused(MalformedWeightsError, plain, "20,001 tensors")


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80, 0x7F81])
def test_bf16_values_that_are_not_finite(
    plain: Path, bits: int, read: Read, refused: Refused
) -> None:
    name = f"{QUERY}.lora_A.weight"
    _as_bf16(plain, name, last=0x7F7F)  # the largest finite one
    read(plain)
    _as_bf16(plain, name, last=bits)
    refused(NonFiniteWeightsError, plain, name)


def _as_bf16(folder: Path, name: str, *, last: int) -> None:
    """Make the first tensor of that name bf16, which numpy doesn't have."""
    header, data = header_of(folder)
    begin, end = header[name]["data_offsets"]
    if header[name]["dtype"] == "F32":
        values = np.frombuffer(data[begin:end], "<u4")
        new = (values >> 16).astype("<u2")
        saved = (end - begin) // 2
        for key, entry in header.items():
            if key != "__metadata__" and entry["data_offsets"][0] >= end:
                entry["data_offsets"] = [at - saved for at in entry["data_offsets"]]
        header[name] |= {"dtype": "BF16", "data_offsets": [begin, end - saved]}
    else:
        new = np.frombuffer(data[begin:end], "<u2").copy()
    new[-1] = last
    write_weights(folder, header, data[:begin] + new.tobytes() + data[end:])


# -- any damage at all


@st.composite
def damage(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    flips = draw(
        st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), max_size=4)
    )
    # Half of the flips go to the header, which is a small part of the file.
    in_header = draw(st.booleans())
    cut = draw(st.none() | st.floats(0, 1))
    added = draw(st.binary(max_size=8))

    def apply(content: bytes) -> bytes:
        size = 8 + int.from_bytes(content[:8], "little") if in_header else len(content)
        changed = bytearray(content)
        for place, bit in flips:
            changed[int(place * size)] ^= 1 << bit
        if cut is not None:
            del changed[int(cut * len(changed)) :]
        return bytes(changed) + added

    return apply


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(change=damage())
def test_damaged_weights_pass_all_checks_or_raise_an_adapter_error(
    workplace: Path, written: Path, change: Callable[[bytes], bytes], read: Read
) -> None:
    content = change((written / WEIGHTS_FILE).read_bytes())
    (workplace / WEIGHTS_FILE).write_bytes(content)
    try:
        checked = read(workplace)
    except AdapterError as error:
        assert "\n" not in str(error)
        return
    tensors = load(checked.files[WEIGHTS_FILE])
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    assert checked.spec.rank == RANK


# Lone surrogates too, which JSON can write and Unicode can't.
ANY_TEXT = st.text(st.characters() | st.just("\ud800"), max_size=4)


@settings(max_examples=250, deadline=None)
@given(
    names=st.lists(ANY_TEXT, min_size=1, max_size=3, unique=True),
    metadata=st.none() | st.dictionaries(ANY_TEXT, ANY_TEXT | st.integers(), max_size=2),
    before=st.sampled_from(["", " ", "\n", "\t"]),
    after=st.sampled_from(["", " ", "\n\n", "x"]),
)
def test_what_our_reader_takes_safetensors_takes(
    names: list[str], metadata: dict[str, Any] | None, before: str, after: str
) -> None:
    """What has been checked must also load, with the same tensors."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    for place, name in enumerate(names):
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [4 * place, 4 * place + 4]}
    raw = (before + json.dumps(header) + after).encode()
    content = len(raw).to_bytes(8, "little") + raw + b"\0" * 4 * len(names)
    try:
        tensors = read_header(content)
    except MalformedWeightsError:
        return
    assert load(content).keys() == tensors.keys()
