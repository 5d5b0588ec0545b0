"""Configs and isogloss.json that are damaged, lie, or ask for what would hurt."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .conftest import Files, Refused, Write

CONFIG, SPEC = "adapter_config.json", "isogloss.json"

# What no JSON file of an adapter may be.
NO_JSON: dict[str, bytes] = {
    "empty": b"",
    "text": b"r = 8",
    "half": b'{"peft_type": "LO',
    "null": b"null",
    "a list": b"[]",
    "a number": b"7",
    "UTF-16": '{"r": 8}'.encode("utf-16"),
    "Latin-1": '{"task": "ä"}'.encode("latin-1"),
    "nested": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested lists": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "five megabytes": b'{"a": "' + b"x" * (5 << 20) + b'"}',
    "a number of 10,000 digits": b'{"r": ' + b"9" * 10_000 + b"}",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94.",
    "a comment": b'{"r": 8} // the rank',
    "two values": b'{"r": 8}{"r": 8}',
    "NUL": b'{"r": 8}\x00',
}

LORA: dict[str, dict[str, Any]] = {
    "kind that isn't served": {"peft_type": "IA3"},
    "kind of our own": {"peft_type": "lora"},
    "kind is a list": {"peft_type": ["LORA"]},
    "kind is null": {"peft_type": None},
    "kind with code": {"peft_type": "LORA", "task_type": "SEQ_CLS", "modules_to_save": ["os"]},
    "prefix tuning": {"peft_type": "PREFIX_TUNING"},
    "rank 0": {"r": 0},
    "rank -1": {"r": -1},
    "rank of another": {"r": 3},
    "rank of a million": {"r": 1_000_000},
    "rank 10^30": {"r": 10**30},
    "rank is text": {"r": "2"},
    "rank is a fraction": {"r": 2.5},
    "rank is true": {"r": True},
    "rank is null": {"r": None},
    "rank is NaN": {"r": float("nan")},
    "alpha is infinite": {"lora_alpha": float("inf")},
    "alpha is NaN": {"lora_alpha": float("nan")},
    "alpha beyond fp32": {"lora_alpha": 1e300},
    "alpha is text": {"lora_alpha": "4"},
    "alpha is true": {"lora_alpha": True},
    "alpha is null": {"lora_alpha": None},
    "alpha 10^400": {"lora_alpha": 10**400},
    "no targets": {"target_modules": []},
    "targets are null": {"target_modules": None},
    "targets that aren't": {"target_modules": ["q_proj", "v_proj"]},
    "targets of numbers": {"target_modules": [1, 2]},
    "targets less than tensors": {"target_modules": ["query"]},
    "targets more than tensors": {"target_modules": ["query", "value", "key"]},
    "targets: no pattern": {"target_modules": "(query"},
    "targets: a pattern that takes for ever": {"target_modules": "(.*.*.*.*)*(a+)+$"},
    "embeddings": {"target_modules": ["word_embeddings"]},
    "layers that aren't": {"layers_to_transform": [99]},
    "layers less than tensors": {"layers_to_transform": [0]},
    "ranks of a pattern": {"rank_pattern": {"query": 10**9}},
    "ranks of another pattern": {"rank_pattern": {"query": 1}},
    "ranks are a list": {"rank_pattern": [8]},
    "alphas of a pattern": {"alpha_pattern": {"query": float("inf")}},
    "alphas are text": {"alpha_pattern": {"query": "4"}},
    "DoRA without magnitudes": {"use_dora": True},
    "biases": {"bias": "all"},
    "bias is a number": {"bias": 1},
    "other modules": {"modules_to_save": ["encoder"]},
    "other modules are text": {"modules_to_save": "classifier"},
    "new tokens": {"trainable_token_indices": [1, 2, 3]},
    "tokens of modules": {"modules_to_save": ["word_embeddings"]},
    "generation": {"task_type": "CAUSAL_LM"},
    "token classification": {"task_type": "TOKEN_CLS"},
    "question answering": {"task_type": "QUESTION_ANS"},
    "embedding": {"task_type": "FEATURE_EXTRACTION"},
    "task is a list": {"task_type": ["SEQ_CLS"]},
}

PREFIX: dict[str, dict[str, Any]] = {
    "length 0": {"num_virtual_tokens": 0},
    "length -3": {"num_virtual_tokens": -3},
    "length of another": {"num_virtual_tokens": 4},
    "length of a million": {"num_virtual_tokens": 1_000_000},
    "longer than texts may be": {"num_virtual_tokens": 32},
    "length is text": {"num_virtual_tokens": "3"},
    "length is true": {"num_virtual_tokens": True},
    "length is null": {"num_virtual_tokens": None},
    "layers of another": {"num_layers": 3},
    "width of another": {"token_dim": 16},
    "width is text": {"token_dim": "8"},
    "two submodules": {"num_transformer_submodules": 2},
    "LoRA": {"peft_type": "LORA"},
    "prompt tuning": {"peft_type": "PROMPT_TUNING"},
    "generation": {"task_type": "SEQ_2_SEQ_LM"},
    "other modules": {"modules_to_save": ["embeddings"]},
}

OTHER = "f" * 64
SPECS: dict[str, dict[str, Any]] = {
    "locale is none": {"locale": "Swiss German"},
    "locale is empty": {"locale": ""},
    "locale is a path": {"locale": "../../etc"},
    "locale isn't canonical": {"locale": "GSW-ch"},
    "locale isn't registered": {"locale": "zzz-CH"},
    "locale of 300 letters": {"locale": "de-x-" + "-".join(["abcdefgh"] * 40)},
    "locale is null": {"locale": None},
    "task is a path": {"task": "../intent"},
    "task is empty": {"task": ""},
    "task of two lines": {"task": "in\ntent"},
    "task of 65 letters": {"task": "a" * 65},
    "task type isn't served": {"task_type": "text-generation"},
    "task type of another head": {"task_type": "token-classification"},
    "task type without labels": {"task_type": "embedding"},
    "kind of another": {"kind": "mixture"},
    "kind isn't served": {"kind": "ia3"},
    "a label less": {"labels": ["a", "b"]},
    "a label more": {"labels": ["a", "b", "c", "d"]},
    "no labels": {"labels": []},
    "a label twice": {"labels": ["a", "b", "a"]},
    "labels of numbers": {"labels": [1, 2, 3]},
    "labels are text": {"labels": "abc"},
    "10,001 labels": {"labels": [str(number) for number in range(10_001)]},
    "labels are no Unicode": {"labels": ["a", "b", "\ud800"]},
    "another base": {"base_fingerprint": OTHER},
    "a fingerprint that is none": {"base_fingerprint": "tiny"},
    "base of 300 letters": {"base": "b" * 300},
    "base is null": {"base": None},
    "format 2": {"format": 2},
    "format is text": {"format": "one"},
    "figures are NaN": {"metrics": {"macro_f1": float("nan")}},
    "figures are infinite": {"metrics": {"macro_f1": float("inf")}},
    "figures are text": {"metrics": {"macro_f1": "good"}},
    "figures are a list": {"metrics": [0.9]},
    "settings are NaN": {"training": {"lr": float("nan")}},
    "settings are text": {"training": "fast"},
    "rank 0": {"rank": 0},
    "rank is text": {"rank": "high"},
    "prefix of a million": {"prefix_length": 1_000_000},
    "positions that aren't": {"prefix_positions": "random"},
    "pooling that isn't": {"pooling": "max"},
    "an unknown field": {"code": "import os"},
    "a hook": {"__reduce__": ["os.system", "id"]},
}

BOTTLENECKS: dict[str, Any] = {
    "none": None,
    "empty": {},
    "text": "houlsby",
    "placement that isn't": {"placement": "parallel", "size": 3},
    "other placement": {"placement": "pfeiffer", "size": 3},
    "size 0": {"placement": "houlsby", "size": 0},
    "size of another": {"placement": "houlsby", "size": 4},
    "size of a million": {"placement": "houlsby", "size": 1_000_000},
    "size is text": {"placement": "houlsby", "size": "three"},
    "activation that isn't": {"placement": "houlsby", "size": 3, "activation": "exec"},
    "scaling is infinite": {"placement": "houlsby", "size": 3, "scaling": float("inf")},
    "scaling is NaN": {"placement": "houlsby", "size": 3, "scaling": float("nan")},
    "scaling beyond fp32": {"placement": "houlsby", "size": 3, "scaling": 1e300},
    "an unknown field": {"placement": "houlsby", "size": 3, "module": "os"},
}


def changed(content: bytes, fields: dict[str, Any]) -> bytes:
    return json.dumps({**json.loads(content), **fields}).encode()


@pytest.mark.parametrize("name", [CONFIG, SPEC])
@pytest.mark.parametrize("content", NO_JSON)
def test_what_is_no_json_object(
    name: str, content: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    refused(write({**good["lora"], name: NO_JSON[content]}))


@pytest.mark.parametrize("kind", ["peft", "lora"])
@pytest.mark.parametrize("change", LORA)
def test_configs_of_lora(
    change: str, kind: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    files = good[kind]
    refused(write({**files, CONFIG: changed(files[CONFIG], LORA[change])}))


@pytest.mark.parametrize("change", PREFIX)
def test_configs_of_prefixes(
    change: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    files = good["prefix"]
    refused(write({**files, CONFIG: changed(files[CONFIG], PREFIX[change])}))


@pytest.mark.parametrize("kind", ["lora", "prefix", "bottleneck"])
@pytest.mark.parametrize("change", SPECS)
def test_specs(
    change: str, kind: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    files = good[kind]
    refused(write({**files, SPEC: changed(files[SPEC], SPECS[change])}))


@pytest.mark.parametrize("change", BOTTLENECKS)
def test_forms_of_bottlenecks(
    change: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    files = good["bottleneck"]
    form = {"bottleneck": BOTTLENECKS[change]}
    refused(write({**files, SPEC: changed(files[SPEC], form)}))


@pytest.mark.parametrize(
    ("name", "again"),
    [
        (CONFIG, '"r": 2'),
        (CONFIG, '"lora_alpha": 1e30'),
        (CONFIG, '"more": {"a": 1, "a": 2}'),
        (SPEC, '"labels": ["a", "b", "c"]'),
        (SPEC, '"locale": "gsw-CH"'),
        (SPEC, '"metrics": {"accuracy": 0.5, "accuracy": 0.9}'),
    ],
)
def test_keys_that_occur_twice(
    name: str, again: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    """Readers may take one or the other: what is checked must be what is read."""
    content = good["lora"][name].rstrip()[:-1] + f", {again}}}".encode()
    error = refused(write({**good["lora"], name: content}))
    assert "twice" in str(error)


@pytest.mark.parametrize("spec_of", ["lora", "prefix", "bottleneck"])
@pytest.mark.parametrize("rest_of", ["lora", "prefix", "bottleneck"])
def test_parts_of_different_adapters(
    spec_of: str, rest_of: str, good: dict[str, Files], write: Write, refused: Refused
) -> None:
    if spec_of == rest_of:
        files = {**good[rest_of], "adapter_model.safetensors": b""}
    else:
        files = {**good[rest_of], SPEC: good[spec_of][SPEC]}
    refused(write(files))


@pytest.mark.parametrize(
    "options",
    [
        {"locale": "no_such locale"},
        {"locale": "zzz"},
        {"task": "../intent"},
        {"task": ""},
        {"alias": "../production"},
        {"labels": ["a", "b"]},
        {"labels": ["a", "a", "b"]},
        {"labels": ["a", "b", ""]},
        {"labels": ["a", "b", "\ud800"]},
        {"base": "../no-such-base"},
    ],
)
def test_what_the_publisher_says(
    options: dict[str, Any], good: dict[str, Files], write: Write, refused: Refused
) -> None:
    refused(write(good["peft"]), **options)
