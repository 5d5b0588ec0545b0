"""The public face is whole."""

from __future__ import annotations

import subprocess
import sys

import isogloss


def test_every_public_name_loads() -> None:
    assert set(isogloss.__all__) == set(isogloss._HOMES)
    for name in isogloss.__all__:
        assert getattr(isogloss, name).__name__ == name
    assert set(dir(isogloss)) >= set(isogloss.__all__)


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(isogloss, "Bub")


def test_import_is_quick() -> None:
    script = "import sys, isogloss; print({'torch', 'transformers'} & sys.modules.keys() or 'none')"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "none"
