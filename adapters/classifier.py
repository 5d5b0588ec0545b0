"""The training loop of a text classifier: LoRA and a head on the frozen base."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import DivergedError
from ..core.progress import Progress
from .accelerator import make_accelerator
from .evaluation import classification_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from ..core.base import BaseFiles
    from .checkpoint import Checkpoint
    from .data import Example, LabelledData
    from .training import TrainingConfig


BATCHES_A_POOL = 16
DEV_ROWS_A_BATCH = 32


class ClassifierTrainer:
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
        from accelerate.utils import set_seed

        self.config = config
        self.base = base
        self.data = data
        self.checkpoint = checkpoint
        self.show_progress = show_progress
        self.ids = {label: number for number, label in enumerate(data.labels)}
        set_seed(config.seed)
        self.accelerator = make_accelerator(config.precision, config.device)
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
                raise self._diverged(f"the loss is {value} in epoch {epoch + 1}")
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad()
            total += value * len(batch)
            progress.advance(note=f"loss {value:.3f}")
        return total / len(encoded)

    def _diverged(self, what: str) -> DivergedError:
        rate = self.config.learning_rate
        return DivergedError(f"{what}; lower the learning rate (it is {rate:g})")

    def _batches(
        self, encoded: Sequence[tuple[list[int], int]], epoch: int
    ) -> Iterator[list[tuple[list[int], int]]]:
        """Batches of rows of like length, drawn by seed and epoch alone.

        Within a pool of some batches rows are sorted by length, so that little is padded.
        """
        generator = np.random.default_rng((self.config.seed, epoch))
        order = generator.permutation(len(encoded))
        size = self.config.batch_size
        batches = []
        for start in range(0, len(order), size * BATCHES_A_POOL):
            pool = sorted(
                order[start : start + size * BATCHES_A_POOL],
                key=lambda index: len(encoded[index][0]),
            )
            batches += [pool[first : first + size] for first in range(0, len(pool), size)]
        for number in generator.permutation(len(batches)):
            yield [encoded[index] for index in batches[number]]

    def _evaluate(self, encoded: Sequence[tuple[list[int], int]]) -> dict[str, float]:
        import torch

        self.model.eval()
        gold: list[str] = []
        predicted: list[str] = []
        ordered = sorted(encoded, key=lambda row: len(row[0]))
        with torch.no_grad():
            for first in range(0, len(ordered), DEV_ROWS_A_BATCH):
                batch = ordered[first : first + DEV_ROWS_A_BATCH]
                gold.extend(self.data.labels[label] for _, label in batch)
                logits = self.model(**self._collate(batch)).logits
                if not torch.isfinite(logits).all():  # the last step's, which no loss shows
                    raise self._diverged("the dev rows' logits aren't finite")
                predicted.extend(self.data.labels[index] for index in logits.argmax(-1).tolist())
        return classification_metrics(gold, predicted)

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

    from ..core.encoder import (
        check_complete,
        check_tokenizer,
        load_tokenizer,
        loading_errors,
        quiet_transformers,
    )

    with quiet_transformers():  # peft imports bitsandbytes, which warns
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForSequenceClassification

    with quiet_transformers(), loading_errors(base):
        tokenizer = load_tokenizer(base)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            base.folder,
            num_labels=len(labels),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            classifier_dropout=config.dropout,
            output_loading_info=True,
        )
    check_tokenizer(base, tokenizer)
    check_complete(
        base,
        [
            key.removeprefix(f"{base.shape.prefix}.")
            for key in report["missing_keys"]
            if not key.startswith("classifier.")  # the head is new
        ],
    )
    peft_config = LoraConfig(
        task_type="SEQ_CLS",
        r=config.rank,
        lora_alpha=config.alpha if config.alpha is not None else 2 * config.rank,  # type: ignore[arg-type]
        # On a CPU, dropout before each update took a fifth of a run's time.
        lora_dropout=0.0,
        target_modules=list(config.targets),
        modules_to_save=["classifier"],
    )
    with warnings.catch_warnings():
        # peft 0.21 reads an attribute that transformers 5.23 has renamed.
        warnings.simplefilter("ignore", FutureWarning)
        return tokenizer, get_peft_model(model, peft_config)
