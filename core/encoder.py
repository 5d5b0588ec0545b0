"""The frozen encoder: loaded once, through transformers."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from .attention import NAME as PACKED_ATTENTION
from .attention import register as register_attention
from .base import fingerprint, locate_base
from .errors import InputError, UnsupportedBaseError
from .packing import Row
from .precision import choose_device, choose_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from .base import BaseFiles, EncoderShape

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
    """In which precision it computes."""

    # Cutting a text switches the one tokenizer's truncation on and off again.
    _tokenizing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def tokenize(self, texts: Sequence[str | tuple[str, str]]) -> list[tuple[Row, bool]]:
        """Rows without a slot, each with whether the text was cut to the longest that fits.

        Singles and pairs may be mixed; threads may call at once.

        Raises:
            InputError: an empty text, or something that is no text.
        """
        parts = [_parts(number, text) for number, text in enumerate(texts)]
        rows: dict[int, tuple[Row, bool]] = {}
        for count in (1, 2):  # a tokenizer takes singles or pairs, not both in one call
            places = [place for place, part in enumerate(parts) if len(part) == count]
            if places:
                with self._tokenizing:
                    found = self._tokenize([parts[place] for place in places])
                rows.update(zip(places, found, strict=True))
        return [rows[place] for place in range(len(parts))]

    def _tokenize(self, parts: Sequence[tuple[str, ...]]) -> list[tuple[Row, bool]]:
        """Rows of singles only, or of pairs only."""
        kwargs: dict[str, Any] = {"add_special_tokens": True, "return_token_type_ids": True}
        columns = [list(column) for column in zip(*parts, strict=True)]
        full = self.tokenizer(*columns, truncation=False, verbose=False, **kwargs)
        rows = []
        for part, whole_ids, whole_types in zip(
            parts, full["input_ids"], full["token_type_ids"], strict=True
        ):
            ids, types = whole_ids, whole_types
            truncated = len(ids) > self.shape.max_tokens
            if truncated:
                cut = self.tokenizer(
                    *part, truncation=True, max_length=self.shape.max_tokens, **kwargs
                )
                ids, types = cut["input_ids"], cut["token_type_ids"]
            row = Row(
                token_ids=tuple(ids),
                type_ids=tuple(types) if self.shape.model_type == "bert" else None,
            )
            rows.append((row, truncated))
        return rows


def _parts(number: int, text: str | tuple[str, str]) -> tuple[str, ...]:
    """A text as a tuple of one or two."""
    parts = (text,) if isinstance(text, str) else text
    if (
        not isinstance(parts, tuple | list)
        or len(parts) not in {1, 2}
        or not all(isinstance(part, str) for part in parts)
    ):
        raise InputError(f"text {number} is {text!r:.80}; expected a str or a pair of them")
    if not any(part.strip() for part in parts):
        raise InputError(f"text {number} is empty")
    if not all(_is_unicode(part) for part in parts):
        raise InputError(f"text {number} is {text!r:.80}, which has lone surrogates")
    return tuple(parts)


def _is_unicode(text: str) -> bool:
    """False for lone surrogates, which JSON's escapes can bring in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_encoder(name: str | Path, *, device: str = "auto", precision: str = "auto") -> Encoder:
    """Load a base once and freeze it.

    Args:
        name: `mini`, a folder, or a Hub name.
        device: `auto`, `cpu`, `cuda`, `cuda:1`…
        precision: `auto`, `fp32` or `bf16`.

    Raises:
        BaseModelError: no such base, or one that isn't served.
        PrecisionError: a precision or device that this machine lacks.
    """
    where, dtype = choose_device(device), choose_dtype(precision)
    base = locate_base(name)
    digest = fingerprint(base).digest
    register_attention()
    with quiet_transformers(), loading_errors(base):
        model, missing = _load_model(base, dtype)
        tokenizer = load_tokenizer(base)
    check_complete(base, missing)
    check_tokenizer(base, tokenizer)
    model.requires_grad_(requires_grad=False)
    return Encoder(
        name=base.name,
        shape=base.shape,
        fingerprint=digest,
        model=model.eval().to(where),
        tokenizer=tokenizer,
        device=where,
        dtype=dtype,
    )


def _load_model(base: BaseFiles, dtype: torch.dtype) -> tuple[nn.Module, Sequence[str]]:
    """The encoder, and the names of the tensors that its checkpoint lacks."""
    from transformers import AutoModel

    # XLM-R's pooler is used by nothing; BERT's is part of its classification head.
    kwargs: dict[str, Any] = {} if base.shape.model_type == "bert" else {"add_pooling_layer": False}
    model, report = AutoModel.from_pretrained(
        base.folder,
        dtype=dtype,
        attn_implementation=PACKED_ATTENTION,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        **kwargs,
    )
    return model, report["missing_keys"]


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
