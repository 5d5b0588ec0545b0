"""The training loop: any type of task, any kind of adapter, through the packed forward."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import DivergedError, EmptyDataError
from ..core.progress import Progress
from ..core.tokenization import RowTokenizer
from .accelerator import make_accelerator
from .checkpoint import Epoch, trainable
from .hosts import load_host
from .packed_training import PackedEncoder
from .resources import peak_bytes, precisions
from .sampling import class_weights, make_sampler
from .schedules import learning_rate_factor
from .state_cache import StateCache
from .tasks import TASKS, Encoding, Objective
from .trainable import make_trainable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from ..core.base import BaseFiles
    from .checkpoint import Checkpoint, RunState
    from .data import TaskData
    from .rows import Record
    from .tasks import Example, Figures
    from .tracking import Track
    from .training_config import TrainingConfig

DEV_ROWS_A_BATCH = 32
# Losses are a few nats; one that has risen so far will not come back.
EXPLODED = 1e4
# So that what is drawn for the dev rows is never what is drawn for an epoch.
DEV_DRAW = 2**32


class Trainer:
    """One run: model, optimizer, and the loop over epochs.

    Args:
        config: the settings, checked.
        base: the base.
        data: the rows.
        checkpoint: where its state is kept.
        track: takes the figures of each epoch.
        show_progress: show a bar, or lines where there is no terminal.
    """

    def __init__(
        self,
        config: TrainingConfig,
        base: BaseFiles,
        data: TaskData[Any],
        checkpoint: Checkpoint,
        *,
        track: Track,
        show_progress: bool,
    ) -> None:
        import torch
        from accelerate.utils import set_seed

        from ..core.frozen import prepare_frozen

        self.config = config
        self.base = base
        self.data = data
        self.checkpoint = checkpoint
        self.track = track
        self.task = TASKS[config.task_type]
        set_seed(config.seed)
        frozen, autocast = precisions(config.precision, config.device)
        self.accelerator = make_accelerator(autocast, config.device)
        self.show_progress = show_progress and self.accelerator.is_main_process
        tokenizer, host = load_host(
            base, self.task, outputs=self.task.outputs(data.labels), dropout=config.dropout
        )
        host.to(self.accelerator.device)
        prepare_frozen(host, base, precision=frozen)
        self.encoding = Encoding(
            tokenizer=RowTokenizer(tokenizer, base.shape),
            limit=base.shape.max_tokens - (config.size if config.kind == "prefix" else 0),
            labels=data.labels,
            special=frozenset(tokenizer.all_special_ids),
            pieces=len(tokenizer),
        )
        self.examples = [
            example for example in self._encode(data.train) if self.task.trainable(example)
        ]
        if not self.examples:
            raise EmptyDataError("nothing in the training rows can be learnt; shorten the texts")
        self.dev = self._encode(data.dev)
        self.objective = self._objective()
        self.sampler = make_sampler(
            [example.locale for example in self.examples],
            seed=config.seed,
            temperature=config.locale_temperature,
            labels=[example.labels[0] for example in self.examples]
            if config.balance == "sampling"
            else None,
        )
        self.steps_an_epoch = math.ceil(self.sampler.rows / config.batch_size)
        total = self.steps_an_epoch * config.epochs
        self.adapter = make_trainable(host, self.task, config, base.shape, steps=total)
        if config.gradient_checkpointing:
            self.adapter.host.activation_checkpointing_enable({"use_reentrant": False})
        self.trained = [p for p in self.adapter.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            self.trained, lr=config.peak_rate, weight_decay=config.weight_decay, fused=True
        )
        # Not prepared: for several processes Accelerate would step it several times.
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, total, config)
        )
        # Unwrapped: gradients are summed here, as the packed forward goes past the model's own.
        self.model = self.accelerator.prepare_model(self.adapter.model, evaluation_mode=True)
        self.optimizer = self.accelerator.prepare(optimizer)
        self.accelerator.register_for_checkpointing(self.scheduler, self.adapter)
        self.encoder = PackedEncoder(self.adapter.model, base.shape, cache=_cache(config))
        checkpoint.attach(self.accelerator)

    def train(self, *, finish: bool = False) -> RunState:
        """Train to the end; the best weights are in the model then.

        Args:
            finish: train no further than the run has come.

        Raises:
            DivergedError: loss or answers are no finite numbers.
        """
        state = self.checkpoint.load(self.accelerator)
        with Progress(
            "train",
            total=self.steps_an_epoch * self.config.epochs,
            done=state.epoch * self.steps_an_epoch,
            enabled=self.show_progress,
        ) as progress:
            while (
                not finish
                and state.epoch < self.config.epochs
                and state.stale < self.config.patience
            ):
                began = time.monotonic()
                loss = self._epoch(state.epoch, progress)
                whole, by_locale = self._evaluate()
                epoch = Epoch(loss=loss, metrics=whole.metrics, by_locale=by_locale)
                state = state.after(
                    epoch,
                    self.task.metric,
                    lower=self.task.lower_is_better,
                    seconds=time.monotonic() - began,
                )
                figures = ", ".join(f"{name} {value:.3f}" for name, value in whole.metrics.items())
                progress.say(
                    f"epoch {state.epoch}: loss {loss:.3f}, dev {figures}"
                    f"{' (best so far)' if state.stale == 0 else ''}"
                )
                self.track(state.epoch, {"loss": loss, **whole.metrics})
                self.checkpoint.save(self.accelerator, self.model, state)
        self.checkpoint.load_best(self.model)
        return state

    def answer(self, examples: Sequence[Example[Any]]) -> list[list[torch.Tensor]]:
        """What the model says of each text of each example; see `Task.answers`."""
        rows = [row for example in examples for row in example.rows]
        with self.accelerator.autocast():
            hidden, batch = self.encoder(rows, first_tokens=self.task.first_tokens)
            if not self.task.first_tokens:
                spans = batch.rows
            else:
                spans = tuple((row, row + 1) for row in range(len(rows)))
            found = iter(self.task.answers(self.adapter.host, hidden, spans, examples))
        return [[next(found) for _ in example.rows] for example in examples]

    def _encode(self, records: Sequence[Record[Any]]) -> list[Example[Any]]:
        return self.task.encode(
            [record.row for record in records],
            [record.locale for record in records],
            self.encoding,
        )

    def _objective(self) -> Objective:
        config = self.config
        weights = None
        if config.balance == "weights":
            labels = [label for example in self.examples for label in example.labels]
            weights = class_weights(labels, self.data.labels)
        grades = [getattr(record.row, "grade", 1) for record in self.data.train]
        return Objective(
            class_weights=weights,
            smoothing=config.label_smoothing,
            temperature=config.contrast,
            top_grade=max(1, *grades),
        )

    def _epoch(self, epoch: int, progress: Progress) -> float:
        """One pass; returns the mean loss."""
        self.model.train()
        total = weight = 0.0
        for number, batch in enumerate(self._batches(epoch)):
            own = self.task.weight(batch, self.objective)
            if not own:
                continue
            value = self._step(batch, own)
            if not math.isfinite(value):
                raise self._diverged(f"the loss is {value} in epoch {epoch + 1}")
            if value > EXPLODED:
                raise self._diverged(f"the loss has risen to {value:.3g} in epoch {epoch + 1}")
            self.adapter.after_step(epoch * self.steps_an_epoch + number + 1)
            self.optimizer.zero_grad()
            total += value * own
            weight += own
            progress.advance(note=f"loss {value:.3f}")
        return total / max(weight, 1.0)

    def _step(self, batch: list[Example[Any]], weight: float) -> float:
        """One step of the optimizer; returns the loss.

        Several processes share a batch's rows; the sum of what they find is that of one process,
        but that a contrastive loss sees the negatives of its own part only.
        """
        import torch

        value = 0.0
        own = batch[self.accelerator.process_index :: self.accelerator.num_processes]
        size = math.ceil(len(own) / self.config.accumulation)
        for first in range(0, len(own), max(size, 1)):
            part = own[first : first + size]
            if not self.task.weight(part, self.objective):
                continue
            answers = [answer for found in self.answer(part) for answer in found]
            loss = self.task.loss(answers, part, self.objective) / weight
            value += loss.item()
            self.accelerator.backward(loss)
        penalty = self.adapter.penalty() if self.accelerator.is_main_process else None
        if penalty is not None:
            self.accelerator.backward(penalty)
        if self.accelerator.num_processes > 1:
            for parameter in self.trained:
                found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = self.accelerator.reduce(found, reduction="sum")
            shared = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
            value = float(self.accelerator.reduce(shared, reduction="sum"))
        if math.isfinite(value):
            self.accelerator.clip_grad_norm_(self.trained, self.config.clip)
            self.optimizer.step()
            self.scheduler.step()
        return value

    def _batches(self, epoch: int) -> Iterator[list[Example[Any]]]:
        """The examples of an epoch, drawn by seed and epoch alone."""
        generator = np.random.default_rng((self.config.seed, epoch))
        order = self.sampler.order(epoch)
        for first in range(0, len(order), self.config.batch_size):
            part = order[first : first + self.config.batch_size]
            yield self.task.draw([self.examples[at] for at in part], self.encoding, generator)

    def _evaluate(self) -> tuple[Figures, dict[str, dict[str, float]]]:
        """Figures of the dev rows, and those of each locale where there are several."""
        import torch

        self.model.eval()
        generator = np.random.default_rng(DEV_DRAW)
        examples = self.task.draw(self.dev, self.encoding, generator)
        examples = sorted(examples, key=lambda example: len(example.rows[0].token_ids))
        decisions = []
        with torch.no_grad():
            for first in range(0, len(examples), DEV_ROWS_A_BATCH):
                batch = examples[first : first + DEV_ROWS_A_BATCH]
                for example, answers in zip(batch, self.answer(batch), strict=True):
                    # The last step's, which no loss shows.
                    if not all(bool(answer.isfinite().all()) for answer in answers):
                        raise self._diverged("the answers for the dev rows aren't finite")
                    decisions.append(self.task.decide(example, answers, self.data.labels))
        whole = self.task.figures(examples, decisions, self.data.labels)
        if not all(math.isfinite(value) for value in whole.metrics.values()):
            raise self._diverged(f"the dev {self.task.metric} isn't finite")
        locales = sorted({example.locale for example in examples})
        by_locale = {}
        for locale in locales if len(locales) > 1 else []:
            own = [at for at, example in enumerate(examples) if example.locale == locale]
            by_locale[locale] = self.task.figures(
                [examples[at] for at in own], [decisions[at] for at in own], self.data.labels
            ).metrics
        return whole, by_locale

    def _diverged(self, what: str) -> DivergedError:
        rate = self.config.peak_rate
        return DivergedError(f"{what}; lower the learning rate (it is {rate:g})")

    def peak_bytes(self) -> int:
        """The most memory of the device so far; on a CPU that of the process."""
        return peak_bytes(self.accelerator.device)

    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(tensor.numel() for tensor in trainable(self.adapter.model).values())


def _cache(config: TrainingConfig) -> StateCache | None:
    # Masks are drawn anew each time, so that no row of a masked LM comes twice.
    if not config.cache_megabytes or config.task_type == "masked-lm":
        return None
    return StateCache(budget=config.cache_megabytes * 1_000_000)
