"""Folders whose files are none, are somewhere else, are too many, or change while they are read."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.core.errors import (
    AdapterFolderError,
    AdapterTooLargeError,
    BaseMismatchError,
    IsoglossError,
    UnsafeWeightsError,
)
from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .conftest import Files, Refused, Write

CONFIG, SPEC, WEIGHTS = "adapter_config.json", "isogloss.json", "adapter_model.safetensors"
NAMES = (CONFIG, SPEC, WEIGHTS, "README.md")


def link_elsewhere(path: Path) -> None:
    other = path.parent.parent / f"elsewhere-{path.name}"
    path.rename(other)
    path.symlink_to(other)


def link_beside(path: Path) -> None:
    path.rename(path.with_name(f"real-{path.name}"))
    path.symlink_to(f"real-{path.name}")


def link_to(target: str) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return replace


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    path.unlink()
    # A socket's whole path is short.
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)


def a_byte_too_large(path: Path) -> None:
    from isogloss.adapters.files import SIZE_LIMITS

    with path.open("r+b") as file:
        file.truncate(SIZE_LIMITS[path.name] + 1)


REPLACED: dict[str, Callable[[Path], None]] = {
    "a link to another folder": link_elsewhere,
    "a link beside it": link_beside,
    "a link to /etc/passwd": link_to("/etc/passwd"),
    "a link to a device that never ends": link_to("/dev/zero"),
    "a link to nothing": link_to("nothing"),
    "a link to itself": link_to("adapter_config.json"),
    "a pipe": pipe,
    "a socket": unix_socket,
    "a folder": folder,
    "a terabyte": huge,
    "a byte too large": a_byte_too_large,
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", REPLACED)
def test_no_regular_files(
    how: str, name: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    path = write({"README.md": b"# A card", **good["lora"]})
    REPLACED[how](path / name)
    assert isinstance(refused(path), AdapterFolderError | AdapterTooLargeError)


@pytest.mark.parametrize("kind", ["peft", "lora", "prefix", "bottleneck"])
@pytest.mark.parametrize(
    "name",
    [
        "adapter_model.bin",
        "adapter_model.pt",
        "adapter_model.pth",
        "pytorch_model.bin",
        "adapter_model.ckpt",
        "adapter_model.pkl",
        "weights.pickle",
    ],
)
def test_pickle_alone(
    name: str, kind: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    files = {**good[kind], name: b"cos\nsystem\n(S'id'\ntR."}
    del files[WEIGHTS]
    assert isinstance(refused(write(files)), UnsafeWeightsError)


def test_a_pickle_beside_good_weights_is_left_where_it_is(
    good: dict[str, Files], write: Write, checked: Callable[[Path], Files]
) -> None:
    extra = {"adapter_model.bin": b"\x80\x04", "optimizer.pt": b"\x80\x04", "run.sh": b"rm -rf /"}
    stored = checked(write({**good["lora"], **extra}))
    assert stored.keys() == {CONFIG, SPEC, WEIGHTS}


@pytest.mark.parametrize("kind", ["peft", "lora", "prefix", "bottleneck"])
@pytest.mark.parametrize("missing", [CONFIG, SPEC, WEIGHTS])
def test_a_file_that_is_missing(
    missing: str, kind: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    files = {name: content for name, content in good[kind].items() if name != missing}
    # A plain LoRA or prefix folder is one that PEFT wrote, and a bottleneck has no config.
    if len(files) == len(good[kind]) or (missing == SPEC and kind in ("lora", "prefix")):
        files = {}
    assert isinstance(refused(write(files)), AdapterFolderError)


@pytest.mark.parametrize("kind", ["lora", "prefix", "bottleneck"])
def test_another_base(
    kind: str, good: dict[str, Files], write: Write, refused: Refused, base: Path, tmp_path: Path
) -> None:
    """A base of the same shape and name, with one weight that differs."""
    other = tmp_path / "other" / base.name
    shutil.copytree(base, other)
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    folder = write(good[kind])
    for options in ({}, {"trust_base": True}):
        assert isinstance(refused(folder, base=other, **options), BaseMismatchError)


@pytest.mark.parametrize("what", ["nothing", "a file", "a link to nothing"])
def test_no_folder(what: str, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "adapter"
    if what == "a file":
        path.write_bytes(b"x")
    elif what == "a link to nothing":
        path.symlink_to("nothing")
    assert isinstance(refused(path), AdapterFolderError)


@pytest.mark.parametrize("kind", ["peft", "bottleneck"])
def test_files_that_change_while_they_are_read(
    kind: str, good: dict[str, Files], write: Write, base: Path, tmp_path: Path
) -> None:
    """Whatever moment was caught, what is stored was checked, and is what its digest says."""
    files = good[kind]
    folder = write(files)
    nan = files[WEIGHTS][:-4] + b"\x00\x00\xc0\x7f"
    contents = (files[WEIGHTS], nan, files[WEIGHTS][:1000], files[WEIGHTS] + bytes(4096), b"")
    stop = threading.Event()

    def write_on() -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            with (folder / WEIGHTS).open("r+b") as file:
                file.write(contents[turn % len(contents)])
                file.truncate()
            time.sleep(0.0005)

    writer = threading.Thread(target=write_on)
    stored: set[bytes] = set()
    refusals = 0
    options: dict[str, Any] = {} if kind == "bottleneck" else {"locale": "gsw-CH", "task": "intent"}
    with Registry.open(tmp_path / "registry") as registry:
        writer.start()
        try:
            end = time.monotonic() + 60
            while time.monotonic() < end and not (stored and refusals > 20):
                try:
                    version = registry.publish(folder, base=base, smoke=False, **options)
                except IsoglossError:
                    refusals += 1
                else:
                    stored.add(registry.read(version)[WEIGHTS])
        finally:
            stop.set()
            writer.join()
        assert refusals > 20
        assert stored == {files[WEIGHTS]}
        assert registry.verify().is_sound
