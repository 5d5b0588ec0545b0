"""What this machine has, what works on it, and what is missing."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from . import __version__
from .output import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import torch

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "tokenizers",
    "bitsandbytes",
    "sqlalchemy",
)
# Relative error that a product in each precision may have against fp32.
TOLERANCES = {"fp32": 1e-5, "bf16": 2e-2, "int8": 5e-2, "int8 (bitsandbytes)": 5e-2}


@dataclass(frozen=True, kw_only=True)
class PrecisionCheck:
    """Whether one precision computes rightly here."""

    name: str
    """Which."""
    works: bool
    """Whether a product came out right."""
    note: str
    """How fast it is meant to be here, or why it doesn't work."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that the doctor found."""

    facts: dict[str, str]
    """Versions, processor, memory, devices, places."""
    precisions: tuple[PrecisionCheck, ...]
    """What was tried."""
    missing: tuple[str, ...]
    """What could be had, and how."""


def examine(registry_folder: Path | None) -> Report:
    """Look at this machine; each precision is tried, not looked up."""
    import torch

    from .core import native
    from .core.precision import choose_device

    kernels = native.status()
    facts = {
        "isogloss": __version__,
        "python": platform.python_version(),
        **{name: _version(name) or "not installed" for name in LIBRARIES},
        "processor": f"{platform.machine()}, {psutil.cpu_count(logical=True)} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "memory": f"{format_bytes(psutil.virtual_memory().total)}, "
        f"{format_bytes(psutil.virtual_memory().available)} free",
        "device": _device(choose_device()),
        "compiled kernels": kernels.note,
        "embedded base": _embedded(),
        "registry": _registry(registry_folder),
    }
    missing = []
    if _version("bitsandbytes") is None:
        missing.append("bitsandbytes, for 8-bit weights: pip install 'isogloss[int8]'")
    if kernels.native is None:
        missing.append(
            "compiled kernels, which make int8 and adapters faster on a CPU: install gcc or clang"
        )
    if not torch.cuda.is_available():
        missing.append(
            "a CUDA device or a CUDA build of torch; without them everything runs on the CPU "
            "(https://pytorch.org/get-started)"
        )
    return Report(
        facts=facts,
        precisions=tuple(_try(name, choose_device()) for name in TOLERANCES),
        missing=tuple(missing),
    )


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(device: torch.device) -> str:
    import torch

    if device.type != "cuda":
        return "cpu"
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {format_bytes(properties.total_memory)}"


def _embedded() -> str:
    from .core.base import EMBEDDED, fingerprint, locate_base
    from .core.errors import BaseModelError

    try:
        base = locate_base(EMBEDDED)
        return f"{EMBEDDED}, fingerprint {fingerprint(base).digest[:12]}"
    except BaseModelError as error:
        return f"not there: {error}"


def _registry(folder: Path | None) -> str:
    from .core.errors import RegistryError
    from .options import open_registry

    try:
        with open_registry(folder) as registry:
            return f"{len(registry.versions())} versions"
    except RegistryError as error:
        return f"none yet ({error})"


def _try(name: str, device: torch.device) -> PrecisionCheck:
    """Multiply in one precision and compare with float64."""
    import torch

    from .core.precision import has_native_bf16

    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 256, generator=generator)
    weight = torch.randn(128, 256, generator=generator)
    exact = features.double() @ weight.double().T
    try:
        if name == "fp32":
            result, note = features.to(device) @ weight.to(device).T, "exact; the default"
        elif name == "bf16":
            result = features.to(device, torch.bfloat16) @ weight.to(device, torch.bfloat16).T
            note = "native on this processor" if has_native_bf16() else "slower than fp32 here"
        elif name == "int8":
            result, note = _int8(features, weight)
        else:
            result, note = _bitsandbytes(features, weight, device), "through bitsandbytes"
        error = float((result.double().cpu() - exact).norm() / exact.norm())
    except Exception as failure:  # (whatever fails, the doctor says so)
        reason = " ".join(f"{type(failure).__name__}: {failure}".split())
        return PrecisionCheck(name=name, works=False, note=reason)
    works = error < TOLERANCES[name]
    return PrecisionCheck(name=name, works=works, note=f"{note} (relative error {error:.1e})")


def _int8(features: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, str]:
    """On the CPU; returns what came out, and through what."""
    from .core.int8 import choose_product
    from .core.outliers import find_outliers
    from .core.quantized import Int8Linear, Quantizer

    quantizer = Quantizer(find_outliers(features.abs().amax(0)), weight.shape[1])
    layer = Int8Linear(weight, None, quantizer)
    return layer(features), f"through {choose_product().name}, on the CPU"


def _bitsandbytes(
    features: torch.Tensor, weight: torch.Tensor, device: torch.device
) -> torch.Tensor:
    from .core.encoder import quiet_transformers

    with quiet_transformers():
        from bitsandbytes.nn.modules import Linear8bitLt

    layer = Linear8bitLt(weight.shape[1], weight.shape[0], bias=False, has_fp16_weights=False)
    layer.weight.data = weight
    layer = layer.to(device)  # type: ignore[no-untyped-call]
    result: torch.Tensor = layer(features.to(device)).detach()
    return result
