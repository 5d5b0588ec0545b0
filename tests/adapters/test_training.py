from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import metadata_load
from safetensors.torch import load_file

from isogloss.adapters import accelerator
from isogloss.adapters.accelerator import make_accelerator
from isogloss.adapters.data import read_examples
from isogloss.adapters.evaluation import classification_metrics
from isogloss.adapters.training import TrainingConfig, train
from isogloss.core.base import fingerprint, locate_base
from isogloss.core.errors import (
    DivergedError,
    OutputFolderError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import TinyBase
    from .conftest import EngineLogits, PeftLogits, SpecOf, WeightsOf

ROWS = 96


@pytest.fixture(scope="session")
def trained(training_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "adapter"
    changes = {"targets": ("query", "value"), "epochs": 40, "patience": 40, "batch_size": 16}
    return train(TrainingConfig(out=str(out), **training_settings | changes), show_progress=False)


def test_it_learns(
    trained: Path, labelled_data: Path, peft_logits: PeftLogits, spec_of: SpecOf
) -> None:
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
    trained: Path, tiny_encoder: Path, training_settings: dict[str, Any], spec_of: SpecOf
) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "isogloss.json",
        "learning_curve.svg",
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


def test_the_card_has_front_matter(trained: Path, spec_of: SpecOf) -> None:
    metadata = metadata_load(trained / "README.md")
    assert metadata is not None
    assert metadata["language"] == "gsw"
    assert metadata["base_model"] == "tiny"
    assert metadata["library_name"] == "peft"
    assert {"lora", "sequence-classification"} <= set(metadata["tags"])
    text = (trained / "README.md").read_text()
    spec = spec_of(trained)
    settings = ("- targets: query, value\n", "- alpha: default\n")
    for part in ("# intent/gsw-CH", *spec.labels, f"{spec.metrics['macro_f1']:.3f}", *settings):
        assert part in text


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
def test_peft_gives_the_engines_logits(
    model_type: str,
    tiny_base: TinyBase,
    trained: Path,
    training_settings: dict[str, Any],
    labelled_data: Path,
    peft_logits: PeftLogits,
    engine_logits: EngineLogits,
    tmp_path: Path,
) -> None:
    folder, base = trained, training_settings["base"]
    if model_type == "bert":
        base = str(tiny_base("bert"))
        config = TrainingConfig(
            out=str(tmp_path / "bert"), **training_settings | {"base": base, "learning_rate": 1e-3}
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
    tiny_encoder: Path, training_settings: dict[str, Any], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_encoder, base)
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    folder = train(
        TrainingConfig(out=str(tmp_path / "out"), **training_settings | {"base": str(base)}),
        show_progress=False,
    )
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    # Nor is anything of the base in the adapter.
    saved = load_file(folder / "adapter_model.safetensors")
    assert all(".lora_" in name or ".classifier." in name for name in saved)


def test_the_seed_decides_the_weights(
    training_settings: dict[str, Any], tmp_path: Path, weights_of: WeightsOf
) -> None:
    folders: list[Path] = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.manual_seed(len(folders))  # which must not matter
        config = TrainingConfig(
            out=str(tmp_path / name), **training_settings | {"seed": seed, "epochs": 2}
        )
        folders.append(train(config, show_progress=False))
    assert weights_of(folders[0]) == weights_of(folders[1])
    assert weights_of(folders[0]) != weights_of(folders[2])


def test_it_stops_early(
    training_settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At such a rate nothing is learnt, so no epoch is better than the first for long."""
    changes = {"epochs": 400, "patience": 2, "learning_rate": 1e-12}
    train(TrainingConfig(out=str(tmp_path / "out"), **training_settings | changes))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2", "epoch 3"]
    assert ["(best so far)" in line for line in lines] == [True, False, False]


def test_a_folder_that_exists_is_not_touched(
    training_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputFolderError, match="out exists; choose another folder or remove it"):
        train(TrainingConfig(out=str(tmp_path / "out"), **training_settings))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_that_leads_nowhere_is_in_the_way(
    training_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputFolderError, match="out exists; choose another folder or remove it"):
        train(TrainingConfig(out=str(tmp_path / "out"), **training_settings))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_training_is_quiet(training_settings: dict[str, Any], tmp_path: Path) -> None:
    """No line of a library's, in a process where nothing has been set up."""
    code = """
import json, sys
from isogloss.adapters.training import TrainingConfig, train
train(TrainingConfig(**json.loads(sys.argv[1])), show_progress=False)
"""
    settings = training_settings | {"out": str(tmp_path / "out"), "epochs": 1}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, json.dumps(settings)],
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("epoch")]
    assert (done.returncode, done.stdout, lines) == (0, "", [])


def test_the_device_of_an_index_is_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accelerate computes on the current CUDA device, whatever the index asked for."""
    current: list[torch.device] = []
    monkeypatch.setattr(accelerator, "choose_device", torch.device)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr("accelerate.Accelerator", lambda **options: options)
    for device in ("cuda", "cuda:1", "cpu"):
        options: Any = make_accelerator("fp32", device)
        assert options == {"mixed_precision": "no", "cpu": device == "cpu"}
    assert current == [torch.device("cuda:1")]


@pytest.mark.parametrize("rate", [1e12, 1e30])
@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("batch_size", [16, ROWS])  # of one step, only the dev rows show the end
def test_a_loss_that_is_no_number_leaves_nothing(
    rate: float, epochs: int, batch_size: int, training_settings: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"learning_rate": rate, "epochs": epochs, "batch_size": batch_size, "warmup": 0.0}
    with pytest.raises(DivergedError, match="lower the learning rate") as caught:
        train(
            TrainingConfig(out=str(tmp_path / "out"), **training_settings | changes),
            show_progress=False,
        )
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("locale", "language"), [("no-NO-x-nord", "no"), ("zh-hant-hk", "zh"), ("und", "und")]
)
def test_any_language_and_base_name_stand_in_the_card(
    locale: str,
    language: str,
    tiny_encoder: Path,
    training_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    """To YAML a bare `no` is false."""
    base = tmp_path / "a: 'base'"
    shutil.copytree(tiny_encoder, base)
    changes = {"locale": locale, "base": str(base), "epochs": 1}
    folder = train(
        TrainingConfig(out=str(tmp_path / "out"), **training_settings | changes),
        show_progress=False,
    )
    metadata = metadata_load(folder / "README.md")
    assert metadata is not None
    assert metadata["language"] == language
    assert metadata["base_model"] == "a: 'base'"


def test_precisions_may_differ_within_one_process(
    training_settings: dict[str, Any], tmp_path: Path, weights_of: WeightsOf
) -> None:
    results = []
    for number, precision in enumerate(("fp32", "bf16", "fp32")):
        changes = {"precision": precision, "epochs": 1}
        config = TrainingConfig(out=str(tmp_path / str(number)), **training_settings | changes)
        results.append(weights_of(train(config, show_progress=False)))
    assert results[0] == results[2]
    assert results[0] != results[1]
