from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from isogloss.core import native

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def fresh(user_cache: Path) -> Iterator[Path]:
    """No library is open, and none is cached; gives the folder where it will lie."""
    native._status.cache_clear()
    yield user_cache / "isogloss" / "native"
    native._status.cache_clear()


@pytest.fixture
def compiler(fresh: Path) -> Path:
    if native.load() is None:
        pytest.skip(f"no compiled kernels: {native.status().note}")
    return fresh


def quantize(kernels: native.Native, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.empty(features.shape, dtype=torch.uint8)
    scales = torch.empty(len(features))
    kernels.over_rows(
        "isogloss_quantize",
        len(features),
        *(features, None, features.shape[1], codes, scales),
    )
    return codes, scales


def test_it_is_built_once(compiler: Path) -> None:
    (built,) = compiler.iterdir()
    before = built.stat()
    native._status.cache_clear()
    assert native.load() is not None
    assert list(compiler.iterdir()) == [built]
    assert (built.stat().st_ino, built.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert native.status().note.startswith("compiled by")
    assert native.load() is native.load()


def test_a_damaged_library_is_built_again(compiler: Path) -> None:
    (built,) = compiler.iterdir()
    native._status.cache_clear()
    # Another file: this process still has the old one mapped.
    partial = built.with_suffix(".partial")
    partial.write_bytes(built.read_bytes()[:100])
    partial.replace(built)
    kernels = native.load()
    assert kernels is not None
    assert quantize(kernels, torch.ones(1, 3))[0].tolist() == [[255, 255, 255]]


def test_a_cache_that_cannot_be_written(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    occupied = tmp_path / "occupied"
    occupied.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(occupied))
    kernels = native.load()
    if kernels is None:
        assert "no C compiler" in native.status().note
        return
    assert quantize(kernels, torch.ones(1, 3))[0].tolist() == [[255, 255, 255]]
    assert not occupied.stat().st_size


def test_without_a_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert native.load() is None
    assert native.status().note == "no C compiler on PATH (none of cc, gcc, clang)"
    assert not fresh.exists()


def test_a_compiler_that_fails(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho no licence >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert native.load() is None
    assert native.status().note == "cc couldn't build them: no licence"
    assert not list(fresh.glob("*.so"))


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOGLOSS_NATIVE", "0")
    assert native.load() is None
    assert "ISOGLOSS_NATIVE=0" in native.status().note


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 400])
def test_threads_share_the_rows(rows: int) -> None:
    kernels = native.load()
    if kernels is None:
        pytest.skip(f"no compiled kernels: {native.status().note}")
    features = torch.randn(rows, 37, generator=torch.Generator().manual_seed(rows))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = quantize(kernels, features)
        torch.set_num_threads(3)
        together = quantize(kernels, features)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])
