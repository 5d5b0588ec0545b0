"""isogloss: one frozen multilingual encoder, and a small adapter for every locale.

    hub = isogloss.Hub("registry", base="mini")
    hub.predict(["Wo isch mis Päckli?"], task="intent", locale="gsw-CH")

Names are loaded when they are first used: torch and transformers take seconds to import, and the
registry needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapters.evaluation import Evaluation, evaluate
    from .adapters.pretraining import PretrainingConfig, PretrainingResult, pretrain
    from .adapters.training import TrainingConfig, train
    from .core.errors import IsoglossError, NoAdapterError
    from .registry import Registry, Resolution, Version
    from .serving.hub import Hub
    from .serving.results import Memory, Prediction, Ranked, Token

__version__ = "0.1.0"

# public name → the module that has it
_HOMES = {
    "Evaluation": ".adapters.evaluation",
    "Hub": ".serving.hub",
    "IsoglossError": ".core.errors",
    "Memory": ".serving.results",
    "NoAdapterError": ".core.errors",
    "Prediction": ".serving.results",
    "PretrainingConfig": ".adapters.pretraining",
    "PretrainingResult": ".adapters.pretraining",
    "Ranked": ".serving.results",
    "Registry": ".registry",
    "Resolution": ".registry",
    "Token": ".serving.results",
    "TrainingConfig": ".adapters.training",
    "Version": ".registry",
    "evaluate": ".adapters.evaluation",
    "pretrain": ".adapters.pretraining",
    "train": ".adapters.training",
}

__all__ = [
    "Evaluation",
    "Hub",
    "IsoglossError",
    "Memory",
    "NoAdapterError",
    "Prediction",
    "PretrainingConfig",
    "PretrainingResult",
    "Ranked",
    "Registry",
    "Resolution",
    "Token",
    "TrainingConfig",
    "Version",
    "evaluate",
    "pretrain",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'isogloss' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*_HOMES, "__version__"])
