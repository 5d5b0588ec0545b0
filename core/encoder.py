"""The frozen encoder: loaded once, through transformers."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

    def tokenize(self, texts: Sequence[str | tuple[str, str]]) -> list[tuple[Row, bool]]:
        """Rows without a slot, each with whether the text was cut to the longest that fits.

        Raises:
            InputError: an empty text, or something that is no text.
        """
        firsts, seconds = _split_pairs(texts)
        kwargs: dict[str, Any] = {"add_special_tokens": True, "return_token_type_ids": True}
        limit = self.shape.max_tokens
        full = self.tokenizer(firsts, seconds, truncation=False, verbose=False, **kwargs)
        rows = []
        for index, ids in enumerate(full["input_ids"]):
            truncated = len(ids) > limit
            types = full["token_type_ids"][index]
            if truncated:
                cut = self.tokenizer(
                    firsts[index],
                    seconds[index] if seconds else None,
                    truncation=True,
                    max_length=limit,
                    **kwargs,
                )
                ids, types = cut["input_ids"], cut["token_type_ids"]  # noqa: PLW2901
            rows.append(
                (
                    Row(
                        token_ids=tuple(ids),
                        type_ids=tuple(types) if self.shape.model_type == "bert" else None,
                    ),
                    truncated,
                )
            )
        return rows


def _split_pairs(texts: Sequence[str | tuple[str, str]]) -> tuple[list[str], list[str] | None]:
    firsts: list[str] = []
    seconds: list[str] = []
    for number, text in enumerate(texts):
        parts = (text,) if isinstance(text, str) else tuple(text)
        if len(parts) not in {1, 2} or not all(isinstance(part, str) for part in parts):
            raise InputError(f"text {number} is {text!r:.80}; expected a str or a pair of them")
        if not any(part.strip() for part in parts):
            raise InputError(f"text {number} is empty")
        firsts.append(parts[0])
        seconds.extend(parts[1:])
    if seconds and len(seconds) != len(firsts):
        raise InputError("single texts and pairs can't be mixed in one call")
    return firsts, seconds or None


def load_encoder(
    name: str | Path, *, device: str = "auto", precision: str = "auto", packed: bool = True
) -> Encoder:
    """Load a base once and freeze it.

    Args:
        name: `mini`, a folder, or a Hub name.
        device: `auto`, `cpu`, `cuda`, `cuda:1`…
        precision: `auto`, `fp32` or `bf16`.
        packed: take packed batches (the engine's); else transformers' own attention.

    Raises:
        BaseModelError: no such base, or one that isn't served.
        PrecisionError: a precision or device that this machine lacks.
    """
    where, dtype = choose_device(device), choose_dtype(precision)
    base = locate_base(name)
    from transformers import AutoModel, AutoTokenizer

    if packed:
        register_attention()
    # XLM-R's pooler is used by nothing; BERT's is part of its classification head.
    kwargs: dict[str, Any] = {} if base.shape.model_type == "bert" else {"add_pooling_layer": False}
    with quiet_transformers():
        model, report = AutoModel.from_pretrained(
            base.folder,
            dtype=dtype,
            attn_implementation=PACKED_ATTENTION if packed else "sdpa",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **kwargs,
        )
        tokenizer = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
    _check_complete(base, report["missing_keys"])
    model.requires_grad_(requires_grad=False)
    return Encoder(
        name=base.name,
        shape=base.shape,
        fingerprint=fingerprint(base).digest,
        model=model.eval().to(where),
        tokenizer=tokenizer,
        device=where,
        dtype=dtype,
    )


def _check_complete(base: BaseFiles, missing: Sequence[str]) -> None:
    """Weights that a checkpoint lacks would be drawn at random, anew at each start."""
    missing = sorted(missing)
    if missing:
        which = (
            "a pooler, which BERT's classification head needs"
            if set(missing) <= set(POOLER_KEYS)
            else f"{len(missing)} tensors, {missing[0]} first"
        )
        raise UnsupportedBaseError(f"{base.folder} lacks {which}; save it again with AutoModel")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it, transformers reports errors only, and shows no bars of its own."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
