"""The hub: texts of any locale and task in, predictions out, one base for all of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import psutil
import torch

from ..adapters.loading import classify
from ..core.encoder import load_encoder
from ..core.engine import Engine
from ..core.errors import InputError, NoAdapterError
from ..core.locale import parse_locale
from ..registry import Registry, Resolution
from .residency import Residency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..core.packing import Row
    from ..registry import Version
    from .residency import Resident

    Text = str | tuple[str, str] | list[str]
    AdapterChoice = str | Mapping[str, float] | None

One = TypeVar("One")
ROWS_A_BATCH = 64


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
    """The best label; None: nothing answers for this locale."""
    score: float
    """Its probability."""
    scores: dict[str, float]
    """Every label's probability."""
    logits: tuple[float, ...]
    """What the head gave, in the order of the labels."""
    tokens: tuple[Token, ...] = ()
    """Labelled words, of a token classification."""
    answer: str | None = None
    """The answer of a question answering."""
    truncated: bool = False
    """Whether the text was cut to the longest that the base takes."""
    adapter: str | None
    """Name of the version, such as `intent/gsw-CH@3f2c9a41b7d2`."""
    resolution: Resolution
    """Why that version."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What a hub holds, in bytes."""

    base_bytes: int
    """Tensors of the base."""
    slot_bytes: int
    """Tensors of the adapters in slots."""
    head_bytes: int
    """Tensors of their heads."""
    host_cache_bytes: int
    """Adapters kept in host memory beside the slots."""
    adapters: dict[str, int]
    """Bytes of each adapter in a slot, head included."""
    resident_set_bytes: int
    """The whole process, as the operating system counts it."""
    device_bytes: int
    """Allocated on the CUDA device; 0 without one."""


class Hub:
    """One frozen base, and the adapters of a registry on top of it.

    Methods may be called from any thread; forwards run one after another.

    Args:
        registry: a registry, or its folder; None: the user's own.
        base: `mini`, a folder, or a Hub name.
        precision: `auto`, `fp32` or `bf16`.
        device: `auto`, `cpu`, `cuda`…
        slots: how many adapters are resident at once.

    Raises:
        BaseModelError: no such base.
        RegistryError: no such registry.
        PrecisionError: a precision or device that this machine lacks.
    """

    def __init__(
        self,
        registry: Registry | str | Path | None = None,
        *,
        base: str | Path = "mini",
        precision: str = "auto",
        device: str = "auto",
        slots: int = 64,
    ) -> None:
        if slots < 1:
            raise InputError(f"slots is {slots}; a hub needs at least one")
        self.registry = (
            registry if isinstance(registry, Registry) else Registry.open(registry, create=False)
        )
        self.engine = Engine(load_encoder(base, device=device, precision=precision), slots=slots)
        self._residency = Residency(self.engine, self.registry)
        self._lock = threading.RLock()

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
        """Classify texts, each for its own locale and task.

        Args:
            texts: each a str, a pair of them, or a list of words.
            task: one, or one per text.
            locale: one, or one per text.
            adapter: None (resolve by locale), or the name of a version; one, or one per text.
            alias: which alias answers.
            strict: raise when nothing answers for a locale; else its label is None.

        Returns:
            One prediction per text, in order.

        Raises:
            InputError: an empty text, or arguments of unequal number.
            InvalidLocaleError: a locale that is no BCP 47 tag.
            NoAdapterError: nothing answers for a locale; carries the trace.
            UnknownVersionError: a version that the registry lacks.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        requests: list[tuple[str, str, AdapterChoice]] = list(
            zip(
                _each("task", task, len(texts)),
                _each("locale", locale, len(texts)),
                _each("adapter", adapter, len(texts)),
                strict=True,
            )
        )
        chosen = {
            request: self._choose(*request, alias=alias, strict=strict)
            for request in dict.fromkeys(
                (task, locale, _single(adapter)) for task, locale, adapter in requests
            )
        }
        resolutions = [chosen[task, locale, _single(adapter)] for task, locale, adapter in requests]
        tokenized = self.engine.encoder.tokenize(
            [_joined(number, text) for number, text in enumerate(texts)]
        )
        predictions = [_no_answer(resolution) for resolution in resolutions]
        answered = [
            (place, row, resolution)
            for place, ((row, _), resolution) in enumerate(zip(tokenized, resolutions, strict=True))
            if resolution.version is not None
        ]
        with self._lock:
            batches = self._batches(answered)
        for batch in batches:
            for (place, _, resolution), (resident, logits) in zip(
                batch, self._run(batch), strict=True
            ):
                predictions[place] = _answer(
                    resolution, resident, logits, truncated=tokenized[place][1]
                )
        return predictions

    def load(self, locale: str, task: str, *, alias: str = "production") -> str:
        """Bring the adapter for a locale in, ahead of traffic; returns its version's name."""
        version = self._version_for(locale, task, alias)
        with self._lock:
            self._residency.bring_in([version])
        return version.name

    def pin(self, locale: str, task: str, *, alias: str = "production") -> str:
        """Bring the adapter for a locale in and keep it; returns its version's name."""
        version = self._version_for(locale, task, alias)
        with self._lock:
            self._residency.pin(version)
        return version.name

    def unload(self, name: str) -> bool:
        """Empty the slot of a version; says whether it was resident."""
        version = self.registry.version(name)
        with self._lock:
            return self._residency.unload(version.digest)

    def memory(self) -> Memory:
        """What the hub holds now."""
        with self._lock:
            residents = self._residency.residents()
            return Memory(
                base_bytes=self.engine.parameter_bytes(),
                slot_bytes=self.engine.bank.bytes(),
                head_bytes=sum(resident.adapter.head.own_bytes for resident in residents),
                host_cache_bytes=0,
                adapters={resident.version.name: resident.adapter.bytes for resident in residents},
                resident_set_bytes=psutil.Process().memory_info().rss,
                device_bytes=(
                    torch.cuda.memory_allocated(self.engine.encoder.device)
                    if self.engine.encoder.device.type == "cuda"
                    else 0
                ),
            )

    def _version_for(self, locale: str, task: str, alias: str) -> Version:
        resolution = self._choose(task, locale, None, alias=alias, strict=True)
        assert resolution.version is not None
        return resolution.version

    def _choose(
        self, task: str, locale: str, adapter: str | None, *, alias: str, strict: bool
    ) -> Resolution:
        """The version that answers a request, and why."""
        if adapter is not None:
            parse_locale(locale)  # a slip of the pen is one here too
            version = self.registry.version(adapter)
            if version.task != task:
                raise InputError(f"{version.name} does {version.task!r}, not {task!r}")
            return Resolution(
                requested=locale,
                locale=version.locale,
                version=version,
                stage="exact",
                distance=None,
                trace=(f"{version.name} was asked for by name",),
            )
        resolution = self.registry.resolve(locale, task, alias=alias)
        if resolution.version is None and strict:
            raise NoAdapterError(
                f"no {alias} adapter answers for task {task!r} and locale {locale!r} "
                f"({'; '.join(resolution.trace)}); publish one, or ask without strict",
                trace=resolution.trace,
            )
        return resolution

    def _batches(
        self, answered: list[tuple[int, Row, Resolution]]
    ) -> list[list[tuple[int, Row, Resolution]]]:
        """Cut into batches of at most ROWS_A_BATCH rows and as many adapters as find a slot.

        Rows of one adapter stay together, so that each is brought in once.
        """
        ordered = sorted(answered, key=lambda item: (_digest(item[2]), len(item[1].token_ids)))
        batches: list[list[tuple[int, Row, Resolution]]] = []
        adapters: set[str] = set()
        for item in ordered:
            adapters.add(_digest(item[2]))
            full = batches and len(batches[-1]) >= ROWS_A_BATCH
            if not batches or full or not self._residency.has_room_for(adapters):
                batches.append([])
                adapters = {_digest(item[2])}
            batches[-1].append(item)
        return batches

    def _run(self, batch: list[tuple[int, Row, Resolution]]) -> list[tuple[Resident, torch.Tensor]]:
        versions = {
            resolution.version.digest: resolution.version
            for _, _, resolution in batch
            if resolution.version is not None
        }
        with self._lock:
            residents = self._residency.bring_in(versions.values())
            rows = [
                replace(row, slot=residents[_digest(resolution)].slot)
                for _, row, resolution in batch
            ]
            heads = {resident.slot: resident.adapter.head for resident in residents.values()}
            logits = classify(self.engine, rows, heads)
        return [
            (residents[_digest(resolution)], row)
            for (_, _, resolution), row in zip(batch, logits, strict=True)
        ]


def _joined(number: int, text: Text) -> str | tuple[str, str]:
    """A list of words as one text; anything else as it is."""
    if not isinstance(text, list):
        return text
    if not all(isinstance(word, str) for word in text):
        raise InputError(f"text {number} is {text!r:.80}; a list must hold words")
    return " ".join(text)


def _digest(resolution: Resolution) -> str:
    assert resolution.version is not None
    return resolution.version.digest


def _each(name: str, value: One | list[One] | tuple[One, ...], count: int) -> Sequence[One]:
    """One value for all texts, or one per text."""
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise InputError(f"{len(value)} values of {name} for {count} texts; give one, or one each")
    return value


def _single(adapter: AdapterChoice) -> str | None:
    """The one version that is asked for."""
    if adapter is None or isinstance(adapter, str):
        return adapter
    if len(adapter) == 1 and set(adapter.values()) == {1.0}:
        return next(iter(adapter))
    raise InputError(
        f"adapter is a mixture of {len(adapter)}; this release serves one version per text"
    )


def _no_answer(resolution: Resolution) -> Prediction:
    return Prediction(
        label=None, score=0.0, scores={}, logits=(), adapter=None, resolution=resolution
    )


def _answer(
    resolution: Resolution, resident: Resident, logits: torch.Tensor, *, truncated: bool
) -> Prediction:
    probabilities = logits.softmax(-1).tolist()
    best = int(logits.argmax())
    labels = resident.adapter.spec.labels
    return Prediction(
        label=labels[best],
        score=probabilities[best],
        scores=dict(zip(labels, probabilities, strict=True)),
        logits=tuple(logits.tolist()),
        truncated=truncated,
        adapter=resident.version.name,
        resolution=resolution,
    )
