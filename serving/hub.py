"""The hub: texts of any locale and task in, answers out, one base for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np
import psutil

from ..core.encoder import load_encoder
from ..core.engine import Engine
from ..core.errors import InputError, NoAdapterError
from ..registry import Registry
from .decoding import decode
from .host_cache import HostCache
from .planning import EMBEDDING, Planner
from .prefetch import Prefetcher
from .residency import Residency
from .results import Memory, Prediction, Ranked
from .running import Runner
from .texts import check_texts, each, tokenize
from .watching import follow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    import torch
    from numpy.typing import NDArray

    from ..registry import Version
    from ..registry.changes import WatchState
    from .planning import AdapterChoice, Plan
    from .running import Answer
    from .texts import Job, Text

HOST_CACHE_BYTES = 256 << 20


class Hub:
    """One frozen base, and the adapters of a registry on top of it.

    Methods may be called from any thread; several may predict at once. Texts that are on their
    way are answered by the version that their call resolved to, whatever is promoted meanwhile.

    Args:
        registry: a registry, or its folder; None: the user's own.
        base: `mini`, a folder, or a Hub name.
        precision: `auto`, `fp32`, `bf16`, `int8` or `bitsandbytes`.
        device: `auto`, `cpu`, `cuda`…
        slots: how many adapters are resident at once.
        slot_bytes: bytes of each slot; None: what a LoRA adapter of rank 16 on every linear needs.
        host_cache_bytes: bytes of adapters that host memory keeps beside the slots.
        watch: hear of the registry's changes in a thread of its own, and go on with what is known
            while the registry is away; else each call looks there, and fails where it is away.

    Raises:
        BaseModelError: no such base.
        RegistryError: no such registry.
        PrecisionError: a precision or device that this machine lacks.
        InputError: fewer than one slot, or a negative number of bytes.
    """

    def __init__(
        self,
        registry: Registry | str | Path | None = None,
        *,
        base: str | Path = "mini",
        precision: str = "auto",
        device: str = "auto",
        slots: int = 64,
        slot_bytes: int | None = None,
        host_cache_bytes: int = HOST_CACHE_BYTES,
        watch: bool = True,
    ) -> None:
        if slots < 1:
            raise InputError(f"slots is {slots}; a hub needs at least one")
        if host_cache_bytes < 0 or (slot_bytes is not None and slot_bytes < 1):
            raise InputError(
                f"slot_bytes is {slot_bytes} and host_cache_bytes {host_cache_bytes}; give at "
                "least 1 and 0"
            )
        self.registry = (
            registry if isinstance(registry, Registry) else Registry.open(registry, create=False)
        )
        encoder = load_encoder(base, device=device, precision=precision)
        self.engine = Engine(encoder, slots=slots, slot_bytes=slot_bytes)
        self._host = HostCache(self.registry, encoder, capacity=host_cache_bytes)
        self._residency = Residency(self.engine.bank, self._host)
        self._runner = Runner(self.engine, base, self._residency)
        self._follower = follow(self.registry, self, Hub._catch_up) if watch else None
        self._prefetcher = Prefetcher(self.registry, self._host, self._follower)
        self._planner = Planner(self.registry, saw=self._prefetcher.saw, resolver=self._follower)
        if self._follower is not None:
            self._follower.start()

    @property
    def state(self) -> WatchState | None:
        """Whether changes of the registry are heard of, since when, and why not.

        While it is `away`, what is known goes on answering, and may be out of date. None: this hub
        doesn't watch.
        """
        return None if self._follower is None else self._follower.state

    def close(self) -> None:
        """End the threads that watch and read ahead; the registry stays open."""
        if self._follower is not None:
            self._follower.stop()
        self._prefetcher.close()

    def __enter__(self) -> Self:
        """Give the hub itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the threads that watch and read ahead."""
        self.close()

    def predict(
        self,
        texts: Sequence[Text] | str,
        *,
        task: str | list[str] | tuple[str, ...],
        locale: str | list[str] | tuple[str, ...],
        adapter: AdapterChoice | list[AdapterChoice] | tuple[AdapterChoice, ...] = None,
        alias: str = "production",
        strict: bool = True,
    ) -> list[Prediction]:
        """Answer texts, each for its own locale and task.

        Args:
            texts: each a str, a pair of them, or a list of words.
            task: one, or one per text.
            locale: one, or one per text.
            adapter: None (resolve by locale), the name of a version, or names with weights (a
                mixture); one, or one per text.
            alias: which alias answers.
            strict: raise when nothing answers for a locale; else its label is None. Embeddings
                and masked LM are answered by the bare base then.

        Returns:
            One prediction per text, in order.

        Raises:
            InputError: an empty text, one that its task doesn't take, too many texts, arguments
                of unequal number, or adapters that can't answer together.
            InvalidLocaleError: an ill-formed locale.
            NoAdapterError: nothing answers for a locale; carries the trace.
            UnknownVersionError: a version that the registry lacks.
            SlotTooSmallError: an adapter that is larger than a slot.
            AdapterError, BaseMismatchError, DamagedBlobError: an adapter that can't be used here.
                Other calls go on.
        """
        texts = check_texts(texts)
        plans = self._plan(len(texts), task, locale, adapter, alias=alias, strict=strict)
        piece = self.engine.encoder.rows.piece

        def finish(job: Job, output: torch.Tensor) -> Prediction:
            return Prediction(
                **decode(job, output, piece),
                truncated=job.tokenized.truncated,
                adapter=job.plan.name,
                resolution=job.plan.resolution,
            )

        answers = self._answer(texts, plans, finish)
        return [answers.get(place) or _no_answer(plan) for place, plan in enumerate(plans)]

    def embed(
        self,
        texts: Sequence[Text] | str,
        *,
        locale: str | list[str] | tuple[str, ...],
        task: str = EMBEDDING,
        adapter: AdapterChoice | list[AdapterChoice] | tuple[AdapterChoice, ...] = None,
        alias: str = "production",
    ) -> NDArray[np.float32]:
        """Vectors of texts; by the bare base, the mean over tokens, where no adapter answers.

        Args:
            texts: each a str, a pair of them, or a list of words.
            locale: one, or one per text.
            task: name of a task of type `embedding`.
            adapter: as in `predict`.
            alias: which alias answers.

        Returns:
            `[texts, width]`, each row of length 1.

        Raises:
            InputError: a task that gives no embeddings; else as `predict`.
            IsoglossError: as `predict`.
        """
        texts = check_texts(texts)
        plans = self._plan(len(texts), task, locale, adapter, alias=alias, strict=True)
        _check_type(plans, EMBEDDING, "embeds")
        vectors = np.empty((len(texts), self.engine.encoder.shape.hidden_size), dtype=np.float32)

        def finish(job: Job, vector: torch.Tensor) -> None:
            vectors[job.place] = vector.numpy()

        self._answer(texts, plans, finish)
        return vectors

    def rerank(
        self,
        query: str,
        texts: Sequence[str],
        *,
        locale: str,
        task: str = "search",
        adapter: AdapterChoice = None,
        alias: str = "production",
    ) -> list[Ranked]:
        """Order texts by how well they answer a query.

        Args:
            query: what is looked for.
            texts: what was found.
            locale: of the query.
            task: name of a task of type `reranking`.
            adapter: as in `predict`.
            alias: which alias answers.

        Returns:
            One entry per text, best first; equal ones in the order given.

        Raises:
            InputError: a task that doesn't rerank; else as `predict`.
            IsoglossError: as `predict`.
        """
        given = check_texts(texts)
        for number, text in enumerate(given):
            if not isinstance(text, str):
                raise InputError(f"text {number} is {text!r:.80}; reranking takes a str")
        # Equal texts run once: in two places of a batch their logits differ in the last digits.
        rows = {text: row for row, text in enumerate(dict.fromkeys(given))}
        pairs: list[Text] = [(query, text) for text in rows]  # type: ignore[misc]
        plans = self._plan(len(pairs), task, locale, adapter, alias=alias, strict=True)
        _check_type(plans, "reranking", "reranks")
        found = self._answer(pairs, plans, lambda _, logit: (logit.item(), logit.sigmoid().item()))
        # By the logits: probabilities near 1 are equal in 32 bits.
        answers = [found[rows[text]] for text in given]
        best = sorted(range(len(given)), key=lambda place: (-answers[place][0], place))
        return [Ranked(index=place, score=answers[place][1]) for place in best]

    def load(self, locale: str, task: str, *, alias: str = "production", wait: bool = True) -> str:
        """Bring the adapter for a locale in, ahead of traffic; returns its version's name.

        Args:
            locale: BCP 47 tag.
            task: the task's name.
            alias: which alias answers.
            wait: until it is in a slot; else it is read into host memory in the background.

        Raises:
            IsoglossError: as `predict`.
        """
        version = self._version_for(locale, task, alias)
        if not wait:
            self._prefetcher.read(version)
            return version.name
        with self._residency.lease([version]):
            return version.name

    def prefetch(self, locale: str, task: str, *, alias: str = "production") -> None:
        """Read in the background what may answer for a locale next: its other aliases' versions."""
        self._prefetcher.read_next(self._version_for(locale, task, alias))

    def pin(self, locale: str, task: str, *, alias: str = "production") -> str:
        """Bring the adapter for a locale in and keep it; returns its version's name."""
        version = self._version_for(locale, task, alias)
        self._residency.pin(version)
        return version.name

    def unload(self, name: str) -> bool:
        """Empty the slot of a version, pinned or not; says whether it was resident.

        Batches that use it finish first.
        """
        return self._residency.unload(self._planner.version(name).digest)

    def memory(self) -> Memory:
        """What the hub holds now."""
        import torch

        residents = self._residency.residents()
        device = self.engine.encoder.device
        return Memory(
            base_bytes=self.engine.parameter_bytes(),
            slot_bytes=sum(resident.nbytes for resident in residents),
            reserved_bytes=self.engine.bank.arena.nbytes,
            head_bytes=sum(resident.head_bytes for resident in residents),
            host_cache_bytes=self._host.nbytes,
            adapters={
                name: resident.nbytes + resident.head_bytes
                for resident in residents
                for name in resident.names.values()
            },
            resident_set_bytes=psutil.Process().memory_info().rss,
            device_bytes=torch.cuda.memory_allocated(device) if device.type == "cuda" else 0,
        )

    def _catch_up(self) -> None:
        self._prefetcher.catch_up()

    def _plan(
        self,
        count: int,
        task: str | list[str] | tuple[str, ...],
        locale: str | list[str] | tuple[str, ...],
        adapter: AdapterChoice | list[AdapterChoice] | tuple[AdapterChoice, ...],
        *,
        alias: str,
        strict: bool,
    ) -> list[Plan]:
        requests = list(
            zip(
                each("task", task, count),
                each("locale", locale, count),
                each("adapter", adapter, count),
                strict=True,
            )
        )
        return self._planner.plans(requests, alias=alias, strict=strict)

    def _answer(
        self,
        texts: Sequence[Text],
        plans: Sequence[Plan],
        finish: Callable[[Job, torch.Tensor], Answer],
    ) -> dict[int, Answer]:
        """Answers by the texts' places; none for those that nothing answers."""
        encoder = self.engine.encoder
        limits = dict.fromkeys(plans, encoder.shape.max_tokens)
        for plan in limits:
            for member in plan.members:
                if member.version.kind == "prefix":
                    limits[plan] -= self._host.shift(member.version)
        jobs = tokenize(texts, plans, [limits[plan] for plan in plans], encoder.rows)
        return self._runner.run(jobs, finish)

    def _version_for(self, locale: str, task: str, alias: str) -> Version:
        plan = self._planner.plan(task, locale, None, alias=alias, strict=True)
        version = plan.resolution.version
        if version is None:
            raise NoAdapterError(
                f"no {alias} adapter answers for task {task!r} and locale {locale!r}, only the "
                "bare base; publish one",
                trace=plan.resolution.trace,
            )
        return version


def _no_answer(plan: Plan) -> Prediction:
    return Prediction(
        label=None, score=0.0, scores={}, logits=(), adapter=None, resolution=plan.resolution
    )


def _check_type(plans: Sequence[Plan], task_type: str, does: str) -> None:
    for plan in plans:
        if plan.task_type != task_type:
            raise InputError(
                f"{plan.name or 'the bare base'} is of type {plan.task_type!r}; name a task that "
                f"{does}"
            )
