"""What the training loop does beside training: schedules, parts, balance, sources, endings."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import torch
from safetensors.torch import load_file

from isogloss.adapters.checkpoint import Epoch, RunState
from isogloss.adapters.data import read_examples
from isogloss.adapters.evaluation import evaluate
from isogloss.adapters.learning_curve import draw_curve
from isogloss.adapters.schedules import learning_rate_factor
from isogloss.adapters.tracking import tracked
from isogloss.adapters.training import TrainingConfig, train
from isogloss.core.errors import CheckpointError, DivergedError, MalformedRowError
from isogloss.core.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import PeftLogits, SpecOf, WeightsOf

STEPS_AN_EPOCH = 3


@pytest.fixture
def config(training_settings: dict[str, Any], tmp_path: Path) -> TrainingConfig:
    return TrainingConfig(out=str(tmp_path / "out"), **training_settings | {"epochs": 2})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def interrupt(patch: pytest.MonkeyPatch, *, after: int) -> None:
    """Raise KeyboardInterrupt, as Ctrl-C does, in a step."""
    steps = Counter[str]()
    advance = Progress.advance

    def advance_or_stop(progress: Progress, amount: int = 1, *, note: str = "") -> None:
        advance(progress, amount, note=note)
        steps["done"] += 1
        if steps["done"] == after:
            raise KeyboardInterrupt

    patch.setattr(Progress, "advance", advance_or_stop)


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 5},
        {"gradient_checkpointing": True},
        {"accumulation": 3, "balance": "weights", "label_smoothing": 0.1},
    ],
)
def test_what_saves_memory_changes_nothing(
    changes: dict[str, Any], config: TrainingConfig, tmp_path: Path
) -> None:
    config = replace(config, dropout=0.0, clip=1e9)
    keeps = {
        name: value for name, value in changes.items() if name in ("balance", "label_smoothing")
    }
    plain = weights(train(replace(config, **keeps), show_progress=False))
    saving = train(replace(config, out=str(tmp_path / "b"), **changes), show_progress=False)
    for name, tensor in weights(saving).items():
        # AdamW makes a whole step of the smallest gradient.
        torch.testing.assert_close(tensor, plain[name], atol=2e-3, rtol=0)


def test_learning_rates_rise_and_fall(config: TrainingConfig) -> None:
    def factors(**changes: Any) -> list[float]:
        changed = replace(config, **changes)
        return [learning_rate_factor(step, 100, changed) for step in range(101)]

    linear, cosine = factors(warmup=0.1), factors(warmup=0.1, schedule="cosine")
    assert linear[:10] == cosine[:10] == [pytest.approx((step + 1) / 11) for step in range(10)]
    assert linear[10] == cosine[10] == 1
    assert [linear[55], cosine[55]] == pytest.approx([0.5, 0.5])
    assert cosine[30] == pytest.approx((1 + math.cos(math.pi * 20 / 90)) / 2)
    assert linear[100] == cosine[100] == 0


def test_one_adapter_for_several_locales(
    config: TrainingConfig, labelled_data: Path, tmp_path: Path, spec_of: SpecOf
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    for split, count in (("train", 20), ("dev", 8)):
        rows = (labelled_data / f"{split}.jsonl").read_text().splitlines(keepends=True)
        # Texts of its own: what stands in a dev split is left out of training.
        lines = [row.replace('"text": "', '"text": "nu ') for row in rows[:count]]
        (small / f"{split}.jsonl").write_text("".join(lines))
    joint = replace(
        config,
        locale="es-419",
        data=(f"es_mx={small}", f"es-AR={labelled_data}"),
        locale_temperature=3.0,
    )
    folder = train(joint, show_progress=False)
    spec = spec_of(folder)
    assert (spec.locale, spec.training["rows"]) == ("es-419", 116)
    assert spec.training["dev_metrics"].keys() == {"es-AR", "es-MX"}
    own = spec.training["dev_metrics"]["es-MX"]
    judged = evaluate(folder, small / "dev.jsonl", base=config.base, device="cpu")
    assert judged.metrics == pytest.approx(own)
    card = (folder / "README.md").read_text()
    assert f"| es-MX | {own['accuracy']:.3f} | {own['macro_f1']:.3f} |" in card
    assert "20 train rows of es-MX" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("balance", ["weights", "sampling"])
def test_a_rare_label_is_found_all_the_same(
    balance: str,
    config: TrainingConfig,
    labelled_data: Path,
    tmp_path: Path,
    peft_logits: PeftLogits,
    spec_of: SpecOf,
) -> None:
    lines = (labelled_data / "train.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rare = [row for row in rows if row["label"] == "return"][:3]
    skewed = tmp_path / "skewed"
    skewed.mkdir()
    kept = rare + [row for row in rows if row["label"] != "return"]
    (skewed / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    (skewed / "dev.jsonl").write_text((labelled_data / "dev.jsonl").read_text())
    texts = [example.text for example in read_examples(labelled_data / "test.jsonl")]
    share = {}
    for name in ("none", balance):
        changes: dict[str, Any] = {"data": str(skewed), "out": str(tmp_path / name)}
        folder = train(replace(config, balance=name, **changes), show_progress=False)  # type: ignore[arg-type]
        place = spec_of(folder).labels.index("return")
        share[name] = peft_logits(folder, texts).softmax(-1)[:, place].mean().item()
    assert share[balance] > 1.3 * share["none"]


def test_labels_in_the_order_that_is_wanted(config: TrainingConfig, spec_of: SpecOf) -> None:
    labels = ("return", "delivery", "payment", "complaint")
    spec = spec_of(train(replace(config, labels=labels), show_progress=False))
    assert spec.labels == labels


def test_bad_rows_stop_a_run_unless_they_may_be_skipped(
    config: TrainingConfig, labelled_data: Path, tmp_path: Path, spec_of: SpecOf
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "dev.jsonl").write_text((labelled_data / "dev.jsonl").read_text())
    rows = (labelled_data / "train.jsonl").read_text()
    (data / "train.jsonl").write_text(rows + '{"text": 3, "label": "x"}\n{\n')
    config = replace(config, data=str(data))
    with pytest.raises(MalformedRowError, match="line 97"):
        train(config, show_progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    spec = spec_of(train(replace(config, skip_bad=True), show_progress=False))
    assert (spec.training["rows"], spec.training["skipped_rows"]) == (96, 2)


def test_an_interrupted_run_can_be_finished_with_its_best(
    config: TrainingConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec_of: SpecOf,
) -> None:
    config = replace(config, epochs=9, patience=9)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(config, finish=True, show_progress=False)
    with monkeypatch.context() as patch:
        interrupt(patch, after=2 * STEPS_AN_EPOCH + 1)
        with pytest.raises(KeyboardInterrupt):
            train(config, show_progress=False)
    state = json.loads((tmp_path / "out.run" / "checkpoint" / "state.json").read_text())
    spec = spec_of(train(config, finish=True, show_progress=False))
    best = max(epoch["metrics"]["macro_f1"] for epoch in state["history"])
    assert (spec.training["epochs_trained"], spec.metrics["macro_f1"]) == (2, best)
    judged = evaluate(tmp_path / "out", f"{config.data}/dev.jsonl", base=config.base, device="cpu")
    assert judged.metrics == spec.metrics
    assert not (tmp_path / "out.run").exists()


@pytest.mark.parametrize(
    ("kind", "task_type"), [("adalora", "sequence-classification"), ("pfeiffer", "masked-lm")]
)
def test_other_kinds_and_tasks_resume_exactly(
    kind: str,
    task_type: str,
    config: TrainingConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weights_of: WeightsOf,
) -> None:
    targets = None if kind == "pfeiffer" else config.targets
    changes: dict[str, Any] = {"kind": kind, "task_type": task_type, "targets": targets}
    config = replace(config, epochs=5, **changes)
    whole = train(replace(config, out=str(tmp_path / "whole")), show_progress=False)
    with monkeypatch.context() as patch:
        interrupt(patch, after=2 * STEPS_AN_EPOCH + 2)
        with pytest.raises(KeyboardInterrupt):
            train(config, show_progress=False)
    folder = train(config, resume=True, show_progress=False)
    assert weights_of(folder) == weights_of(whole)


def test_a_base_in_int8_trains_nearly_as_well(
    config: TrainingConfig, tmp_path: Path, spec_of: SpecOf
) -> None:
    config = replace(config, epochs=8)
    exact = spec_of(train(config, show_progress=False))
    rounded = train(
        replace(config, out=str(tmp_path / "int8"), precision="int8"), show_progress=False
    )
    found = spec_of(rounded)
    assert found.metrics["macro_f1"] > exact.metrics["macro_f1"] - 0.15
    # Served in fp32 it is as good as it was judged.
    judged = evaluate(rounded, f"{config.data}/dev.jsonl", base=config.base, device="cpu")
    assert judged.metrics["macro_f1"] == pytest.approx(found.metrics["macro_f1"], abs=0.1)


def test_adapters_from_a_layer_on(config: TrainingConfig) -> None:
    folder = train(replace(config, adapters_from_layer=1), show_progress=False)
    updates = [name for name in weights(folder) if "lora_A" in name]
    assert updates
    assert all(".layer.1." in name for name in updates)
    cached = replace(config, adapters_from_layer=1, cache_megabytes=20, out=f"{config.out}.cached")
    again = weights(train(cached, show_progress=False))
    for name, tensor in weights(folder).items():
        torch.testing.assert_close(again[name], tensor, atol=2e-3, rtol=0)


def test_a_loss_that_explodes_is_named(config: TrainingConfig) -> None:
    with pytest.raises(DivergedError, match=r"has risen to .* in epoch .*; lower the learning"):
        train(
            replace(config, learning_rate=3e4, warmup=0.0, epochs=30, patience=30),
            show_progress=False,
        )


def test_the_curve_is_well_formed() -> None:
    history = [Epoch(loss=3.0 - at, metrics={"f1": 0.1 * at}) for at in range(3)]
    for epochs in (history, history[:1]):
        root = ET.fromstring(draw_curve(epochs, "f1", title="intent/<x> & y"))
        lines = root.findall("{http://www.w3.org/2000/svg}polyline")
        points = [line.attrib["points"].split() for line in lines]
        assert [len(each) for each in points] == [len(epochs)] * 2
    assert "intent/&lt;x&gt; &amp; y" in draw_curve(history, "f1", title="intent/<x> & y")


def test_the_best_epoch_by_either_direction() -> None:
    state = RunState()
    for value in (3.0, 2.0, 2.5):
        epoch = Epoch(loss=1.0, metrics={"perplexity": value})
        state = state.after(epoch, "perplexity", lower=True, seconds=1.5)
    assert (state.epoch, state.stale, state.seconds) == (3, 1, 4.5)
    assert state.best.metrics == {"perplexity": 2.0}
    higher = state.after(
        Epoch(loss=1.0, metrics={"perplexity": 9.0}), "perplexity", lower=False, seconds=0.0
    )
    assert higher.best.metrics == {"perplexity": 9.0}


def test_without_a_tracker_figures_go_nowhere(tmp_path: Path) -> None:
    with tracked(None, "run", tmp_path / "log") as track:
        track(1, {"loss": 1.0})
    assert not list(tmp_path.iterdir())


def test_figures_go_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    with tracked("tensorboard", "run", tmp_path) as track:
        track(1, {"loss": 1.0})
    assert list((tmp_path / "run").iterdir())
