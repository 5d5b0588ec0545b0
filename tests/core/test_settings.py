from __future__ import annotations

from pathlib import Path

import pytest

from isogloss.core.errors import InputError
from isogloss.core.settings import Settings


def test_defaults() -> None:
    settings = Settings.from_environment({"ISOGLOSS_BASE": ""})
    assert (settings.base, settings.precision, settings.device) == ("mini", "auto", "auto")
    assert settings.slots == 64
    assert settings.registry.name == "registry"


def test_environment_overrides() -> None:
    settings = Settings.from_environment(
        {
            "ISOGLOSS_REGISTRY": "~/adapters",
            "ISOGLOSS_BASE": "xlm-roberta-base",
            "ISOGLOSS_SLOTS": "3",
        }
    )
    assert settings.registry == Path("~/adapters").expanduser()
    assert (settings.base, settings.slots) == ("xlm-roberta-base", 3)


def test_slots_must_be_a_number() -> None:
    with pytest.raises(InputError, match="ISOGLOSS_SLOTS is 'many'"):
        Settings.from_environment({"ISOGLOSS_SLOTS": "many"})
