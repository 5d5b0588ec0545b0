"""`pretrain`, `train` and `evaluate`."""

from __future__ import annotations

from pathlib import Path

import click

from .options import (
    base_option,
    device_option,
    json_option,
    labels_option,
    locale_option,
    split_labels,
    task_option,
)
from .output import print_json, print_table

RESUME = click.option("--resume", is_flag=True, help="Go on with an interrupted run.")


@click.command()
@base_option
@locale_option
@task_option
@click.option("--data", required=True, help="Folder with train.jsonl and dev.jsonl, or one file.")
@click.option("--out", required=True, help="The adapter folder to write.")
@click.option("--kind", default="lora", show_default=True, help="Kind of adapter.")
@click.option("--rank", default=8, show_default=True, help="Rank of the low-rank updates.")
@click.option("--alpha", type=float, help="LoRA's alpha; default: twice the rank.")
@click.option("--dropout", type=float, help="Dropout in the head.")
@click.option("--targets", help="Linear modules to change, such as query,value.")
@click.option("--epochs", type=int, help="The most passes over the data.")
@click.option("--patience", type=int, help="Epochs without a better dev macro-F1 before it stops.")
@click.option("--batch-size", type=int, help="Rows a step.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@click.option("--seed", default=0, show_default=True, help="Weights, order, dropout.")
@device_option
@RESUME
@json_option
def train(resume: bool, as_json: bool, targets: str | None, **settings: object) -> None:
    """Train an adapter for one locale and task on a frozen base."""
    from .adapters.files import SPEC_FILE
    from .adapters.spec import AdapterSpec
    from .adapters.training import TrainingConfig
    from .adapters.training import train as run

    given = {name: value for name, value in settings.items() if value is not None}
    if targets is not None:
        given["targets"] = tuple(name.strip() for name in targets.split(",") if name.strip())
    folder = run(TrainingConfig(**given), resume=resume)  # type: ignore[arg-type]
    spec = AdapterSpec.from_json((folder / SPEC_FILE).read_bytes())
    if as_json:
        print_json({"folder": str(folder), "metrics": spec.metrics, "labels": spec.labels})
        return
    print_table(
        ["folder", "dev accuracy", "dev macro-F1", "labels"],
        [[str(folder), spec.metrics["accuracy"], spec.metrics["macro_f1"], len(spec.labels)]],
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="JSON lines with text and label."
)
@click.option("--base", help="Name or folder of the base; default: the one recorded.")
@labels_option
@device_option
@json_option
def evaluate(
    folder: Path,
    data: Path,
    base: str | None,
    labels: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Judge an adapter folder on labelled rows: accuracy and macro-F1."""
    from .adapters.evaluation import evaluate as run

    result = run(folder, data, base=base, labels=split_labels(labels), device=device)
    if as_json:
        print_json(result)
        return
    print_table(["metric", "value"], [[name, value] for name, value in result.metrics.items()])
    print_table(["label", "F1"], [[name, value] for name, value in result.per_label.items()])


@click.command()
@click.option(
    "--data",
    multiple=True,
    required=True,
    help="Folder with <locale>/train.jsonl; may be given several times.",
)
@click.option("--out", required=True, help="The model folder to write.")
@click.option("--vocab-size", type=int, help="Pieces of the tokenizer.")
@click.option("--hidden-size", type=int, help="Width.")
@click.option("--layers", type=int, help="Transformer layers.")
@click.option("--heads", type=int, help="Attention heads a layer.")
@click.option("--max-length", type=int, help="Longest sequence in tokens.")
@click.option("--tokens", type=int, help="Tokens to train on.")
@click.option("--batch-tokens", type=int, help="Tokens a step.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--bag-weight", type=float, help="Weight of the bag-of-words loss on <s>.")
@click.option("--temperature", type=float, help="Exponent of the sampling weights of locales.")
@click.option("--tokenizer-characters", type=int, help="Text for the tokenizer, in characters.")
@click.option("--checkpoint-steps", type=int, help="Steps between checkpoints.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32 or bf16.")
@click.option("--seed", default=0, show_default=True, help="Weights, order, masks.")
@RESUME
@json_option
def pretrain(resume: bool, as_json: bool, data: tuple[str, ...], **settings: object) -> None:
    """Train a tokenizer and a small encoder on plain text of many locales."""
    from .adapters.pretraining import PretrainingConfig
    from .adapters.pretraining import pretrain as run

    given = {name: value for name, value in settings.items() if value is not None}
    result = run(PretrainingConfig(data=data, **given), resume=resume)  # type: ignore[arg-type]
    if as_json:
        print_json(result)
        return
    print_table(
        ["folder", "parameters", "tokens", "held-out loss"],
        [[result.folder, result.parameters, result.tokens, result.loss]],
    )
