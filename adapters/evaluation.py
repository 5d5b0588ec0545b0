"""How good an adapter is: accuracy and macro-F1 on labelled rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..core.delta import SlotImage
from ..core.encoder import load_encoder
from ..core.engine import Engine
from ..core.errors import UnsupportedAdapterError
from ..core.progress import Progress
from .data import check_labels, read_examples
from .files import read_adapter_folder
from .heads import apply_heads
from .loading import load_adapter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .data import Example
    from .loading import LoadedAdapter

ROWS_A_BATCH = 32
WHOLE = ((0, 1.0),)  # the adapter in slot 0, at full weight


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of one adapter on one file."""

    metrics: dict[str, float]
    """`accuracy` and `macro_f1`, 0..1."""
    per_label: dict[str, float]
    """F1 of each label that occurs, 0..1."""
    rows: int
    """How many rows were judged."""
    truncated: int
    """How many of them were cut to the longest text that the base takes."""


def classification_metrics(gold: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """Accuracy, and F1 averaged over the labels that occur in either (scikit-learn's).

    Args:
        gold: the right labels.
        predicted: the predicted ones, as many.
    """
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1_score(gold, predicted, average="macro", zero_division=0.0)),
    }


def evaluate(
    folder: Path,
    data: Path,
    *,
    base: str | None = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
) -> Evaluation:
    """Evaluate an adapter folder on a file of labelled rows, through the serving engine.

    Args:
        folder: the adapter folder.
        data: JSON lines with `text` and `label`.
        base: name or folder of the base; else the one recorded in the folder.
        labels: labels in the order of the outputs, for a plain PEFT folder.
        device: where to compute.

    Raises:
        AdapterError: a folder that fails a check.
        DataError: data that can't be used, or has labels unseen in training.
    """
    # The figures don't depend on locale and task, which a plain PEFT folder doesn't know.
    checked = read_adapter_folder(folder, base=base, labels=labels, locale="und", task="evaluation")
    if checked.spec.task_type != "sequence-classification":
        raise UnsupportedAdapterError(
            f"{folder} is an adapter for {checked.spec.task_type}; this release evaluates "
            "sequence classification"
        )
    examples = read_examples(data)
    check_labels(examples, checked.spec.labels, data)
    assert checked.base is not None, "without trust_base the base was found"
    encoder = load_encoder(checked.base.folder, device=device)
    adapter = load_adapter(checked.files, encoder)
    image = SlotImage.of(adapter.delta)
    engine = Engine(encoder, slots=1, slot_bytes=max(1, image.nbytes))
    engine.bank.put(0, image)
    return judge(engine, adapter, examples)


def judge(engine: Engine, adapter: LoadedAdapter, examples: Sequence[Example]) -> Evaluation:
    """Figures of the adapter in slot 0 on rows whose labels it knows."""
    from sklearn.metrics import f1_score

    rows = engine.encoder.tokenize([example.text for example in examples])
    labels = adapter.spec.labels
    predicted: list[str] = []
    with Progress("evaluate", total=len(rows), unit="rows") as progress:
        for first in range(0, len(rows), ROWS_A_BATCH):
            batch = [replace(row, mix=WHOLE) for row, _ in rows[first : first + ROWS_A_BATCH]]
            packed, hidden = engine.forward(batch)
            logits = apply_heads(packed, hidden, [adapter.head] * len(batch))
            predicted.extend(labels[int(row.argmax())] for row in logits if row is not None)
            progress.advance(len(batch))
    gold = [example.label for example in examples]
    occurring = sorted({*gold, *predicted})
    scores = f1_score(gold, predicted, average=None, labels=occurring, zero_division=0.0)
    return Evaluation(
        metrics=classification_metrics(gold, predicted),
        per_label=dict(zip(occurring, map(float, scores), strict=True)),
        rows=len(rows),
        truncated=sum(truncated for _, truncated in rows),
    )
