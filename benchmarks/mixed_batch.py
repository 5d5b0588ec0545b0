"""One batch, as many adapters as rows: isogloss against PEFT's `adapter_names`.

`python -m benchmarks.mixed_batch --json`. XLM-R-base's real shape with random weights; lengths as
in real traffic; LoRA of rank 8 on query and value. PEFT pads the batch, and is given the same
adapters; both sides' hidden states are compared before anything is timed. PEFT serves neither
prefixes nor bottlenecks in a mixed batch: there only the cost over the bare base is told.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from isogloss.core.progress import Progress

from .harness import compare, conditions, lengths, one_thread, random_base, rounded, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from peft import PeftModel

    from isogloss.core.base import EncoderShape
    from isogloss.core.delta import Delta
    from isogloss.core.engine import Engine
    from isogloss.core.packing import Row

RANK = 8
TARGETS = ("query", "value")
PREFIX_LENGTH = 16
BOTTLENECK_SIZE = 48
MOST = 128
# (rows, adapters): beyond 32 adapters a batch of 32 rows couldn't use them all.
SIZES = ((32, 1), (32, 8), (32, 32), (MOST, MOST))
HEADLINE = ("lora", 32, 32)
KINDS = ("lora", "prefix", "bottleneck", "mixed")


def low_rank(shape: EncoderShape, generator: torch.Generator) -> Delta:
    """A random LoRA adapter on query and value."""
    import torch

    from isogloss.core.delta import Delta, LowRank

    return Delta(
        low_rank={
            name: LowRank(
                down=torch.randn(RANK, columns, generator=generator) / columns**0.5,
                up=torch.randn(rows, RANK, generator=generator) / 16,
            )
            for name, (rows, columns) in shape.linears().items()
            if name.endswith(TARGETS)
        }
    )


def prefix(shape: EncoderShape, generator: torch.Generator) -> Delta:
    """A random prefix."""
    import torch

    from isogloss.core.delta import Delta, Prefix

    size = (shape.layers, PREFIX_LENGTH, shape.hidden_size)
    return Delta(
        prefix=Prefix(
            keys=torch.randn(*size, generator=generator),
            values=torch.randn(*size, generator=generator),
            shifts_positions=False,
        )
    )


def bottleneck(shape: EncoderShape, generator: torch.Generator) -> Delta:
    """A random bottleneck in Pfeiffer's placement, reduced sixteenfold."""
    import torch

    from isogloss.core.delta import Bottleneck, Delta

    width, size = shape.hidden_size, BOTTLENECK_SIZE
    return Delta(
        bottlenecks={
            f"encoder.layer.{layer}.output.LayerNorm": Bottleneck(
                down=torch.randn(size, width, generator=generator) / width**0.5,
                down_bias=torch.zeros(size),
                up=torch.randn(width, size, generator=generator) / 16,
                up_bias=torch.zeros(width),
                activation="relu",
            )
            for layer in range(shape.layers)
        }
    )


def adapters(kind: str, count: int, shape: EncoderShape, *, seed: int) -> list[Delta]:
    """Random adapters of a kind, or of each kind in turn."""
    import torch

    makers = {"lora": (low_rank,), "prefix": (prefix,), "bottleneck": (bottleneck,)}
    chosen = makers.get(kind, (low_rank, prefix, bottleneck))
    generator = torch.Generator().manual_seed(seed)
    return [chosen[number % len(chosen)](shape, generator) for number in range(count)]


def texts(rows: int, shape: EncoderShape, *, seed: int) -> list[tuple[int, ...]]:
    """Random token ids in real lengths."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    return [
        tuple(torch.randint(5, shape.vocab_size, (length,), generator=generator).tolist())
        for length in lengths(rows, seed=seed)
    ]


def rows_of(batch: Sequence[tuple[int, ...]], count: int) -> list[Row]:
    """Rows over `count` adapters in turn; 0: the bare base."""
    from isogloss.core.packing import Row

    return [
        Row(token_ids=ids, mix=((number % count, 1.0),) if count else ())
        for number, ids in enumerate(batch)
    ]


class Peer:
    """PEFT on the same base with the same LoRA adapters."""

    def __init__(self, base: str, deltas: Sequence[Delta]) -> None:
        import torch
        from peft import LoraConfig, PeftModel
        from transformers import AutoModel

        model = AutoModel.from_pretrained(base, add_pooling_layer=False, dtype=torch.float32)
        config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS))
        self.model: PeftModel = PeftModel(model, config, adapter_name="0")
        for number in range(1, len(deltas)):
            self.model.add_adapter(str(number), config)
        peft: Any = self.model
        for number, delta in enumerate(deltas):
            for name, update in delta.low_rank.items():
                layer: Any = peft.base_model.model.get_submodule(name)
                layer.lora_A[str(number)].weight.data.copy_(update.down)
                layer.lora_B[str(number)].weight.data.copy_(update.up)
        self.model.eval()

    def prepare(self, batch: Sequence[tuple[int, ...]], count: int) -> Callable[[], torch.Tensor]:
        """A function that runs the padded batch; `[rows, longest, width]`."""
        import torch

        longest = max(map(len, batch))
        ids = torch.ones(len(batch), longest, dtype=torch.long)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for number, row in enumerate(batch):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1
        names = [str(number % count) for number in range(len(batch))]

        def run() -> torch.Tensor:
            with torch.inference_mode():
                output = self.model(input_ids=ids, attention_mask=mask, adapter_names=names)
            hidden: torch.Tensor = output.last_hidden_state
            return hidden

        return run


def agreement(engine: Engine, rows: Sequence[Row], expected: torch.Tensor) -> tuple[float, float]:
    """Largest difference from PEFT's hidden states, and smallest cosine."""
    import torch

    batch, hidden = engine.forward(rows)
    worst, cosine = 0.0, 1.0
    for number, (begin, end) in enumerate(batch.rows):
        ours, theirs = hidden[begin:end].float(), expected[number, : end - begin]
        worst = max(worst, float((ours - theirs).abs().max()))
        cosine = min(cosine, float(torch.cosine_similarity(ours, theirs, dim=-1).min()))
    return worst, cosine


def measure(
    precision: str,
    base: str,
    peer: Peer,
    cases: Sequence[tuple[str, int, int]],
    *,
    runs: int,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """All figures of one precision; `cases` are kind, rows and adapters."""
    from isogloss.core.delta import SlotImage
    from isogloss.core.encoder import load_encoder
    from isogloss.core.engine import Engine

    engine = Engine(load_encoder(base, device="cpu", precision=precision), slots=MOST)
    shape = engine.encoder.shape
    result: dict[str, Any] = {"table": []}
    in_slots = ""
    for kind, size, count in cases:
        if kind != in_slots:
            for slot, delta in enumerate(adapters(kind, MOST, shape, seed=seed)):
                engine.bank.put(slot, SlotImage.of(delta))
            in_slots = kind
        batch = texts(size, shape, seed=seed)
        mixed, bare = rows_of(batch, count), rows_of(batch, 0)

        def run(rows: list[Row]) -> Callable[[], object]:
            return lambda: engine.forward(rows)

        # Four times the rows take four times as long, and vary less.
        turns = max(2, runs * SIZES[0][0] // size)
        over = compare(run(mixed), run(bare), runs=2 * turns).check()
        line: dict[str, Any] = {
            "kind": kind,
            "adapters": count,
            "rows": size,
            "tokens": sum(map(len, batch)),
            "padded_tokens": size * max(map(len, batch)),
            "over_base": rounded(over),
        }
        if kind == "lora":
            theirs = peer.prepare(batch, count)
            difference, cosine = agreement(engine, mixed, theirs())
            if difference > 1e-4 if precision == "fp32" else cosine < 0.99:
                raise SystemExit(
                    f"{precision}: both sides differ by {difference:.2g}, cosine {cosine:.5f}"
                )
            # Both sides have just run: no further warm-up.
            faster = compare(theirs, run(mixed), runs=turns, warm_up=0).check()
            line |= {"vs_peft": rounded(faster), "difference": difference, "cosine": cosine}
        result["table"].append(line)
        if (kind, size, count) == HEADLINE:
            result |= {
                "vs_peft": line["vs_peft"]["median"],
                "over_base": line["over_base"]["median"],
            }
        progress.advance(note=f"{precision} {kind} {count}")
    return result


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--runs", default=7, show_default=True, help="Timed runs of each pair.")
@click.option("--seed", default=0, show_default=True, help="Of weights, texts and lengths.")
@click.option("--precision", "precisions", multiple=True, default=("fp32", "int8"))
@click.option("--whole/--headline", default=True, help="All kinds and numbers, or 32 LoRA alone.")
def main(as_json: bool, runs: int, seed: int, precisions: tuple[str, ...], whole: bool) -> None:
    """Print times over PEFT and over the bare base."""
    from isogloss.core.base import locate_base
    from isogloss.core.encoder import quiet_transformers

    one_thread()
    base = str(random_base("xlm-roberta-base"))
    with quiet_transformers():
        peer = Peer(base, adapters("lora", MOST, locate_base(base).shape, seed=seed))
    cases = [(kind, *size) for kind in KINDS for size in SIZES] if whole else [HEADLINE]
    with Progress("mixed batch", total=len(cases) * len(precisions)) as progress:
        results = {
            precision: measure(
                precision, base, peer, cases, runs=runs, seed=seed, progress=progress
            )
            for precision in precisions
        }
    if as_json:
        about = {"base": "xlm-roberta-base's shape, random weights", **conditions(seed=seed)}
        click.echo(json.dumps(results | {"conditions": about}, indent=2))
        return
    for precision, found in results.items():
        lines: list[Sequence[object]] = [
            ("kind", "adapters", "rows", "over the bare base", "faster than PEFT (fp32, padded)")
        ]
        for line in found["table"]:
            faster = line.get("vs_peft", {}).get("median", "PEFT doesn't serve it")
            lines.append(
                (line["kind"], line["adapters"], line["rows"], line["over_base"]["median"], faster)
            )
        click.echo(f"{precision}\n{table(lines)}\n")


if __name__ == "__main__":
    main()
