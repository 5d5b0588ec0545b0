from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data, which is no part of the repository."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("ISOGLOSS_SHARED") or root.parent / "shared")
    if not folder.is_dir():
        problem = f"no reference data at {folder}; set ISOGLOSS_SHARED"
        if os.environ.get("ISOGLOSS_REQUIRE_SHARED") == "1":
            pytest.fail(problem)
        pytest.skip(problem)
    return folder
