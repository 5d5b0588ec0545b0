"""The table and the code of docs/locales.md are true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from isogloss.core.locale import parse_locale
from isogloss.registry import LocaleResolver, Registry

PAGE = (Path(__file__).parents[1] / "docs" / "locales.md").read_text(encoding="utf-8")
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


def test_the_table_is_found() -> None:
    assert len(ROWS) >= 20
    assert {row[3] for row in ROWS} >= {"exact", "region", "script", "language", "base", "default"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} among {row[1]}")
def test_a_row_of_the_table(row: tuple[str, ...]) -> None:
    request, published, answer, stage, distance, _ = (cell.replace("`", "") for cell in row)
    match = LocaleResolver(published.split(", ")).resolve(request)
    assert match.locale == (None if answer == "–" else answer)
    assert match.stage == stage
    assert match.distance == (int(distance) if distance else None)


def test_the_first_example() -> None:
    match = LocaleResolver(["es", "es-419"]).resolve("es-MX")
    shown = PAGE.split("    $ isogloss resolve es-MX")[1].split("\n\n")[0].splitlines()[1:]
    assert [line.strip() for line in shown] == [
        f"es-MX: {match.locale}",
        f"stage: {match.stage}, distance {match.distance}",
        *match.trace,
    ]


def test_the_policies_are_as_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["Registry"], type)
    assert issubclass(names["Registry"], Registry)
    match = LocaleResolver(["nds", "en"], policy=names["loose"]).resolve("is")  # type: ignore[arg-type]
    assert (match.locale, match.distance) == ("en", 24)


def test_the_names_that_are_recommended_are_canonical() -> None:
    advice = PAGE.split("## Naming dialects")[1].split("##")[0]
    for tag in ("gsw", "ar", "sr-Latn", "zh-Hant", "es-MX", "ca-valencia", "gsw-CH-x-bern"):
        assert f"`{tag}`" in advice
        assert str(parse_locale(tag)) == tag
