from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from isogloss.adapters.files import SPEC_FILE, WEIGHTS_FILE
from isogloss.adapters.layout import expected_tensors, parse_layout
from isogloss.adapters.spec import AdapterSpec, BottleneckSpec
from isogloss.cli import main
from isogloss.core.base import fingerprint, locate_base
from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command; gives its exit status, and what it printed: JSON as what it stands for."""
    monkeypatch.setenv("ISOGLOSS_REGISTRY", str(tmp_path / "registry"))

    def call(*arguments: str) -> tuple[int, Any]:
        status = 0
        try:
            main(arguments)
        except SystemExit as error:
            status = int(error.code or 0)
        output = capsys.readouterr()
        if status == 2:
            return status, output.err
        return status, json.loads(output.out) if "--json" in arguments else output.out

    return call


@pytest.fixture
def published(tmp_path: Path) -> Registry:
    """A registry with two versions on mini, the second of which is live."""
    base = locate_base("mini")
    registry = Registry.open(tmp_path / "registry")
    for number in range(2):
        spec = AdapterSpec(
            locale="gsw-CH",
            task="intent",
            kind="bottleneck",
            bottleneck=BottleneckSpec(placement="pfeiffer", size=2),
            labels=("a", "b"),
            base="mini",
            base_fingerprint=fingerprint(base).digest,
        )
        folder = tmp_path / f"adapter-{number}"
        folder.mkdir()
        (folder / SPEC_FILE).write_bytes(spec.to_json())
        tensors = expected_tensors(spec, parse_layout(spec, None, base.shape, ()), base.shape)
        values = {name: np.full(shape, number, dtype=np.float32) for name, shape in tensors.items()}
        save_file(values, folder / WEIGHTS_FILE)
        registry.publish(folder, smoke=False)
    return registry


def weights_of(registry: Registry, tmp_path: Path) -> Path:
    version = registry.versions()[0]
    digest = next(file.sha256 for file in version.files if file.path == WEIGHTS_FILE)
    return tmp_path / "registry" / "blobs" / "sha256" / digest[:2] / digest


def test_verify_says_what_is_damaged_and_exits_with_1(
    run: Run, published: Registry, tmp_path: Path
) -> None:
    status, output = run("verify")
    assert status == 0
    assert output == "2 versions, 1 aliases, 3 blobs (" + output.split("(")[1]
    assert output.endswith("all sound\n")
    assert run("verify", "--json")[1]["is_sound"] is True
    weights_of(published, tmp_path).write_bytes(b"damaged")
    status, output = run("verify")
    assert status == 1
    assert published.versions()[0].name in output
    assert "blob-damaged" in output
    assert output.endswith("1 damaged\n")
    status, report = run("verify", "--json")
    assert status == 1
    assert [found["kind"] for found in report["findings"]] == ["blob-damaged"]


def test_gc_deletes_only_when_told(run: Run, published: Registry, tmp_path: Path) -> None:
    published._blobs.put(b"nobody's")
    old = time.time() - 2 * 86_400
    for path in (tmp_path / "registry" / "blobs").rglob("*"):
        os.utime(path, (old, old))
    assert run("gc")[1] == "0 versions, 1 blobs (8 B) would be deleted (--delete)\n"
    assert run("gc", "--older-than", "72", "--json")[1]["blobs"] == 0
    assert run("gc", "--delete")[1] == "0 versions, 1 blobs (8 B) deleted\n"
    done = run("gc", "--delete", "--versions", "--keep-days", "0", "--older-than", "0", "--json")[1]
    assert len(done["versions"]) == 1
    assert len(published.versions()) == 1
    assert run("verify")[0] == 0
    assert run("gc", "--older-than", "-1")[0] == 2
    assert run("gc", "--versions", "--keep-days", "-1")[0] == 2


def test_export_and_import(run: Run, published: Registry, tmp_path: Path) -> None:
    file, other = str(tmp_path / "all.tar"), str(tmp_path / "other")
    status, output = run("export", file)
    assert status == 0
    assert output.startswith("2 versions (")
    assert output.endswith(f" and 1 aliases are in {file}\n")
    assert run("export", file)[0] == 2
    assert run("export", str(tmp_path / "fr.tar"), "--locale", "fr")[0] == 2
    said = "2 versions are new, 0 were here; 1 aliases are new or have moved\n"
    assert run("import", file, "--registry", other) == (0, said)
    again = run("import", file, "--registry", other, "--json")[1]
    assert (again["versions"], again["known"], again["aliases"]) == ([], 2, [])
    with Registry.open(other) as registry:
        assert registry.resolve("gsw-CH", "intent") == published.resolve("gsw-CH", "intent")
    assert run("import", file, "--registry", str(tmp_path / "third"), "--no-aliases")[0] == 0
    with Registry.open(tmp_path / "third") as registry:
        assert registry.aliases() == []


def test_a_mistake_makes_no_registry(run: Run, tmp_path: Path) -> None:
    for arguments in (
        ("import", str(tmp_path / "nothing.tar")),
        ("pull", "anna/gsw-intent"),
        ("pull", "hf://datasets/anna/gsw-intent"),
        ("push", "intent/gsw-CH@3f2c9a", "hf://anna/gsw-intent"),
        ("verify",),
        ("gc",),
    ):
        status, message = run(*arguments)
        assert status == 2, arguments
        assert message.count("\n") == 1
    assert not (tmp_path / "registry").exists()
