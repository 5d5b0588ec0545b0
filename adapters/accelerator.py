"""Accelerate's entrance, for training and pre-training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.precision import autocast_dtype, choose_device

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(precision: str, device: str = "auto") -> Accelerator:
    """An Accelerator for one run.

    Args:
        precision: `fp32`, `bf16` (autocast) or `auto`.
        device: `auto`, `cpu`, `cuda`, `cuda:1`…

    Raises:
        PrecisionError: a precision or device that this machine lacks.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    where = choose_device(device)
    mixed = "bf16" if autocast_dtype(precision, where) is not None else "no"
    if where.type == "cuda" and where.index is not None:
        torch.cuda.set_device(where)  # Accelerate takes the current one
    # Accelerate keeps precision and device for the whole process and refuses others later, but
    # one process may train several times, each time with settings of its own.
    if AcceleratorState._shared_state:
        earlier = AcceleratorState()
        if earlier.mixed_precision != mixed or earlier.device.type != where.type:
            AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=mixed, cpu=where.type == "cpu")
