"""Settings of a training run, and what makes sense among them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, get_args

from ..core.errors import InputError, UnsupportedAdapterError
from ..core.locale import check_registered, parse_locale
from .lora import MAX_RANK
from .sources import Source, parse_source
from .spec import MAX_BOTTLENECK, MAX_PREFIX, TASK_PATTERN, TaskType

if TYPE_CHECKING:
    from collections.abc import Mapping

ALL_LINEARS = ("query", "key", "value", "dense")
TrainedKind = Literal[
    "lora", "rslora", "dora", "adalora", "prefix", "bottleneck", "houlsby", "pfeiffer"
]
Preset = Literal["small", "base", "wide"]
Schedule = Literal["linear", "cosine"]
Balance = Literal["none", "weights", "sampling"]
TrainingPrecision = Literal["auto", "fp32", "bf16", "int8"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]
BOTTLENECKS = ("bottleneck", "houlsby", "pfeiffer")
BALANCED_TASKS = ("sequence-classification", "token-classification")


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a preset stands for."""

    rank: int
    """Of low-rank updates."""
    targets: tuple[str, ...]
    """Linear modules that they change."""
    prefix: int
    """Length of a prefix."""
    bottleneck: int
    """Width of a bottleneck."""


PRESETS: Mapping[Preset, Size] = {
    "small": Size(rank=4, targets=("query", "value"), prefix=8, bottleneck=16),
    "base": Size(rank=8, targets=ALL_LINEARS, prefix=16, bottleneck=48),
    "wide": Size(rank=32, targets=ALL_LINEARS, prefix=32, bottleneck=128),
}


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of one training run."""

    base: str
    """Name or folder of the base: `mini`, `xlm-roberta-base`, `/models/mine`."""
    locale: str
    """For which locale, a BCP 47 tag."""
    task: str
    """The task's name, such as `intent`."""
    data: str | tuple[str, ...]
    """A folder with files of the splits `train`, `dev` and `test`, one file, or `hf:NAME`; or
    several of them, each `LOCALE=PLACE`, for one adapter of all."""
    out: str
    """The adapter folder to write; it must not exist."""
    task_type: TaskType = "sequence-classification"
    """What is learnt."""
    labels: tuple[str, ...] | None = None
    """Labels in the order of the outputs; None: those of the training rows, sorted."""
    skip_bad: bool = False
    """Leave out and count the rows that can't be used."""
    kind: TrainedKind = "lora"
    """Kind of adapter; `bottleneck` is `pfeiffer`."""
    preset: Preset = "base"
    """Stands for rank and targets where none are given."""
    rank: int | None = None
    """Rank of low-rank updates, length of a prefix, or width of a bottleneck."""
    alpha: float | None = None
    """LoRA's alpha; None: twice the rank, or of rsLoRA twice its square root."""
    dropout: float = 0.1
    """Dropout in the head."""
    targets: tuple[str, ...] | None = None
    """Which linear modules low-rank updates change, by the end of their names."""
    adapters_from_layer: int = 0
    """The lowest layer that low-rank updates change; those below are computed without gradients."""
    cache_megabytes: int = 0
    """Keep what the layers below give for each row, up to so much memory."""
    epochs: int = 30
    """The most passes over the training rows."""
    patience: int = 8
    """Stop when the dev set's figure hasn't become better for so many epochs."""
    batch_size: int = 16
    """Rows a step."""
    accumulation: int = 1
    """In how many parts a step's rows are computed, to save memory."""
    gradient_checkpointing: bool = False
    """Compute each layer a second time on the way back, to save memory."""
    learning_rate: float | None = None
    """Peak learning rate of AdamW; None: 0.01 for a prefix, 0.002 for all others."""
    schedule: Schedule = "linear"
    """How the learning rate falls after its warm-up."""
    weight_decay: float = 0.01
    """AdamW's decay."""
    warmup: float = 0.1
    """Share of the steps that warm up."""
    clip: float = 1.0
    """The largest norm of a step's gradients."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all."""
    balance: Balance = "none"
    """Against skewed labels: `weights` in the loss, or `sampling` each as often."""
    locale_temperature: float = 1.0
    """Of the sampling of several locales; higher: small ones are seen more often."""
    contrast: float = 0.05
    """Temperature of an embedding's contrastive loss."""
    seed: int = 0
    """Decides initial weights, order, and dropout."""
    device: str = "auto"
    """Where to compute."""
    precision: TrainingPrecision = "auto"
    """Of the frozen base: `fp32`, `bf16`, `int8`, or `auto`: bf16 where the processor multiplies
    it much faster, else fp32."""
    track: Tracker | None = None
    """Log to this tracker beside the adapter folder; an extra must be installed."""

    @property
    def size(self) -> int:
        """Rank, length or width, by the preset where none is given."""
        if self.rank is not None:
            return self.rank
        preset = PRESETS[self.preset]
        if self.kind == "prefix":
            return preset.prefix
        return preset.bottleneck if self.kind in BOTTLENECKS else preset.rank

    @property
    def peak_rate(self) -> float:
        """The peak learning rate, by the kind where none is given."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-2 if self.kind == "prefix" else 2e-3

    @property
    def modules(self) -> tuple[str, ...]:
        """The targets, by the preset where none are given."""
        return PRESETS[self.preset].targets if self.targets is None else self.targets

    @property
    def scale(self) -> float:
        """LoRA's alpha, by the kind where none is given; updates are doubled then."""
        if self.alpha is not None:
            return self.alpha
        return 2 * (math.sqrt(self.size) if self.kind == "rslora" else self.size)

    def sources(self) -> tuple[Source, ...]:
        """Where the rows are, each with its locale.

        Raises:
            InputError: a source without a place.
            InvalidLocaleError: a locale that is no BCP 47 tag.
        """
        given = (self.data,) if isinstance(self.data, str) else self.data
        return tuple(parse_source(text, locale=self.locale) for text in given)

    def check(self) -> None:
        """Raise an error for settings that make no sense.

        Raises:
            InputError: a number outside its range.
            InvalidLocaleError: a locale that is no BCP 47 tag.
            UnsupportedAdapterError: a kind that can't be trained, or not for this task.
        """
        check_registered(parse_locale(self.locale))
        if not re.fullmatch(TASK_PATTERN, self.task):
            raise InputError(
                f"task {self.task!r} is no name; use up to 64 of a-z, 0-9, '.', '_' and '-', "
                "a letter or digit first"
            )
        self._check_choices()
        self._check_adapter()
        self._check_numbers()

    def _check_choices(self) -> None:
        if self.kind not in get_args(TrainedKind):
            raise UnsupportedAdapterError(
                f"kind is {self.kind!r}; this release trains {', '.join(get_args(TrainedKind))}"
            )
        choices = {
            "task_type": get_args(TaskType),
            "preset": get_args(Preset),
            "schedule": get_args(Schedule),
            "balance": get_args(Balance),
            "precision": get_args(TrainingPrecision),
            "track": (None, *get_args(Tracker)),
        }
        for name, values in choices.items():
            value = getattr(self, name)
            if value not in values:
                raise InputError(
                    f"{name} is {value!r}; use {', '.join(str(one) for one in values if one)}"
                )
        if self.balance != "none" and self.task_type not in BALANCED_TASKS:
            raise InputError(f"balance is {self.balance!r}, but {self.task_type} has no labels")
        if self.balance == "sampling" and self.task_type == "token-classification":
            raise InputError(
                "balance is 'sampling', but a row of token-classification has many labels; use "
                "weights"
            )

    def _check_adapter(self) -> None:
        if self.kind == "prefix" and self.task_type == "masked-lm":
            raise UnsupportedAdapterError(
                "kind is 'prefix' for masked-lm, which PEFT can neither train nor load; use lora "
                "or bottleneck"
            )
        limits = {"prefix": MAX_PREFIX} | dict.fromkeys(BOTTLENECKS, MAX_BOTTLENECK)
        limit = limits.get(self.kind, MAX_RANK)
        if not 1 <= self.size <= limit:
            raise InputError(f"rank is {self.size}; it must lie in 1..{limit}")
        if not self.modules:
            raise InputError("targets is empty; name modules such as query,value")
        if self.kind not in ("lora", "rslora", "dora", "adalora"):
            for name in ("targets", "alpha"):
                if getattr(self, name) is not None:
                    raise InputError(f"{name} was given, but kind {self.kind} has none")
            if self.adapters_from_layer:
                raise InputError(f"kind {self.kind} changes all layers; leave adapters_from_layer")

    def _check_numbers(self) -> None:
        for name in ("epochs", "patience", "batch_size", "accumulation"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("learning_rate", "alpha", "clip", "contrast"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; it must be positive")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"weight_decay is {self.weight_decay}; it must be 0 or more")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it must lie in 0..{2**32 - 1}")
        if self.cache_megabytes < 0 or (self.cache_megabytes and not self.adapters_from_layer):
            raise InputError(
                f"cache_megabytes is {self.cache_megabytes} with adapters_from_layer "
                f"{self.adapters_from_layer}; there is something to keep from layer 1 on"
            )
        if not 0 <= self.dropout < 1 or not 0 <= self.warmup < 1:
            raise InputError(
                f"dropout is {self.dropout} and warmup {self.warmup}; both must lie in 0..1"
            )
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}; it must lie in 0..1")
        if not self.locale_temperature >= 1:
            raise InputError(
                f"locale_temperature is {self.locale_temperature}; it must be at least 1"
            )

    def recorded(self) -> dict[str, object]:
        """What an adapter's folder keeps of the settings: nothing that names a place."""
        left_out = {"base", "locale", "task", "task_type", "labels", "data", "out", "device"}
        kept = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in left_out
        }
        return kept | {"rank": self.size, "learning_rate": self.peak_rate}
