"""What each precision costs and gives, as ratios to fp32: bytes, speed, closeness.

`python -m benchmarks.precision --json`. Bytes, speed and the cosine of final hidden states are of
XLM-R-base's real shape with random weights, on the bare base, with texts of real lengths. Whether
decisions stay the same is asked of the embedded base and an adapter trained on real reviews, on
their dev set (without `ISOGLOSS_SHARED`, on the demo's messages).
"""

from __future__ import annotations

import json
import operator
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .harness import compare, conditions, one_thread, random_base, rounded, table
from .mixed_batch import rows_of, texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isogloss.core.engine import Engine
    from isogloss.core.packing import Row

PRECISIONS = ("bf16", "int8", "bitsandbytes")
ROWS = 32


def load(base: str | Path, precision: str) -> Engine:
    """An engine in a precision."""
    from isogloss.core.encoder import load_encoder
    from isogloss.core.engine import Engine

    return Engine(load_encoder(base, device="cpu", precision=precision), slots=1)


def closeness(one: Engine, other: Engine, rows: Sequence[Row]) -> tuple[float, float]:
    """Mean and smallest cosine of the tokens' final hidden states."""
    import torch

    (_, ours), (_, theirs) = one.forward(rows), other.forward(rows)
    cosines = torch.cosine_similarity(ours.float(), theirs.float(), dim=-1)
    return float(cosines.mean()), float(cosines.min())


def decisions(precisions: Sequence[str]) -> dict[str, Any]:
    """The share of a real dev set on which each precision decides as fp32 does."""
    from isogloss import Hub, Registry, TrainingConfig, train
    from isogloss.adapters.data import read_examples
    from isogloss.demo import SHOP

    shared = Path(os.environ.get("ISOGLOSS_SHARED") or Path(__file__).parents[2] / "shared")
    data, locale, task = shared / "data" / "nusax_senti" / "min-ID", "min-ID", "sentiment"
    if not data.is_dir():
        data, locale, task = SHOP / "gsw-CH", "gsw-CH", "intent"
    with tempfile.TemporaryDirectory() as folder:
        adapter = train(
            TrainingConfig(
                base="mini", locale=locale, task=task, data=str(data), out=f"{folder}/adapter"
            )
        )
        registry = Registry.open(f"{folder}/registry")
        registry.publish(adapter)
        dev = [example.text for example in read_examples(data / "dev.jsonl")]
        labels = {
            precision: [
                found.label
                for found in Hub(registry, base="mini", precision=precision, device="cpu").predict(
                    dev, task=task, locale=locale
                )
            ]
            for precision in ("fp32", *precisions)
        }
    return {
        "data": f"{data.parent.name}/{data.name}",
        "rows": len(dev),
        "labels": len(set(labels["fp32"])),
        "same": {
            precision: sum(map(operator.eq, labels[precision], labels["fp32"])) / len(dev)
            for precision in precisions
        },
    }


def measure(precisions: Sequence[str], *, runs: int, seed: int) -> dict[str, Any]:
    """All figures, by precision."""
    base = random_base("xlm-roberta-base")
    exact = load(base, "fp32")
    rows = rows_of(texts(ROWS, exact.encoder.shape, seed=seed), 0)
    results: dict[str, Any] = {"fp32": {"bytes": 1.0, "speed": 1.0, "cosine": 1.0}}
    results["fp32"]["measured_bytes"] = exact.parameter_bytes()
    for precision in precisions:
        engine = load(base, precision)
        mean, least = closeness(engine, exact, rows)

        def run(rows: Sequence[Row] = rows, engine: Engine = engine) -> object:
            return engine.forward(rows)

        speed = compare(lambda: exact.forward(rows), run, runs=runs).check()
        results[precision] = {
            "bytes": round(engine.parameter_bytes() / exact.parameter_bytes(), 4),
            "speed": round(speed.median, 3),
            "cosine": mean,
            "least_cosine": least,
            "measured_bytes": engine.parameter_bytes(),
            "timing": rounded(speed),
        }
        del engine
    same = decisions(precisions)
    for precision in precisions:
        results[precision]["same_decisions"] = same["same"][precision]
    results["decisions"] = {key: value for key, value in same.items() if key != "same"}
    return results


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--runs", default=9, show_default=True, help="Timed runs of each pair.")
@click.option("--seed", default=0, show_default=True, help="Of texts and lengths.")
@click.option("--precision", "precisions", multiple=True, default=PRECISIONS)
def main(as_json: bool, runs: int, seed: int, precisions: tuple[str, ...]) -> None:
    """Print bytes, speed and closeness of each precision, as ratios to fp32."""
    one_thread()
    results = measure(precisions, runs=runs, seed=seed)
    if as_json:
        about = {"base": "xlm-roberta-base's shape, random weights", **conditions(seed=seed)}
        click.echo(json.dumps(results | {"conditions": about}, indent=2))
        return
    heads = ("precision", "bytes", "speed", "cosine", "same decisions")
    lines: list[Sequence[object]] = [heads]
    lines += [
        (
            *(precision, results[precision]["bytes"], results[precision]["speed"]),
            *(f"{results[precision]['cosine']:.5f}", results[precision]["same_decisions"]),
        )
        for precision in precisions
    ]
    click.echo(table(lines))


if __name__ == "__main__":
    main()
