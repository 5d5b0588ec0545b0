from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..conftest import TinyBase


class ChangeConfig(Protocol):
    """Sets entries of the `config.json` of a folder."""

    def __call__(self, folder: Path, **changes: object) -> None: ...


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's own cache out of it."""
    folder = tmp_path / "user-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def copy_of(tiny_base: TinyBase, tmp_path: Path) -> Callable[..., Path]:
    """A base to change at will, with no cached fingerprint beside it."""

    def make(model_type: str = "xlm-roberta", name: str = "copy", **options: Any) -> Path:
        folder = tmp_path / "bases" / name
        shutil.copytree(tiny_base(model_type, **options), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def change_config() -> ChangeConfig:
    def change(folder: Path, **changes: object) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change
