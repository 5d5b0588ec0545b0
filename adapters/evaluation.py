"""How good an adapter is on rows whose answers are known, through the serving engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.delta import SlotImage
from ..core.encoder import load_encoder
from ..core.engine import Engine
from ..core.progress import Progress
from .files import read_adapter_folder
from .heads import apply_heads
from .label_sets import check_known_labels
from .lm_head import base_lm_head
from .loading import load_adapter
from .metrics import classification_metrics
from .reading import read_split
from .sources import Source
from .tasks import TASKS, Encoding
from .trainer import DEV_DRAW

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from ..core.base import BaseFiles
    from .heads import Head
    from .loading import LoadedAdapter
    from .spec import AdapterSpec
    from .tasks import Example, Task

__all__ = ["ROWS_A_BATCH", "Evaluation", "classification_metrics", "evaluate", "judge"]

ROWS_A_BATCH = 32
WHOLE = ((0, 1.0),)  # the adapter in slot 0, at full weight


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of one adapter on one file."""

    metrics: dict[str, float]
    """By name; all but `loss` and `perplexity` lie in 0..1 and are better when higher."""
    per_label: dict[str, float]
    """F1 of each label that occurs, 0..1; empty for a task without labels."""
    rows: int
    """How many rows were judged."""
    truncated: int
    """How many of them were cut to the longest text that the base takes."""
    skipped: int = 0
    """How many rows could not be used."""


def evaluate(
    folder: Path,
    data: Path | str,
    *,
    base: str | None = None,
    labels: Sequence[str] | None = None,
    device: str = "auto",
    skip_bad: bool = False,
) -> Evaluation:
    """Evaluate an adapter folder on rows of its task, through the serving engine.

    Args:
        folder: the adapter folder.
        data: a file of rows; of a folder or a Hub dataset (`hf:NAME`) the test split.
        base: name or folder of the base; else the one recorded in the folder.
        labels: labels in the order of the outputs, for a plain PEFT folder.
        device: where to compute.
        skip_bad: leave out and count the rows that can't be used.

    Raises:
        AdapterError: a folder that fails a check.
        DataError: data that can't be used, or has classes unseen in training.
        UnsupportedBaseError: a masked LM on a base that was saved without its head.
    """
    # The figures don't depend on the task's name, which a plain PEFT folder doesn't know.
    named: dict[str, str] = {"task": "evaluation"}
    if not (folder / "isogloss.json").exists():
        named["locale"] = "und"
    checked = read_adapter_folder(folder, base=base, labels=labels, **named)  # type: ignore[arg-type]
    spec = checked.spec
    layout = TASKS[spec.task_type].layout
    source = Source(locale=spec.locale, name=str(data))
    records, skipped = read_split(source, layout, "test", skip_bad=skip_bad)
    if spec.task_type == "sequence-classification":
        check_known_labels(records, layout, spec.labels)
    assert checked.base is not None, "without trust_base the base was found"
    encoder = load_encoder(checked.base.folder, device=device)
    adapter = load_adapter(checked.files, encoder)
    image = SlotImage.of(adapter.delta)
    engine = Engine(encoder, slots=1, slot_bytes=max(1, image.nbytes))
    engine.bank.put(0, image)
    judged = judge(engine, adapter, [record.row for record in records], base=checked.base)
    return replace(judged, skipped=skipped.rows if skipped else 0)


def judge(
    engine: Engine, adapter: LoadedAdapter, rows: Sequence[Any], *, base: BaseFiles | None = None
) -> Evaluation:
    """Figures of the adapter in slot 0 on rows of its task.

    Args:
        engine: with the adapter in slot 0.
        adapter: the same.
        rows: of its task's layout.
        base: on disk, where a masked LM's head is looked for.
    """
    spec = adapter.spec
    task: Task[Any, Any] = TASKS[spec.task_type]
    encoding = served_encoding(engine, spec)
    examples = task.encode(rows, [spec.locale] * len(rows), encoding)
    examples = task.draw(examples, encoding, np.random.default_rng(DEV_DRAW))
    head = adapter.head
    if head is None:
        assert base is not None, "a masked LM's head is the base's"
        head = base_lm_head(engine.encoder, base)
    decisions = []
    with Progress("evaluate", total=len(rows), unit="rows") as progress:
        for first in range(0, len(rows), ROWS_A_BATCH):
            batch = examples[first : first + ROWS_A_BATCH]
            answered = _answers(engine, head, batch, masked=adapter.head is None)
            for example, answers in zip(batch, answered, strict=True):
                decisions.append(task.decide(example, answers, spec.labels))
            progress.advance(len(batch))
    figures = task.figures(examples, decisions, spec.labels)
    return Evaluation(
        metrics=figures.metrics,
        per_label=figures.per_label,
        rows=len(rows),
        truncated=sum(example.truncated for example in examples),
    )


def served_encoding(engine: Engine, spec: AdapterSpec) -> Encoding:
    """How texts become rows for the adapter in slot 0."""
    encoder = engine.encoder
    prefix = engine.bank.prefix(0)
    shift = prefix.length if prefix is not None and prefix.shifts_positions else 0
    return Encoding(
        tokenizer=encoder.rows,
        limit=encoder.shape.max_tokens - shift,
        labels=spec.labels,
        special=frozenset(encoder.tokenizer.all_special_ids),
        pieces=len(encoder.tokenizer),
    )


def _answers(
    engine: Engine, head: Head, examples: Sequence[Example[Any]], *, masked: bool
) -> list[list[torch.Tensor]]:
    """What the adapter says of each text of each example; a masked LM of its masks alone."""
    import torch

    rows = [replace(row, mix=WHOLE) for example in examples for row in example.rows]
    packed, hidden = engine.forward(rows)
    if masked:
        found: list[torch.Tensor] = []
        with torch.inference_mode():
            for (begin, _), example in zip(packed.rows, examples, strict=True):
                ranges = [(begin + at, begin + at + 1) for at in example.target.places]
                found.append(torch.cat(list(head(hidden, ranges))).cpu() if ranges else hidden[:0])
    else:
        answered = apply_heads(packed, hidden, [head] * len(rows))
        found = [answer for answer in answered if answer is not None]
    each = iter(found)
    return [[next(each) for _ in example.rows] for example in examples]
