"""Train an adapter on the frozen base, from data to folder."""

from __future__ import annotations

import datetime
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.base import fingerprint, locate_base
from ..core.errors import (
    CheckpointError,
    DivergedError,
    InputError,
    OutputFolderError,
    TargetModulesError,
)
from ..core.locale import parse_locale
from ..core.precision import choose_device
from .card import write_card
from .checkpoint import Checkpoint, claim_run, written_whole
from .data import read_data
from .files import CARD_FILE, CONFIG_FILE, SPEC_FILE
from .learning_curve import draw_curve
from .lora import LoraLayout
from .spec import AdapterSpec
from .tasks import TASKS
from .tracking import check_tracker, tracked
from .trainer import Trainer
from .training_config import ALL_LINEARS, BOTTLENECKS, TrainingConfig

if TYPE_CHECKING:
    from ..core.base import BaseFiles
    from .checkpoint import RunState
    from .data import DataReport
    from .spec import Kind

__all__ = ["ALL_LINEARS", "CURVE_FILE", "TrainingConfig", "train"]

CURVE_FILE = "learning_curve.svg"


def train(
    config: TrainingConfig,
    *,
    resume: bool = False,
    finish: bool = False,
    show_progress: bool = True,
) -> Path:
    """Train an adapter and write its folder.

    The folder appears whole at the end or not at all. Interrupted, the run goes on from its last
    epoch with `resume=True`, to the same weights.

    Args:
        config: the settings.
        resume: go on with the run whose checkpoint lies beside `config.out`.
        finish: of that run take the best weights so far, rather than going on.
        show_progress: show a bar, or lines where there is no terminal.

    Returns:
        The adapter folder.

    Raises:
        InputError: settings that make no sense.
        BaseModelError: no such base.
        DataError: data that can't be used.
        OutputFolderError: the output folder, or an unfinished run's, exists or can't be written.
        CheckpointError: nothing to resume or to finish, or a run with other settings or data.
        DivergedError: the loss is no longer finite; nothing is kept.
        PrecisionError: a device or a precision that this machine lacks.
    """
    config.check()
    check_tracker(config.track)
    out = Path(config.out)
    if os.path.lexists(out):  # a link that leads nowhere is in the way, too
        raise OutputFolderError(f"{out} exists; choose another folder or remove it")
    choose_device(config.device)
    data = read_data(
        config.sources(),
        TASKS[config.task_type].layout,
        labels=config.labels,
        skip_bad=config.skip_bad,
    )
    base = locate_base(config.base)
    _check_adapter(config, base)
    settings = asdict(config) | {"out": "", "device": "", "data": data.digest, "skip_bad": None}
    run = out.with_name(f"{out.name}.run")
    is_first = os.environ.get("RANK", "0") == "0"  # of those that `accelerate launch` has begun
    checkpoint = Checkpoint(run)
    if is_first:
        claim_run(run, settings | {"base": fingerprint(base).digest}, resume=resume or finish)
    try:
        tracker = config.track if is_first else None
        with tracked(tracker, out.name, out.with_name(f"{out.name}.log")) as track:
            trainer = Trainer(
                config, base, data, checkpoint, track=track, show_progress=show_progress
            )
            if finish and not checkpoint.has_epochs:
                raise CheckpointError(f"the run in {run} has finished no epoch yet; resume it")
            state = trainer.train(finish=finish)
    except DivergedError:
        if is_first:
            checkpoint.remove()  # resumed, it would diverge in the same way
        raise
    except BaseException:
        if is_first:
            checkpoint.discard_if_empty()
        raise
    if is_first:
        with written_whole(out) as partial:
            _write_folder(trainer, state, partial)
        checkpoint.remove()
    trainer.accelerator.wait_for_everyone()
    return out


def _check_adapter(config: TrainingConfig, base: BaseFiles) -> None:
    """Check before training that the result can be served; PEFT lets a part of them be wrong."""
    if config.kind == "prefix":
        left = base.shape.max_tokens - config.size
        if left < base.shape.max_tokens // 4:
            raise InputError(
                f"rank is {config.size}, a prefix that leaves texts {max(left, 0)} of "
                f"{base.shape.max_tokens} tokens; choose a shorter one"
            )
    if config.kind in ("prefix", *BOTTLENECKS):
        return
    if not 0 <= config.adapters_from_layer < base.shape.layers:
        raise InputError(
            f"adapters_from_layer is {config.adapters_from_layer}; {base.name} has layers "
            f"0..{base.shape.layers - 1}"
        )
    try:
        LoraLayout.parse(
            {
                "peft_type": "LORA",
                "r": config.size,
                "lora_alpha": config.scale,
                "target_modules": list(config.modules),
            },
            base.shape,
        )
    except TargetModulesError as error:
        problem = str(error).removeprefix(f"{CONFIG_FILE}: ")
        raise InputError(
            f"targets {','.join(config.modules)} don't fit {base.name}: {problem}"
        ) from None


def _write_folder(trainer: Trainer, state: RunState, folder: Path) -> None:
    config, base, data = trainer.config, trainer.base, trainer.data
    kind: Kind = trainer.adapter.kind
    spec = AdapterSpec(
        locale=str(parse_locale(config.locale)),
        task=config.task,
        task_type=config.task_type,
        kind=kind,
        labels=data.labels,
        base=base.name,
        base_fingerprint=fingerprint(base).digest,
        metrics=state.best.metrics,
        data_digest=data.digest,
        training=config.recorded()
        | _data_record(data.report)
        | {
            "rows": len(data.train),
            "dev_rows": len(data.dev),
            "epochs_trained": state.epoch,
            "seconds": round(state.seconds, 1),
            "peak_memory_bytes": trainer.peak_bytes(),
            "trained_parameters": trainer.parameters(),
            "versions": _versions(),
        }
        | ({"dev_metrics": state.best.by_locale} if state.best.by_locale else {}),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    folder.mkdir()
    spec = trainer.adapter.write(folder, spec, base)
    (folder / SPEC_FILE).write_bytes(spec.to_json())
    (folder / CARD_FILE).write_text(write_card(spec), encoding="utf-8")
    title = f"{spec.task}/{spec.locale}"
    (folder / CURVE_FILE).write_text(
        draw_curve(state.history, trainer.task.metric, title=title), encoding="utf-8"
    )


def _data_record(report: DataReport) -> dict[str, Any]:
    """What became of the rows, without a word of them or the name of a place."""
    return {
        "data": [
            {"locale": split.locale, "split": split.split, "rows": split.rows}
            for split in report.splits
        ],
        "skipped_rows": sum(skipped.rows for skipped in report.skipped),
        "leaked_rows": sum(leak.rows for leak in report.leaks),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("isogloss", "torch", "transformers", "peft")}
