"""Train an adapter on the frozen base: Accelerate's loop around peft's modules."""

from __future__ import annotations

import datetime
import math
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..core.base import fingerprint, locate_base
from ..core.errors import (
    DivergedError,
    InputError,
    OutputFolderError,
    TargetModulesError,
    UnsupportedAdapterError,
)
from ..core.locale import parse_locale
from ..core.precision import PRECISIONS, choose_device
from .card import write_card
from .checkpoint import Checkpoint, written_whole
from .classifier import ClassifierTrainer
from .data import read_training_data
from .files import CARD_FILE, CONFIG_FILE, SPEC_FILE
from .heads import head_name
from .lora import MAX_RANK, LoraLayout
from .spec import TASK_PATTERN, AdapterSpec

if TYPE_CHECKING:
    from ..core.base import BaseFiles

ALL_LINEARS = ("query", "key", "value", "dense")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of one training run."""

    base: str
    """Name or folder of the base: `mini`, `xlm-roberta-base`, `/models/mine`."""
    locale: str
    """For which locale, a BCP 47 tag."""
    task: str
    """The task's name, such as `intent`."""
    data: str
    """A folder with `train.jsonl` and, if there is one, `dev.jsonl`; or one such file."""
    out: str
    """The adapter folder to write; it must not exist."""
    kind: Literal["lora"] = "lora"
    """Kind of adapter."""
    rank: int = 8
    """Rank of the low-rank updates."""
    alpha: float | None = None
    """LoRA's alpha; None: twice the rank."""
    dropout: float = 0.1
    """Dropout in the head."""
    targets: tuple[str, ...] = ALL_LINEARS
    """Which linear modules of the base are changed, by the end of their names."""
    epochs: int = 30
    """The most passes over the training rows."""
    patience: int = 8
    """Stop when the dev set's macro-F1 hasn't risen for so many epochs."""
    batch_size: int = 16
    """Rows a step."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW; warm-up and decay are linear."""
    weight_decay: float = 0.01
    """AdamW's decay."""
    warmup: float = 0.1
    """Share of the steps that warm up."""
    seed: int = 0
    """Decides initial weights, order, and dropout."""
    device: str = "auto"
    """Where to compute."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast), or `auto`: bf16 where the processor multiplies it natively."""

    def check(self) -> None:
        """Raise an error for settings that make no sense.

        Raises:
            InputError: a number outside its range.
            InvalidLocaleError: a locale that is no BCP 47 tag.
            UnsupportedAdapterError: a kind that can't be trained.
        """
        parse_locale(self.locale)
        if not re.fullmatch(TASK_PATTERN, self.task):
            raise InputError(
                f"task {self.task!r} is no name; use up to 64 of a-z, 0-9, '.', '_' and '-', "
                "a letter or digit first"
            )
        if self.kind != "lora":
            raise UnsupportedAdapterError(f"kind is {self.kind!r}; this release trains lora")
        if not 1 <= self.rank <= MAX_RANK:
            raise InputError(f"rank is {self.rank}; it must lie in 1..{MAX_RANK}")
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "alpha"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; it must be positive")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}; it must be 0 or more")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it must lie in 0..{2**32 - 1}")
        if not 0 <= self.dropout < 1 or not 0 <= self.warmup < 1:
            raise InputError(
                f"dropout is {self.dropout} and warmup {self.warmup}; both must lie in 0..1"
            )
        if not self.targets:
            raise InputError("targets is empty; name modules such as query,value")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; use {', '.join(PRECISIONS)}")


def train(config: TrainingConfig, *, resume: bool = False, show_progress: bool = True) -> Path:
    """Train an adapter and write its folder.

    The folder appears whole at the end or not at all. Interrupted, the run goes on from its last
    epoch with `resume=True`, to the same weights.

    Args:
        config: the settings.
        resume: go on with the run whose checkpoint lies beside `config.out`.
        show_progress: show a bar, or lines where there is no terminal.

    Returns:
        The adapter folder.

    Raises:
        InputError: settings that make no sense.
        BaseModelError: no such base.
        DataError: data that can't be used.
        OutputFolderError: the output folder, or an unfinished run's, exists or can't be written.
        CheckpointError: nothing to resume, or a run with other settings or data.
        DivergedError: the loss is no longer finite; nothing is kept.
        PrecisionError: a device that this machine lacks.
    """
    config.check()
    out = Path(config.out)
    if os.path.lexists(out):  # a link that leads nowhere is in the way, too
        raise OutputFolderError(f"{out} exists; choose another folder or remove it")
    choose_device(config.device)
    data = read_training_data(config.data)
    base = locate_base(config.base)
    _check_targets(config, base)
    settings = asdict(config) | {"out": "", "device": "", "data": data.digest}
    checkpoint = Checkpoint.open(
        out.with_name(f"{out.name}.run"),
        settings | {"base": fingerprint(base).digest},
        resume=resume,
    )
    try:
        trainer = ClassifierTrainer(config, base, data, checkpoint, show_progress=show_progress)
        metrics = trainer.train()
    except DivergedError:
        checkpoint.remove()  # resumed, it would diverge in the same way
        raise
    except BaseException:
        checkpoint.discard_if_empty()
        raise
    with written_whole(out) as partial:
        _write_folder(trainer, metrics, partial)
    checkpoint.remove()
    return out


def _check_targets(config: TrainingConfig, base: BaseFiles) -> None:
    """Check before training that the result can be served; PEFT lets a part of them be wrong."""
    try:
        LoraLayout.parse(
            {
                "peft_type": "LORA",
                "r": config.rank,
                "lora_alpha": config.alpha if config.alpha is not None else 2 * config.rank,
                "target_modules": list(config.targets),
            },
            base.shape,
        )
    except TargetModulesError as error:
        problem = str(error).removeprefix(f"{CONFIG_FILE}: ")
        raise InputError(
            f"targets {','.join(config.targets)} don't fit {base.name}: {problem}"
        ) from None


def _write_folder(trainer: ClassifierTrainer, metrics: dict[str, float], folder: Path) -> None:
    config, base = trainer.config, trainer.base
    model = trainer.accelerator.unwrap_model(trainer.model)
    trainer.peft_config.base_model_name_or_path = base.name
    # Embeddings are frozen; to find that out by itself, peft would ask the Hub for the base.
    model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    training = {
        key: value
        for key, value in asdict(config).items()
        if key not in {"base", "locale", "task", "data", "out", "device"}
    }
    spec = AdapterSpec(
        locale=str(parse_locale(config.locale)),
        task=config.task,
        kind="lora",
        rank=config.rank,
        targets=tuple(sorted(config.targets)),
        labels=trainer.data.labels,
        head=head_name(base.shape),
        base=base.name,
        base_fingerprint=fingerprint(base).digest,
        metrics=metrics,
        data_digest=trainer.data.digest,
        training=training | {"rows": len(trainer.data.train), "dev_rows": len(trainer.data.dev)},
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    (folder / SPEC_FILE).write_bytes(spec.to_json())
    (folder / CARD_FILE).write_text(write_card(spec), encoding="utf-8")
