"""Training one LoRA adapter: isogloss's packed forward against PEFT and transformers' Trainer.

`python -m benchmarks.training --json`. XLM-R-base's real shape with random weights; texts and
labels of a real dataset (without `ISOGLOSS_SHARED`, random ones in real lengths); LoRA of rank 8 on
query and value, and a head. Trainer pads each batch to its longest text. Both sides see the same
batches with the same weights, optimizer and clipping, without dropout, so that their losses must
agree step by step. Every side runs in a process of its own, in turn, which also tells its peak
memory; a ratio is that of the CPU times of a run's steps, the first left out.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from .harness import Ratio, conditions, lengths, one_thread, random_base, rounded, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isogloss.core.base import BaseFiles

PRECISIONS = ("fp32", "int8")
PEER = "peft"
RANK, ALPHA = 8, 16
TARGETS = ("query", "value")
LEARNING_RATE = 2e-4
CLIP = 1.0
# How far losses may differ at any step: fp32 by rounding alone, int8 by what it rounds off.
TOLERANCE = {"fp32": 1e-3, "int8": 2e-2}

Examples = list[tuple[list[int], int]]


def examples(count: int, *, seed: int) -> tuple[str, Examples]:
    """The dataset's name, and token ids with a label, in a shuffled order."""
    from isogloss.core.encoder import load_tokenizer

    shared = Path(os.environ.get("ISOGLOSS_SHARED") or Path(__file__).parents[2] / "shared")
    path = shared / "data" / "nusax_senti" / "min-ID" / "train.jsonl"
    generator = np.random.default_rng(seed)
    if not path.is_file():
        sizes = lengths(count, seed=seed)
        return "random tokens, lengths lognormal(3.0, 0.7) in 4..128", [
            (generator.integers(5, 24_000, size).tolist(), int(generator.integers(3)))
            for size in sizes
        ]
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    labels = sorted({row["label"] for row in found})
    chosen = [found[at] for at in generator.permutation(len(found))[:count]]
    if len(chosen) < count:
        raise SystemExit(f"{path} has {len(found)} rows; run fewer --steps")
    ids = load_tokenizer(_base())([row["text"] for row in chosen])["input_ids"]
    return "nusax_senti/min-ID, tokens of the embedded base", [
        (row_ids, labels.index(row["label"])) for row_ids, row in zip(ids, chosen, strict=True)
    ]


def _base() -> BaseFiles:
    from isogloss.core.base import locate_base

    return locate_base(random_base("xlm-roberta-base"))


def model(precision: str | None, *, seed: int) -> Any:
    """A classifier with LoRA around it, the same for every side; None: as transformers has it."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from isogloss.core.encoder import quiet_transformers
    from isogloss.core.frozen import prepare_frozen

    base = _base()
    torch.manual_seed(seed)
    with quiet_transformers():
        from peft import LoraConfig, get_peft_model

        classifier = AutoModelForSequenceClassification.from_pretrained(
            base.folder, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )
    if precision is not None:
        prepare_frozen(classifier, base, precision=precision)  # type: ignore[arg-type]
    config = LoraConfig(task_type="SEQ_CLS", r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS))
    return get_peft_model(classifier, config)


def train_here(
    precision: str, data: Examples, *, batch: int, seed: int
) -> tuple[list[float], list[float]]:
    """Losses, and process CPU time at the end of each step."""
    import torch

    from isogloss.adapters.packed_training import PackedEncoder, classification_logits
    from isogloss.core.packing import Row

    peft_model = model(precision, seed=seed).train()
    encoder = PackedEncoder(peft_model, _base().shape)
    trained = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    losses, times = [], []
    for first in range(0, len(data), batch):
        part = data[first : first + batch]
        hidden, _ = encoder([Row(token_ids=tuple(ids)) for ids, _ in part], first_tokens=True)
        logits = classification_logits(peft_model, hidden)
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([label for _, label in part]))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, CLIP)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(time.process_time())
    return losses, times


def train_by_peer(data: Examples, *, batch: int, seed: int) -> tuple[list[float], list[float]]:
    """The same with transformers' Trainer."""
    import tempfile

    import torch
    from transformers import (
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    losses: list[float] = []
    times: list[float] = []

    class Clock(TrainerCallback):
        """Notes the time of each step, and what the trainer logs of it."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.process_time())

        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs is not None and "loss" in logs:
                losses.append(float(logs["loss"]))

    class InOrder(Trainer):
        """Takes the rows in the order in which they come."""

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(data)

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=CLIP,
            optim="adamw_torch_fused",
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            seed=seed,
        )
        trainer = InOrder(
            model=model(None, seed=seed),
            args=arguments,
            train_dataset=[{"input_ids": ids, "labels": label} for ids, label in data],
            data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(_base().folder)),
            callbacks=[Clock()],
        )
        trainer.train()
    return losses, times


def run_side(side: str, *, steps: int, batch: int, seed: int) -> dict[str, Any]:
    """One side in this process: losses, CPU seconds of each step after the first, peak bytes."""
    one_thread()
    _, data = examples(steps * batch, seed=seed)
    if side == PEER:
        losses, times = train_by_peer(data, batch=batch, seed=seed)
    else:
        losses, times = train_here(side, data, batch=batch, seed=seed)
    # Linux counts it in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "losses": losses,
        "seconds": np.diff(times).tolist(),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def in_process(side: str, *, steps: int, batch: int, seed: int) -> dict[str, Any]:
    """`run_side` in a fresh process."""
    options = {"--side": side, "--steps": steps, "--batch": batch, "--seed": seed}
    done = subprocess.run(  # noqa: S603  (this module)
        [
            *(sys.executable, "-W", "ignore", "-m", "benchmarks.training"),
            *(str(part) for option in options.items() for part in option),
        ],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compared(precision: str, ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, Any]:
    """The figures of one precision, over the rounds of both sides."""
    # Steps differ in how much is padded; rounds differ by noise alone.
    pairs = [
        (sum(peer["seconds"]), sum(own["seconds"])) for peer, own in zip(theirs, ours, strict=True)
    ]
    low, median, high = np.quantile([peer / own for peer, own in pairs], (0.25, 0.5, 0.75)).tolist()
    seconds = (statistics.median(p for p, _ in pairs), statistics.median(o for _, o in pairs))
    ratio = Ratio(median=median, low=low, high=high, seconds=seconds, runs=len(pairs)).check()
    losses, expected = ours[0]["losses"], theirs[0]["losses"]
    difference = max(abs(own - peer) for own, peer in zip(losses, expected, strict=True))
    if difference > TOLERANCE[precision]:
        raise SystemExit(
            f"{precision}: losses differ by {difference:.2g}: {losses} here, {expected} there"
        )
    return {
        "vs_peft": round(median, 3),
        "timing": rounded(ratio),
        "memory_vs_peft": round(ours[0]["peak_bytes"] / theirs[0]["peak_bytes"], 3),
        "losses": losses,
        "largest_loss_difference": difference,
    }


def measure(*, rounds: int, steps: int, batch: int, seed: int) -> dict[str, Any]:
    """All figures; the sides take turns."""
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in (PEER, *PRECISIONS)}
    for _ in range(rounds):
        for side, runs in found.items():
            runs.append(in_process(side, steps=steps, batch=batch, seed=seed))
    results: dict[str, Any] = {
        precision: compared(precision, found[precision], found[PEER]) for precision in PRECISIONS
    }
    results[PEER] = {"losses": found[PEER][0]["losses"]}
    results["memory"] = {side: max(run["peak_bytes"] for run in found[side]) for side in found}
    name, data = examples(steps * batch, seed=seed)
    parts = [data[first : first + batch] for first in range(0, len(data), batch)]
    results["data"] = {
        "name": name,
        "rows": len(data),
        "tokens": sum(len(ids) for ids, _ in data),
        "padded_tokens": sum(len(part) * max(len(ids) for ids, _ in part) for part in parts),
    }
    return results


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--rounds", default=2, show_default=True, help="How often the sides take turns.")
@click.option("--steps", default=6, show_default=True, help="Of each run; the first isn't timed.")
@click.option("--batch", default=16, show_default=True, help="Rows a step.")
@click.option("--seed", default=0, show_default=True, help="Of weights and order.")
@click.option("--side", type=click.Choice((PEER, *PRECISIONS)), hidden=True)
def main(
    *, as_json: bool, rounds: int, steps: int, batch: int, seed: int, side: str | None
) -> None:
    """Time a step of training, and its peak memory, on both sides."""
    if side is not None:
        click.echo(json.dumps(run_side(side, steps=steps, batch=batch, seed=seed)))
        return
    one_thread()
    results = measure(rounds=rounds, steps=steps, batch=batch, seed=seed)
    if as_json:
        about = {
            "base": "xlm-roberta-base's shape, random weights",
            "adapter": f"LoRA r={RANK} on {' and '.join(TARGETS)}, and a head",
            "batch": batch,
            "dropout": 0.0,
            "optimizer": f"AdamW, fused, lr {LEARNING_RATE:g}, gradients clipped at {CLIP:g}",
            **conditions(seed=seed),
        }
        click.echo(json.dumps(results | {"conditions": about}, indent=2))
        return
    lines: list[Sequence[object]] = [
        ("side", "times faster than PEFT", "peak memory, MB", "losses differ by", "last loss")
    ]
    for name in (PEER, *PRECISIONS):
        one = results[name]
        lines.append(
            (
                *(name, one.get("vs_peft", 1.0), results["memory"][name] // 1_000_000),
                *(f"{one.get('largest_loss_difference', 0.0):.1e}", f"{one['losses'][-1]:.4f}"),
            )
        )
    click.echo(table(lines))


if __name__ == "__main__":
    main()
