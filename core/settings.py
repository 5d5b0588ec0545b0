"""Settings that come from the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError

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
    """`ISOGLOSS_REGISTRY`: folder of the registry; default: in the user's data folder."""
    base: str = "mini"
    """`ISOGLOSS_BASE`: name or folder of the base."""
    precision: str = "auto"
    """`ISOGLOSS_PRECISION`: precision of the resident base."""
    device: str = "auto"
    """`ISOGLOSS_DEVICE`: where to compute."""
    slots: int = 64
    """`ISOGLOSS_SLOTS`: how many adapters a hub holds at once."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables; empty ones count as not set.

        Raises:
            InputError: a number that is none.
        """
        given = {
            name: environment[PREFIX + name.upper()]
            for name in ("registry", "base", "precision", "device", "slots")
            if environment.get(PREFIX + name.upper())
        }
        values: dict[str, object] = dict(given)
        if "registry" in given:
            values["registry"] = Path(given["registry"]).expanduser()
        if "slots" in given:
            try:
                values["slots"] = int(given["slots"])
            except ValueError:
                raise InputError(
                    f"{PREFIX}SLOTS is {given['slots']!r}; it must be a whole number"
                ) from None
        return cls(**values)  # type: ignore[arg-type]
