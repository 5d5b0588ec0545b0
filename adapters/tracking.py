"""Figures of each epoch for a tracker, through Accelerate's own adapters to them."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ..core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .training_config import Tracker

# What must be installed for each; the extra has the tracker's name.
PACKAGES: Mapping[Tracker, tuple[str, ...]] = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
}


class Track(Protocol):
    """Takes the figures of an epoch."""

    def __call__(self, epoch: int, figures: Mapping[str, float]) -> None:
        """`epoch` counts from 1."""
        ...


def check_tracker(tracker: Tracker | None) -> None:
    """Check that a tracker is installed.

    Raises:
        InputError: it isn't.
    """
    if tracker is not None and not any(map(importlib.util.find_spec, PACKAGES[tracker])):
        raise InputError(
            f"track is {tracker!r}, which isn't installed; run pip install 'isogloss[{tracker}]'"
        )


@contextmanager
def tracked(tracker: Tracker | None, run: str, folder: Path) -> Iterator[Track]:
    """Where figures go while a run lasts.

    Args:
        tracker: None: nowhere.
        run: the run's name.
        folder: for trackers that write files.
    """
    if tracker is None:
        yield lambda epoch, figures: None  # noqa: ARG005
        return
    from accelerate import tracking

    match tracker:
        case "tensorboard":
            open_tracker = tracking.TensorBoardTracker(run, str(folder))
        case "wandb":
            open_tracker = tracking.WandBTracker(run)
        case "mlflow":
            open_tracker = tracking.MLflowTracker(run, str(folder))
    if hasattr(open_tracker, "start"):
        open_tracker.start()

    def track(epoch: int, figures: Mapping[str, float]) -> None:
        open_tracker.log(dict(figures), step=epoch)

    try:
        yield track
    finally:
        open_tracker.finish()
