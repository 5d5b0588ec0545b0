from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    XLMRobertaForMaskedLM,
)

from isogloss.adapters.corpus import is_held_out, read_corpora
from isogloss.adapters.masked_lm import MaskedLMTrainer
from isogloss.adapters.pretraining import PretrainingConfig, PretrainingResult, pretrain
from isogloss.core.encoder import load_encoder
from isogloss.core.errors import (
    DataNotFoundError,
    DivergedError,
    EmptyDataError,
    InputError,
    MalformedRowError,
    OutputFolderError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def log_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def trainer_for(
    folder: Path, run: Path, settings: dict[str, Any], kind: type[MaskedLMTrainer] = MaskedLMTrainer
) -> MaskedLMTrainer:
    model = XLMRobertaForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    run.mkdir()
    return kind(model, tokenizer, PretrainingConfig(out=str(run), **settings), run)


class Recorder(MaskedLMTrainer):
    """Keeps the batches that it trained on and those that it was judged by."""

    def losses(
        self, batch: NDArray[np.int32], *, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if not hasattr(self, "trained"):
            self.trained: list[list[int]] = []
            self.judged: list[list[int]] = []
        (self.trained if self.model.training else self.judged).extend(batch[:, 1:-1].tolist())
        return super().losses(batch, seed=seed)


def test_the_folder_loads_in_transformers(tiny_encoder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder)
    encoder = AutoModel.from_pretrained(tiny_encoder, add_pooling_layer=False)
    model = AutoModelForMaskedLM.from_pretrained(tiny_encoder)
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.model_max_length == 48
    encoded = tokenizer(["Paket bitte", "где мой 包裹 😀"], padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = encoder(**encoded).last_hidden_state
        logits = model(**encoded).logits
    assert hidden.shape[-1] == 32
    assert logits.shape[-1] == len(tokenizer)
    assert torch.isfinite(logits).all()


def test_the_folder_is_a_base_that_takes_its_longest_sequence(tiny_encoder: Path) -> None:
    encoder = load_encoder(tiny_encoder)
    assert encoder.shape.max_tokens == 48
    [(row, truncated)] = encoder.tokenize(["Paket " * 100])
    assert (len(row.token_ids), truncated) == (48, True)


def test_no_machine_path_is_in_the_folder(tiny_encoder: Path) -> None:
    for name, data in content(tiny_encoder).items():
        assert str(tiny_encoder.parent).encode() not in data, name


def test_the_loss_falls(tiny_encoder: Path) -> None:
    log = log_of(tiny_encoder)
    assert [line["step"] for line in log] == list(range(10, 10 * len(log) + 1, 10))
    vocabulary = len(AutoTokenizer.from_pretrained(tiny_encoder))
    assert log[-1]["held_out"] < log[0]["held_out"] - 0.3
    assert log[-1]["held_out"] < math.log(vocabulary) - 1


def test_the_result_says_what_was_done(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = pretraining_settings | {"tokens": 1000}
    result = pretrain(PretrainingConfig(out=str(tmp_path / "out"), **settings))
    assert isinstance(result, PretrainingResult)
    model = AutoModelForMaskedLM.from_pretrained(result.folder)
    assert result.parameters == sum(p.numel() for p in model.parameters())
    assert 1000 <= result.tokens < 1000 + 256
    assert result.steps >= 4
    assert result.loss is not None
    assert 0 < result.loss < 10


def test_two_runs_give_the_same_bytes_and_another_seed_others(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    folders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        settings = pretraining_settings | {"tokens": 1000, "seed": seed}
        pretrain(PretrainingConfig(out=str(tmp_path / name), **settings))
        folders.append(content(tmp_path / name))
    assert folders[0] == folders[1]
    assert folders[0]["model.safetensors"] != folders[2]["model.safetensors"]


def test_logits_at_masked_positions_are_those_of_the_whole_model(
    tiny_encoder: Path, pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    trainer = trainer_for(tiny_encoder, tmp_path / "run", pretraining_settings)
    batch = np.random.default_rng(5).integers(4, 300, size=(7, 20)).astype(np.int32)
    batch[:, 0], batch[:, -1] = 0, 2
    with torch.no_grad():
        masked, bag, targets = trainer.losses(batch, seed=3)
        inputs, chosen = trainer.mask(batch, np.random.default_rng(3))
        logits = trainer.model(input_ids=torch.from_numpy(inputs.astype(np.int64))).logits
    ids = torch.from_numpy(batch.astype(np.int64))
    at = torch.from_numpy(chosen)
    assert torch.equal(targets, ids[at])
    torch.testing.assert_close(masked, functional.cross_entropy(logits[at], ids[at]))
    words = torch.stack([-logits[row, 0].log_softmax(-1)[ids[row, 1:-1]] for row in range(7)])
    torch.testing.assert_close(bag, words.mean())


def test_masks_are_as_in_bert(
    tiny_encoder: Path, pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    trainer = trainer_for(tiny_encoder, tmp_path / "run", pretraining_settings)
    vocabulary = len(trainer.tokenizer)
    batch = np.full((400, 50), 10, dtype=np.int32)
    batch[:, 0], batch[:, -1] = 0, 2
    inputs, chosen = trainer.mask(batch, np.random.default_rng(0))
    assert (batch == np.where(chosen, batch, inputs)).all()  # what isn't chosen isn't changed
    assert not chosen[:, [0, -1]].any()
    assert math.isclose(chosen[:, 1:-1].mean(), 0.2, abs_tol=0.01)
    masked = inputs[chosen] == trainer.tokenizer.mask_token_id
    kept = inputs[chosen] == 10
    assert math.isclose(masked.mean(), 0.8, abs_tol=0.02)
    assert math.isclose(kept.mean(), 0.1, abs_tol=0.02)
    replaced = inputs[chosen][~masked & ~kept]
    assert replaced.min() >= 4  # never a special token
    assert replaced.max() < vocabulary - 1
    # However short the batch, there is something to predict.
    short = np.array([[0, 10, 2]], dtype=np.int32)
    for seed in range(20):
        assert trainer.mask(short, np.random.default_rng(seed))[1].sum() == 1


def test_held_out_lines_are_never_trained_on(
    tiny_encoder: Path, plain_text: Path, pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    trainer = trainer_for(tiny_encoder, tmp_path / "run", pretraining_settings, Recorder)
    assert isinstance(trainer, Recorder)
    corpora = read_corpora([plain_text])
    trainer.train(corpora)

    def written(sequences: list[list[int]]) -> str:
        return "\n".join(" ".join(map(str, [0, *sequence])) + " " for sequence in sequences)

    def occurs(text: str, among: str) -> bool:
        ids = trainer.tokenizer(text, add_special_tokens=False)["input_ids"]
        return " " + " ".join(map(str, ids)) + " " in among

    trained, judged = written(trainer.trained), written(trainer.judged)
    texts = [text for locale in corpora.values() for text in locale]
    held_out = [text for text in texts if is_held_out(text)]
    assert len(held_out) >= 3
    assert not [text for text in held_out if occurs(text, trained)]
    assert [text for text in held_out if occurs(text, judged)]
    others = [text for text in texts if not is_held_out(text)]
    assert sum(occurs(text, trained) for text in others) > len(others) / 2
    assert not [text for text in others if occurs(text, judged)]


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"hidden_size": 0}, "hidden_size is 0; it must be at least 1"),
        ({"layers": -1}, "layers is -1"),
        ({"checkpoint_steps": 0}, "checkpoint_steps is 0"),
        ({"tokens": 0}, "tokens is 0"),
        ({"heads": 3}, "hidden size 32 is no multiple of 3 heads"),
        ({"vocab_size": 500}, "vocab_size is 500.*at least 1,000"),
        ({"mask_share": 0.0}, "mask_share is 0.0"),
        ({"mask_share": math.nan}, "mask_share is nan"),
        ({"max_length": 7}, "max_length is 7"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"bag_weight": math.inf}, "bag_weight is inf"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "fp8"}, "precision is 'fp8'; use auto, fp32, bf16"),
    ],
)
def test_settings_that_make_no_sense(
    setting: dict[str, Any], problem: str, pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = pretraining_settings | {"out": str(tmp_path / "out")} | setting
    with pytest.raises(InputError, match=problem):
        pretrain(PretrainingConfig(**settings))
    assert not list(tmp_path.iterdir())


def test_data_that_cannot_be_used_leaves_nothing(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    data, outs = tmp_path / "data", tmp_path / "outs"
    (data / "de").mkdir(parents=True)
    outs.mkdir()
    settings = pretraining_settings | {"data": (str(data),), "out": str(outs / "out")}
    config = PretrainingConfig(**settings)
    with pytest.raises(DataNotFoundError):
        pretrain(config)
    (data / "de" / "train.jsonl").write_text("{}\n")
    with pytest.raises(EmptyDataError):
        pretrain(config)
    (data / "de" / "train.jsonl").write_text('{"text": "x"}\nno JSON\n')
    with pytest.raises(MalformedRowError, match=r"train\.jsonl, line 2: not JSON"):
        pretrain(config)
    assert not list(outs.iterdir())


def test_without_a_held_out_line_there_is_no_loss(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    texts = [f"Paket {number} kaputt" for number in range(90)]
    (tmp_path / "data" / "de").mkdir(parents=True)
    rows = [json.dumps({"text": text}) + "\n" for text in texts if not is_held_out(text)]
    (tmp_path / "data" / "de" / "train.jsonl").write_text("".join(rows))
    settings = pretraining_settings | {"data": (str(tmp_path / "data"),), "tokens": 3000}
    result = pretrain(PretrainingConfig(out=str(tmp_path / "out"), **settings))
    assert result.loss is None
    assert {line["held_out"] for line in log_of(tmp_path / "out")} == {None}


def test_only_held_out_lines_are_too_little(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    texts = [f"Paket {number} kaputt" for number in range(500)]
    (tmp_path / "data" / "de").mkdir(parents=True)
    rows = [json.dumps({"text": text}) + "\n" for text in texts if is_held_out(text)]
    assert rows
    (tmp_path / "data" / "de" / "train.jsonl").write_text("".join(rows))
    settings = pretraining_settings | {"data": (str(tmp_path / "data"),)}
    with pytest.raises(EmptyDataError, match="every line is held out"):
        pretrain(PretrainingConfig(out=str(tmp_path / "out"), **settings))


def test_a_folder_that_exists_is_not_touched(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputFolderError, match="out exists"):
        pretrain(PretrainingConfig(out=str(tmp_path / "out"), **pretraining_settings))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_loss_that_is_no_number_ends_the_run(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    settings = pretraining_settings | {"learning_rate": 1e30}
    with pytest.raises(DivergedError, match="lower --learning-rate") as caught:
        pretrain(PretrainingConfig(out=str(tmp_path / "out"), **settings))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_once_done_it_leaves_only_the_model(tiny_encoder: Path) -> None:
    assert not list(tiny_encoder.parent.glob("tiny.*"))


def test_an_error_before_the_tokenizer_leaves_nothing(
    pretraining_settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isogloss.adapters.pretraining.train_tokenizer", fail)
    with pytest.raises(KeyboardInterrupt):
        pretrain(PretrainingConfig(out=str(tmp_path / "out"), **pretraining_settings))
    assert not list(tmp_path.iterdir())


def test_a_link_that_leads_nowhere_is_in_the_way(
    pretraining_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputFolderError, match="out exists"):
        pretrain(PretrainingConfig(out=str(tmp_path / "out"), **pretraining_settings))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_checkpoints_are_written_without_a_warning(
    tiny_encoder: Path,
    pretraining_settings: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer_for(tiny_encoder, tmp_path / "run", pretraining_settings).save_checkpoint()
    assert not caplog.records
