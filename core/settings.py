"""Settings that come from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "ISOGLOSS_"


def _user_registry() -> Path:
    from platformdirs import user_data_path

    return user_data_path("isogloss", appauthor=False) / "registry"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds unless an argument says otherwise."""

    registry: Path = field(default_factory=_user_registry)
    """`ISOGLOSS_REGISTRY`: folder of the registry, or a TOML file that says where its database and
    its blobs are; default: a folder in the user's data folder."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables; empty ones count as not set."""
        registry = environment.get(f"{PREFIX}REGISTRY")
        return cls(registry=Path(registry).expanduser()) if registry else cls()
