"""What a training run takes of the machine: in which precision, and how much memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..core.precision import choose_device, has_native_bf16

if TYPE_CHECKING:
    import torch

    from ..core.frozen import FrozenPrecision
    from .training_config import TrainingPrecision


def precisions(precision: TrainingPrecision, device: str) -> tuple[FrozenPrecision, str]:
    """In which precision the frozen products are computed, and which one autocast has.

    A CPU's frozen layers compute in bf16 or int8 by themselves, everything else in fp32; on other
    devices autocast does it, and int8 goes through bitsandbytes.

    Args:
        precision: as it was asked for.
        device: `auto`, `cpu`, `cuda`…

    Raises:
        PrecisionError: no such device.
    """
    where = choose_device(device)
    if where.type != "cpu":
        return ("int8", "auto") if precision == "int8" else ("fp32", precision)
    if precision == "auto":
        return ("bf16" if has_native_bf16(where) else "fp32"), "fp32"
    return precision, "fp32"


def peak_bytes(device: torch.device) -> int:
    """The most memory of a device so far; on a CPU that of the process."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource

    # Linux counts it in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
