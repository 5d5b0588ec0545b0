from __future__ import annotations

import errno
import json
import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from isogloss.adapters.training import TrainingConfig, train
from isogloss.core.errors import CheckpointError, DivergedError, OutputFolderError
from isogloss.core.precision import has_native_bf16

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import TinyBase
    from .conftest import RunKilled, SpecOf, WeightsOf

TRAIN = """
from isogloss.adapters.training import TrainingConfig, train
settings["targets"] = tuple(settings["targets"])
train(TrainingConfig(**settings), show_progress=False)
"""
STEPS_AN_EPOCH = 3
PRECISIONS = [
    "fp32",
    pytest.param(
        "auto",
        marks=pytest.mark.skipif(not has_native_bf16(), reason="auto is fp32 on this machine"),
    ),
]


class Interruption:
    """Stands in for Ctrl-C: raises KeyboardInterrupt in a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
        from isogloss.core.progress import Progress

        self.left = after
        advance = Progress.advance

        def advance_or_stop(progress: Progress, amount: int = 1, *, note: str = "") -> None:
            advance(progress, amount, note=note)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(Progress, "advance", advance_or_stop)


def epochs_of(run: Path) -> int:
    """How many epochs the checkpoint of a run has."""
    return len(json.loads((run / "checkpoint" / "state.json").read_text())["history"])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_killed_and_resumed_it_gives_the_same_weights(
    precision: str,
    training_settings: dict[str, Any],
    run_killed: RunKilled,
    tmp_path: Path,
    weights_of: WeightsOf,
    spec_of: SpecOf,
) -> None:
    settings = training_settings | {"precision": precision, "dropout": 0.2}
    whole = train(TrainingConfig(out=str(tmp_path / "whole"), **settings), show_progress=False)
    out, run = tmp_path / "out", tmp_path / "out.run"
    config = TrainingConfig(out=str(out), **settings)
    run_killed(TRAIN, settings | {"out": str(out)}, after=2 * STEPS_AN_EPOCH + 2)
    assert not out.exists()
    assert epochs_of(run) == 2
    with pytest.raises(OutputFolderError, match=r"out\.run holds an unfinished run; resume it"):
        train(config, show_progress=False)

    # As if it had been killed while it put another checkpoint in place.
    (run / "checkpoint").rename(run / "old")
    shutil.copytree(run / "old", run / "fresh")
    train(config, resume=True, show_progress=False)
    assert weights_of(out) == weights_of(whole)
    assert spec_of(out).metrics == spec_of(whole).metrics
    assert not run.exists()


def test_killed_in_the_first_epoch_it_begins_anew(
    training_settings: dict[str, Any], run_killed: RunKilled, tmp_path: Path, weights_of: WeightsOf
) -> None:
    whole = train(
        TrainingConfig(out=str(tmp_path / "whole"), **training_settings), show_progress=False
    )
    out = tmp_path / "out"
    run_killed(TRAIN, training_settings | {"out": str(out)}, after=2)
    train(TrainingConfig(out=str(out), **training_settings), resume=True, show_progress=False)
    assert weights_of(out) == weights_of(whole)


def test_interrupted_it_can_be_resumed(
    training_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights_of: WeightsOf,
) -> None:
    whole = train(
        TrainingConfig(out=str(tmp_path / "whole"), **training_settings), show_progress=False
    )
    out, run = tmp_path / "out", tmp_path / "out.run"
    config = TrainingConfig(out=str(out), **training_settings)
    for epochs in (1, 3):  # interrupted twice
        with monkeypatch.context() as patch:
            Interruption(patch, after=STEPS_AN_EPOCH + 1)
            with pytest.raises(KeyboardInterrupt):
                train(config, resume=run.exists(), show_progress=False)
        assert epochs_of(run) >= epochs - 1
    assert not out.exists()
    train(config, resume=True, show_progress=False)
    assert weights_of(out) == weights_of(whole)
    assert not run.exists()


def test_interrupted_in_the_first_epoch_it_leaves_nothing(
    training_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Interruption(monkeypatch, after=1)
    with pytest.raises(KeyboardInterrupt):
        train(TrainingConfig(out=str(tmp_path / "out"), **training_settings), show_progress=False)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_resumed(
    training_settings: dict[str, Any],
    labelled_data: Path,
    tiny_base: TinyBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = TrainingConfig(out=str(tmp_path / "out"), **training_settings)
    with pytest.raises(CheckpointError, match=r"nothing to resume: .*out\.run"):
        train(config, resume=True, show_progress=False)
    with monkeypatch.context() as patch:
        Interruption(patch, after=STEPS_AN_EPOCH + 1)
        with pytest.raises(KeyboardInterrupt):
            train(config, show_progress=False)
    other_data = tmp_path / "data"
    shutil.copytree(labelled_data, other_data)
    rows = (other_data / "train.jsonl").read_text().splitlines(keepends=True)
    (other_data / "train.jsonl").write_text("".join(rows[1:]))
    for changed, named in (
        (replace(config, rank=8, learning_rate=1e-3), "had other learning_rate, rank; "),
        (replace(config, targets=("query",)), "had other targets; "),
        (replace(config, data=str(other_data)), "had other data; "),
        (replace(config, base=str(tiny_base("xlm-roberta"))), "had other base; "),
    ):
        with pytest.raises(CheckpointError, match=named) as caught:
            train(changed, resume=True, show_progress=False)
        assert "resume with the same settings and data, or remove it" in str(caught.value)
    # The same data elsewhere, and another device, are no other run.
    moved = tmp_path / "moved"
    shutil.copytree(labelled_data, moved)
    train(replace(config, data=str(moved), device="auto"), resume=True, show_progress=False)
    assert (tmp_path / "out").exists()


def test_a_record_that_is_cut_off_cannot_be_resumed(
    training_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "settings.json").write_text('{"rank": ')
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(TrainingConfig(out=str(tmp_path / "out"), **training_settings), resume=True)


def test_it_diverges_after_the_first_epoch(
    tiny_encoder: Path,
    training_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is left then either: resumed, it would diverge again."""
    config = TrainingConfig(out=str(tmp_path / "out"), **training_settings)
    with monkeypatch.context() as patch:
        Interruption(patch, after=STEPS_AN_EPOCH + 1)
        with pytest.raises(KeyboardInterrupt):
            train(config, show_progress=False)
    saved = tmp_path / "out.run" / "checkpoint" / "trainable.safetensors"
    tensors = load_file(saved)
    save_file({name: torch.full_like(value, math.nan) for name, value in tensors.items()}, saved)
    with pytest.raises(DivergedError, match="the loss is nan in epoch 2"):
        train(config, resume=True, show_progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", [(), ("checkpoint",)])
def test_a_run_folder_without_settings_is_no_run(
    left: tuple[str, ...], training_settings: dict[str, Any], tmp_path: Path
) -> None:
    """As a kill leaves it that comes before the settings are written, or amid the removal."""
    config = TrainingConfig(out=str(tmp_path / "out"), **training_settings | {"epochs": 1})
    run = tmp_path / "out.run"
    run.mkdir()
    for name in left:
        (run / name).mkdir()
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(config, resume=True, show_progress=False)
    train(config, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_no_run_is_not_replaced(
    training_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "thesis.tex").touch()
    with pytest.raises(OutputFolderError, match=r"out\.run holds thesis\.tex, which is no run's"):
        train(TrainingConfig(out=str(tmp_path / "out"), **training_settings))
    assert (tmp_path / "out.run" / "thesis.tex").exists()


def test_what_cannot_be_written_can_be_resumed(
    training_settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights_of: WeightsOf,
) -> None:
    config = TrainingConfig(out=str(tmp_path / "out"), **training_settings)

    def fail(_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("isogloss.adapters.training.write_card", fail)
        with pytest.raises(
            OutputFolderError, match=r"No space left .* go on with --resume"
        ) as raised:
            train(config, show_progress=False)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["out.run"]
    train(config, resume=True, show_progress=False)
    whole = train(replace(config, out=str(tmp_path / "whole")), show_progress=False)
    assert weights_of(tmp_path / "out") == weights_of(whole)
