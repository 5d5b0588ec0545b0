"""The main job on a small scale: train, publish, load by locale code, predict, see the memory.

The messages in `shop/` were written for this project: what customers of a shop ask, in standard
varieties and in the dialects beside them.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .core.errors import InputError
from .core.progress import Progress
from .output import format_bytes, print_table

if TYPE_CHECKING:
    from .serving.hub import Hub
    from .serving.results import Memory, Prediction

SHOP = Path(__file__).parent / "shop"
TASK = "intent"
MOST_WORKERS = 4  # each holds its own torch and base, about 0.7 GB
PAIRS = (
    ("de-DE", "gsw-CH"),
    ("es-ES", "es-MX"),
    ("pt-PT", "pt-BR"),
    ("zh-Hant-HK", "yue-HK"),
)
# What a customer of each dialect asks the demo.
QUESTIONS = {
    "gsw-CH": "Wo isch mis Päckli?",
    "es-MX": "¿Cuánto cobran de envío a Mérida?",
    "pt-BR": "Cadê meu pedido?",
    "yue-HK": "我張單幾時到呀?",
}
# A standard variety or dialect, a locale near it without an adapter of its own, and a question.
FALLBACKS = {
    "pt-PT": ("pt-AO", "A minha encomenda para Luanda ainda não chegou."),
    "zh-Hant-HK": ("zh-Hant-MO", "送貨到澳門的運費是多少?"),
    "gsw-CH": ("gsw-CH-x-bern", "Was choschtet ds Porto uf Thun?"),
    "es-MX": ("es-MX-x-norte", "¿Qué talla me queda si mido 1.70?"),
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One dialect's test set, with two adapters."""

    standard: str
    """The standard variety."""
    dialect: str
    """The dialect, whose test set it is."""
    rows: int
    """Rows of the test set."""
    standard_accuracy: float
    """With the standard variety's adapter, 0..1."""
    own_accuracy: float
    """With the dialect's own adapter, 0..1."""


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What the demo showed."""

    base: str
    """The base."""
    comparisons: tuple[Comparison, ...]
    """A row per dialect."""
    answers: tuple[tuple[str, Prediction], ...]
    """Texts with their predictions: an exact locale, and one that falls back."""
    memory: Memory
    """The hub with all adapters resident."""
    full_copies_bytes: int
    """What as many fine-tuned copies of the base would hold, computed from the base's tensors."""
    seconds: float
    """Wall time."""


def run_demo(*, out: Path | None = None, pairs: str | None = None) -> DemoReport:
    """Run the demo.

    Args:
        out: keep adapters and registry here, and use what an earlier, interrupted demo left.
        pairs: `standard:dialect`, separated by commas; None: all.

    Raises:
        InputError: a pair that the demo has no messages for, or a folder with other files.
    """
    chosen = _choose_pairs(pairs)
    _check_out(out)
    scratch = tempfile.TemporaryDirectory() if out is None else nullcontext(str(out))
    with scratch as folder:
        return _run(Path(folder), chosen)


def _check_out(out: Path | None) -> None:
    """Refuse a folder with anything in it that no demo wrote."""
    if out is None or not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is no folder; give another path")
    ours = {locale for pair in PAIRS for locale in pair} | {"registry"}
    others = [path.name for path in out.iterdir() if path.name.partition(".")[0] not in ours]
    if others:
        raise InputError(f"{out} holds {others[0]}, which no demo wrote; give another folder")


def _choose_pairs(pairs: str | None) -> tuple[tuple[str, str], ...]:
    if pairs is None:
        return PAIRS
    known = {f"{standard}:{dialect}": (standard, dialect) for standard, dialect in PAIRS}
    names = [name.strip() for name in pairs.split(",")]
    for name in names:
        if name not in known:
            raise InputError(f"no messages for the pair {name!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in names)


def _run(folder: Path, pairs: tuple[tuple[str, str], ...]) -> DemoReport:
    from .adapters.data import read_examples
    from .registry import Registry
    from .serving.hub import Hub

    started = time.monotonic()
    locales = list(dict.fromkeys(locale for pair in pairs for locale in pair))
    _train_all(locales, folder)
    names = {}
    with Registry.open(folder / "registry") as registry:
        for locale in locales:
            names[locale] = registry.publish(folder / locale).name
            click.echo(f"published {names[locale]}", err=True)
        hub = Hub(registry, base="mini")
        comparisons = []
        for standard, dialect in pairs:
            examples = read_examples(SHOP / dialect / "test.jsonl")
            texts = [example.text for example in examples]
            gold = [example.label for example in examples]
            comparisons.append(
                Comparison(
                    standard=standard,
                    dialect=dialect,
                    rows=len(examples),
                    standard_accuracy=_accuracy(hub, texts, gold, dialect, names[standard]),
                    own_accuracy=_accuracy(hub, texts, gold, dialect, names[dialect]),
                )
            )
        return DemoReport(
            base="mini",
            comparisons=tuple(comparisons),
            answers=_answers(hub, pairs),
            memory=(memory := hub.memory()),
            full_copies_bytes=len(memory.adapters) * memory.base_bytes + memory.head_bytes,
            seconds=time.monotonic() - started,
        )


def _train_all(locales: list[str], folder: Path) -> None:
    """Train the adapters that aren't there yet, one process and one thread each.

    Batches of a few short messages gain nothing from a second thread, and lose much when another
    program wants the same core.
    """
    left = [locale for locale in locales if not (folder / locale).exists()]
    if not left:
        return
    workers = min(len(left), os.cpu_count() or 1, MOST_WORKERS)
    spawn = multiprocessing.get_context("spawn")
    with (
        Progress(f"training {len(left)} adapters", total=len(left), unit="adapters") as progress,
        ProcessPoolExecutor(workers, mp_context=spawn, initializer=_one_thread) as pool,
    ):
        running = {pool.submit(_train, locale, folder / locale): locale for locale in left}
        for done in as_completed(running):
            metrics = done.result()
            progress.advance()
            progress.say(
                f"trained {TASK}/{running[done]}: dev accuracy {metrics['accuracy']:.3f}, "
                f"macro-F1 {metrics['macro_f1']:.3f}"
            )


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _train(locale: str, out: Path) -> dict[str, float]:
    """Train one locale's adapter, or go on where an interrupted demo left it."""
    from .adapters.checkpoint import SETTINGS_FILE
    from .adapters.files import SPEC_FILE
    from .adapters.spec import AdapterSpec
    from .adapters.training import TrainingConfig, train

    config = TrainingConfig(
        base="mini",
        locale=locale,
        task=TASK,
        data=str(SHOP / locale),
        out=str(out),
        epochs=14,
        patience=6,
    )
    resume = (out.with_name(f"{out.name}.run") / SETTINGS_FILE).exists()
    folder = train(config, resume=resume, show_progress=False)
    return AdapterSpec.from_json((folder / SPEC_FILE).read_bytes()).metrics


def _accuracy(hub: Hub, texts: list[str], gold: list[str], locale: str, adapter: str) -> float:
    predictions = hub.predict(texts, task=TASK, locale=locale, adapter=adapter)
    right = sum(
        prediction.label == label for prediction, label in zip(predictions, gold, strict=True)
    )
    return right / len(gold)


def _answers(hub: Hub, pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, Prediction], ...]:
    """One text for an exact locale, and one for a locale that falls back."""
    dialect = pairs[0][1]
    trained = [locale for pair in pairs for locale in pair]
    near, question = FALLBACKS[next(locale for locale in FALLBACKS if locale in trained)]
    texts = [QUESTIONS[dialect], question]
    predictions = hub.predict(texts, task=TASK, locale=[dialect, near])
    return tuple(zip(texts, predictions, strict=True))


def print_report(report: DemoReport) -> None:
    """Print the report for people."""
    click.echo("\nLoaded by locale code:\n")
    for text, prediction in report.answers:
        click.echo(f"  {prediction.resolution.requested}: {text}")
        click.echo(f"    → {prediction.label} ({prediction.score:.2f}) by {prediction.adapter}")
        for step in prediction.resolution.trace:
            click.echo(f"      {step}")
    click.echo("\nAccuracy on the dialect's own test set:\n")
    print_table(
        ["dialect", "rows", "standard variety's adapter", "its own adapter"],
        [
            [
                row.dialect,
                row.rows,
                f"{row.standard_accuracy:.3f}  ({row.standard})",
                f"{row.own_accuracy:.3f}",
            ]
            for row in report.comparisons
        ],
    )
    memory = report.memory
    total = memory.base_bytes + memory.slot_bytes + memory.head_bytes
    click.echo("\nMemory, bytes of tensors:\n")
    print_table(
        ["what", "bytes"],
        [
            [f"the base {report.base}, once", format_bytes(memory.base_bytes)],
            *([name, format_bytes(size)] for name, size in memory.adapters.items()),
            [f"base and {len(memory.adapters)} adapters", format_bytes(total)],
            [
                f"{len(memory.adapters)} full copies (computed)",
                format_bytes(report.full_copies_bytes),
            ],
        ],
    )
    click.echo(
        f"\n{report.seconds:.0f} s. At XLM-R's size: isogloss bench memory --shape xlm-roberta-base"
    )
