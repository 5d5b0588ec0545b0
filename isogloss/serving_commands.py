"""`predict`, `bench`, `doctor` and `demo`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import (
    alias_option,
    base_option,
    device_option,
    json_option,
    locale_option,
    open_registry,
    registry_option,
    task_option,
)
from .output import format_bytes, plain, print_json, print_table


@click.command()
@click.argument("texts", nargs=-1)
@locale_option
@task_option
@alias_option
@click.option("--adapter", help="This version instead of the one that the locale resolves to.")
@base_option
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@device_option
@click.option("--strict/--no-strict", default=True, help="Fail when nothing answers.")
@registry_option
@json_option
def predict(
    texts: tuple[str, ...],
    locale: str,
    task: str,
    alias: str,
    adapter: str | None,
    base: str,
    precision: str,
    device: str,
    strict: bool,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Classify TEXTS (or the lines of standard input) with a locale's adapter."""
    if not texts:
        texts = tuple(line.strip() for line in sys.stdin if line.strip())
    if not texts:
        raise click.UsageError("no texts; give them as arguments or on standard input")
    from .serving.hub import Hub

    with open_registry(registry_folder) as registry:
        hub = Hub(registry, base=base, precision=precision, device=device)
        predictions = hub.predict(
            list(texts), task=task, locale=locale, adapter=adapter, alias=alias, strict=strict
        )
    if as_json:
        print_json(
            [
                {"text": text, **plain(prediction)}
                for text, prediction in zip(texts, predictions, strict=True)
            ]
        )
        return
    print_table(
        ["text", "label", "score", "adapter", "stage"],
        [
            [
                text,
                prediction.label,
                prediction.score,
                prediction.adapter,
                prediction.resolution.stage,
            ]
            for text, prediction in zip(texts, predictions, strict=True)
        ],
    )


@click.group()
def bench() -> None:
    """Measure on this machine."""


@bench.command()
@base_option
@click.option(
    "--shape",
    help="Random weights in the shape of xlm-roberta-base or bert-base-multilingual-cased instead "
    "of --base.",
)
@click.option("--adapters", default="1,10,100", show_default=True, help="Numbers of adapters.")
@click.option("--copies", default=10, show_default=True, help="Full copies to load, at most.")
@click.option("--rank", default=8, show_default=True, help="Rank of the LoRA adapters.")
@click.option(
    "--targets", default="query,key,value,dense", show_default=True, help="Modules they change."
)
@click.option("--labels", default=7, show_default=True, help="Outputs of each head.")
@device_option
@json_option
def memory(
    base: str,
    shape: str | None,
    adapters: str,
    copies: int,
    rank: int,
    targets: str,
    labels: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure what a hub of many adapters costs, beside full copies of the base."""
    from .serving.memory_bench import MemoryBench, measure_memory

    try:
        counts = tuple(int(count) for count in adapters.split(","))
    except ValueError:
        raise click.UsageError(
            f"--adapters is {adapters!r}; give whole numbers separated by commas, such as 1,10,100"
        ) from None
    report = measure_memory(
        MemoryBench(
            base=base,
            shape=shape,
            adapters=counts,
            copies=copies,
            rank=rank,
            targets=tuple(targets.split(",")),
            labels=labels,
            device=device,
        )
    )
    if as_json:
        print_json(report)
        return
    click.echo(
        f"{report.base}: base {format_bytes(report.base_bytes)}, an adapter "
        f"{format_bytes(report.adapter_bytes)}, a full copy {format_bytes(report.full_copy_bytes)}"
    )
    print_table(
        [
            "adapters",
            "hub, measured",
            "predicted",
            "resident set",
            "load, ms each",
            "copies",
            "copies' resident set",
        ],
        [
            [
                row.adapters,
                format_bytes(row.measured_bytes),
                format_bytes(row.predicted_bytes),
                format_bytes(row.resident_set_bytes),
                row.load_ms,
                f"{format_bytes(row.full_copies_bytes)}"
                f"{'' if row.full_copies_measured else ' (computed)'}",
                format_bytes(row.full_copies_resident_set_bytes)
                if row.full_copies_resident_set_bytes is not None
                else "not loaded",
            ]
            for row in report.rows
        ],
    )


@click.command()
@registry_option
@json_option
def doctor(registry_folder: Path | None, as_json: bool) -> None:
    """Say what this machine has, and what is missing."""
    from .doctor import examine

    report = examine(registry_folder)
    if as_json:
        print_json(report)
        return
    print_table(["", ""], [[name, value] for name, value in report.facts.items()])
    print_table(
        ["precision", "works", "note"],
        [[check.name, check.works, check.note] for check in report.precisions],
    )
    for line in report.missing:
        click.echo(f"missing: {line}")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Keep adapters and registry here.")
@click.option(
    "--pairs",
    help="Pairs of standard and dialect, such as de-DE:gsw-CH,pt-PT:pt-BR; default: all four.",
)
@json_option
def demo(out: Path | None, pairs: str | None, as_json: bool) -> None:
    """Train adapters for a shop's messages, publish, load by locale, predict, see the memory."""
    from .demo import print_report, run_demo

    report = run_demo(out=out, pairs=pairs)
    if as_json:
        print_json(report)
        return
    print_report(report)
