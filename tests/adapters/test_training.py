from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from isogloss.adapters.data import read_examples
from isogloss.adapters.evaluation import classification_metrics
from isogloss.adapters.spec import AdapterSpec
from isogloss.adapters.training import TrainingConfig, train
from isogloss.core.base import fingerprint, locate_base
from isogloss.core.errors import (
    AdapterConfigError,
    BaseNotFoundError,
    CheckpointError,
    DataError,
    DivergedError,
    InputError,
    InvalidLocaleError,
    IsoglossError,
    OutputFolderError,
    PrecisionError,
    UnsupportedAdapterError,
    UnsupportedBaseError,
)
from isogloss.core.precision import has_native_bf16

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import TinyBase
    from .conftest import EngineLogits, PeftLogits, RunKilled

TRAIN = """
from isogloss.adapters.training import TrainingConfig, train
settings["targets"] = tuple(settings["targets"])
train(TrainingConfig(**settings), show_progress=False)
"""
STEPS_AN_EPOCH = 3
ROWS = 96
PRECISIONS = [
    "fp32",
    pytest.param(
        "auto",
        marks=pytest.mark.skipif(not has_native_bf16(), reason="auto is fp32 on this machine"),
    ),
]


@pytest.fixture(scope="session")
def settings(tiny_encoder: Path, labelled_data: Path) -> dict[str, Any]:
    """Settings of a run of six epochs of three steps each."""
    return {
        "base": str(tiny_encoder),
        "locale": "gsw-CH",
        "task": "intent",
        "data": str(labelled_data),
        "rank": 4,
        "targets": ("query", "value", "dense"),
        "epochs": 6,
        "patience": 6,
        "batch_size": ROWS // STEPS_AN_EPOCH,
        "learning_rate": 1e-2,
        "device": "cpu",
        "precision": "fp32",
    }


@pytest.fixture(scope="session")
def trained(settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "adapter"
    changes = {"targets": ("query", "value"), "epochs": 40, "patience": 40, "batch_size": 16}
    return train(TrainingConfig(out=str(out), **settings | changes), show_progress=False)


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def spec_of(folder: Path) -> AdapterSpec:
    return AdapterSpec.from_json((folder / "isogloss.json").read_bytes())


def test_it_learns(trained: Path, labelled_data: Path, peft_logits: PeftLogits) -> None:
    spec = spec_of(trained)
    chance = 1 / 3
    assert spec.metrics["macro_f1"] > chance + 0.3
    # The figure that it reports is that of the weights that it wrote.
    dev = read_examples(labelled_data / "dev.jsonl")
    logits = peft_logits(trained, [example.text for example in dev])
    predicted = [spec.labels[index] for index in logits.argmax(-1).tolist()]
    assert spec.metrics == classification_metrics([example.label for example in dev], predicted)
    test = read_examples(labelled_data / "test.jsonl")
    logits = peft_logits(trained, [example.text for example in test])
    right = [spec.labels[i] == e.label for i, e in zip(logits.argmax(-1), test, strict=True)]
    assert sum(right) / len(right) > chance + 0.25


def test_the_folder_holds_what_it_should(
    trained: Path, tiny_encoder: Path, settings: dict[str, Any]
) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "isogloss.json",
    ]
    assert [path.name for path in trained.parent.iterdir()] == [trained.name]
    spec = spec_of(trained)
    assert (spec.locale, spec.task, spec.kind, spec.rank) == ("gsw-CH", "intent", "lora", 4)
    assert spec.labels == ("delivery", "payment", "return")
    assert spec.targets == ("query", "value")
    assert (spec.base, spec.base_fingerprint) == (
        "tiny",
        fingerprint(locate_base(tiny_encoder)).digest,
    )
    assert spec.training["learning_rate"] == 1e-2
    assert (spec.training["rows"], spec.training["dev_rows"]) == (ROWS, 24)
    config = json.loads((trained / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"]) == ("LORA", "SEQ_CLS")
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert config["base_model_name_or_path"] == "tiny"


def test_no_machine_path_is_in_the_folder(
    trained: Path, tiny_encoder: Path, labelled_data: Path
) -> None:
    for path in trained.iterdir():
        content = path.read_bytes()
        for folder in (trained, tiny_encoder, labelled_data):
            assert str(folder).encode() not in content, path.name
            assert str(folder.parent).encode() not in content, path.name


def test_the_card_has_front_matter(trained: Path) -> None:
    metadata = metadata_load(trained / "README.md")
    assert metadata is not None
    assert metadata["language"] == "gsw"
    assert metadata["base_model"] == "tiny"
    assert metadata["library_name"] == "peft"
    assert {"lora", "sequence-classification"} <= set(metadata["tags"])
    text = (trained / "README.md").read_text()
    spec = spec_of(trained)
    for part in ("# intent/gsw-CH", *spec.labels, f"{spec.metrics['macro_f1']:.3f}"):
        assert part in text


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
def test_peft_gives_the_engines_logits(
    model_type: str,
    tiny_base: TinyBase,
    trained: Path,
    settings: dict[str, Any],
    labelled_data: Path,
    peft_logits: PeftLogits,
    engine_logits: EngineLogits,
    tmp_path: Path,
) -> None:
    folder, base = trained, settings["base"]
    if model_type == "bert":
        base = str(tiny_base("bert"))
        config = TrainingConfig(
            out=str(tmp_path / "bert"), **settings | {"base": base, "learning_rate": 1e-3}
        )
        folder = train(config, show_progress=False)
        names = load_file(folder / "adapter_model.safetensors").keys()
        assert any(".pooler.dense.lora_A" in name for name in names)
    texts = [example.text for example in read_examples(labelled_data / "dev.jsonl")]
    expected = peft_logits(folder, texts, base=base)
    assert expected.std(dim=0).min() > 1e-2  # they differ from text to text
    actual = engine_logits(folder, texts, base=base)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_the_base_is_not_changed(
    tiny_encoder: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_encoder, base)
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    folder = train(
        TrainingConfig(out=str(tmp_path / "out"), **settings | {"base": str(base)}),
        show_progress=False,
    )
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    # Nor is anything of the base in the adapter.
    saved = load_file(folder / "adapter_model.safetensors")
    assert all(".lora_" in name or ".classifier." in name for name in saved)


def test_the_seed_decides_the_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    folders: list[Path] = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(len(folders))  # which must not matter
        config = TrainingConfig(out=str(tmp_path / name), **settings | {"seed": seed, "epochs": 2})
        folders.append(train(config, show_progress=False))
    assert weights(folders[0]) == weights(folders[1])
    assert weights(folders[0]) != weights(folders[2])


def test_it_stops_early(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At such a rate nothing is learnt, so no epoch is better than the first for long."""
    changes = {"epochs": 400, "patience": 2, "learning_rate": 1e-12}
    train(TrainingConfig(out=str(tmp_path / "out"), **settings | changes))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert ["(best so far)" in line for line in lines] == [True, False, False]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_killed_and_resumed_it_gives_the_same_weights(
    precision: str, settings: dict[str, Any], run_killed: RunKilled, tmp_path: Path
) -> None:
    settings = settings | {"precision": precision, "dropout": 0.2}
    whole = train(TrainingConfig(out=str(tmp_path / "whole"), **settings), show_progress=False)
    out, run = tmp_path / "out", tmp_path / "out.run"
    config = TrainingConfig(out=str(out), **settings)
    run_killed(TRAIN, settings | {"out": str(out)}, after=2 * STEPS_AN_EPOCH + 2)
    assert not out.exists()
    assert json.loads((run / "checkpoint" / "state.json").read_text())["epoch"] == 2
    with pytest.raises(OutputFolderError, match=r"out\.run holds an unfinished run; resume it"):
        train(config, show_progress=False)

    # As if it had been killed while it put another checkpoint in place.
    (run / "checkpoint").rename(run / "old")
    shutil.copytree(run / "old", run / "fresh")
    train(config, resume=True, show_progress=False)
    assert weights(out) == weights(whole)
    assert spec_of(out).metrics == spec_of(whole).metrics
    assert not run.exists()


def test_killed_in_the_first_epoch_it_begins_anew(
    settings: dict[str, Any], run_killed: RunKilled, tmp_path: Path
) -> None:
    whole = train(TrainingConfig(out=str(tmp_path / "whole"), **settings), show_progress=False)
    out = tmp_path / "out"
    run_killed(TRAIN, settings | {"out": str(out)}, after=2)
    train(TrainingConfig(out=str(out), **settings), resume=True, show_progress=False)
    assert weights(out) == weights(whole)


class Interruption:
    """Stands in for Ctrl-C: raises KeyboardInterrupt in a step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
        from isogloss.core.progress import Progress

        self.left = after
        advance = Progress.advance

        def advance_or_stop(progress: Progress, amount: int = 1, *, note: str = "") -> None:
            advance(progress, amount, note=note)
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(Progress, "advance", advance_or_stop)


def test_interrupted_it_can_be_resumed(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(TrainingConfig(out=str(tmp_path / "whole"), **settings), show_progress=False)
    out, run = tmp_path / "out", tmp_path / "out.run"
    config = TrainingConfig(out=str(out), **settings)
    for epochs in (1, 3):  # interrupted twice
        with monkeypatch.context() as patch:
            Interruption(patch, after=STEPS_AN_EPOCH + 1)
            with pytest.raises(KeyboardInterrupt):
                train(config, resume=run.exists(), show_progress=False)
        assert json.loads((run / "checkpoint" / "state.json").read_text())["epoch"] >= epochs - 1
    assert not out.exists()
    train(config, resume=True, show_progress=False)
    assert weights(out) == weights(whole)
    assert not run.exists()


def test_interrupted_in_the_first_epoch_it_leaves_nothing(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Interruption(monkeypatch, after=1)
    with pytest.raises(KeyboardInterrupt):
        train(TrainingConfig(out=str(tmp_path / "out"), **settings), show_progress=False)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_resumed(
    settings: dict[str, Any],
    labelled_data: Path,
    tiny_base: TinyBase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = TrainingConfig(out=str(tmp_path / "out"), **settings)
    with pytest.raises(CheckpointError, match=r"nothing to resume: .*out\.run"):
        train(config, resume=True, show_progress=False)
    with monkeypatch.context() as patch:
        Interruption(patch, after=STEPS_AN_EPOCH + 1)
        with pytest.raises(KeyboardInterrupt):
            train(config, show_progress=False)
    other_data = tmp_path / "data"
    shutil.copytree(labelled_data, other_data)
    rows = (other_data / "train.jsonl").read_text().splitlines(keepends=True)
    (other_data / "train.jsonl").write_text("".join(rows[1:]))
    for changed, named in (
        (replace(config, rank=8, learning_rate=1e-3), "had other learning_rate, rank; "),
        (replace(config, targets=("query",)), "had other targets; "),
        (replace(config, data=str(other_data)), "had other data; "),
        (replace(config, base=str(tiny_base("xlm-roberta"))), "had other base; "),
    ):
        with pytest.raises(CheckpointError, match=named) as caught:
            train(changed, resume=True, show_progress=False)
        assert "resume with the same settings and data, or remove it" in str(caught.value)
    # The same data elsewhere, and another device, are no other run.
    moved = tmp_path / "moved"
    shutil.copytree(labelled_data, moved)
    train(replace(config, data=str(moved), device="auto"), resume=True, show_progress=False)
    assert (tmp_path / "out").exists()


def test_a_record_that_is_cut_off_cannot_be_resumed(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "settings.json").write_text('{"rank": ')
    with pytest.raises(CheckpointError, match="nothing to resume"):
        train(TrainingConfig(out=str(tmp_path / "out"), **settings), resume=True)


def test_a_folder_that_exists_is_not_touched(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputFolderError, match="out exists; choose another folder or remove it"):
        train(TrainingConfig(out=str(tmp_path / "out"), **settings))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("changes", "kind", "problem"),
    [
        ({"data": "/nowhere/at/all"}, DataError, "can't read /nowhere/at/all"),
        ({"locale": "not a tag"}, InvalidLocaleError, "not a tag"),
        ({"rank": 0}, InputError, r"rank is 0; it must lie in 1\.\.512"),
        ({"rank": 513}, InputError, "rank is 513"),
        ({"alpha": math.nan}, InputError, "alpha is nan"),
        ({"alpha": 0.0}, InputError, "alpha is 0.0"),
        ({"targets": ()}, InputError, "targets is empty"),
        ({"targets": ("nonsense",)}, InputError, "targets nonsense don't fit tiny"),
        ({"targets": ("query", "nonsense")}, InputError, "'nonsense' matches no linear module"),
        ({"targets": ("LayerNorm",)}, InputError, "'LayerNorm' matches no linear module"),
        ({"targets": ("word_embeddings",)}, InputError, "'word_embeddings' matches no linear"),
        ({"task": "No Name"}, AdapterConfigError, "task"),
        ({"base": "/nowhere/base"}, BaseNotFoundError, "no base at '/nowhere/base'"),
        ({"kind": "prefix"}, UnsupportedAdapterError, "kind is 'prefix'"),
        ({"epochs": 0}, InputError, "epochs is 0"),
        ({"batch_size": 0}, InputError, "batch_size is 0"),
        ({"patience": 0}, InputError, "patience is 0"),
        ({"learning_rate": math.inf}, InputError, "learning_rate is inf"),
        ({"weight_decay": -1.0}, InputError, "weight_decay is -1.0"),
        ({"dropout": 1.0}, InputError, "dropout is 1.0"),
        ({"warmup": math.nan}, InputError, "warmup nan"),
        ({"seed": -1}, InputError, "seed is -1"),
        ({"seed": 2**32}, InputError, "seed is 4294967296"),
        ({"precision": "fp8"}, InputError, "precision is 'fp8'"),
        ({"device": "abacus"}, PrecisionError, "device 'abacus' can't be used here"),
    ],
)
def test_what_makes_no_sense_leaves_nothing(
    changes: dict[str, Any],
    kind: type[IsoglossError],
    problem: str,
    settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    with pytest.raises(kind, match=problem) as caught:
        train(TrainingConfig(out=str(tmp_path / "out"), **settings | changes))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_bert_without_its_pooler_is_refused(
    tiny_base: TinyBase, settings: dict[str, Any], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    model = AutoModelForMaskedLM.from_pretrained(tiny_base("bert", saved_as="AutoModelForMaskedLM"))
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(tiny_base("bert")).save_pretrained(base)
    (tmp_path / "outs").mkdir()
    config = TrainingConfig(out=str(tmp_path / "outs" / "out"), **settings | {"base": str(base)})
    with pytest.raises(UnsupportedBaseError, match=r"lacks .*pooler.*; save it again"):
        train(config, show_progress=False)
    assert not list((tmp_path / "outs").iterdir())


@pytest.mark.parametrize("rate", [1e12, 1e30])
@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("batch_size", [16, ROWS])  # of one step, only the dev rows show the end
def test_a_loss_that_is_no_number_leaves_nothing(
    rate: float, epochs: int, batch_size: int, settings: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"learning_rate": rate, "epochs": epochs, "batch_size": batch_size, "warmup": 0.0}
    with pytest.raises(DivergedError, match="lower the learning rate") as caught:
        train(TrainingConfig(out=str(tmp_path / "out"), **settings | changes), show_progress=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_it_diverges_after_the_first_epoch(
    tiny_encoder: Path, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left then either: resumed, it would diverge again."""
    config = TrainingConfig(out=str(tmp_path / "out"), **settings)
    with monkeypatch.context() as patch:
        Interruption(patch, after=STEPS_AN_EPOCH + 1)
        with pytest.raises(KeyboardInterrupt):
            train(config, show_progress=False)
    saved = tmp_path / "out.run" / "checkpoint" / "trainable.safetensors"
    tensors = load_file(saved)
    save_file({name: torch.full_like(value, math.nan) for name, value in tensors.items()}, saved)
    with pytest.raises(DivergedError, match="the loss is nan in epoch 2"):
        train(config, resume=True, show_progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("locale", "language"), [("no-NO-x-nord", "no"), ("zh-hant-hk", "zh"), ("und", "und")]
)
def test_any_language_and_base_name_stand_in_the_card(
    locale: str, language: str, tiny_encoder: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    """To YAML a bare `no` is false."""
    base = tmp_path / "a: 'base'"
    shutil.copytree(tiny_encoder, base)
    changes = {"locale": locale, "base": str(base), "epochs": 1}
    folder = train(
        TrainingConfig(out=str(tmp_path / "out"), **settings | changes), show_progress=False
    )
    metadata = metadata_load(folder / "README.md")
    assert metadata is not None
    assert metadata["language"] == language
    assert metadata["base_model"] == "a: 'base'"


def test_precisions_may_differ_within_one_process(settings: dict[str, Any], tmp_path: Path) -> None:
    results = []
    for number, precision in enumerate(("fp32", "bf16", "fp32")):
        changes = {"precision": precision, "epochs": 1}
        config = TrainingConfig(out=str(tmp_path / str(number)), **settings | changes)
        results.append(weights(train(config, show_progress=False)))
    assert results[0] == results[2]
    assert results[0] != results[1]
