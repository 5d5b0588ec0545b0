"""Train an adapter on the frozen base: Accelerate's loop around peft's modules."""

from __future__ import annotations

import datetime
import math
import shutil
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..core.base import fingerprint, locate_base
from ..core.errors import (
    DivergedError,
    InputError,
    OutputFolderError,
    UnsupportedAdapterError,
)
from ..core.locale import parse_locale
from ..core.precision import autocast_dtype
from ..core.progress import Progress
from .card import write_card
from .checkpoint import Checkpoint
from .data import read_training_data
from .evaluation import classification_metrics
from .files import CARD_FILE, SPEC_FILE
from .heads import head_name
from .lora import MAX_RANK
from .spec import AdapterSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from ..core.base import BaseFiles
    from .data import Example, LabelledData

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
    """Dropout before each update and in the head."""
    targets: tuple[str, ...] = ALL_LINEARS
    """Which linear modules of the base are changed, by the end of their names."""
    epochs: int = 30
    """The most passes over the training rows."""
    patience: int = 6
    """Stop when the dev set's macro-F1 hasn't risen for so many epochs."""
    batch_size: int = 16
    """Rows a step."""
    learning_rate: float = 1e-3
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
        if self.kind != "lora":
            raise UnsupportedAdapterError(f"kind is {self.kind!r}; this release trains lora")
        if not 1 <= self.rank <= MAX_RANK:
            raise InputError(f"rank is {self.rank}; it must lie in 1..{MAX_RANK}")
        for name in ("epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be positive")
        if not 0 <= self.dropout < 1 or not 0 <= self.warmup < 1:
            raise InputError(
                f"dropout is {self.dropout} and warmup {self.warmup}; both must lie in 0..1"
            )
        if not self.targets:
            raise InputError("targets is empty; name modules such as query,value")
        if self.precision not in {"auto", "fp32", "bf16"}:
            raise InputError(f"precision is {self.precision!r}; use auto, fp32 or bf16")


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
        OutputFolderError: the output folder, or an unfinished run's, exists.
        CheckpointError: nothing to resume, or a run with other settings or data.
        DivergedError: the loss is no longer finite.
    """
    config.check()
    out = Path(config.out)
    if out.exists():
        raise OutputFolderError(f"{out} exists; choose another folder or remove it")
    spec = AdapterSpec(  # also checks the task's name
        locale=str(parse_locale(config.locale)), task=config.task, base="-"
    )
    AdapterSpec.from_json(spec.to_json())
    data = read_training_data(config.data)
    base = locate_base(config.base)
    settings = asdict(config) | {"out": "", "device": "", "data": data.digest}
    checkpoint = Checkpoint.open(
        out.with_name(f"{out.name}.run"),
        settings | {"base": fingerprint(base).digest},
        resume=resume,
    )
    try:
        trainer = _Trainer(config, base, data, checkpoint, show_progress=show_progress)
        metrics = trainer.train()
    except BaseException:
        checkpoint.discard_if_empty()
        raise
    _write_folder(trainer, metrics, out)
    checkpoint.remove()
    return out


class _Trainer:
    """One run: model, optimizer, and the loop over epochs."""

    def __init__(
        self,
        config: TrainingConfig,
        base: BaseFiles,
        data: LabelledData,
        checkpoint: Checkpoint,
        *,
        show_progress: bool,
    ) -> None:
        import torch
        from accelerate import Accelerator
        from accelerate.utils import set_seed

        self.config = config
        self.base = base
        self.data = data
        self.checkpoint = checkpoint
        self.show_progress = show_progress
        self.ids = {label: number for number, label in enumerate(data.labels)}
        set_seed(config.seed)
        self.accelerator = Accelerator(
            mixed_precision="bf16" if autocast_dtype(config.precision) is not None else "no",
            cpu=config.device == "cpu",
        )
        self.tokenizer, model = _load(base, data.labels, config)
        self.peft_config = model.peft_config["default"]
        optimizer = torch.optim.AdamW(
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.steps_an_epoch = math.ceil(len(data.train) / config.batch_size)
        total = self.steps_an_epoch * config.epochs
        warmup = config.warmup * total

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / (warmup + 1)
            return max(0.0, (total - step) / (total - warmup))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(
            model, optimizer, scheduler
        )
        checkpoint.attach(self.accelerator)

    def train(self) -> dict[str, float]:
        """Train to the end; returns the best dev metrics, the best weights in the model."""
        state = self.checkpoint.load(self.accelerator)
        encoded = self._tokenize(self.data.train)
        dev = self._tokenize(self.data.dev)
        done = state.epoch * self.steps_an_epoch
        with Progress(
            "train",
            total=self.steps_an_epoch * self.config.epochs,
            done=done,
            enabled=self.show_progress,
        ) as progress:
            while state.epoch < self.config.epochs and state.stale < self.config.patience:
                loss = self._epoch(encoded, state.epoch, progress)
                metrics = self._evaluate(dev)
                state = state.after(metrics)
                progress.say(
                    f"epoch {state.epoch}: loss {loss:.3f}, dev accuracy "
                    f"{metrics['accuracy']:.3f}, macro-F1 {metrics['macro_f1']:.3f}"
                    f"{' (best so far)' if state.stale == 0 else ''}"
                )
                self.checkpoint.save(self.accelerator, self.model, state)
        self.checkpoint.load_best(self.model)
        return state.best

    def _epoch(
        self, encoded: Sequence[tuple[list[int], int]], epoch: int, progress: Progress
    ) -> float:
        """One pass; returns the mean loss."""
        self.model.train()
        total = 0.0
        for batch in self._batches(encoded, epoch):
            loss = self.model(**self._collate(batch)).loss
            value = loss.item()
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss is {value} in epoch {epoch + 1}; lower the learning rate (it is "
                    f"{self.config.learning_rate:g})"
                )
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            total += value * len(batch)
            progress.advance(note=f"loss {value:.3f}")
        return total / len(encoded)

    def _batches(
        self, encoded: Sequence[tuple[list[int], int]], epoch: int
    ) -> Iterator[list[tuple[list[int], int]]]:
        """Batches in an order that depends on seed and epoch alone."""
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(encoded))
        for first in range(0, len(order), self.config.batch_size):
            yield [encoded[index] for index in order[first : first + self.config.batch_size]]

    def _evaluate(self, encoded: Sequence[tuple[list[int], int]]) -> dict[str, float]:
        import torch

        self.model.eval()
        predicted: list[str] = []
        with torch.no_grad():
            for first in range(0, len(encoded), self.config.batch_size):
                batch = encoded[first : first + self.config.batch_size]
                logits = self.model(**self._collate(batch)).logits
                predicted.extend(self.data.labels[index] for index in logits.argmax(-1).tolist())
        return classification_metrics([e.label for e in self.data.dev], predicted)

    def _tokenize(self, examples: Sequence[Example]) -> list[tuple[list[int], int]]:
        ids = self.tokenizer(
            [example.text for example in examples],
            truncation=True,
            max_length=self.base.shape.max_tokens,
        )["input_ids"]
        return [(row, self.ids[e.label]) for row, e in zip(ids, examples, strict=True)]

    def _collate(self, batch: Sequence[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
        """`[rows, longest]` ids and mask, `[rows]` labels."""
        import torch

        longest = max(len(ids) for ids, _ in batch)
        token_ids = torch.full((len(batch), longest), self.base.shape.pad_token_id)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for row, (ids, _) in enumerate(batch):
            token_ids[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        device = self.accelerator.device
        return {
            "input_ids": token_ids.to(device),
            "attention_mask": mask.to(device),
            "labels": torch.tensor([label for _, label in batch], device=device),
        }


def _load(base: BaseFiles, labels: Sequence[str], config: TrainingConfig) -> tuple[Any, Any]:
    """The base's tokenizer, and its classifier with LoRA around it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from ..core.encoder import quiet_transformers

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
        model = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            num_labels=len(labels),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            classifier_dropout=config.dropout,
        )
    peft_config = LoraConfig(
        task_type="SEQ_CLS",
        r=config.rank,
        lora_alpha=config.alpha if config.alpha is not None else 2 * config.rank,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules=list(config.targets),
        modules_to_save=["classifier"],
    )
    try:
        with warnings.catch_warnings():
            # peft 0.21 reads an attribute that transformers 5.23 has renamed.
            warnings.simplefilter("ignore", FutureWarning)
            return tokenizer, get_peft_model(model, peft_config)
    except ValueError as error:
        raise InputError(
            f"targets {','.join(config.targets)} don't fit {base.name}: "
            f"{str(error).splitlines()[0]}"
        ) from None


def _write_folder(trainer: _Trainer, metrics: dict[str, float], out: Path) -> None:
    """Write everything beside, then rename: the folder appears whole."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    config, base = trainer.config, trainer.base
    model = trainer.accelerator.unwrap_model(trainer.model)
    trainer.peft_config.base_model_name_or_path = base.name
    # Embeddings are frozen; to find that out by itself, peft would ask the Hub for the base.
    model.save_pretrained(partial, safe_serialization=True, save_embedding_layers=False)
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
    (partial / SPEC_FILE).write_bytes(spec.to_json())
    (partial / CARD_FILE).write_text(write_card(spec), encoding="utf-8")
    partial.rename(out)
