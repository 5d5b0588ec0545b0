from __future__ import annotations

from pathlib import Path

import isogloss.core.cldr_data
from isogloss.core.cldr_data import cldr_data
from isogloss.core.locale import cldr_version

CLDR = Path(isogloss.core.cldr_data.__file__).parent / "cldr"


def test_shipped_data() -> None:
    assert cldr_version() == "48.0.0"
    licence = (CLDR / "LICENSE-unicode.txt").read_text(encoding="utf-8")
    assert licence.startswith("UNICODE LICENSE V3")
    data = cldr_data("locales")
    for extlangs in data["extlangs"].values():
        assert set(extlangs.split()) <= set(data["languages"].split())
    assert sum(len(tags.split()) for tags in data["likely_subtags"].values()) > 7000


def test_matching_data() -> None:
    data = cldr_data("matching")
    assert data["cldr_version"] == cldr_version()
    rules = [rule.split() for rule in data["language_matches"]]
    assert ["nb", "no", "1"] in rules
    assert ["gsw", "de", "4", "oneway"] in rules
    # The default comes last, as the first rule that fits counts.
    assert rules[-1] == ["*-*-*", "*-*-*", "4"]
    assert "419" in data["region_contains"]["019"].split()
    assert data["match_variables"]["$cnsar"] == "HK+MO"


def test_refreshing_writes_what_is_read() -> None:
    written = {path.name for path in CLDR.iterdir() if path.suffix in {".json", ".txt"}}
    assert written == {"locales.json", "matching.json", "LICENSE-unicode.txt"}
    assert all(name in (CLDR / "refresh.py").read_text(encoding="utf-8") for name in written)
