"""The wheel holds every package and data file, and the links for mypy are whole."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("adapters", "core", "registry", "serving")
LARGEST_WHEEL = 30_000_000


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "isogloss"
    # Built from a copy: a build folder in the tree would feed stale files to the next one.
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, tracked)):
        path = ROOT / name
        if path.is_file() and not name.startswith(".types/"):
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    subprocess.run(
        [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "-o", out, source],
        capture_output=True,
        check=True,
    )
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {
        f"isogloss/{path.relative_to(ROOT)}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path.parent.name != "cldr"  # the script that refreshes the data isn't shipped
    }
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "isogloss").rglob("*.py")}
    expected |= {
        str(path.relative_to(ROOT)) for path in (ROOT / "isogloss" / "shop").rglob("*.jsonl")
    }
    expected |= {
        f"isogloss/core/kernels/{path.name}" for path in (ROOT / "core" / "kernels").iterdir()
    }
    expected |= {
        f"isogloss/core/mini/{path.name}"
        for path in (ROOT / "core" / "mini").iterdir()
        if not path.name.startswith(".")
    }
    expected |= {
        "isogloss/py.typed",
        "isogloss/core/cldr/locales.json",
        "isogloss/core/cldr/matching.json",
        "isogloss/core/cldr/LICENSE-unicode.txt",
        "isogloss/core/mini/model.safetensors",
        "isogloss/core/mini/tokenizer.json",
    }
    assert expected - names == set()


def test_wheel_holds_nothing_else_and_stays_small(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"isogloss"}
    assert wheel.stat().st_size < LARGEST_WHEEL


def test_installed_wheel_imports_and_runs(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    script = (
        "import isogloss, isogloss.registry, isogloss.core.base as base;"
        "print(isogloss.__file__);"
        "print(base.fingerprint(base.locate_base('mini')).digest)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    where, digest = done.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert len(digest) == 64


def test_links_for_mypy_are_whole() -> None:
    links = ROOT / ".types" / "isogloss"
    faces = {
        path.name for path in (ROOT / "isogloss").iterdir() if path.suffix in {".py", ".typed"}
    }
    assert {path.name for path in links.iterdir()} == faces | set(PACKAGES)
    for path in links.iterdir():
        assert path.is_symlink()
        assert path.exists(), f"{path} points nowhere"
        assert not path.readlink().is_absolute()
