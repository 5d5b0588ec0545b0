"""The frozen encoder: loaded once, through transformers."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from . import native
from .allocation import keep_freed_memory
from .assembly import assemble
from .attention import register as register_attention
from .base import fingerprint, locate_base
from .errors import UnsupportedBaseError
from .precision import activation_dtype, choose_device, choose_precision
from .tokenization import RowTokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from .base import BaseFiles, EncoderShape
    from .packing import Row

# Without any of them, AutoTokenizer makes one with an empty vocabulary.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "sentencepiece.bpe.model", "vocab.txt")
# What transformers reports as missing when a checkpoint has no pooler.
POOLER_KEYS = ("pooler.dense.weight", "pooler.dense.bias")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A base in memory: the model, its tokenizer, and what they are."""

    name: str
    """How the base was asked for."""
    shape: EncoderShape
    """Its size."""
    fingerprint: str
    """Digest of its config and weights."""
    model: nn.Module
    """transformers' encoder, frozen, in evaluation mode."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    device: torch.device
    """Where it computes."""
    dtype: torch.dtype
    """Data type of activations and slots."""
    precision: str
    """`fp32`, `bf16`, `int8` or `bitsandbytes`."""

    rows: RowTokenizer = field(init=False, repr=False, compare=False)
    """Texts to rows, from any thread."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", RowTokenizer(self.tokenizer, self.shape))

    def tokenize(self, texts: Sequence[str | tuple[str, str]]) -> list[tuple[Row, bool]]:
        """Rows on the bare base, each with whether the text was cut to the longest that fits.

        Singles and pairs may be mixed; threads may call at once.

        Raises:
            InputError: an empty text, or something that is no text.
        """
        return [(found.row, found.truncated) for found in self.rows.rows(texts)]


def load_encoder(name: str | Path, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load a base once and freeze it.

    Args:
        name: `mini`, a folder, or a Hub name.
        device: `auto`, `cpu`, `cuda`, `cuda:1`…
        precision: `auto`, `fp32`, `bf16`, `int8` or `bitsandbytes`.

    Raises:
        BaseModelError: no such base, or one that isn't served.
        PrecisionError: a precision or device that this machine lacks.
    """
    where = choose_device(device)
    chosen = choose_precision(precision, where)
    base = locate_base(name)
    digest = fingerprint(base).digest
    register_attention()
    with quiet_transformers(), loading_errors(base):
        tokenizer = load_tokenizer(base)
        model, missing = assemble(base, precision=chosen, device=where)
    check_complete(base, missing)
    check_tokenizer(base, tokenizer)
    if where.type == "cpu":
        native.load()  # compiled now, rather than while the first request waits
        keep_freed_memory()  # after loading, whose large pieces had better go back
    return Encoder(
        name=base.name,
        shape=base.shape,
        fingerprint=digest,
        model=model,
        tokenizer=tokenizer,
        device=where,
        dtype=activation_dtype(chosen),
        precision=chosen,
    )


@contextlib.contextmanager
def loading_errors(base: BaseFiles) -> Iterator[None]:
    """Within it, what transformers raises for a damaged folder is UnsupportedBaseError."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError, SafetensorError) as error:
        raise UnsupportedBaseError(
            f"{base.folder} can't be loaded ({type(error).__name__}: "
            f"{str(error).partition(chr(10))[0]}); save or copy it again"
        ) from error


def load_tokenizer(base: BaseFiles) -> PreTrainedTokenizerBase:
    """The base's tokenizer; call it within `loading_errors`."""
    from transformers import AutoTokenizer

    if not any((base.folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(f"no tokenizer: none of {', '.join(TOKENIZER_FILES)}")
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        base.folder, local_files_only=True
    )
    return tokenizer


def check_complete(base: BaseFiles, missing: Sequence[str]) -> None:
    """Weights that a checkpoint lacks would be drawn at random, anew at each start."""
    missing = sorted(missing)
    if missing:
        which = (
            "a pooler, which BERT's classification head needs"
            if set(missing) <= set(POOLER_KEYS)
            else f"{len(missing)} tensors, {missing[0]} first"
        )
        raise UnsupportedBaseError(f"{base.folder} lacks {which}; save it again with AutoModel")


def check_tokenizer(base: BaseFiles, tokenizer: PreTrainedTokenizerBase) -> None:
    """Ids beyond the embedding would be looked up nowhere."""
    if len(tokenizer) > base.shape.vocab_size:
        raise UnsupportedBaseError(
            f"{base.folder} has a tokenizer of {len(tokenizer):,} pieces for an embedding of "
            f"{base.shape.vocab_size:,}; put the tokenizer there that it was trained with"
        )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it, transformers reports errors only, and shows no bars of its own."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # bitsandbytes, which peft imports where it is installed, warns of a 4-bit kernel.
    bitsandbytes = logging.getLogger("bitsandbytes")
    bitsandbytes_level = bitsandbytes.level
    bitsandbytes.setLevel(logging.ERROR)
    try:
        yield
    finally:
        bitsandbytes.setLevel(bitsandbytes_level)
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
