"""Each kind of adapter for each type of task: trained, evaluated, served, and loaded in PEFT."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForMaskedLM

from isogloss.adapters.data import read_data
from isogloss.adapters.evaluation import WHOLE, evaluate
from isogloss.adapters.files import read_adapter_folder
from isogloss.adapters.heads import apply_heads
from isogloss.adapters.lm_head import base_lm_head
from isogloss.adapters.loading import load_adapter
from isogloss.adapters.sources import Source
from isogloss.adapters.tasks import TASKS, Encoding
from isogloss.adapters.training import TrainingConfig, train
from isogloss.core.base import locate_base
from isogloss.core.delta import SlotImage
from isogloss.core.encoder import load_encoder, quiet_transformers
from isogloss.core.engine import Engine
from isogloss.core.errors import UnsupportedBaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isogloss.core.packing import Row

    from ..conftest import PeftAlone, TinyBase
    from .conftest import SpecOf

KINDS = ("lora", "rslora", "dora", "adalora", "prefix", "houlsby", "pfeiffer")
OURS = ("houlsby", "pfeiffer")
GOODS = ("parcel", "Bote", "invoice", "Karte", "refund", "kaputt")
FILLERS = ("the", "my", "please", "und", "bitte")
SPLITS = {"train": 24, "dev": 12, "test": 6}


def words(generator: random.Random) -> list[str]:
    return [
        *generator.sample(FILLERS, generator.randint(1, 3)),
        generator.choice(GOODS),
        *generator.sample(FILLERS, generator.randint(1, 3)),
    ]


def classes(generator: random.Random) -> dict[str, Any]:
    text = words(generator)
    return {"text": " ".join(text), "label": "good" if {*text} & {*GOODS[:3]} else "bad"}


def tags(generator: random.Random) -> dict[str, Any]:
    text = words(generator)
    return {"tokens": text, "tags": ["B-GOODS" if word in GOODS else "O" for word in text]}


def pairs(generator: random.Random) -> dict[str, Any]:
    goods, other = generator.sample(GOODS, 2)
    filler = generator.choice(FILLERS)
    return {
        "anchor": f"{filler} {goods} {generator.choice(FILLERS)}",
        "positive": f"{goods} {generator.randint(0, 99)}",
        "negatives": [f"{other} {filler}"] * generator.randint(0, 1),
    }


def grades(generator: random.Random) -> dict[str, Any]:
    wanted, found = generator.choice(GOODS), generator.choice(GOODS)
    group = generator.randint(0, 3)
    return {
        "query": f"{wanted} {group}",
        "text": f"{found} {generator.randint(0, 999)} {generator.choice(FILLERS)}",
        "label": 2 * (wanted == found) + generator.randint(0, 1),
        "qid": str(group),
    }


def plain(generator: random.Random) -> dict[str, Any]:
    return {"text": " ".join(words(generator) + words(generator))}


def questions(generator: random.Random) -> dict[str, Any]:
    before, goods, after = (generator.choice(part) for part in (FILLERS, GOODS, FILLERS))
    context = f"{before} {after} {goods} {before} {generator.randint(0, 999)}"
    return {
        "question": f"{after} {before}?",
        "context": context,
        "answers": [{"text": goods, "start": context.index(goods)}],
    }


ROWS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "sequence-classification": classes,
    "token-classification": tags,
    "embedding": pairs,
    "reranking": grades,
    "masked-lm": plain,
    "question-answering": questions,
}
COMBINATIONS = [
    pytest.param(task, kind, id=f"{task}-{kind}")
    for task in ROWS
    for kind in KINDS
    if (task, kind) != ("masked-lm", "prefix")
]
ON_BERT = [
    pytest.param(task, kind, id=f"{task}-{kind}")
    for task in ROWS
    for kind in ("lora", "prefix", "houlsby")
    if task != "masked-lm"
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each type of task."""
    folder = tmp_path_factory.mktemp("tasks")
    generator = random.Random(0)
    for task, make in ROWS.items():
        (folder / task).mkdir()
        for split, count in SPLITS.items():
            lines = [json.dumps(make(generator), ensure_ascii=False) for _ in range(count)]
            (folder / task / f"{split}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny encoder in fp32, so that PEFT computes in it too."""
    folder = tmp_path_factory.mktemp("fp32") / "tiny"
    with quiet_transformers():
        model = AutoModelForMaskedLM.from_pretrained(tiny_encoder, dtype=torch.float32)
        model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_encoder / name, folder / name)
    return folder


def settings(task: str, kind: str, base: Path, data: Path, out: Path) -> TrainingConfig:
    targets = {} if kind in (*OURS, "prefix") else {"targets": ("query", "value", "dense")}
    return TrainingConfig(
        base=str(base),
        locale="gsw-CH",
        task="trial",
        task_type=task,  # type: ignore[arg-type]
        kind=kind,  # type: ignore[arg-type]
        data=str(data / task),
        out=str(out),
        rank=3,
        epochs=2,
        batch_size=6,
        learning_rate=2e-2,
        precision="fp32",
        device="cpu",
        **targets,  # type: ignore[arg-type]
    )


class Served:
    """An adapter folder in the engine, and the rows of its test split."""

    def __init__(self, folder: Path, base: Path, rows: Path) -> None:
        encoder = load_encoder(base, device="cpu")
        self.adapter = load_adapter(read_adapter_folder(folder, base=base).files, encoder)
        image = SlotImage.of(self.adapter.delta)
        self.engine = Engine(encoder, slots=1, slot_bytes=max(1, image.nbytes))
        self.engine.bank.put(0, image)
        self.head = self.adapter.head or base_lm_head(encoder, locate_base(base))
        spec = self.adapter.spec
        task = TASKS[spec.task_type]
        records = read_data([Source(locale="gsw-CH", name=str(rows))], task.layout).test
        encoding = Encoding(
            tokenizer=encoder.rows, limit=encoder.shape.max_tokens, labels=spec.labels
        )
        examples = task.encode([record.row for record in records], ["und"] * 6, encoding)
        self.rows: list[Row] = [row for example in examples for row in example.rows]

    def answers(self) -> list[torch.Tensor]:
        rows = [replace(row, mix=WHOLE) for row in self.rows]
        found = apply_heads(*self.engine.forward(rows), [self.head] * len(rows))
        return [answer for answer in found if answer is not None]


def round_trip(
    config: TrainingConfig, peft_alone: PeftAlone, spec_of: SpecOf, base: Path
) -> Sequence[torch.Tensor]:
    """Train; compare the trainer's own figures, the engine's, and PEFT's answers."""
    folder = train(config, show_progress=False)
    spec = spec_of(folder)
    assert spec.metrics
    judged = evaluate(folder, f"{config.data}/dev.jsonl", base=str(base), device="cpu")
    assert judged.metrics == pytest.approx(spec.metrics, rel=1e-5, abs=1e-5)
    assert judged.rows == SPLITS["dev"]
    served = Served(folder, base, Path(str(config.data)))
    answers = served.answers()
    if config.kind not in OURS:
        rows = served.rows
        if (config.kind, config.task_type) == ("prefix", "embedding"):
            # All zero; PEFT warns that it takes none.
            rows = [replace(row, type_ids=None) for row in rows]
        expected = peft_alone(folder, base, rows)
        for own, peer in zip(answers, expected, strict=True):
            torch.testing.assert_close(own, peer.view_as(own), atol=2e-5, rtol=1e-5)
    return answers


# PEFT itself warns of every AdaLoRA folder that PEFT wrote.
@pytest.mark.filterwarnings("ignore:The following rank_pattern keys did not match")
@pytest.mark.parametrize(("task", "kind"), COMBINATIONS)
def test_trained_it_serves_as_it_was_judged(
    task: str,
    kind: str,
    base: Path,
    data: Path,
    tmp_path: Path,
    peft_alone: PeftAlone,
    spec_of: SpecOf,
) -> None:
    config = settings(task, kind, base, data, tmp_path / "out")
    answers = round_trip(config, peft_alone, spec_of, base)
    assert all(bool(answer.isfinite().all()) for answer in answers)
    spec = spec_of(tmp_path / "out")
    assert spec.task_type == task
    assert spec.kind == ("bottleneck" if kind in OURS else "prefix" if kind == "prefix" else "lora")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"library_name: {'isogloss' if kind in OURS else 'peft'}" in card
    assert "<polyline" in (tmp_path / "out" / "learning_curve.svg").read_text()


@pytest.mark.parametrize(("task", "kind"), ON_BERT)
def test_on_bert(
    task: str,
    kind: str,
    tiny_base: TinyBase,
    data: Path,
    tmp_path: Path,
    peft_alone: PeftAlone,
    spec_of: SpecOf,
) -> None:
    base = tiny_base("bert")
    config = settings(task, kind, base, data, tmp_path / "out")
    answers = round_trip(config, peft_alone, spec_of, base)
    assert all(bool(answer.isfinite().all()) for answer in answers)


@pytest.mark.parametrize("saved_as", ["AutoModel", "AutoModelForMaskedLM"])
def test_a_base_that_can_guess_no_masks(
    saved_as: str, tiny_base: TinyBase, data: Path, tmp_path: Path
) -> None:
    """The one lacks the head, the other's tokenizer a mask."""
    base = tiny_base("bert", saved_as=saved_as)
    problem = "without a masked-LM head" if saved_as == "AutoModel" else "has no mask token"
    config = settings("masked-lm", "lora", base, data, tmp_path / "out")
    with pytest.raises(UnsupportedBaseError, match=problem):
        train(config, show_progress=False)
    assert not list(tmp_path.iterdir())
