from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from isogloss.core.base import fingerprint, locate_base
from isogloss.core.encoder import Encoder, load_encoder, quiet_transformers
from isogloss.core.errors import InputError, UnsupportedBaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..conftest import TinyBase

MODEL_TYPES = ("xlm-roberta", "bert")
LONG = "the quick brown fox " * 40


@pytest.fixture(scope="module")
def encoders(tiny_base: TinyBase) -> Callable[[str], Encoder]:
    made: dict[str, Encoder] = {}

    def encoder(model_type: str) -> Encoder:
        if model_type not in made:
            made[model_type] = load_encoder(tiny_base(model_type), device="cpu")
        return made[model_type]

    return encoder


@pytest.fixture
def copy_of(tiny_base: TinyBase, tmp_path: Path) -> Callable[..., Path]:
    """A base to change at will."""

    def make(model_type: str, **options: Any) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(tiny_base(model_type, **options), folder)
        return folder

    return make


# -- loading


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_what_is_loaded(tiny_base: TinyBase, model_type: str) -> None:
    folder = tiny_base(model_type)
    encoder = load_encoder(folder, device="cpu", precision="fp32")
    assert encoder.name == folder.name
    assert encoder.fingerprint == fingerprint(locate_base(folder)).digest
    assert encoder.shape == locate_base(folder).shape
    assert (encoder.device, encoder.dtype) == (torch.device("cpu"), torch.float32)
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.float32}
    stored = load_file(folder / "model.safetensors")
    for name, parameter in encoder.model.named_parameters():
        assert torch.equal(parameter, stored[name])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_it_is_frozen_and_in_evaluation_mode(
    encoders: Callable[[str], Encoder], model_type: str
) -> None:
    model = encoders(model_type).model
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("saved_as", ["AutoModelForMaskedLM", "AutoModelForSequenceClassification"])
def test_checkpoints_with_a_head(tiny_base: TinyBase, model_type: str, saved_as: str) -> None:
    folder = tiny_base(model_type, saved_as=saved_as)
    if (model_type, saved_as) == ("bert", "AutoModelForMaskedLM"):
        with pytest.raises(UnsupportedBaseError, match="lacks a pooler"):
            load_encoder(folder, device="cpu")
        return
    plain = load_encoder(tiny_base(model_type), device="cpu")
    encoder = load_encoder(folder, device="cpu")
    assert encoder.fingerprint == plain.fingerprint
    for name, parameter in plain.model.named_parameters():
        assert torch.equal(encoder.model.get_parameter(name), parameter)


def test_half_precision(tiny_base: TinyBase) -> None:
    encoder = load_encoder(tiny_base("bert"), device="cpu", precision="bf16")
    assert encoder.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in encoder.model.parameters()} == {torch.bfloat16}


def test_loading_is_quiet(tiny_base: TinyBase) -> None:
    """Neither a line, a bar nor a warning, in a process where nothing has been set up."""
    code = """
import sys
from isogloss.core.encoder import load_encoder
long, *folders = sys.argv[1:]
for folder in folders:
    load_encoder(folder, device="cpu").tokenize([long])
"""
    folders = [
        str(tiny_base(model_type, saved_as=saved_as))
        for model_type in MODEL_TYPES
        for saved_as in ("AutoModel", "AutoModelForSequenceClassification")
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-W", "error::UserWarning", "-c", code, LONG, *folders],
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_quiet_ends_where_it_ends() -> None:
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    with quiet_transformers():
        assert transformers_logging.get_verbosity() == logging.ERROR
        assert not transformers_logging.is_progress_bar_enabled()
    with pytest.raises(KeyError), quiet_transformers():
        raise KeyError
    assert transformers_logging.get_verbosity() == before
    assert transformers_logging.is_progress_bar_enabled() == bars


# -- bases that can't be loaded


def refused(folder: Path) -> str:
    with pytest.raises(UnsupportedBaseError) as caught:
        load_encoder(folder, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_bert_without_its_pooler(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["pooler.dense.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert "lacks a pooler, which BERT's classification head needs" in refused(folder)


def test_a_missing_tensor_is_not_drawn_at_random(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("xlm-roberta")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.layer.1.output.dense.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert "lacks 1 tensors, encoder.layer.1.output.dense.bias first" in refused(folder)


def test_no_tokenizer(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("xlm-roberta")
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "no tokenizer" in refused(folder)


def test_a_damaged_tokenizer(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    (folder / "tokenizer.json").write_text("{")
    assert "can't be loaded" in refused(folder)


def test_a_tokenizer_of_another_model(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("xlm-roberta")
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"] += [[f"▁piece{number}", -20.0] for number in range(500)]
    path.write_text(json.dumps(tokenizer))
    assert "pieces for an embedding of" in refused(folder)


def test_weights_that_do_not_fit_the_config(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("xlm-roberta")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 32}))
    assert "can't be loaded" in refused(folder)


def test_a_missing_shard(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert", max_shard_size="8KB")
    min(folder.glob("model-*.safetensors")).unlink()
    assert "can't be loaded" in refused(folder)


# -- tokenizing


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_rows_are_what_the_tokenizer_gives(
    encoders: Callable[[str], Encoder], model_type: str
) -> None:
    encoder = encoders(model_type)
    texts = ["wo isch mys päckli", "the lazy dog, el perro", "我的订单"]
    for text, (row, truncated) in zip(texts, encoder.tokenize(texts), strict=True):
        assert list(row.token_ids) == encoder.tokenizer(text)["input_ids"]
        assert not truncated
        assert row.mix == ()


def test_types_of_pairs(encoders: Callable[[str], Encoder]) -> None:
    ((bert, _),) = encoders("bert").tokenize([("the dog", "el perro")])
    assert bert.type_ids is not None
    first = bert.type_ids.index(1)
    assert bert.type_ids == (0,) * first + (1,) * (len(bert.token_ids) - first)
    tokens = encoders("bert").tokenizer.convert_ids_to_tokens(list(bert.token_ids))
    assert tokens[first - 1] == tokens[-1] == "[SEP]"
    ((xlm, _),) = encoders("xlm-roberta").tokenize([("the dog", "el perro")])
    assert xlm.type_ids is None
    assert xlm.token_ids.count(2) == 3


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("text", [LONG, (LONG, LONG), ("the dog", LONG), (LONG, "the dog")])
def test_long_texts_are_cut_and_it_is_said(
    encoders: Callable[[str], Encoder], model_type: str, text: str | tuple[str, str]
) -> None:
    encoder = encoders(model_type)
    short: Any = "fox" if isinstance(text, str) else ("fox", "dog")
    (whole, whole_cut), (row, cut) = encoder.tokenize([short, text])
    assert (whole_cut, cut) == (False, True)
    assert len(row.token_ids) == encoder.shape.max_tokens
    # The special tokens stay.
    assert (row.token_ids[0], row.token_ids[-1]) == (whole.token_ids[0], whole.token_ids[-1])
    separators = row.token_ids.count(row.token_ids[-1])
    assert separators == whole.token_ids.count(whole.token_ids[-1])
    if row.type_ids is not None:
        assert len(row.type_ids) == len(row.token_ids)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_text_that_just_fits_is_not_cut(
    encoders: Callable[[str], Encoder], model_type: str
) -> None:
    encoder = encoders(model_type)
    limit = encoder.shape.max_tokens
    words = 1
    while len(encoder.tokenizer("fox " * (words + 1))["input_ids"]) <= limit:
        words += 1
    (fits, fits_cut), (over, over_cut) = encoder.tokenize(["fox " * words, "fox " * (words + 1)])
    assert len(fits.token_ids) <= limit
    assert not fits_cut
    assert len(over.token_ids) == limit
    assert over_cut


def test_no_texts_give_no_rows(encoders: Callable[[str], Encoder]) -> None:
    assert encoders("bert").tokenize([]) == []


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0\u3000", ("", ""), (" ", "\n")])
def test_empty_texts(encoders: Callable[[str], Encoder], text: Any) -> None:
    with pytest.raises(InputError, match="text 1 is empty"):
        encoders("xlm-roberta").tokenize(["fox", text])


def test_half_a_pair_may_be_empty(encoders: Callable[[str], Encoder]) -> None:
    (first, _), (second, _) = encoders("bert").tokenize([("fox", ""), ("", "fox")])
    assert first.token_ids != second.token_ids


def test_pairs_and_singles_mix(encoders: Callable[[str], Encoder]) -> None:
    for model_type in ("xlm-roberta", "bert"):
        encoder = encoders(model_type)
        single, pair = encoder.tokenize(["fox"]), encoder.tokenize([("fox", "dog")])
        assert encoder.tokenize(["fox", ("fox", "dog"), "fox"]) == [*single, *pair, *single]
        assert encoder.tokenize([("fox", "dog"), "fox"]) == [*pair, *single]


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        1.5,
        b"fox",
        ["fox", "dog", "cat"],
        (),
        ("fox", None),
        ("fox", 1),
        {"fox": "dog"},
        {"fox"},
        "lone \ud800 surrogate",
        ("fox", "\udfff"),
    ],
    ids=repr,
)
def test_what_is_no_text(encoders: Callable[[str], Encoder], text: Any) -> None:
    with pytest.raises(InputError, match="text 1 is") as caught:
        encoders("xlm-roberta").tokenize(["fox", text])
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=st.text(min_size=1, max_size=80), model_type=st.sampled_from(MODEL_TYPES))
def test_any_text_gives_a_row_that_the_base_takes(
    encoders: Callable[[str], Encoder], text: str, model_type: str
) -> None:
    encoder = encoders(model_type)
    try:
        ((row, truncated),) = encoder.tokenize([text])
    except InputError:
        assert not text.strip()
        return
    assert 2 <= len(row.token_ids) <= encoder.shape.max_tokens
    assert max(row.token_ids) < encoder.shape.vocab_size
    assert truncated == (len(encoder.tokenizer(text)["input_ids"]) > encoder.shape.max_tokens)
