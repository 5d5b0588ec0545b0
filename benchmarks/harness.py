"""What every benchmark shares: a base of a real shape, fair timing, and what it ran on.

Both sides of a comparison run in turn in one process, on one thread, and are measured in process
CPU time, which another process's load disturbs least. A ratio is the median of the ratios of
neighbouring runs; its spread is reported beside it.
"""

from __future__ import annotations

import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from platformdirs import user_cache_path

from isogloss.core.shapes import write_random_base

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "numpy")
# What decides the speed of matrix products.
WIDE = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16"}
# Beyond this relative spread (interquartile range over median) a ratio says nothing.
MAX_SPREAD = 0.25


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times the second side's time the first side's is."""

    median: float
    """Of the ratios of neighbouring runs."""
    low: float
    """Their lower quartile."""
    high: float
    """Their upper quartile."""
    seconds: tuple[float, float]
    """Median CPU time of each side."""
    runs: int
    """How many there were."""

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        return (self.high - self.low) / self.median

    def check(self) -> Ratio:
        """Refuse a ratio whose spread makes it meaningless."""
        if self.spread > MAX_SPREAD:
            raise SystemExit(
                f"the ratio varies by {self.spread:.0%} between runs ({self.low:.2f} to "
                f"{self.high:.2f}); run it again on a quieter machine or with more --runs"
            )
        return self


def compare(
    first: Callable[[], object], second: Callable[[], object], *, runs: int, warm_up: int = 1
) -> Ratio:
    """Time both sides in turn; the ratio says how many times longer the first takes."""
    for _ in range(warm_up):
        first()
        second()
    times: list[tuple[float, float]] = []
    for number in range(runs):
        # Whoever goes second finds the other's data in the caches: take turns.
        sides = (first, second) if number % 2 == 0 else (second, first)
        taken = {side: _cpu_seconds(side) for side in sides}
        times.append((taken[first], taken[second]))
    ratios = sorted(one / other for one, other in times)
    low, median, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    seconds = (
        statistics.median(one for one, _ in times),
        statistics.median(other for _, other in times),
    )
    return Ratio(median=median, low=low, high=high, seconds=seconds, runs=runs)


def _cpu_seconds(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def one_thread() -> None:
    """Compute on one thread: two collapse when a neighbour runs."""
    import torch

    torch.set_num_threads(1)


def random_base(shape: str) -> Path:
    """A folder with random weights in the shape of a well-known model; made once, about 1 GB."""
    folder = user_cache_path("isogloss") / "benchmarks" / f"{shape}-random"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
            write_random_base(shape, Path(partial) / "base")
            (Path(partial) / "base").rename(folder)
    return folder


def lengths(rows: int, *, seed: int = 0) -> list[int]:
    """Tokens of each row: lognormal(3.0, 0.7), as search queries and messages are, in 4..128."""
    drawn = np.random.default_rng(seed).lognormal(3.0, 0.7, rows)
    return [int(length) for length in drawn.clip(4, 128)]


def conditions(*, seed: int) -> dict[str, Any]:
    """What a result was measured on: hardware, versions, date, command, seed."""
    import torch

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([f"python -m {_module()}", *sys.argv[1:]]),
        "seed": seed,
        "processor": processor(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{library: version(library) for library in LIBRARIES},
    }


def rounded(ratio: Ratio) -> dict[str, Any]:
    """A ratio as JSON."""
    found = asdict(ratio)
    found["seconds"] = [round(value, 5) for value in ratio.seconds]
    return {
        key: round(value, 3) if isinstance(value, float) else value for key, value in found.items()
    }


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows as aligned text; the first is the head."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in texts
    )


def processor() -> str:
    """Its name, and what decides the speed of its matrix products."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    facts = {name.strip(): value for name, _, value in (line.partition(": ") for line in lines)}
    wide = sorted(set(facts.get("flags", "").split()) & WIDE)
    return f"{facts.get('model name', platform.processor())} ({' '.join(wide)})"


def _module() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if spec is not None else Path(sys.argv[0]).stem
