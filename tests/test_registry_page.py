"""The commands and the code of docs/registry.md do what the page says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import click
import pytest

from isogloss.adapters.spec import AdapterSpec
from isogloss.cli import cli, main
from isogloss.core.base import locate_base
from isogloss.registry import Registry

if TYPE_CHECKING:
    from .conftest import PeftAdapter

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "registry.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(?: {4}| {8})(isogloss .+)$", PAGE, re.MULTILINE)
FIGURES = {
    "A": {"macro_f1": 0.60, "accuracy": 0.6},
    "B": {"macro_f1": 0.66, "accuracy": 0.7},
    "C": {"macro_f1": 0.30, "accuracy": 0.2},
    "D": {"macro_f1": 0.62, "accuracy": 0.6},
}


@pytest.fixture
def folders(tmp_path: Path, peft_adapter: PeftAdapter) -> dict[str, str]:
    """Writes the adapters of the page; gives the digest of each."""
    base = locate_base("mini").folder
    digests = {}
    for name, metrics in FIGURES.items():
        folder = peft_adapter(base, rank=2, targets=["query"]).rename(tmp_path / name)
        spec = AdapterSpec(
            locale="gsw-CH", task="intent", labels=("a", "b", "c"), base="mini", metrics=metrics
        )
        (folder / "isogloss.json").write_bytes(spec.to_json())
        with Registry.open(tmp_path / "scratch") as registry:
            digests[name] = registry.publish(folder, smoke=False).digest
    return digests


def run(line: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(shlex.split(line, comments=True)[1:])
        sys.exit(0)
    return int(str(exit_.value.code))


def test_the_commands_of_the_page(
    tmp_path: Path,
    folders: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISOGLOSS_REGISTRY", str(tmp_path / "registry"))
    assert len(COMMANDS) >= 45
    heidi = ""
    for command in COMMANDS:
        if "hf://" in command:
            continue
        line = command.replace("3f2c9a", folders["A"][:10]).replace("b7d201", folders["B"][:10])
        line = line.replace("HEIDI", heidi)
        status = run(line)
        said = capsys.readouterr()
        assert status == (2 if "# refused" in command else 0), (command, said)
        if command.startswith("isogloss keys generate heidi"):
            heidi = said.out.split(":")[0].removeprefix("key ")
        if status:
            assert len(said.err.splitlines()) == 1, said.err
    with Registry.open("registry") as registry, Registry.open("moved") as moved:
        assert registry.aliases() == moved.aliases()
        assert registry.verify().is_sound


def test_commands_that_need_the_hub_exist() -> None:
    there = [shlex.split(command) for command in COMMANDS if "hf://" in command]
    assert len(there) == 2
    for _, name, *arguments in there:
        command = cli.commands[name]
        command.make_context(name, arguments, parent=click.Context(cli))


def test_the_code_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})


def test_the_settings_of_the_page(tmp_path: Path) -> None:
    from isogloss.registry.location import locate

    (settings,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "settings.toml"
    path.write_text(settings)
    location = locate(path, database=None, blobs=None)
    assert location.blobs == "s3://bucket/adapters"
    assert location.blob_options == {"endpoint_url": "https://s3.example"}


def test_the_picture_names_the_tables() -> None:
    from isogloss.registry.tables import METADATA

    text = " ".join(ElementTree.parse(DOCS / "registry.svg").getroot().itertext())
    assert [name for name in METADATA.tables if name not in text] == []
