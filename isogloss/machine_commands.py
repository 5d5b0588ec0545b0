"""`bench`, `doctor` and `demo`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import base_option, device_option, json_option, registry_option
from .output import format_bytes, print_json, print_table


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
