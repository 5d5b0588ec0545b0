"""What a hub answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..registry import Resolution


@dataclass(frozen=True, kw_only=True)
class Token:
    """One labelled word of a text."""

    text: str
    """The word."""
    start: int
    """First character in the text."""
    end: int
    """Character after the last."""
    label: str
    """Its label."""
    score: float
    """The label's probability."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer for one text, with the version and the resolution that produced it."""

    label: str | None
    """The best label, or the likeliest piece for the first mask; None: nothing answers for this
    locale, or the task has no labels (its answer is in `logits`, `tokens` or `answer`)."""
    score: float
    """Its probability; of a question answering or reranking, that of the answer."""
    scores: dict[str, float]
    """Every label's probability; of a masked LM, those of the likeliest pieces."""
    logits: tuple[float, ...]
    """What the head gave, in the order of `scores`; of an embedding, the normalised vector."""
    tokens: tuple[Token, ...] = ()
    """Labelled words of a token classification, those left out that were cut off or that the
    tokenizer drops; the masks of a masked LM; where a question's answer stands."""
    answer: str | None = None
    """The answer of a question answering."""
    truncated: bool = False
    """Whether the text was cut to the longest that the base takes."""
    adapter: str | None
    """Name of the version, such as `intent/gsw-CH@3f2c9a41b7d2`; of a mixture, those of all, each
    with its weight; None: the bare base."""
    resolution: Resolution
    """Why that version."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One text of a reranking."""

    index: int
    """Its place among the texts given."""
    score: float
    """How well it answers the query, 0..1."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a hub holds, in bytes."""

    base_bytes: int
    """Tensors of the base."""
    slot_bytes: int
    """Tensors of the adapters in slots."""
    reserved_bytes: int
    """All slots, used or not, as they were set aside."""
    head_bytes: int
    """Tensors of the heads of adapters in slots."""
    host_cache_bytes: int
    """Adapters kept in host memory, heads included, that a slot may want again."""
    adapters: dict[str, int]
    """Bytes of each adapter in a slot, head included. The same content under two names lies there
    once, and stands here under both."""
    resident_set_bytes: int
    """The whole process, as the operating system counts it."""
    device_bytes: int
    """Allocated on the CUDA device; 0 without one."""
