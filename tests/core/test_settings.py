from __future__ import annotations

from pathlib import Path

from isogloss.core.settings import Settings


def test_defaults() -> None:
    assert Settings.from_environment({"ISOGLOSS_REGISTRY": ""}).registry.name == "registry"


def test_environment_overrides() -> None:
    settings = Settings.from_environment({"ISOGLOSS_REGISTRY": "~/adapters"})
    assert settings.registry == Path("~/adapters").expanduser()
