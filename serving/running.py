"""Texts through the engine, batch by batch, each batch with its adapters leased."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from ..adapters.heads import EmbeddingHead, apply_heads, mix_heads
from ..adapters.lm_head import base_lm_head
from ..core.base import locate_base
from ..core.packing import Row
from .mixtures import LANGUAGE
from .texts import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import torch

    from ..adapters.heads import Head
    from ..core.engine import Engine
    from ..core.packing import PackedBatch
    from .planning import Plan
    from .residency import Residency, Resident
    from .texts import Job

Answer = TypeVar("Answer")


class Runner:
    """Runs texts on one engine; threads may use it at once.

    Args:
        engine: the resident base.
        base: its name or folder, in which its masked-LM head is looked for when one is needed.
        residency: what is in its slots.
    """

    def __init__(self, engine: Engine, base: str | Path, residency: Residency) -> None:
        self._engine = engine
        self._base = base
        self._residency = residency
        self._lm_head: Head | None = None
        self._lm_head_lock = threading.Lock()

    def run(
        self, jobs: Sequence[Job], finish: Callable[[Job, torch.Tensor], Answer]
    ) -> dict[int, Answer]:
        """Answer texts, by their places.

        Args:
            jobs: the texts.
            finish: makes an answer of what a text's head gave, fp32, on the CPU. It is called as
                soon as that is there, since a masked LM gives a megabyte a mask.

        Raises:
            InputError: a text with more adapters than there are slots that others haven't pinned.
            UnsupportedBaseError: a masked LM on a base that was saved without its head.
            AdapterError, BaseMismatchError, RegistryError: an adapter that can't be used.
        """
        answers: dict[int, Answer] = {}
        for batch in batches(jobs, self._engine.bank.slots, self._residency.pinned):
            self._run(batch, finish, answers)
        return answers

    def _run(
        self,
        batch: Sequence[Job],
        finish: Callable[[Job, torch.Tensor], Answer],
        answers: dict[int, Answer],
    ) -> None:
        plans = list(dict.fromkeys(job.plan for job in batch))
        versions = {
            member.version.digest: member.version for plan in plans for member in plan.members
        }
        # Leased until the answers are on the CPU: a device computes on after it was called.
        with self._residency.lease(versions.values()) as residents:
            mixes = {
                plan: tuple(
                    (residents[member.version.digest].slot, member.weight)
                    for member in plan.members
                )
                for plan in plans
            }
            heads = {plan: _head(plan, residents) for plan in plans}
            rows = [
                Row(
                    token_ids=job.tokenized.row.token_ids,
                    type_ids=job.tokenized.row.type_ids,
                    mix=mixes[job.plan],
                )
                for job in batch
            ]
            packed, hidden = self._engine.forward(rows)
            outputs = apply_heads(packed, hidden, [heads[job.plan] for job in batch])
            for place, (job, output) in enumerate(zip(batch, outputs, strict=True)):
                found = self._fill_masks(job, packed, place, hidden) if output is None else output
                answers[job.place] = finish(job, found)

    def _fill_masks(
        self, job: Job, packed: PackedBatch, place: int, hidden: torch.Tensor
    ) -> torch.Tensor:
        """`[masks, vocabulary]`: no other token of the text is scored."""
        import torch

        begin = packed.rows[place][0]
        ranges = [(begin + mask, begin + mask + 1) for mask in job.masks]
        with torch.inference_mode():
            return torch.cat(list(self._base_lm_head()(hidden, ranges))).cpu()

    def _base_lm_head(self) -> Head:
        with self._lm_head_lock:
            if self._lm_head is None:
                self._lm_head = base_lm_head(self._engine.encoder, locate_base(self._base))
            return self._lm_head


def _head(plan: Plan, residents: Mapping[str, Resident]) -> Head | None:
    """What answers; None: the base's masked-LM head."""
    if plan.task_type == LANGUAGE:
        return None
    if not plan.answering:
        return EmbeddingHead(pooling="mean")
    parts = []
    for member in plan.answering:
        head = residents[member.version.digest].head
        assert head is not None, "only masked LM has no head of its own"
        parts.append((head, member.weight))
    return mix_heads(parts)
