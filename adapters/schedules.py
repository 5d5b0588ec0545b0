"""How the learning rate rises and falls over a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .training_config import TrainingConfig


def learning_rate_factor(step: int, total: int, config: TrainingConfig) -> float:
    """What the peak learning rate is multiplied by in a step, 0..1.

    Args:
        step: from 0.
        total: how many steps there may be.
        config: its warm-up and schedule.
    """
    warmup = config.warmup * total
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = max(0.0, (total - step) / (total - warmup))
    return left if config.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
