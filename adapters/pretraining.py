"""Pre-train a small encoder on plain text: a tokenizer, then masked language modelling."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InputError, IsoglossError, OutputFolderError
from ..core.precision import PRECISIONS
from ..core.progress import Progress
from .checkpoint import claim_run, written_whole
from .corpus import read_corpora, sample_texts
from .masked_lm import LOG_FILE, MaskedLMTrainer
from .tokenizing import SPECIAL_TOKENS, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, XLMRobertaForMaskedLM

TOKENIZER = "tokenizer"
CHECKPOINTS = ("checkpoint", "checkpoint.old")


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
        for name in (
            "hidden_size",
            "layers",
            "heads",
            "tokens",
            "batch_tokens",
            "tokenizer_characters",
            "checkpoint_steps",
        ):
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
        if not 0 <= self.warmup < 1:
            raise InputError(f"warmup is {self.warmup}; it must lie in 0..1, 1 excluded")
        if self.max_length < 8:
            raise InputError(f"max_length is {self.max_length}; it must be at least 8")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"learning_rate is {self.learning_rate}; it must be positive")
        for name in ("weight_decay", "bag_weight", "temperature"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it must lie in 0..{2**32 - 1}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; use {', '.join(PRECISIONS)}")


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
    loss: float | None
    """Masked-LM loss on held-out lines, nats a masked token; None: no line was held out."""
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
        OutputFolderError: the output folder, or an unfinished run's, exists or can't be written.
        CheckpointError: nothing to resume, or a run with other settings or data.
        DivergedError: the loss is no longer finite.
    """
    config.check()
    started = time.monotonic()
    out = Path(config.out)
    run = out.with_name(out.name + ".run")
    if os.path.lexists(out):  # a link that leads nowhere is in the way, too
        raise OutputFolderError(f"{out} exists; choose another folder or remove it")
    corpora = read_corpora([Path(folder) for folder in config.data])
    text = hashlib.sha256(json.dumps(corpora).encode()).hexdigest()
    claim_run(run, asdict(config) | {"out": "", "text": text}, resume=resume)
    try:
        trainer, loss = _train(run, corpora, config)
    except IsoglossError:
        _discard(run, unless=CHECKPOINTS)  # resumed, it would end in the same way
        raise
    except BaseException:
        _discard(run, unless=(*CHECKPOINTS, TOKENIZER))
        raise
    with written_whole(out) as partial:
        _write_folder(trainer, partial)
    shutil.rmtree(run, ignore_errors=True)
    return PretrainingResult(
        folder=str(out),
        parameters=sum(parameter.numel() for parameter in trainer.model.parameters()),
        tokens=trainer.tokens,
        steps=trainer.step,
        loss=loss,
        seconds=time.monotonic() - started,
    )


def _train(
    run: Path, corpora: dict[str, list[str]], config: PretrainingConfig
) -> tuple[MaskedLMTrainer, float | None]:
    from accelerate.utils import set_seed

    tokenizer = _tokenizer(run, corpora, config)
    set_seed(config.seed)
    trainer = MaskedLMTrainer(_model(tokenizer, config), tokenizer, config, run)
    trainer.load_checkpoint()
    return trainer, trainer.train(corpora)


def _write_folder(trainer: MaskedLMTrainer, folder: Path) -> None:
    from ..core.encoder import quiet_transformers

    model = trainer.accelerator.unwrap_model(trainer.model)
    with quiet_transformers():
        model.half().save_pretrained(folder)
        trainer.tokenizer.save_pretrained(folder)
    if trainer.log.exists():
        shutil.copy(trainer.log, folder / LOG_FILE)


def _discard(run: Path, *, unless: tuple[str, ...]) -> None:
    """Remove the folder of a run that failed, unless it holds something worth resuming."""
    if not any((run / name).exists() for name in unless):
        shutil.rmtree(run, ignore_errors=True)


def _tokenizer(
    run: Path, corpora: dict[str, list[str]], config: PretrainingConfig
) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    folder = run / TOKENIZER
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
        partial = run / f"{TOKENIZER}.partial"
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
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
