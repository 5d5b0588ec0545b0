"""The training loop of masked language modelling, with a bag-of-words objective beside it.

Masked LM after BERT and XLM-R (Devlin et al., 2019; Conneau et al., 2020), and beside it a
bag-of-words objective on the first token: from `<s>` alone the model predicts which pieces the
whole sequence holds. Masked LM leaves `<s>` without a meaning, and classification heads read it.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import DivergedError, EmptyDataError
from ..core.progress import Progress
from .accelerator import make_accelerator
from .corpus import TokenizedCorpus, is_held_out
from .tokenizing import SPECIAL_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast, XLMRobertaForMaskedLM

    from .pretraining import PretrainingConfig

LOG_FILE = "log.jsonl"
PROGRESS_FILE = "progress.json"


class MaskedLMTrainer:
    """The loop: batches of equal length, logits at masked positions only.

    Args:
        model: what to train.
        tokenizer: its tokenizer.
        config: the settings.
        run: the folder for checkpoints and the log.
    """

    def __init__(
        self,
        model: XLMRobertaForMaskedLM,
        tokenizer: PreTrainedTokenizerFast,
        config: PretrainingConfig,
        run: Path,
    ) -> None:
        import torch

        self.config = config
        self.tokenizer = tokenizer
        self.checkpoint = run / "checkpoint"
        self.log = run / LOG_FILE
        self.accelerator = make_accelerator(config.precision)
        matrices = [p for p in model.parameters() if p.ndim > 1]
        vectors = [p for p in model.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.step = 0
        self.tokens = 0

    def load_checkpoint(self) -> None:
        """Go on where the last checkpoint was written, if there is one."""
        old = self.checkpoint.with_suffix(".old")
        if not self.checkpoint.exists() and old.exists():  # killed between the two renames
            old.rename(self.checkpoint)
        if self.checkpoint.exists():
            self.accelerator.load_state(str(self.checkpoint))
            state = json.loads((self.checkpoint / PROGRESS_FILE).read_text())
            self.step, self.tokens = state["step"], state["tokens"]
        self._shorten_log()

    def save_checkpoint(self) -> None:
        """Write a checkpoint beside the old one, then put it in its place."""
        fresh = self.checkpoint.with_suffix(".new")
        old = self.checkpoint.with_suffix(".old")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        # At each save it warns that the tied output layer is left out.
        logger = logging.getLogger("accelerate.utils.other")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            self.accelerator.save_state(str(fresh))
        finally:
            logger.setLevel(level)
        (fresh / PROGRESS_FILE).write_text(json.dumps({"step": self.step, "tokens": self.tokens}))
        if self.checkpoint.exists():
            self.checkpoint.rename(old)
        fresh.rename(self.checkpoint)
        shutil.rmtree(old, ignore_errors=True)

    def train(self, corpora: dict[str, list[str]]) -> float | None:
        """Train to the end.

        Args:
            corpora: the lines of each locale.

        Returns:
            The loss on held-out lines, nats a masked token; None when no line is held out.

        Raises:
            EmptyDataError: no line is left to train on.
            DivergedError: the loss is no longer finite.
        """
        corpus = self._tokenize(corpora, held_out=False)
        if not len(corpus.tokens):
            raise EmptyDataError("every line is held out for evaluation; give more text")
        evaluation = self._batches(self._tokenize(corpora, held_out=True), seed=0)
        seen = 0
        step = 0
        epoch = 0
        total = self.config.tokens
        with Progress("pretrain", total=total, done=self.tokens, unit="tokens") as progress:
            progress.say(
                f"pretrain: {len(corpus.offsets) - 1:,} lines, {len(corpus.tokens):,} tokens, "
                f"{len(corpus.locales)} locales"
            )
            while seen < total:
                for batch in self._batches(corpus, seed=self.config.seed + 1000 * epoch):
                    if seen >= total:
                        break
                    seen += batch.size
                    step += 1
                    if step <= self.step:  # an earlier run did this one
                        continue
                    losses = self._train_step(batch, share=(seen - batch.size) / total)
                    self.step, self.tokens = step, seen
                    progress.advance(batch.size, note=losses)
                    if step % self.config.checkpoint_steps == 0:
                        held_out = self.evaluate(evaluation)
                        self._append_to_log(held_out)
                        self.save_checkpoint()
                        progress.say(
                            f"step {step:,}, {seen:,} tokens: {losses}"
                            + (f", held out {held_out:.3f}" if held_out is not None else "")
                        )
                epoch += 1
            self.save_checkpoint()
        return self.evaluate(evaluation)

    def evaluate(self, batches: list[NDArray[np.int32]]) -> float | None:
        """Masked-LM loss, nats a masked token, always with the same masks; None without batches.

        Raises:
            DivergedError: it is not finite.
        """
        import torch

        self.model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for number, batch in enumerate(batches):
                masked, _, targets = self.losses(batch, seed=number)
                total += float(masked) * len(targets)
                count += len(targets)
        if count == 0:
            return None
        self._check_finite(total)
        return total / count

    def _check_finite(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} after {self.step} steps; lower --learning-rate "
                f"(it is {self.config.learning_rate:g})"
            )

    def _append_to_log(self, held_out: float | None) -> None:
        figures = {
            "step": self.step,
            "tokens": self.tokens,
            "held_out": None if held_out is None else round(held_out, 4),
        }
        with self.log.open("a") as log:
            log.write(json.dumps(figures) + "\n")

    def _shorten_log(self) -> None:
        """Drop the lines of steps after the checkpoint, which will be done once more."""
        if not self.log.exists():
            return
        kept = [
            line
            for line in self.log.read_text().splitlines(keepends=True)
            # A line without an end was cut off, and so is later than the checkpoint.
            if line.endswith("\n") and json.loads(line)["step"] <= self.step
        ]
        self.log.write_text("".join(kept))

    def _tokenize(self, corpora: dict[str, list[str]], *, held_out: bool) -> TokenizedCorpus:
        """The lines that are kept for evaluation, or the others."""
        chosen = {
            locale: [text for text in texts if is_held_out(text) == held_out]
            for locale, texts in corpora.items()
        }
        return TokenizedCorpus.build(
            {locale: texts for locale, texts in chosen.items() if texts}, self._encode
        )

    def _encode(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(
            texts, add_special_tokens=False, truncation=True, max_length=4 * self.config.max_length
        )["input_ids"]
        return ids

    def _batches(self, corpus: TokenizedCorpus, *, seed: int) -> list[NDArray[np.int32]]:
        return corpus.epoch(
            seed=seed,
            temperature=self.config.temperature,
            max_length=self.config.max_length,
            batch_tokens=self.config.batch_tokens,
            start=SPECIAL_TOKENS.index("<s>"),
            end=SPECIAL_TOKENS.index("</s>"),
        )

    def _train_step(self, batch: NDArray[np.int32], *, share: float) -> str:
        rate = self._learning_rate(share)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        masked, bag, _ = self.losses(batch, seed=self.config.seed + self.step)
        loss = masked + self.config.bag_weight * bag
        self._check_finite(loss.item())
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return f"masked LM {masked.item():.3f}, bag of words {bag.item():.3f}"

    def _learning_rate(self, share: float) -> float:
        if share < self.config.warmup:
            return self.config.learning_rate * (share + 1e-4) / self.config.warmup
        decay = (share - self.config.warmup) / (1 - self.config.warmup)
        return self.config.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * decay)))

    def losses(
        self, batch: NDArray[np.int32], *, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One batch's losses.

        Args:
            batch: `[sequences, length]` ids.
            seed: decides what is masked.

        Returns:
            The masked-LM loss, the bag-of-words loss, and the masked ids `[masked]`.
        """
        import torch
        from torch.nn import functional

        inputs, chosen = self.mask(batch, np.random.default_rng(seed))
        device = self.accelerator.device
        ids = torch.from_numpy(batch.astype(np.int64)).to(device)
        with self.accelerator.autocast():
            hidden = self.model.roberta(torch.from_numpy(inputs.astype(np.int64)).to(device))[0]
            chosen_at = torch.from_numpy(chosen).to(device)
            logits = self.model.lm_head(torch.cat([hidden[chosen_at], hidden[:, 0]]))
        targets = ids[chosen_at]
        masked = functional.cross_entropy(logits[: len(targets)].float(), targets)
        log_probabilities = logits[len(targets) :].float().log_softmax(-1)
        bag = -log_probabilities.gather(1, ids[:, 1:-1]).mean()
        return masked, bag, targets

    def mask(
        self, batch: NDArray[np.int32], generator: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Choose what to predict; at least one token a batch, never a special one.

        Returns:
            The ids with the mask in them, and where the chosen ones are; both as `batch`.
        """
        chosen = generator.random(batch.shape) < self.config.mask_share
        chosen[:, 0] = chosen[:, -1] = False
        if not chosen.any():
            chosen[0, 1] = True
        fate = generator.random(batch.shape)
        inputs = batch.copy()
        inputs[chosen & (fate < 0.8)] = self.tokenizer.mask_token_id
        replaced = chosen & (fate >= 0.9)
        inputs[replaced] = generator.integers(
            len(SPECIAL_TOKENS), len(self.tokenizer) - 1, size=int(replaced.sum())
        )
        return inputs, chosen
