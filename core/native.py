"""Small compiled kernels: built once a machine, at first use; without a compiler torch serves.

Every `.c` file of `kernels/` goes into one shared library in the user's cache folder. Its name is a
digest of the sources, the flags, the compiler and the processor, so that none of them changes under
it. ctypes releases the interpreter's lock during a call.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_cache_path

if TYPE_CHECKING:
    import torch

KERNELS_FOLDER = Path(__file__).parent / "kernels"
SWITCH = "ISOGLOSS_NATIVE"
COMPILERS = ("cc", "gcc", "clang")
# No -ffast-math: sums keep the order of the source, so that an answer doesn't depend on where in a
# batch, or at which address, a row lies.
FLAGS = (
    *("-O3", "-std=c11", "-fPIC", "-shared"),
    *("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"),
)
# The first that the compiler takes: Arm's compilers call it by another name.
TUNING = (("-march=native",), ("-mcpu=native",), ())
COMPILE_SECONDS = 120
# Fewer rows than this are not worth handing to another thread.
LEAST_ROWS = 32

POINTER = ctypes.c_void_p
SIZE = ctypes.c_int64
REAL = ctypes.c_float
# Functions over rows take the first row and the row after the last as their last two arguments.
SIGNATURES: dict[str, tuple[type[ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float], ...]] = {
    # x, factors, width, to, scales
    "isogloss_quantize": (POINTER, POINTER, SIZE, POINTER, POINTER, SIZE, SIZE),
    "isogloss_gelu_quantize": (POINTER, POINTER, SIZE, POINTER, POINTER, SIZE, SIZE),
    # y, scales, bias, out, x, in, columns, weights, count
    "isogloss_rescale": (
        *(POINTER, POINTER, POINTER, SIZE, POINTER, SIZE, POINTER, POINTER, SIZE),
        *(SIZE, SIZE),
    ),
    # y, scales, bias, out, x, in, columns, outliers, count, arena, places, segments, weights, count
    "isogloss_rescale_low_rank": (
        *(POINTER, POINTER, POINTER, SIZE, POINTER, SIZE, POINTER, POINTER, SIZE),
        *(POINTER, POINTER, POINTER, POINTER, SIZE),
        *(SIZE, SIZE),
    ),
    # x, y, in, out, arena, places, segments, weights, count
    "isogloss_low_rank": (
        *(POINTER, POINTER, SIZE, SIZE, POINTER, POINTER, POINTER, POINTER, SIZE),
        *(SIZE, SIZE),
    ),
}


class Native:
    """The compiled library.

    Args:
        library: as ctypes opened it.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {}
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = None
            self._functions[name] = function

    def call(self, name: str, *arguments: int | float | torch.Tensor | None) -> None:
        """Call a kernel; a tensor stands for its address, None for a null pointer."""
        self._functions[name](*map(_plain, arguments))

    def over_rows(
        self, name: str, rows: int, *arguments: int | float | torch.Tensor | None
    ) -> None:
        """Call a kernel for all rows, split over as many threads as torch may use."""
        import torch

        function = self._functions[name]
        plain = tuple(map(_plain, arguments))
        threads = min(torch.get_num_threads(), rows // LEAST_ROWS)
        if threads < 2:
            function(*plain, 0, rows)
            return
        bounds = [rows * part // threads for part in range(threads + 1)]
        pool = _pool(os.getpid(), torch.get_num_threads())
        parts = [
            pool.submit(function, *(*plain, first, last))
            for first, last in itertools.pairwise(bounds[1:])
        ]
        function(*plain, bounds[0], bounds[1])
        for part in parts:
            part.result()


@dataclass(frozen=True, kw_only=True)
class NativeStatus:
    """Whether there are compiled kernels, and why not."""

    native: Native | None
    """The library; None: torch computes."""
    note: str
    """How it came about, for people."""


def load() -> Native | None:
    """The compiled kernels, built now if need be; None: switched off, or they can't be built."""
    return status().native


def status() -> NativeStatus:
    """The compiled kernels, or why there are none. `ISOGLOSS_NATIVE=0` switches them off."""
    if os.environ.get(SWITCH) == "0":
        return NativeStatus(native=None, note=f"switched off by {SWITCH}=0")
    return _status()


@functools.cache
def _status() -> NativeStatus:
    """Once a process: a failed build isn't tried again for every layer."""
    found = next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        return NativeStatus(
            native=None, note=f"no C compiler on PATH (none of {', '.join(COMPILERS)})"
        )
    compiler = Path(found).resolve()
    sources = sorted(KERNELS_FOLDER.glob("*.c"))
    try:
        library = _open(compiler, sources)
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        first = (reason.strip() or type(error).__name__).splitlines()[0]
        return NativeStatus(native=None, note=f"{compiler.name} couldn't build them: {first}")
    return NativeStatus(native=Native(library), note=f"compiled by {compiler.name}")


def _open(compiler: Path, sources: list[Path]) -> ctypes.CDLL:
    """The library from the cache; built if it isn't there, or can't be opened."""
    path = user_cache_path("isogloss") / "native" / f"{_key(compiler, sources)}.so"
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        # Not there, or cut off.
        return _build_and_open(compiler, sources, path)


def _build_and_open(compiler: Path, sources: list[Path], path: Path) -> ctypes.CDLL:
    """Build in the cache, or for this process alone where the cache can't be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _build(compiler, sources, path)
        return ctypes.CDLL(str(path))
    except OSError:  # a home that can't be written to, or that may hold no programs
        with tempfile.TemporaryDirectory(prefix="isogloss-") as folder:
            path = Path(folder) / path.name
            _build(compiler, sources, path)
            return ctypes.CDLL(str(path))  # an open library needs its file no longer


def _build(compiler: Path, sources: list[Path], path: Path) -> None:
    """Compile beside `path`, then rename: another process never opens half a library."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        partial = Path(folder) / path.name
        for tuning in TUNING:
            command = [compiler, *FLAGS, *tuning, "-o", partial, *sources, "-lm"]
            try:
                subprocess.run(  # noqa: S603 (our own sources, no shell)
                    command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS
                )
                break
            except subprocess.CalledProcessError:
                if not tuning:
                    raise
        partial.replace(path)


def _key(compiler: Path, sources: list[Path]) -> str:
    """Everything that decides what the library holds."""
    stat = compiler.stat()
    digest = hashlib.sha256()
    for part in (
        *FLAGS,
        *(word for words in TUNING for word in words),
        *(str(compiler), str(stat.st_size), str(stat.st_mtime_ns)),
        *(platform.system(), platform.machine(), _processor()),
        *(text for source in sources for text in (source.name, source.read_text())),
    ):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:32]


def _processor() -> str:
    """What this processor can do: a cache folder may be shared by unlike machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001
    """The threads that share the rows of a call; a forked process has none of its parent's."""
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="isogloss-kernel")


def _plain(argument: int | float | torch.Tensor | None) -> int | float | None:
    """What ctypes takes."""
    if argument is None or isinstance(argument, int | float):
        return argument
    return argument.data_ptr()
