from __future__ import annotations

import pytest
import torch

from isogloss.core.errors import PrecisionError
from isogloss.core.precision import (
    BASE_PRECISIONS,
    activation_dtype,
    autocast_dtype,
    choose_device,
    choose_dtype,
    choose_precision,
    has_native_bf16,
)

CPU = torch.device("cpu")


def test_auto_takes_cuda_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == choose_device().type == expected


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    "device", ["", "tpu", "cuda:99", "meta", "the cpu", "cpu:one"], ids=lambda name: name or "empty"
)
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(PrecisionError, match="can't be used here") as caught:
        choose_device(device)
    message = str(caught.value)
    assert repr(device) in message
    assert "use auto or cpu" in message
    assert "\n" not in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none() -> None:
    with pytest.raises(PrecisionError, match="'cuda' can't be used here"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_data_types(precision: str, dtype: torch.dtype) -> None:
    assert choose_dtype(precision) == dtype


@pytest.mark.parametrize("precision", ["", "fp16", "BF16", "float32", "int4"])
def test_an_unknown_precision(precision: str) -> None:
    for choose in (choose_dtype, autocast_dtype):
        with pytest.raises(PrecisionError, match="fp32, bf16") as caught:
            choose(precision)
        assert repr(precision) in str(caught.value)


def test_precisions_of_a_base() -> None:
    pytest.importorskip("bitsandbytes")
    assert choose_precision("auto", CPU) == "fp32"
    for precision in BASE_PRECISIONS[1:]:
        assert choose_precision(precision, CPU) == precision
        expected = torch.bfloat16 if precision == "bf16" else torch.float32
        assert activation_dtype(precision) == expected


@pytest.mark.parametrize("precision", ["", "fp16", "INT8", "int4"])
def test_an_unknown_precision_of_a_base(precision: str) -> None:
    with pytest.raises(PrecisionError, match="use auto, fp32, bf16, int8, bitsandbytes") as caught:
        choose_precision(precision, CPU)
    assert repr(precision) in str(caught.value)


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_precision("int8", CPU) == "int8"
    for precision, device in (("bitsandbytes", CPU), ("int8", torch.device("cuda"))):
        with pytest.raises(PrecisionError, match=r"pip install 'isogloss\[int8\]'"):
            choose_precision(precision, device)


def test_autocast() -> None:
    assert autocast_dtype("fp32") is None
    assert autocast_dtype("bf16") == torch.bfloat16
    assert autocast_dtype("auto") == (torch.bfloat16 if has_native_bf16() else None)


def test_bf16_is_looked_for_where_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU beside a CPU says nothing of the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    for amx in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        assert has_native_bf16(torch.device("cpu")) == amx
        expected = torch.bfloat16 if amx else None
        assert autocast_dtype("auto", torch.device("cpu")) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at the CPU")
def test_native_bf16_is_what_the_cpu_says() -> None:
    from pathlib import Path

    flags = Path("/proc/cpuinfo")
    if not flags.is_file():
        pytest.skip("no /proc/cpuinfo")
    assert has_native_bf16() == (" amx_tile " in flags.read_text().replace("\n", " ") + " ")
