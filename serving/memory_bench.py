"""What a hub of many adapters costs in memory, measured, beside full copies of the base.

Each configuration runs in a fresh process, so that nothing leaks from one into the next. Adapters
come through the same checks and the same loading as published ones; their weights are random.
"""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from ..adapters.files import CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE
from ..adapters.heads import head_tensors
from ..adapters.lora import MAX_RANK, LoraLayout
from ..adapters.spec import AdapterSpec
from ..adapters.training import ALL_LINEARS
from ..core.base import fingerprint, locate_base
from ..core.errors import InputError, IsoglossError
from ..core.progress import Progress
from ..core.shapes import SHAPES, write_random_base

if TYPE_CHECKING:
    from torch import nn

    from ..core.base import BaseFiles

# Of the memory that is free, the share that full copies may take.
COPIES_SHARE = 0.6


@dataclass(frozen=True, kw_only=True)
class MemoryBench:
    """What to measure."""

    base: str = "mini"
    """Name or folder of the base."""
    shape: str | None = None
    """Random weights in the shape of this model, instead of a base."""
    adapters: tuple[int, ...] = (1, 10, 100)
    """Numbers of resident adapters, a row each."""
    copies: int = 10
    """The most full copies to load, if they fit; larger numbers are computed."""
    rank: int = 8
    """Rank of the LoRA adapters."""
    targets: tuple[str, ...] = ALL_LINEARS
    """Modules that they change."""
    labels: int = 7
    """Outputs of each head."""
    device: str = "auto"
    """Where to compute."""

    def check(self) -> None:
        """Raise InputError for settings that make no sense."""
        if not self.adapters or min(self.adapters) < 1:
            raise InputError(f"adapters is {self.adapters}; give numbers of at least 1")
        if not 1 <= self.rank <= MAX_RANK:
            raise InputError(f"rank is {self.rank}; it must lie in 1..{MAX_RANK}")
        if self.copies < 1 or self.labels < 2:
            raise InputError(
                f"copies is {self.copies} and labels {self.labels}; they must be at least 1 and 2"
            )
        if self.shape is not None and self.shape not in SHAPES:
            raise InputError(f"shape is {self.shape!r}; known are {', '.join(SHAPES)}")


@dataclass(frozen=True, kw_only=True)
class MemoryRow:
    """A hub with so many adapters, and as many full copies."""

    adapters: int
    """How many are resident."""
    measured_bytes: int
    """All tensors that are alive in the process."""
    predicted_bytes: int
    """The base's bytes, and an adapter's as many times."""
    resident_set_bytes: int
    """Growth of the process from before the base was loaded."""
    load_ms: float
    """Median time from an adapter's files to its slot, milliseconds."""
    full_copies_bytes: int
    """Tensors of as many fine-tuned copies."""
    full_copies_measured: bool
    """Whether so many copies were loaded; else their bytes are computed from one."""
    full_copies_resident_set_bytes: int | None
    """Growth of the process with the copies loaded; None: computed."""


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """All that was measured, and on what."""

    base: str
    """Name of the base, or of the shape with random weights."""
    random_weights: bool
    """Whether the weights are random, in a real shape."""
    dtype: str
    """Precision of the base in memory."""
    device: str
    """Where the tensors are."""
    base_bytes: int
    """Tensors of the base."""
    adapter_bytes: int
    """Tensors of one adapter, head and routing included."""
    full_copy_bytes: int
    """Tensors of one fine-tuned copy, head included."""
    rows: tuple[MemoryRow, ...]
    """One row per number of adapters."""


def measure_memory(bench: MemoryBench) -> MemoryReport:
    """Measure a hub and full copies, each configuration in a fresh process.

    Raises:
        InputError: settings that make no sense.
        BaseModelError: no such base.
    """
    bench.check()
    with tempfile.TemporaryDirectory() as folder:
        settings = asdict(bench) | {"scratch": folder}
        if bench.shape is None:
            settings["base"] = str(locate_base(bench.base).folder)
        with Progress("bench memory", total=2 * len(bench.adapters) + 1) as progress:
            if bench.shape is not None:
                settings["base"] = str(Path(folder) / bench.shape)
                _measure("random_base", settings)
            progress.advance()
            one = _measure("copies", settings | {"count": 1})
            rows = []
            for count in bench.adapters:
                hub = _measure("hub", settings | {"count": count})
                progress.advance()
                fits = count * one["bytes"] < COPIES_SHARE * psutil.virtual_memory().available
                copies = (
                    _measure("copies", settings | {"count": count})
                    if count <= bench.copies and fits
                    else None
                )
                progress.advance()
                rows.append(_row(count, hub, one, copies))
    return MemoryReport(
        base=bench.shape or bench.base,
        random_weights=bench.shape is not None,
        dtype=hub["dtype"],
        device=hub["device"],
        base_bytes=hub["base_bytes"],
        adapter_bytes=hub["adapter_bytes"],
        full_copy_bytes=one["bytes"],
        rows=tuple(rows),
    )


def _row(
    count: int, hub: dict[str, Any], one: dict[str, Any], copies: dict[str, Any] | None
) -> MemoryRow:
    return MemoryRow(
        adapters=count,
        measured_bytes=hub["bytes"],
        predicted_bytes=hub["base_bytes"] + count * hub["adapter_bytes"],
        resident_set_bytes=hub["resident_set"],
        load_ms=hub["load_ms"],
        full_copies_bytes=copies["bytes"] if copies else count * one["bytes"],
        full_copies_measured=copies is not None,
        full_copies_resident_set_bytes=copies["resident_set"] if copies else None,
    )


def _measure(what: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Run one of this module's measurements in a process of its own."""
    done = subprocess.run(  # noqa: S603 (our own module, no shell)
        [sys.executable, "-P", "-m", __name__, what],
        input=json.dumps(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        # The last line of a traceback begins with the error's class.
        raise IsoglossError(f"measuring {what} failed: {re.sub(r'^[a-z_.]+[.]', '', last)}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _hub(settings: dict[str, Any]) -> dict[str, Any]:
    """Load a base, fill `count` slots, and see what grew."""
    from ..adapters.loading import load_adapter
    from ..core.bank import AdapterLinear
    from ..core.delta import SlotImage
    from ..core.encoder import load_encoder
    from ..core.engine import Engine

    count = settings["count"]
    base = locate_base(settings["base"])
    before = _resident_set()
    encoder = load_encoder(base.folder, device=settings["device"])
    one = load_adapter(_random_adapter(base, settings, seed=0), encoder)
    size = SlotImage.of(one.delta).nbytes
    engine = Engine(encoder, slots=count, slot_bytes=size)
    # Its line in the table of each module that it may change is part of what it costs.
    line = sum(
        module.places[0].nbytes
        for module in encoder.model.modules()
        if isinstance(module, AdapterLinear)
    )
    adapter_bytes = size + line + (0 if one.head is None else one.head.own_bytes)
    del one
    heads = []
    times = []
    for number in range(count):
        files = _random_adapter(base, settings, seed=number)
        started = time.perf_counter()
        adapter = load_adapter(files, encoder)
        engine.bank.put(number, SlotImage.of(adapter.delta))
        times.append(1000 * (time.perf_counter() - started))
        heads.append(adapter.head)
    del adapter
    _touch(encoder.model)
    gc.collect()
    return {
        "base_bytes": engine.parameter_bytes(),
        "adapter_bytes": adapter_bytes,
        "bytes": _live_tensor_bytes(),
        "resident_set": _resident_set() - before,
        "load_ms": float(np.median(times)),
        "dtype": str(encoder.dtype).removeprefix("torch."),
        "device": str(encoder.device),
    }


def _copies(settings: dict[str, Any]) -> dict[str, Any]:
    """Load `count` whole classifiers, as a service without adapters would."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from ..core.encoder import quiet_transformers
    from ..core.precision import choose_device

    device = choose_device(settings["device"])
    before = _resident_set()
    with quiet_transformers():
        models = [
            AutoModelForSequenceClassification.from_pretrained(
                settings["base"],
                num_labels=settings["labels"],
                dtype=torch.float32,
                local_files_only=True,
            ).to(device)
            for _ in range(settings["count"])
        ]
    for model in models:
        _touch(model)
    gc.collect()
    return {"bytes": _live_tensor_bytes(), "resident_set": _resident_set() - before}


def _random_base(settings: dict[str, Any]) -> dict[str, Any]:
    """Write a base with random weights, in the shape of a well-known one."""
    write_random_base(settings["shape"], Path(settings["base"]))
    return {}


def _random_adapter(base: BaseFiles, settings: dict[str, Any], *, seed: int) -> dict[str, bytes]:
    """The files of a LoRA adapter with random weights."""
    from safetensors.numpy import save

    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": settings["rank"],
        "lora_alpha": settings["rank"],
        "target_modules": settings["targets"],
    }
    layout = LoraLayout.parse(config, base.shape)
    expected = layout.tensors(base.shape) | head_tensors(base.shape, settings["labels"])
    generator = np.random.default_rng(seed)
    tensors = {
        name: generator.standard_normal(shape, dtype=np.float32) for name, shape in expected.items()
    }
    spec = AdapterSpec(
        locale="und",
        task="bench",
        labels=tuple(f"LABEL_{number}" for number in range(settings["labels"])),
        base=base.name,
        base_fingerprint=fingerprint(base).digest,
    )
    return {
        CONFIG_FILE: json.dumps(config).encode(),
        WEIGHTS_FILE: save(tensors),
        SPEC_FILE: spec.to_json(),
    }


def _live_tensor_bytes() -> int:
    """Bytes of all tensors that are alive in this process, whoever holds them."""
    import torch

    from ..core.linears import tensor_bytes

    kinds = {torch.Tensor, torch.nn.Parameter}
    return tensor_bytes(found for found in gc.get_objects() if type(found) in kinds)


def _touch(model: nn.Module) -> None:
    """Read every weight, as traffic would: pages of a mapped file count once they are read.

    Weights in oneDNN's own layout were written when they were packed, and so are there.
    """
    import torch

    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.layout is torch.strided:
            tensor.sum()


def _resident_set() -> int:
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    # Imported before anything is measured: libraries are no part of what a base costs.
    from transformers import (  # noqa: F401
        AutoModelForSequenceClassification,
        AutoTokenizer,
        BertForSequenceClassification,
        XLMRobertaForSequenceClassification,
    )

    from ..adapters import loading  # noqa: F401

    measurements = {"hub": _hub, "copies": _copies, "random_base": _random_base}
    print(json.dumps(measurements[sys.argv[1]](json.load(sys.stdin))))
