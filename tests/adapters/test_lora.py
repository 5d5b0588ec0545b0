"""The names, patterns and scales of LoRA configs; what they compute is in test_loading.py."""

from __future__ import annotations

import json
import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from isogloss.adapters.files import CONFIG_FILE, WEIGHTS_FILE
from isogloss.adapters.lora import MAX_RANK, LoraLayout
from isogloss.adapters.targets import MATCH_SECONDS
from isogloss.core.base import EncoderShape
from isogloss.core.errors import (
    AdapterConfigError,
    IsoglossError,
    NonFiniteWeightsError,
    RankLimitError,
    TargetModulesError,
    TensorKeysError,
    TensorShapeError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import PeftAdapter, TinyBase
    from .conftest import ChangeConfig, Read, Refused

pytestmark = pytest.mark.usefixtures("no_pickle")
SHAPE = EncoderShape(
    model_type="xlm-roberta",
    vocab_size=120,
    hidden_size=16,
    layers=3,
    intermediate_size=32,
    max_position_embeddings=42,
    pad_token_id=1,
)
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "task_type": "SEQ_CLS",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["query", "value"],
}
# Takes a backtracking matcher longer than anyone waits.
ENDLESS = r"(.*)(.*)(.*)(.*)(.*)(.*)(.*)\1\2\3\4\5\6\7[A-Z]"


def layout(**changes: Any) -> LoraLayout:
    return LoraLayout.parse(CONFIG | changes, SHAPE)


def refusal(error: type[IsoglossError], **changes: Any) -> str:
    with pytest.raises(error) as caught:
        layout(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


# -- which modules: PEFT itself says


NAMES = st.sampled_from(
    (
        *("query", "key", "value", "dense", "output.dense", "attention.output.dense"),
        *("intermediate.dense", "layer.1.output.dense", "encoder.layer.2.attention.self.key"),
        "roberta.encoder.layer.1.attention.self.value",
    )
)
PATTERNS = st.sampled_from(
    (
        *(r".*\.query", r".*layer\.1\..*(key|value)", r"roberta\..*\.dense", r".*\.[qk][a-z]+"),
        *(r"(?!.*attention).*dense", r".*layer\.(?P<n>\d)\..*self\.value"),
    )
)
ENDINGS = st.sampled_from(["query", r"1.*\.value", "self.key", r"output\.dense", "dense", ".*"])
CONFIGS = st.fixed_dictionaries(
    {"target_modules": st.lists(NAMES, min_size=1, max_size=3, unique=True) | PATTERNS},
    optional={
        "exclude_modules": st.lists(NAMES, min_size=1, max_size=2, unique=True) | PATTERNS,
        "layers_to_transform": st.integers(0, 3) | st.lists(st.integers(0, 3), max_size=3),
        "layers_pattern": st.sampled_from(["layer", "", "block", ["block", "layer"]]),
        "rank_pattern": st.dictionaries(ENDINGS, st.integers(1, 6), max_size=2),
        "alpha_pattern": st.dictionaries(ENDINGS, st.integers(1, 9), max_size=2),
        "use_rslora": st.booleans(),
    },
)


@pytest.fixture(scope="module")
def hollow_model() -> Any:
    """XLM-R with a head, without weights."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    config = XLMRobertaConfig(
        vocab_size=SHAPE.vocab_size,
        hidden_size=SHAPE.hidden_size,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=2,
        intermediate_size=SHAPE.intermediate_size,
    )

    def make() -> Any:
        with torch.device("meta"):
            return XLMRobertaForSequenceClassification(config)

    return make


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(changes=CONFIGS)
def test_modules_ranks_and_scales_are_those_that_peft_makes(
    hollow_model: Any, changes: dict[str, Any]
) -> None:
    from peft import LoraConfig, get_peft_model

    options = {key: value for key, value in (CONFIG | changes).items() if key != "peft_type"}
    try:
        ours = layout(**changes)
    except (TargetModulesError, AdapterConfigError):
        ours = None
    try:
        with warnings.catch_warnings():
            # Patterns that match nothing are worth a warning to PEFT.
            warnings.simplefilter("ignore", RuntimeWarning)
            adapted = get_peft_model(hollow_model(), LoraConfig(**options), low_cpu_mem_usage=True)
    except (ValueError, UnboundLocalError):  # the latter: a list of layers_pattern that is empty
        assert ours is None
        return
    made = {
        name.removeprefix("base_model.model.roberta."): (
            module.r["default"],
            pytest.approx(module.scaling["default"]),
        )
        for name, module in adapted.named_modules()
        if hasattr(module, "lora_A") and not isinstance(module.r, int)
    }
    if ours is None:
        # Stricter than PEFT: a name that reaches nothing, or an embedding or norm.
        return
    found: Any = {name: (own.rank, own.scale) for name, own in ours.modules.items()}
    assert found == made


def test_all_linear_without_peft_s_expansion() -> None:
    assert layout(target_modules="all-linear").modules.keys() == SHAPE.linears().keys()
    assert layout(target_modules="ALL-LINEAR").targets == ("ALL-LINEAR",)


# -- patterns from strangers


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": ENDLESS},
        {"exclude_modules": ENDLESS},
        {"layers_pattern": ENDLESS, "layers_to_transform": [1]},
        {"target_modules": "x" * 3_000},
    ],
)
def test_patterns_that_take_for_ever_are_given_up(changes: dict[str, Any]) -> None:
    begin = time.monotonic()
    message = refusal(AdapterConfigError, **changes)
    # Not a measurement: a matcher without a limit would not come back at all.
    assert time.monotonic() - begin < 20 * MATCH_SECONDS
    assert "takes too long to match" in message
    assert "list the modules by name" in message


@pytest.mark.parametrize(
    "pattern",
    (
        *("(", "[", "*", "a{2,1}", "(?P<a>x)(?P<a>y", "(?R)*", "(?1)(x)", "(?:query){e<=3}"),
        *(r"\p{L}+", "(?|a|b)", r"\L<names>", "(?<n>x)"),
    ),
)
def test_what_is_no_pattern_for_peft_is_none_here(pattern: str) -> None:
    assert "is no pattern" in refusal(AdapterConfigError, target_modules=f"{pattern}.*")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"rank_pattern": ["query"]}, "rank_pattern is ['query']"),
        ({"rank_pattern": {"query": "8"}}, "rank_pattern of 'query' is '8'"),
        ({"alpha_pattern": 5}, "alpha_pattern is 5"),
        ({"alpha_pattern": {"query": None}}, "alpha_pattern of 'query' is None"),
        ({"alpha_pattern": {"query": float("inf")}}, "expected a finite number"),
        ({"exclude_modules": 5}, "exclude_modules is 5"),
        ({"exclude_modules": [5]}, "exclude_modules is [5]"),
        ({"layers_pattern": [5], "layers_to_transform": 1}, "layers_pattern is [5]"),
        ({"target_modules": ".*query", "layers_to_transform": 0}, "put the layers into it"),
        ({"layers_pattern": "layer"}, "a pattern needs layers"),
    ],
)
def test_ill_typed_options(changes: dict[str, Any], part: str) -> None:
    assert part in refusal(AdapterConfigError, **changes)


@pytest.mark.parametrize("rank", [0, MAX_RANK + 1, -1])
def test_ranks_of_a_pattern_have_the_same_limits(rank: int) -> None:
    message = refusal(RankLimitError, rank_pattern={"query": rank})
    assert f"rank_pattern of 'query' is {rank}" in message


@pytest.mark.parametrize(
    "targets",
    [["query", "word_embeddings"], ["embeddings.position_embeddings"], r".*embeddings", ".*"],
)
def test_embeddings_are_refused_by_name(targets: object) -> None:
    message = refusal(TargetModulesError, target_modules=targets)
    assert "_embeddings'" in message
    assert "dense, key, query, value" in message


def test_the_head_of_masked_lm_is_refused_by_name(
    tiny_base: TinyBase, peft_adapter: PeftAdapter, refused: Refused, read: Read
) -> None:
    for model_type, name in {
        "xlm-roberta": "lm_head.dense",
        "bert": "cls.predictions.transform.dense",
    }.items():
        base = tiny_base(model_type)
        folder = peft_adapter(base, task_type=None, targets=["query", "dense"])
        refused(TargetModulesError, folder, repr(name), "exclude_modules", base=base)
        allowed = peft_adapter(
            base, task_type=None, targets=["query", "dense"], exclude_modules=[name]
        )
        assert read(allowed, base=base).spec.task_type == "masked-lm"


# -- scales and magnitudes


@pytest.mark.parametrize(
    "changes",
    [{"lora_alpha": 1e300}, {"lora_alpha": -1e42}, {"alpha_pattern": {"value": 10**300}}],
    ids=["huge", "negative", "pattern"],
)
def test_a_scale_that_leaves_single_precision(
    plain: Path, changes: dict[str, Any], refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, **changes)
    refused(AdapterConfigError, plain, "lora_alpha", "out of single precision's range")


def test_the_largest_scale_that_fits(plain: Path, read: Read, change_config: ChangeConfig) -> None:
    change_config(plain, lora_alpha=1e30)
    assert read(plain).spec.rank == 4


@pytest.fixture
def dora(tiny_base: TinyBase, peft_adapter: PeftAdapter) -> Path:
    return peft_adapter(tiny_base("xlm-roberta"), use_dora=True)


def change_magnitudes(folder: Path, change: Any) -> None:
    from safetensors.numpy import save_file

    tensors = load_file(folder / WEIGHTS_FILE)
    name = next(name for name in sorted(tensors) if "magnitude" in name)
    change(tensors, name)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def test_magnitudes_are_checked_like_all_else(dora: Path, refused: Refused, read: Read) -> None:
    assert read(dora).spec.kind == "lora"
    saved = (dora / WEIGHTS_FILE).read_bytes()
    change_magnitudes(dora, lambda tensors, name: tensors.pop(name))
    refused(TensorKeysError, dora, "lacks 1 tensors", "lora_magnitude_vector")
    (dora / WEIGHTS_FILE).write_bytes(saved)
    change_magnitudes(dora, lambda tensors, name: tensors.update({name: tensors[name][:-1]}))
    refused(TensorShapeError, dora, "lora_magnitude_vector is [15]")
    (dora / WEIGHTS_FILE).write_bytes(saved)
    change_magnitudes(dora, lambda tensors, name: tensors[name].fill(np.nan))
    refused(NonFiniteWeightsError, dora, "lora_magnitude_vector")
    (dora / WEIGHTS_FILE).write_bytes(saved)
    config = json.loads((dora / CONFIG_FILE).read_text())
    (dora / CONFIG_FILE).write_text(json.dumps(config | {"use_dora": False}))
    refused(TensorKeysError, dora, "doesn't account for", "lora_magnitude_vector")


def test_magnitudes_that_make_no_finite_gain(dora: Path, tiny_base: TinyBase, read: Read) -> None:
    from isogloss.adapters.loading import load_adapter
    from isogloss.core.encoder import load_encoder

    encoder = load_encoder(tiny_base("xlm-roberta"), device="cpu")
    largest = np.finfo(np.float32).max
    change_magnitudes(dora, lambda tensors, name: tensors[name].fill(largest))
    with pytest.raises(NonFiniteWeightsError, match="no finite gain"):
        load_adapter(read(dora).files, encoder)
