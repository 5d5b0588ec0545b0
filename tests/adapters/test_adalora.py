from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from isogloss.adapters.files import CONFIG_FILE, WEIGHTS_FILE, read_adapter_folder
from isogloss.adapters.heads import apply_heads
from isogloss.adapters.loading import load_adapter
from isogloss.core.delta import SlotImage
from isogloss.core.encoder import load_encoder
from isogloss.core.engine import Engine
from isogloss.core.errors import (
    AdapterConfigError,
    RankLimitError,
    TensorKeysError,
    TensorShapeError,
    UnsupportedAdapterError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import PeftAdapter, PeftAlone, TinyBase
    from .conftest import ChangeConfig, Refused

# PEFT takes AdaLoRA's pattern for LoRA's, and wonders.
pytestmark = pytest.mark.filterwarnings("ignore:The following rank_pattern keys:RuntimeWarning")
QUERY = "roberta.encoder.layer.0.attention.self.query"
RANK = 6
# What the allocator has kept of the ranks of two modules in each layer.
KEPT = ([True, False, True, True, False, False], [False] * 6, [True] * 6, [False] * 5 + [True])


@pytest.fixture
def trained(tiny_base: TinyBase, peft_adapter: PeftAdapter) -> Path:
    return peft_adapter(tiny_base("xlm-roberta"), kind="adalora", rank=RANK)


@pytest.fixture
def pruned(trained: Path) -> Path:
    """As PEFT exports it after the budget was allocated: each module with what it has kept."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(trained / WEIGHTS_FILE)
    names = sorted(name for name in tensors if name.endswith("lora_E"))
    pattern = {}
    for name, mask in zip(names, KEPT, strict=True):
        pattern[name.removeprefix("base_model.model.")] = mask
        at = name.removesuffix("lora_E")
        tensors[name] = tensors[name][mask]
        tensors[f"{at}lora_A"] = tensors[f"{at}lora_A"][mask]
        tensors[f"{at}lora_B"] = tensors[f"{at}lora_B"][:, mask].contiguous()
    save_file(tensors, trained / WEIGHTS_FILE, metadata={"format": "pt"})
    config = json.loads((trained / CONFIG_FILE).read_text())
    (trained / CONFIG_FILE).write_text(json.dumps(config | {"rank_pattern": pattern}))
    return trained


@pytest.mark.parametrize("alpha", [8, 0, -2])
@pytest.mark.parametrize("folder", ["trained", "pruned"])
def test_equals_peft(
    folder: str,
    alpha: int,
    request: pytest.FixtureRequest,
    tiny_base: TinyBase,
    peft_alone: PeftAlone,
    change_config: ChangeConfig,
) -> None:
    path, base = request.getfixturevalue(folder), tiny_base("xlm-roberta")
    change_config(path, lora_alpha=alpha)
    encoder = load_encoder(base, device="cpu")
    engine = Engine(encoder, slots=1)
    checked = read_adapter_folder(path, locale="de", task="intent")
    assert (checked.spec.kind, checked.spec.rank) == ("lora", RANK)
    adapter = load_adapter(checked.files, encoder)
    engine.bank.put(0, SlotImage.of(adapter.delta))
    rows = [row for row, _ in encoder.tokenize(["wo isch mys päckli", "привет"])]
    batch = [replace(row, mix=((0, 1.0),)) for row in rows]
    answers = apply_heads(*engine.forward(batch), [adapter.head] * len(rows))
    for answer, wanted in zip(answers, peft_alone(path, base, rows), strict=True):
        torch.testing.assert_close(answer, wanted, rtol=1e-5, atol=1e-5)


def test_what_has_kept_no_rank_is_left_out(pruned: Path, tiny_base: TinyBase) -> None:
    encoder = load_encoder(tiny_base("xlm-roberta"), device="cpu")
    checked = read_adapter_folder(pruned, locale="de", task="intent")
    ranks = [
        update.down.shape[0]
        for _, update in sorted(load_adapter(checked.files, encoder).delta.low_rank.items())
    ]
    assert ranks == [sum(mask) for mask in KEPT if any(mask)]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"init_r": None}, "init_r is None"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'"),
        ({"rank_pattern": [True]}, "rank_pattern is [True]"),
        ({"rank_pattern": {f"{QUERY}.lora_E": [True]}}, "6 times"),
        ({"rank_pattern": {f"{QUERY}.lora_E": [1] * RANK}}, "6 times"),
        ({"rank_pattern": {QUERY: [True] * RANK}}, "lora_E"),
        ({"rank_pattern": {f"{QUERY}.lora_E": [True] * RANK}}, "disagree on"),
        ({"rank_pattern": {"x.lora_E": [True] * RANK}}, "disagree on"),
        ({"lora_alpha": 1e300}, "out of single precision's range"),
    ],
)
def test_configs_that_misstate(
    trained: Path,
    changes: dict[str, Any],
    part: str,
    refused: Refused,
    change_config: ChangeConfig,
) -> None:
    change_config(trained, **changes)
    refused(AdapterConfigError, trained, part)


def test_limits_and_options_are_those_of_lora(
    trained: Path, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(trained, bias="all")
    refused(UnsupportedAdapterError, trained, "bias is 'all'")
    change_config(trained, bias="none", init_r=513)
    refused(RankLimitError, trained, "init_r is 513")


@pytest.mark.parametrize("part", ["lora_A", "lora_B", "lora_E"])
def test_tensors_that_do_not_fit(pruned: Path, part: str, refused: Refused) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(pruned / WEIGHTS_FILE)
    name = f"base_model.model.{QUERY}.{part}"
    whole = tensors.pop(name)
    save_file(tensors, pruned / WEIGHTS_FILE)
    refused(TensorKeysError, pruned, "lacks 1", name)
    save_file(tensors | {name: whole[:-1].copy()}, pruned / WEIGHTS_FILE)
    refused(TensorShapeError, pruned, name)
