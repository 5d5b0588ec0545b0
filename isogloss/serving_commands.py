"""`predict`, `embed` and `rerank`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
from .output import plain, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .serving.hub import Hub
    from .serving.results import Prediction
    from .serving.texts import Text

adapter_option = click.option(
    "--adapter",
    "adapters",
    multiple=True,
    help="This version instead of the one that the locale resolves to; NAME=WEIGHT, once for "
    "each, for a mixture of several.",
)
precision_option = click.option(
    "--precision",
    default="auto",
    show_default=True,
    help="auto, fp32, bf16, int8 or bitsandbytes.",
)


@click.command()
@click.argument("texts", nargs=-1)
@locale_option
@task_option
@click.option("--context", help="The second text of a pair: what a question is to be answered by.")
@alias_option
@adapter_option
@base_option
@precision_option
@device_option
@click.option("--strict/--no-strict", default=True, help="Fail when nothing answers.")
@registry_option
@json_option
def predict(
    texts: tuple[str, ...],
    locale: str,
    task: str,
    context: str | None,
    alias: str,
    adapters: tuple[str, ...],
    base: str,
    precision: str,
    device: str,
    strict: bool,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Answer TEXTS (or the lines of standard input) with a locale's adapter."""
    texts = _texts(texts)
    given: list[Text] = [text if context is None else (text, context) for text in texts]
    with _hub(registry_folder, base, precision, device) as hub:
        predictions = hub.predict(
            given,
            task=task,
            locale=locale,
            adapter=_adapter(adapters),
            alias=alias,
            strict=strict,
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
        ["text", "answer", "score", "adapter", "stage"],
        [
            [
                text,
                _answer(prediction),
                prediction.score,
                prediction.adapter,
                prediction.resolution.stage,
            ]
            for text, prediction in zip(texts, predictions, strict=True)
        ],
    )


@click.command()
@click.argument("texts", nargs=-1)
@locale_option
@click.option("--task", default="embedding", show_default=True, help="A task that embeds.")
@alias_option
@adapter_option
@base_option
@precision_option
@device_option
@registry_option
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the vectors to this file, in NumPy's .npy format, one row a text.",
)
@json_option
def embed(
    texts: tuple[str, ...],
    locale: str,
    task: str,
    alias: str,
    adapters: tuple[str, ...],
    base: str,
    precision: str,
    device: str,
    registry_folder: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Give the vectors of TEXTS (or of the lines of standard input)."""
    texts = _texts(texts)
    with _hub(registry_folder, base, precision, device) as hub:
        vectors = hub.embed(
            list(texts), locale=locale, task=task, adapter=_adapter(adapters), alias=alias
        )
    if out is not None:
        import numpy as np

        with out.open("wb") as file:
            np.save(file, vectors)
    if as_json:
        print_json(
            [
                {"text": text, "vector": vector.tolist()}
                for text, vector in zip(texts, vectors, strict=True)
            ]
        )
        return
    print_table(
        ["text", "numbers", "the first of them"],
        [
            [text, len(vector), " ".join(f"{number:.4f}" for number in vector[:4])]
            for text, vector in zip(texts, vectors, strict=True)
        ],
    )


@click.command()
@click.argument("query")
@click.argument("texts", nargs=-1)
@locale_option
@click.option("--task", default="search", show_default=True, help="A task that reranks.")
@alias_option
@adapter_option
@base_option
@precision_option
@device_option
@registry_option
@json_option
def rerank(
    query: str,
    texts: tuple[str, ...],
    locale: str,
    task: str,
    alias: str,
    adapters: tuple[str, ...],
    base: str,
    precision: str,
    device: str,
    registry_folder: Path | None,
    as_json: bool,
) -> None:
    """Order TEXTS (or the lines of standard input) by how well they answer QUERY, best first."""
    texts = _texts(texts)
    with _hub(registry_folder, base, precision, device) as hub:
        ranked = hub.rerank(
            query, texts, locale=locale, task=task, adapter=_adapter(adapters), alias=alias
        )
    if as_json:
        print_json([{**plain(one), "text": texts[one.index]} for one in ranked])
        return
    print_table(["score", "text"], [[one.score, texts[one.index]] for one in ranked])


@contextmanager
def _hub(registry_folder: Path | None, base: str, precision: str, device: str) -> Iterator[Hub]:
    from .serving.hub import Hub

    with (
        open_registry(registry_folder) as registry,
        Hub(registry, base=base, precision=precision, device=device) as hub,
    ):
        yield hub


def _texts(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The arguments, else the lines of standard input."""
    found = texts or tuple(line.strip() for line in sys.stdin if line.strip())
    if not found:
        raise click.UsageError("no texts; give them as arguments or on standard input")
    return found


def _adapter(adapters: tuple[str, ...]) -> str | dict[str, float] | None:
    """None, a version's name, or names with weights."""
    if not adapters:
        return None
    if len(adapters) == 1 and "=" not in adapters[0]:
        return adapters[0]
    mixture = {}
    for adapter in adapters:
        name, _, weight = adapter.partition("=")
        try:
            number = float(weight)
        except ValueError:
            raise click.UsageError(
                f"--adapter is {adapter!r}; give NAME=WEIGHT for each adapter of a mixture"
            ) from None
        if name in mixture:
            raise click.UsageError(f"--adapter gives {name!r} twice; give it one weight")
        mixture[name] = number
    return mixture


def _answer(prediction: Prediction) -> str | None:
    """What of a prediction fits into a table."""
    if prediction.answer is not None:
        return prediction.answer
    if prediction.label is None and prediction.tokens:
        return " ".join(f"{token.text}/{token.label}" for token in prediction.tokens)
    return prediction.label
