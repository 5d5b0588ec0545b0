"""Pre-train a small encoder by masked language modelling.

Masked LM after BERT and XLM-R (Devlin et al., 2019; Conneau et al., 2020), and beside it a
bag-of-words objective on the first token: from `<s>` alone the model predicts which pieces the
whole sequence holds. Masked LM leaves `<s>` without a meaning, and classification heads read it.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import CheckpointError, DivergedError, InputError, OutputFolderError
from ..core.progress import Progress
from .corpus import TokenizedCorpus, is_held_out, read_corpora, sample_texts
from .tokenizing import SPECIAL_TOKENS, train_tokenizer

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerFast, XLMRobertaForMaskedLM

STATE_FILE = "pretraining.json"
LOG_FILE = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """Settings of one pre-training run."""

    data: tuple[str, ...]
    """Folders that hold `<locale>/train.jsonl` with a `text` in each row."""
    out: str
    """Where the model goes; checkpoints go to `<out>.run` beside it."""
    vocab_size: int = 24_000
    """Pieces of the tokenizer, special and byte pieces included."""
    hidden_size: int = 256
    """Width of the encoder."""
    layers: int = 6
    """Transformer layers."""
    heads: int = 4
    """Attention heads a layer."""
    max_length: int = 256
    """Longest sequence in tokens, special tokens included."""
    tokens: int = 30_000_000
    """Tokens to train on, over as many passes as it takes."""
    batch_tokens: int = 4096
    """Tokens a step."""
    learning_rate: float = 1.5e-3
    """Peak learning rate; warm-up is linear, decay is a half cosine to a tenth."""
    warmup: float = 0.04
    """Share of the steps that warm up."""
    weight_decay: float = 0.05
    """AdamW's decay, on matrices only."""
    mask_share: float = 0.2
    """Share of the tokens to predict: 80 % masked, 10 % replaced, 10 % kept."""
    bag_weight: float = 0.3
    """Weight of the bag-of-words loss on `<s>`; 0 leaves it out."""
    temperature: float = 0.7
    """Exponent of the sampling weights of locales (1: as the text is, 0: uniform)."""
    tokenizer_characters: int = 9_000_000
    """How much text the tokenizer is trained on."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast), or `auto`: bf16 where the processor multiplies it natively."""
    seed: int = 0
    """Decides initial weights, order, and masks."""
    checkpoint_steps: int = 500
    """Steps between checkpoints."""

    def check(self) -> None:
        """Raise InputError for settings that make no sense."""
        for name in ("vocab_size", "hidden_size", "layers", "heads", "tokens", "batch_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.hidden_size % self.heads:
            raise InputError(f"hidden size {self.hidden_size} is no multiple of {self.heads} heads")
        if self.vocab_size < 1000:
            raise InputError(
                f"vocab_size is {self.vocab_size}; 256 byte pieces and words need at least 1,000"
            )
        if not 0 < self.mask_share < 1:
            raise InputError(f"mask_share is {self.mask_share}; it must lie between 0 and 1")
        if self.max_length < 8:
            raise InputError(f"max_length is {self.max_length}; it must be at least 8")
        if self.precision not in {"auto", "fp32", "bf16"}:
            raise InputError(f"precision is {self.precision!r}; use auto, fp32 or bf16")


@dataclass(frozen=True, kw_only=True)
class PretrainingResult:
    """What a finished run gives."""

    folder: str
    """The folder that `AutoModel` and `AutoTokenizer` load."""
    parameters: int
    """Parameters, the tied output layer counted once."""
    tokens: int
    """Tokens trained on."""
    steps: int
    """Optimizer steps."""
    loss: float
    """Masked-LM loss on held-out lines, nats a masked token."""
    seconds: float
    """Wall time of this run, without what an earlier, interrupted run took."""


def pretrain(config: PretrainingConfig, *, resume: bool = False) -> PretrainingResult:
    """Train a tokenizer and an XLM-R-shaped encoder on plain text.

    Interrupted, it goes on from its last checkpoint with `resume=True`.

    Args:
        config: the settings.
        resume: go on with the run whose checkpoints lie beside `config.out`.

    Returns:
        Where the model is and how good it became.

    Raises:
        InputError: settings that make no sense.
        DataError: data that can't be read.
        OutputFolderError: the output folder exists, or an unfinished run's files do.
        CheckpointError: nothing to resume, or a run with other settings.
        DivergedError: the loss is no longer finite.
    """
    config.check()
    out = Path(config.out)
    run = out.with_name(out.name + ".run")
    if out.exists():
        raise OutputFolderError(f"{out} exists; choose another folder or remove it")
    _claim_run_folder(run, config, resume=resume)

    from accelerate.utils import set_seed

    from ..core.encoder import quiet_transformers

    started = time.monotonic()
    corpora = read_corpora([Path(folder) for folder in config.data])
    tokenizer = _tokenizer(run, corpora, config)
    set_seed(config.seed)
    model = _model(tokenizer, config)
    trainer = _Trainer(model, tokenizer, config, run)
    trainer.load_checkpoint()
    loss = trainer.train(corpora)

    partial = out.with_name(out.name + ".partial")
    with quiet_transformers():
        model.half().save_pretrained(partial)  # type: ignore[no-untyped-call]
        tokenizer.save_pretrained(partial)
    partial.rename(out)
    return PretrainingResult(
        folder=str(out),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=trainer.tokens,
        steps=trainer.step,
        loss=loss,
        seconds=time.monotonic() - started,
    )


def _claim_run_folder(run: Path, config: PretrainingConfig, *, resume: bool) -> None:
    settings = json.dumps(asdict(config) | {"out": ""}, indent=1)
    recorded = run / STATE_FILE
    if resume:
        if not recorded.exists():
            raise CheckpointError(f"nothing to resume: there is no {recorded}")
        if recorded.read_text() != settings:
            raise CheckpointError(
                f"{recorded} records other settings; resume with the same ones, or remove {run}"
            )
        return
    if run.exists():
        raise OutputFolderError(
            f"{run} holds an unfinished run; resume it with --resume, or remove it"
        )
    run.mkdir(parents=True)
    recorded.write_text(settings)


def _tokenizer(
    run: Path, corpora: dict[str, list[str]], config: PretrainingConfig
) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    folder = run / "tokenizer"
    if not folder.exists():
        sample = sample_texts(
            corpora,
            characters=config.tokenizer_characters,
            temperature=0.5,
            seed=config.seed,
        )
        with Progress("tokenizer", total=1) as progress:
            progress.say(f"tokenizer: {config.vocab_size:,} pieces from {len(sample):,} lines")
            tokenizer = train_tokenizer(
                sample, vocab_size=config.vocab_size, max_length=config.max_length
            )
        tokenizer.save_pretrained(folder)
    loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder)
    return loaded


def _model(tokenizer: PreTrainedTokenizerFast, config: PretrainingConfig) -> XLMRobertaForMaskedLM:
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    padding = SPECIAL_TOKENS.index("<pad>")
    return XLMRobertaForMaskedLM(
        XLMRobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.hidden_size,
            # RoBERTa counts positions from the padding id + 1.
            max_position_embeddings=config.max_length + padding + 1,
            type_vocab_size=1,
            # Two or three passes over the text don't overfit.
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=padding,
            bos_token_id=SPECIAL_TOKENS.index("<s>"),
            eos_token_id=SPECIAL_TOKENS.index("</s>"),
        )
    )


class _Trainer:
    """The loop: batches of equal length, logits at masked positions only."""

    def __init__(
        self,
        model: XLMRobertaForMaskedLM,
        tokenizer: PreTrainedTokenizerFast,
        config: PretrainingConfig,
        run: Path,
    ) -> None:
        import torch
        from accelerate import Accelerator

        from ..core.precision import autocast_dtype

        self.config = config
        self.tokenizer = tokenizer
        self.checkpoint = run / "checkpoint"
        dtype = autocast_dtype(config.precision)
        self.accelerator = Accelerator(mixed_precision="bf16" if dtype is not None else "no")
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
        if not self.checkpoint.exists():
            return
        self.accelerator.load_state(str(self.checkpoint))
        state = json.loads((self.checkpoint / "progress.json").read_text())
        self.step, self.tokens = state["step"], state["tokens"]

    def save_checkpoint(self) -> None:
        """Write a checkpoint beside the old one, then put it in its place."""
        fresh = self.checkpoint.with_suffix(".new")
        old = self.checkpoint.with_suffix(".old")
        _remove(fresh)
        _remove(old)
        self.accelerator.save_state(str(fresh))
        (fresh / "progress.json").write_text(json.dumps({"step": self.step, "tokens": self.tokens}))
        if self.checkpoint.exists():
            self.checkpoint.rename(old)
        fresh.rename(self.checkpoint)
        _remove(old)

    def train(self, corpora: dict[str, list[str]]) -> float:
        """Train to the end; returns the loss on held-out lines."""
        training = {
            locale: [text for text in texts if not is_held_out(text)]
            for locale, texts in corpora.items()
        }
        held_out = {
            locale: [text for text in texts if is_held_out(text)]
            for locale, texts in corpora.items()
        }
        corpus = TokenizedCorpus.build(training, self._encode)
        evaluation = self._batches(
            TokenizedCorpus.build({k: v for k, v in held_out.items() if v}, self._encode), seed=0
        )
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
                        held_out_loss = self.evaluate(evaluation)
                        self._log(step=step, tokens=seen, held_out=round(held_out_loss, 4))
                        self.save_checkpoint()
                        progress.say(
                            f"step {step:,}, {seen:,} tokens: {losses}, "
                            f"held out {held_out_loss:.3f}"
                        )
                epoch += 1
            self.save_checkpoint()
        return self.evaluate(evaluation)

    def evaluate(self, batches: list[NDArray[np.int32]]) -> float:
        """Masked-LM loss, nats a masked token, always with the same masks."""
        import torch

        self.model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for number, batch in enumerate(batches):
                masked, _, targets = self._forward(batch, seed=number)
                total += float(masked) * len(targets)
                count += len(targets)
        return total / max(count, 1)

    def _log(self, **figures: float) -> None:
        with (self.checkpoint.parent / LOG_FILE).open("a") as log:
            log.write(json.dumps(figures) + "\n")

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
        masked, bag, _ = self._forward(batch, seed=self.config.seed + self.step)
        loss = masked + self.config.bag_weight * bag
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(
                f"the loss is {value} at step {self.step + 1}; lower --learning-rate "
                f"(it is {self.config.learning_rate:g})"
            )
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

    def _forward(
        self, batch: NDArray[np.int32], *, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses of one batch `[sequences, length]`, and the targets `[masked]`."""
        import torch
        from torch.nn import functional

        generator = np.random.default_rng(seed)
        inputs, chosen = self._mask(batch, generator)
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

    def _mask(
        self, batch: NDArray[np.int32], generator: np.random.Generator
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Choose what to predict; at least one token a batch, never a special one."""
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


def _remove(folder: Path) -> None:
    import shutil

    if folder.exists():
        shutil.rmtree(folder)
