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
@click.option(
    "--task-type",
    default="sequence-classification",
    show_default=True,
    help="sequence-classification, token-classification, embedding, reranking, masked-lm or "
    "question-answering.",
)
@click.option(
    "--data",
    required=True,
    multiple=True,
    help="Folder with train, dev and test files, one file, or hf:NAME; LOCALE=PLACE, given several "
    "times, trains one adapter for all.",
)
@click.option("--out", required=True, help="The adapter folder to write.")
@click.option(
    "--kind",
    default="lora",
    show_default=True,
    help="lora, rslora, dora, adalora, prefix, houlsby, pfeiffer or bottleneck (pfeiffer).",
)
@click.option(
    "--preset", default="base", show_default=True, help="small, base or wide: rank and targets."
)
@click.option("--rank", type=int, help="Rank; length of a prefix; width of a bottleneck.")
@click.option("--alpha", type=float, help="LoRA's alpha; default: twice the rank.")
@click.option("--dropout", type=float, help="Dropout in the head.")
@click.option("--targets", help="Linear modules to change, such as query,value.")
@click.option("--adapters-from-layer", type=int, help="The lowest layer that LoRA changes.")
@click.option("--cache-megabytes", type=int, help="Memory for what the layers below give.")
@labels_option
@click.option("--skip-bad", is_flag=True, help="Leave out and count rows that can't be used.")
@click.option("--epochs", type=int, help="The most passes over the data.")
@click.option("--patience", type=int, help="Epochs without a better dev figure before it stops.")
@click.option("--batch-size", type=int, help="Rows a step.")
@click.option("--accumulation", type=int, help="In how many parts a step is computed.")
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more time.")
@click.option("--learning-rate", type=float, help="Peak learning rate.")
@click.option("--schedule", help="linear or cosine.")
@click.option("--weight-decay", type=float, help="AdamW's decay.")
@click.option("--warmup", type=float, help="Share of the steps that warm up.")
@click.option("--clip", type=float, help="The largest norm of a step's gradients.")
@click.option("--label-smoothing", type=float, help="Share of a label spread over all.")
@click.option("--balance", help="Against skewed labels: weights, sampling or none.")
@click.option("--locale-temperature", type=float, help="Of sampling several locales, from 1.")
@click.option("--contrast", type=float, help="Temperature of the contrastive loss.")
@click.option("--precision", default="auto", show_default=True, help="auto, fp32, bf16 or int8.")
@click.option("--seed", default=0, show_default=True, help="Weights, order, dropout.")
@click.option("--track", help="tensorboard, wandb or mlflow.")
@device_option
@RESUME
@click.option("--finish", is_flag=True, help="Of an interrupted run take the best so far.")
@json_option
def train(
    resume: bool,
    finish: bool,
    as_json: bool,
    targets: str | None,
    labels: str | None,
    **settings: object,
) -> None:
    """Train an adapter for one task and locale, or several, on a frozen base."""
    from .adapters.files import SPEC_FILE
    from .adapters.spec import AdapterSpec
    from .adapters.training import TrainingConfig
    from .adapters.training import train as run

    given = {name: value for name, value in settings.items() if value is not None}
    if targets is not None:
        given["targets"] = tuple(name.strip() for name in targets.split(",") if name.strip())
    names = split_labels(labels)
    if names is not None:
        given["labels"] = tuple(names)
    config = TrainingConfig(**given)  # type: ignore[arg-type]
    folder = run(config, resume=resume, finish=finish)
    spec = AdapterSpec.from_json((folder / SPEC_FILE).read_bytes())
    if as_json:
        by_locale = spec.training.get("dev_metrics", {})
        print_json(
            {
                "folder": str(folder),
                "metrics": spec.metrics,
                "metrics_by_locale": by_locale,
                "labels": spec.labels,
                "skipped_rows": spec.training["skipped_rows"],
            }
        )
        return
    print_table(
        ["folder", *(f"dev {name}" for name in spec.metrics), "labels"],
        [[str(folder), *spec.metrics.values(), len(spec.labels)]],
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    help="Rows of its task: a file, or a folder or hf:NAME with a test split.",
)
@click.option("--base", help="Name or folder of the base; default: the one recorded.")
@labels_option
@click.option("--skip-bad", is_flag=True, help="Leave out and count rows that can't be used.")
@device_option
@json_option
def evaluate(
    folder: Path,
    data: str,
    base: str | None,
    labels: str | None,
    skip_bad: bool,
    device: str,
    as_json: bool,
) -> None:
    """Judge an adapter folder on rows whose answers are known."""
    from .adapters.evaluation import evaluate as run

    result = run(
        folder, data, base=base, labels=split_labels(labels), device=device, skip_bad=skip_bad
    )
    if as_json:
        print_json(result)
        return
    print_table(["metric", "value"], [[name, value] for name, value in result.metrics.items()])
    if result.per_label:
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
