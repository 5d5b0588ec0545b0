"""The state of an unfinished training run, beside its output folder.

Accelerate saves optimizer, schedule and random states; of the model only the trainable tensors
are kept, since the base is frozen and may weigh a gigabyte.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from ..core.errors import CheckpointError, OutputFolderError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch
    from accelerate import Accelerator
    from torch import nn

SETTINGS_FILE = "settings.json"
STATE_FILE = "state.json"
WEIGHTS_FILE = "trainable.safetensors"
BEST_FILE = "best.safetensors"
# All that lies in a run's folder, whether of training or of pre-training.
RUN_NAMES = frozenset(
    {
        *("settings.json", "checkpoint", "fresh", "old"),
        *("tokenizer", "tokenizer.partial", "log.jsonl"),
        *("checkpoint.new", "checkpoint.old"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one epoch came to."""

    loss: float
    """Mean loss of the training rows."""
    metrics: dict[str, float]
    """Of the dev rows."""
    by_locale: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same for each locale, where there are several."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """How far a run has come."""

    stale: int = 0
    """Epochs since the best one."""
    history: tuple[Epoch, ...] = ()
    """Epochs done."""
    seconds: float = 0.0
    """Time that they took."""

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.history)

    @property
    def best(self) -> Epoch:
        """The best of them; there is one."""
        return self.history[-1 - self.stale]

    def after(self, epoch: Epoch, metric: str, *, lower: bool, seconds: float) -> RunState:
        """The state after one more epoch.

        Args:
            epoch: what it came to.
            metric: by which of its metrics the best is chosen.
            lower: whether a lower one is better.
            seconds: how long it took.
        """
        sign = -1 if lower else 1
        better = not self.history or (
            sign * epoch.metrics[metric] > sign * self.best.metrics[metric]
        )
        return RunState(
            stale=0 if better else self.stale + 1,
            history=(*self.history, epoch),
            seconds=self.seconds + seconds,
        )

    @classmethod
    def from_json(cls, text: str) -> RunState:
        """Read what `json.dumps(asdict(state))` wrote."""
        content = json.loads(text)
        return cls(**content | {"history": tuple(Epoch(**epoch) for epoch in content["history"])})


class Checkpoint:
    """The folder of one run; written anew after each epoch, the old one kept until then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current = folder / "checkpoint"

    def attach(self, accelerator: Accelerator) -> None:
        """Make Accelerate save and load trainable tensors only."""

        def save(models: list[nn.Module], weights: list[Any], folder: str) -> None:
            from safetensors.torch import save_file

            assert len(models) == 1
            weights.clear()
            if accelerator.is_main_process:
                save_file(trainable(models[0]), f"{folder}/{WEIGHTS_FILE}")

        def load(models: list[nn.Module], folder: str) -> None:
            restore(models.pop(), f"{folder}/{WEIGHTS_FILE}")

        accelerator.register_save_state_pre_hook(save)
        accelerator.register_load_state_pre_hook(load)

    def save(self, accelerator: Accelerator, model: nn.Module, state: RunState) -> None:
        """Write the state after an epoch; keep the weights if it was the best."""
        from safetensors.torch import save_file

        fresh, old = self.folder / "fresh", self.folder / "old"
        if accelerator.is_main_process:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(fresh))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            if state.stale == 0:
                save_file(trainable(model), fresh / BEST_FILE)
            else:
                shutil.copy(self.current / BEST_FILE, fresh / BEST_FILE)
            (fresh / STATE_FILE).write_text(json.dumps(asdict(state)))
            if self.current.exists():
                self.current.rename(old)
            fresh.rename(self.current)
            shutil.rmtree(old, ignore_errors=True)
        accelerator.wait_for_everyone()

    def load(self, accelerator: Accelerator) -> RunState:
        """Restore the last state, or begin."""
        old = self.folder / "old"
        # Killed between the two renames.
        if accelerator.is_main_process and not self.current.exists() and old.exists():
            old.rename(self.current)
        accelerator.wait_for_everyone()
        if not self.current.exists():
            return RunState()
        accelerator.load_state(str(self.current))
        return RunState.from_json((self.current / STATE_FILE).read_text())

    def load_best(self, model: nn.Module) -> None:
        """Put the best epoch's weights into the model."""
        restore(model, self.current / BEST_FILE)

    @property
    def has_epochs(self) -> bool:
        """Whether an epoch is done."""
        return self.current.exists() or (self.folder / "old").exists()

    def discard_if_empty(self) -> None:
        """Remove the folder of a run that failed before its first epoch was done."""
        if not self.has_epochs:
            shutil.rmtree(self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder of a run that is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def claim_run(folder: Path, settings: dict[str, Any], *, resume: bool) -> None:
    """Begin a run in its folder, or check that the run there is the one to go on with.

    Args:
        folder: the folder of the run.
        settings: what decides its result, digests of its data included.
        resume: go on with the run that is there.

    Raises:
        OutputFolderError: there is an unfinished run and it shall not be resumed, or the folder
            can't be written.
        CheckpointError: nothing to resume, or a run with other settings or data.
    """
    # Through JSON, so that a tuple equals the list that was read back.
    wanted = json.loads(json.dumps(settings))
    if not resume:
        _begin_run(folder, json.dumps(wanted, indent=1))
        return
    try:
        found = json.loads((folder / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        raise CheckpointError(
            f"nothing to resume: {folder} holds no unfinished run; start without --resume"
        ) from None
    differing = [key for key in wanted if wanted[key] != found.get(key)]
    if differing:
        raise CheckpointError(
            f"the run in {folder} had other {', '.join(sorted(differing))}; resume with the same "
            "settings and data, or remove it"
        )


def _begin_run(folder: Path, settings: str) -> None:
    """Make the folder of a new run with its settings in it: a kill can't leave a half of it.

    A folder without settings, as a kill may leave it, is replaced.
    """
    if (folder / SETTINGS_FILE).exists():
        raise OutputFolderError(
            f"{folder} holds an unfinished run; resume it (--resume) or remove it"
        )
    fresh = folder.with_name(f"{folder.name}.new")
    try:
        foreign = sorted({path.name for path in folder.iterdir()} - RUN_NAMES)
    except FileNotFoundError:
        foreign = []
    except OSError as error:
        raise _not_written(folder, error) from None
    if foreign:
        raise OutputFolderError(
            f"{folder} holds {foreign[0]}, which is no run's; choose another folder or remove it"
        )
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        (fresh / SETTINGS_FILE).write_text(settings)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise _not_written(folder, error) from None


def _not_written(folder: Path, error: OSError) -> OutputFolderError:
    return OutputFolderError(f"can't write to {folder}: {error.strerror or error}")


@contextlib.contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """A folder to write into; it becomes `out` at the end, or goes away on an error.

    Raises:
        OutputFolderError: it can't be written; the run is still there.
    """
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        # safetensors writes files that only their owner can read; a service may run as another.
        mask = os.umask(0)
        os.umask(mask)
        for path in partial.iterdir():
            path.chmod(0o666 & ~mask)
        partial.rename(out)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for these
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise OutputFolderError(
            f"can't write {out} ({reason}); set that right, then go on with --resume"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes."""
    return {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def restore(model: nn.Module, path: str | Path) -> None:
    """Load what `trainable` gave."""
    import torch
    from safetensors.torch import load_file

    saved = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(saved[name])
