"""Trying a version out on its base, before an alias points to it. Needs torch, once it is used."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.base import EMBEDDED, fingerprint, locate_base
from ..core.errors import (
    BaseModelError,
    BaseNotFoundError,
    SmokeTestError,
    UnsupportedAdapterError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from ..adapters.loading import LoadedAdapter
    from ..core.engine import Engine
    from .records import Signature, Version

# Lengths of the texts that are tried, special tokens included; ids are spread over the vocabulary.
_LENGTHS = (3, 7, 12)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A version that is to be tried."""

    version: Version
    """What it is."""
    read: Callable[[], Mapping[str, bytes]]
    """Gives its files; called only where they are needed."""
    base: Path | None = None
    """Folder of its base; None: look on this machine for the name that it records."""
    signatures: tuple[Signature, ...] = ()
    """Signatures that come along with it."""


class Trials:
    """Tries versions out; keeps the base of the last one. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._engine: Engine | None = None
        # What couldn't be loaded won't be the next time.
        self._broken: dict[Path, BaseModelError] = {}
        # Bases that were given by their folder, by fingerprint.
        self._seen: dict[str, Path] = {}

    def close(self) -> None:
        """Let go of the base."""
        with self._lock:
            self._folder = self._engine = None

    def smoke(self, candidate: Candidate) -> str | None:
        """Run a few rows through a version: it must load, and answer with finite numbers.

        Returns:
            None, or why it could not be tried: its base is not on this machine, or can't be
            loaded.

        Raises:
            SmokeTestError: its answers are not finite, or not of the shape that its task has.
            AdapterError, BaseMismatchError: it doesn't fit its base.
        """
        with self._lock:
            try:
                engine = self._open(self._locate(candidate))
            except BaseModelError as error:
                return str(error)
            engine, adapter = self._put(engine, candidate)
            answers = _answers(engine, adapter)
        for answer, length in answers:
            _check(candidate.version, answer, length)
        return None

    def figures(self, candidate: Candidate, data: Path) -> dict[str, float]:
        """Metrics of a version on labelled rows.

        Raises:
            BaseModelError: its base is not on this machine, or can't be loaded.
            AdapterError: it doesn't fit its base, or is of a task that can't be evaluated.
            DataError: data that can't be used, or that has labels which the version lacks.
        """
        from ..adapters.data import check_labels, read_examples
        from ..adapters.evaluation import judge

        version = candidate.version
        if version.task_type != "sequence-classification":
            raise UnsupportedAdapterError(
                f"{version.name} is of type {version.task_type!r}; this release evaluates sequence "
                "classification: leave data out, so that stored metrics are compared"
            )
        examples = read_examples(data)
        check_labels(examples, version.labels, data)
        with self._lock:
            engine, adapter = self._put(self._open(self._locate(candidate)), candidate)
            return judge(engine, adapter, examples).metrics

    def _locate(self, candidate: Candidate) -> Path:
        version = candidate.version
        if candidate.base is not None:
            return candidate.base
        seen = self._seen.get(version.base_fingerprint or "")
        if seen is not None:
            return seen
        if _is_here(version.base):
            found = locate_base(version.base)
            if version.base_fingerprint in (None, fingerprint(found).digest):
                return found.folder
        raise BaseNotFoundError(
            f"the base {version.base!r} of {version.name} is not on this machine; name it (--base)"
        )

    def _open(self, folder: Path, *, slot_bytes: int | None = None) -> Engine:
        """The base with one slot; the caller holds the lock."""
        if self._folder == folder and self._engine is not None and slot_bytes is None:
            return self._engine
        if folder in self._broken:
            raise self._broken[folder]
        from ..core.encoder import load_encoder
        from ..core.engine import Engine

        self._folder = self._engine = None
        try:
            # Apart from a device that may be serving, and the same on every machine.
            encoder = load_encoder(folder, device="cpu", precision="fp32")
        except BaseModelError as error:
            self._broken[folder] = error
            raise
        _mind_forks()
        self._engine = Engine(encoder, slots=1, slot_bytes=slot_bytes)
        self._folder = folder
        return self._engine

    def _put(self, engine: Engine, candidate: Candidate) -> tuple[Engine, LoadedAdapter]:
        """Load a version into the slot, or into that of another engine where it is too large."""
        from ..adapters.loading import load_adapter
        from ..core.delta import SlotImage

        adapter = load_adapter(candidate.read(), engine.encoder)
        assert self._folder is not None
        self._seen[engine.encoder.fingerprint] = self._folder
        image = SlotImage.of(adapter.delta)
        if image.nbytes > engine.bank.slot_bytes:
            engine = self._open(self._folder, slot_bytes=image.nbytes)
        engine.bank.put(0, image)
        return engine, adapter


def _is_here(base: str) -> bool:
    """Whether a base can be had by its name without asking a server for it."""
    if base == EMBEDDED or Path(base).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(base, "config.json"), str)
    except HFValidationError:
        return False


def _answers(engine: Engine, adapter: LoadedAdapter) -> list[tuple[torch.Tensor, int]]:
    """What a few rows are answered, and how many tokens each has."""
    from ..adapters.heads import apply_heads
    from ..core.packing import Row

    shape = engine.encoder.shape
    prefix = engine.bank.prefix(0)
    longest = max(1, shape.max_tokens - (prefix.length if prefix is not None else 0))
    # Any ids will do but that of padding, which has a position of its own.
    ids = [token for token in range(shape.vocab_size) if token != shape.pad_token_id]
    step = max(1, len(ids) // _LENGTHS[-1])
    rows = [
        Row(token_ids=tuple(ids[::step][: min(length, longest)]), mix=((0, 1.0),))
        for length in _LENGTHS
    ]
    batch, hidden = engine.forward(rows)
    if adapter.head is None:
        answers = [hidden[begin:end] for begin, end in batch.rows]
    else:
        found = apply_heads(batch, hidden, [adapter.head] * len(rows))
        answers = [answer for answer in found if answer is not None]
    lengths = [len(row.token_ids) for row in rows]
    return list(zip(answers, lengths, strict=True))


def _check(version: Version, answer: torch.Tensor, length: int) -> None:
    import torch

    labels = len(version.labels)
    wanted = {
        "sequence-classification": (labels,),
        "reranking": (1,),
        "token-classification": (length, labels),
        "question-answering": (length, 2),
    }.get(version.task_type)
    got = tuple(answer.shape)
    if wanted is not None and got != wanted:
        raise SmokeTestError(
            f"{version.name} gives answers of shape {list(got)} where {version.task_type} has "
            f"{list(wanted)}; train it again"
        )
    if not torch.isfinite(answer).all():
        raise SmokeTestError(
            f"{version.name} answers with NaN or infinity on its own base, although its weights "
            "are finite; train it again"
        )


@cache
def _mind_forks() -> None:
    """A forked child has none of its parent's threads: without this it may wait for them."""
    os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)
