"""The data of CLDR and the IANA registry that is shipped in `cldr/`, read once when it is needed.

`cldr/refresh.py` says where it comes from and writes it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@cache
def cldr_data(name: Literal["locales", "matching"]) -> Mapping[str, Any]:
    """One data file as it was written: many short words stand in one string, between spaces."""
    path = Path(__file__).parent / "cldr" / f"{name}.json"
    data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def cldr_version() -> str:
    """The release of CLDR whose data is shipped: `48.0.0`."""
    version: str = cldr_data("locales")["cldr_version"]
    return version
