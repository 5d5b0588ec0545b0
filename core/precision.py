"""Precisions and devices: what this machine can do."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from .errors import PrecisionError

if TYPE_CHECKING:
    import torch

# What training computes in.
PRECISIONS = ("auto", "fp32", "bf16")
# What a resident base may be held in.
BASE_PRECISIONS = ("auto", "fp32", "bf16", "int8", "bitsandbytes")


def choose_device(device: str = "auto") -> torch.device:
    """The device to compute on.

    Args:
        device: `auto` (CUDA where there is one, else the CPU), or torch's name of a device.

    Raises:
        PrecisionError: no such device on this machine.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen).cpu()  # `meta` can be made, but holds nothing
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise PrecisionError(
            f"device {device!r} can't be used here ({reason}); use auto or cpu"
        ) from None
    return chosen


def choose_precision(precision: str, device: torch.device) -> str:
    """The precision in which a resident base is held.

    Args:
        precision: `fp32`, `bf16`, `int8` (linears and embedding; on CUDA through bitsandbytes),
            `bitsandbytes` (linears only, on any device), or `auto`, which is fp32: the precision
            in which answers equal PEFT's.
        device: where it computes.

    Raises:
        PrecisionError: no such precision, or it needs a library that isn't installed.
    """
    if precision not in BASE_PRECISIONS:
        raise PrecisionError(
            f"precision {precision!r} is unknown; use {', '.join(BASE_PRECISIONS)}"
        )
    needs_library = precision == "bitsandbytes" or (precision == "int8" and device.type != "cpu")
    if needs_library and importlib.util.find_spec("bitsandbytes") is None:
        raise PrecisionError(
            f"precision {precision} on {device.type} needs bitsandbytes, which isn't installed; "
            "run pip install 'isogloss[int8]'"
        )
    return "fp32" if precision == "auto" else precision


def activation_dtype(precision: str) -> torch.dtype:
    """The data type of activations and slots beside a base of some precision."""
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


def choose_dtype(precision: str = "auto") -> torch.dtype:
    """The data type in which training computes.

    Args:
        precision: `fp32`, `bf16`, or `auto`, which is fp32.

    Raises:
        PrecisionError: no such precision.
    """
    if precision not in PRECISIONS:
        raise PrecisionError(f"precision {precision!r} is unknown; use {', '.join(PRECISIONS)}")
    return activation_dtype(precision)


def autocast_dtype(
    precision: str = "auto", device: torch.device | None = None
) -> torch.dtype | None:
    """The data type for autocast while training; None: no autocast.

    Args:
        precision: `fp32`, `bf16`, or `auto`: bf16 where the device multiplies it natively
            (AMX on a CPU, tensor cores from Ampere on), else fp32.
        device: where to compute; None: the device that `auto` stands for.

    Raises:
        PrecisionError: no such precision.
    """
    import torch

    if precision == "auto":
        return torch.bfloat16 if has_native_bf16(device) else None
    return torch.bfloat16 if choose_dtype(precision) == torch.bfloat16 else None


def has_native_bf16(device: torch.device | None = None) -> bool:
    """Whether bf16 products are faster than fp32 ones.

    Args:
        device: where to compute; None: the device that `auto` stands for.
    """
    import torch

    where = choose_device() if device is None else device
    if where.type == "cuda":
        with torch.cuda.device(where):  # torch asks the current one
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return where.type == "cpu" and bool(torch.cpu._is_amx_tile_supported())
