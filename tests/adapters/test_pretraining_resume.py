from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.adapters.pretraining import PretrainingConfig, pretrain
from isogloss.core.errors import (
    CheckpointError,
    OutputFolderError,
)
from isogloss.core.precision import has_native_bf16
from isogloss.core.progress import Progress

if TYPE_CHECKING:
    from .conftest import RunKilled

PRETRAIN = """
from isogloss.adapters.pretraining import PretrainingConfig, pretrain
settings["data"] = tuple(settings["data"])
pretrain(PretrainingConfig(**settings))
"""


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def interrupt(monkeypatch: pytest.MonkeyPatch, config: PretrainingConfig, *, after: int) -> None:
    """Run it until Ctrl-C in a step."""
    advance = Progress.advance
    steps = itertools.count(1)

    def advance_or_stop(progress: Progress, amount: int = 1, *, note: str = "") -> None:
        advance(progress, amount, note=note)
        if next(steps) == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "advance", advance_or_stop)
        with pytest.raises(KeyboardInterrupt):
            pretrain(config)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "precision",
    [
        "fp32",
        pytest.param(
            "auto",
            marks=pytest.mark.skipif(not has_native_bf16(), reason="auto is fp32 on this machine"),
        ),
    ],
)
def test_killed_and_resumed_it_gives_the_same_bytes(
    precision: str,
    pretraining_settings: dict[str, Any],
    run_killed: RunKilled,
    tmp_path: Path,
) -> None:
    settings = pretraining_settings | {"precision": precision}
    whole = tmp_path / "whole"
    pretrain(PretrainingConfig(out=str(whole), **settings))
    out = tmp_path / "out"
    run = tmp_path / "out.run"
    run_killed(PRETRAIN, settings | {"out": str(out)}, after=25)
    assert not out.exists()
    assert json.loads((run / "checkpoint" / "progress.json").read_text())["step"] == 20

    # As if it had been killed later: between a line of the log and its checkpoint, while it wrote
    # another line, and between the two renames that put a checkpoint in place.
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 30, "tokens": 1, "held_out": 1.0}\n{"step": 4')
    (run / "checkpoint").rename(run / "checkpoint.old")

    pretrain(PretrainingConfig(out=str(out), **settings), resume=True)
    assert content(out) == content(whole)
    assert log_of(out) == log_of(whole)


def test_killed_before_the_first_checkpoint_it_begins_anew(
    pretraining_settings: dict[str, Any], run_killed: RunKilled, tmp_path: Path
) -> None:
    settings = pretraining_settings | {"tokens": 5000}
    whole = pretrain(PretrainingConfig(out=str(tmp_path / "whole"), **settings))
    out = tmp_path / "out"
    run_killed(PRETRAIN, settings | {"out": str(out)}, after=5)
    config = PretrainingConfig(out=str(out), **settings)
    with pytest.raises(OutputFolderError, match=r"out\.run holds an unfinished run"):
        pretrain(config)
    # As if it had been killed while it wrote the tokenizer.
    (tmp_path / "out.run" / "tokenizer").rename(tmp_path / "out.run" / "tokenizer.partial")
    pretrain(config, resume=True)
    assert content(out) == content(Path(whole.folder))


def test_what_cannot_be_resumed(
    plain_text: Path,
    pretraining_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = PretrainingConfig(out=str(tmp_path / "out"), **pretraining_settings)
    with pytest.raises(CheckpointError, match=r"nothing to resume: .*out\.run"):
        pretrain(config, resume=True)
    interrupt(monkeypatch, config, after=12)
    before = content(tmp_path / "out.run" / "checkpoint")
    with pytest.raises(CheckpointError, match=r"had other layers, seed; resume with the same"):
        pretrain(replace(config, layers=3, seed=5), resume=True)
    more = tmp_path / "more"
    shutil.copytree(plain_text, more)
    with pytest.raises(CheckpointError, match=r"had other data; "):
        pretrain(replace(config, data=(str(more),)), resume=True)
    settings = tmp_path / "out.run" / "settings.json"
    recorded = json.loads(settings.read_text())
    settings.write_text(json.dumps(recorded | {"text": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"had other text; "):
        pretrain(config, resume=True)
    (tmp_path / "out.run" / "settings.json").write_text('{"data": ')
    with pytest.raises(CheckpointError, match="nothing to resume"):
        pretrain(config, resume=True)
    assert content(tmp_path / "out.run" / "checkpoint") == before
    assert not (tmp_path / "out").exists()


def test_interrupted_after_the_tokenizer_it_can_be_resumed(
    pretraining_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PretrainingConfig(out=str(tmp_path / "out"), **pretraining_settings | {"tokens": 3000})
    interrupt(monkeypatch, config, after=5)
    assert not (tmp_path / "out.run" / "checkpoint").exists()
    pretrain(config, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_run_folder_without_settings_is_no_run(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    """As a kill leaves it that comes before the settings are written."""
    config = PretrainingConfig(out=str(tmp_path / "out"), **pretraining_settings | {"tokens": 1000})
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "log.jsonl").write_text("")
    pretrain(config)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
