"""Ten thousand registered adapters, few slots: what is lost against having all of them resident.

`python -m benchmarks.residency --json`. XLM-R-base's real shape with random weights; LoRA of rank 2
on query and value, without heads, so that all fit beside one another for the comparison. Requests
come by Zipf's law with exponent 1: the first adapter is asked for ten thousand times as often as
the last. The registry is kept in the user's cache folder, and an interrupted run goes on there.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from platformdirs import user_cache_path

from isogloss import Hub, Registry
from isogloss.core.progress import Progress

from .adapters import write_lora
from .harness import conditions, lengths, one_thread, random_base, table
from .mixed_batch import TARGETS

if TYPE_CHECKING:
    from collections.abc import Sequence

RANK = 2
ROWS = 32
TASK = "embedding"
WORDS = ("order", "pedido", "päckli", "заказ", "retour", "dirección", "rechnung", "größe")


def locale_of(number: int) -> str:
    """The locale of an adapter."""
    return f"es-x-b{number:05}"


def fill(registry: Registry, base: Path, count: int) -> None:
    """Publish what is missing of `count` adapters."""
    there = {version.locale for version in registry.versions(task=TASK)}
    missing = [number for number in range(count) if locale_of(number) not in there]
    with Progress("publish", total=count) as progress, tempfile.TemporaryDirectory() as name:
        progress.advance(count - len(missing))
        for number in missing:
            folder = write_lora(
                Path(name) / str(number),
                base,
                locale=locale_of(number),
                task=TASK,
                rank=RANK,
                targets=TARGETS,
                seed=number,
            )
            registry.publish(folder, base=base, smoke=False)
            progress.advance()


def batches(count: int, adapters: int, *, seed: int) -> list[tuple[list[str], list[str]]]:
    """Texts of real lengths, and the locale of each by Zipf's law."""
    generator = np.random.default_rng(seed)
    weights = 1 / np.arange(1, adapters + 1)
    drawn = generator.choice(adapters, size=(count, ROWS), p=weights / weights.sum())
    return [
        (
            [
                # A word of the list is a piece or two in the embedded tokenizer.
                " ".join(generator.choice(WORDS, size=max(1, length // 2)))
                for length in lengths(ROWS, seed=seed + number)
            ],
            [locale_of(adapter) for adapter in row],
        )
        for number, row in enumerate(drawn)
    ]


def measure(
    precision: str, *, adapters: int, slots: int, runs: int, warm_up: int, seed: int
) -> dict[str, Any]:
    """Throughput with few slots, as a share of that with a slot for each adapter."""
    base = random_base("xlm-roberta-base")
    registry = Registry.open(user_cache_path("isogloss") / "benchmarks" / "residency-registry")
    fill(registry, base, adapters)

    def hub_of(slots: int) -> Hub:
        return Hub(
            registry, base=base, device="cpu", precision=precision, slots=slots, slot_bytes=1 << 19
        )

    with hub_of(slots) as few, hub_of(adapters) as all_of_them:
        with Progress("make all resident", total=adapters) as progress:
            for number in range(adapters):
                all_of_them.load(locale_of(number), TASK)
                progress.advance()
        traffic = batches(warm_up + runs, adapters, seed=seed)
        for texts, locales in traffic[:warm_up]:  # what a hub holds after a while of such traffic
            few.embed(texts, locale=locales)
        ours: list[float] = []
        theirs: list[float] = []
        misses: list[int] = []
        for number, (texts, locales) in enumerate(traffic[warm_up:]):
            resident = set(few.memory().adapters)
            sides = ((few, ours), (all_of_them, theirs))
            for hub, times in sides if number % 2 == 0 else reversed(sides):
                started = time.process_time()
                vectors = hub.embed(texts, locale=locales)
                times.append(time.process_time() - started)
                if number == 0 and hub is all_of_them:
                    check(vectors, few.embed(texts, locale=locales))
            names = {registry.resolve(locale, TASK).version.name for locale in set(locales)}  # type: ignore[union-attr]
            misses.append(len(names - resident))
    ratios = [full / part for full, part in zip(theirs, ours, strict=True)]
    return {
        "throughput": round(statistics.median(ratios), 3),
        "quartiles": [round(float(q), 3) for q in np.quantile(ratios, (0.25, 0.75))],
        "misses_a_batch": statistics.mean(misses),
        "seconds_a_batch": round(statistics.median(ours), 4),
    }


def check(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> None:
    """Both hubs must give the same vectors."""
    difference = float(np.abs(one - other).max())
    if difference > 1e-5:
        raise SystemExit(f"the hubs' vectors differ by {difference:.2g}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--adapters", default=10_000, show_default=True, help="Registered adapters.")
@click.option("--slots", default=64, show_default=True, help="Slots of the smaller hub.")
@click.option("--runs", default=25, show_default=True, help="Timed batches.")
@click.option("--warm-up", default=25, show_default=True, help="Batches before.")
@click.option("--seed", default=0, show_default=True, help="Of the traffic.")
@click.option("--precision", "precisions", multiple=True, default=("fp32", "int8"))
def main(
    *,
    as_json: bool,
    adapters: int,
    slots: int,
    runs: int,
    warm_up: int,
    seed: int,
    precisions: tuple[str, ...],
) -> None:
    """Print the throughput with few slots, over that with all adapters resident."""
    one_thread()
    results = {
        precision: measure(
            precision, adapters=adapters, slots=slots, runs=runs, warm_up=warm_up, seed=seed
        )
        for precision in precisions
    }
    if as_json:
        about = {"base": "xlm-roberta-base's shape, random weights", **conditions(seed=seed)}
        settings = {"adapters": adapters, "slots": slots, "rank": RANK}
        click.echo(json.dumps(results | settings | {"conditions": about}, indent=2))
        return
    lines: list[Sequence[object]] = [("precision", "throughput", "misses a batch of 32")]
    lines += [
        (precision, found["throughput"], found["misses_a_batch"])
        for precision, found in results.items()
    ]
    click.echo(table(lines))


if __name__ == "__main__":
    main()
