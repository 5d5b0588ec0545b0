from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isogloss.adapters.files import CONFIG_FILE, WEIGHTS_FILE
from isogloss.core.errors import (
    AdapterConfigError,
    IsoglossError,
    LabelCountError,
    RankLimitError,
    TargetModulesError,
    TensorKeysError,
    UnsupportedAdapterError,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import ChangeConfig, Read, Refused

pytestmark = pytest.mark.usefixtures("no_pickle")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{'a': 1}"])
def test_a_config_that_is_no_json(plain: Path, content: bytes, refused: Refused) -> None:
    (plain / CONFIG_FILE).write_bytes(content)
    refused(AdapterConfigError, plain, CONFIG_FILE, "not JSON")


@pytest.mark.parametrize("content", ["[]", "null", "1", '"LORA"'])
def test_a_config_that_is_no_object(plain: Path, content: str, refused: Refused) -> None:
    (plain / CONFIG_FILE).write_text(content)
    refused(AdapterConfigError, plain, CONFIG_FILE, "not an object")


@pytest.mark.parametrize("kind", ["IA3", "P_TUNING", "XLORA", "lora", None, ["LORA"], {}])
def test_other_kinds(
    plain: Path, kind: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, peft_type=kind)
    refused(UnsupportedAdapterError, plain, f"peft_type is {kind!r}", "LORA, ADALORA, PREFIX")


@pytest.mark.parametrize("task_type", ["CAUSAL_LM", "SEQ_2_SEQ_LM", "", ["SEQ_CLS"], 1, None])
def test_other_task_types(
    plain: Path, task_type: object, refused: Refused, change_config: ChangeConfig
) -> None:
    """Without a task type, and with a head, a folder may be of several tasks."""
    change_config(plain, task_type=task_type)
    refused(UnsupportedAdapterError, plain, f"task_type is {task_type!r}", "SEQ_CLS, TOKEN_CLS")


@pytest.mark.parametrize(
    ("task_type", "error"),
    [
        ("TOKEN_CLS", TensorKeysError),  # XLM-R's head is another there
        ("QUESTION_ANS", LabelCountError),
        ("FEATURE_EXTRACTION", TensorKeysError),
    ],
)
def test_the_task_type_of_another_head(
    plain: Path,
    task_type: str,
    error: type[IsoglossError],
    refused: Refused,
    change_config: ChangeConfig,
) -> None:
    change_config(plain, task_type=task_type)
    refused(error, plain)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lora_bias", True),
        ("layer_replication", [[0, 2]]),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["weight"]),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 2}),
        ("kasa_config", {"beta": 0.1}),
        ("monteclora_config", {"samples": 2}),
        ("alora_invocation_tokens", [1]),
    ],
)
def test_options_that_change_the_result(
    plain: Path, option: str, value: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, **{option: value})
    refused(UnsupportedAdapterError, plain, f"{option} is {value!r}")


@pytest.mark.parametrize("bias", ["all", "lora_only", True])
def test_trained_biases(
    plain: Path, bias: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, bias=bias)
    refused(UnsupportedAdapterError, plain, f"bias is {bias!r}", "bias='none'")


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_first_weights_that_change_the_base(
    plain: Path, init: str, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, init_lora_weights=init)
    refused(UnsupportedAdapterError, plain, f"init_lora_weights is {init!r}", "base's own weights")


@pytest.mark.parametrize(
    "saved", [["classifier", "embeddings"], ["pooler"], "classifier", 5, [["classifier"]]]
)
def test_other_modules_that_were_saved(
    plain: Path, saved: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, modules_to_save=saved)
    refused(UnsupportedAdapterError, plain, f"modules_to_save is {saved}")


@pytest.mark.parametrize("rank", [0, -1, 513, 10**9, 10**400])
def test_ranks_outside_the_limits(
    plain: Path, rank: int, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, r=rank)
    refused(RankLimitError, plain, "it must lie in 1..512")


@pytest.mark.parametrize("rank", ["4", None, 4.0, True, [4]])
def test_ranks_that_are_no_integers(
    plain: Path, rank: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, r=rank)
    refused(AdapterConfigError, plain, f"r is {rank!r}", "expected an integer")


@pytest.mark.parametrize(
    "alpha", ["8", None, True, float("nan"), float("inf"), 10**400, [8]], ids=lambda a: str(a)[:5]
)
def test_an_alpha_that_is_no_number(
    plain: Path, alpha: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, lora_alpha=alpha)
    refused(AdapterConfigError, plain, "lora_alpha is", "expected a finite number")


@pytest.mark.parametrize("target", ["lm_head", "word_embeddings", "uery", "pooler.dense", ""])
def test_unknown_targets(
    plain: Path, target: str, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, target_modules=["query", target])
    refused(TargetModulesError, plain, repr(target), "dense, key, query, value")


@pytest.mark.parametrize("targets", ["", None, [], [1], {"query": 1}])
def test_targets_that_are_no_names(
    plain: Path, targets: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, target_modules=targets)
    refused(TargetModulesError, plain, "expected a list of names")


def test_only_the_head_as_target(
    plain: Path, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, target_modules=["classifier.dense"])
    refused(TargetModulesError, plain, "leave nothing to change")


@pytest.mark.parametrize("layers", [[2], 7, [-1]])
def test_layers_that_the_base_lacks(
    plain: Path, layers: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, layers_to_transform=layers)
    refused(TargetModulesError, plain, "the base has layers 0..1")


@pytest.mark.parametrize("layers", ["0", [None], [0, "1"], [True], {"0": 1}, 1.0])
def test_layers_that_are_no_integers(
    plain: Path, layers: object, refused: Refused, change_config: ChangeConfig
) -> None:
    change_config(plain, layers_to_transform=layers)
    refused(AdapterConfigError, plain, "layers_to_transform is", "expected integers")


# -- any config at all


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_config_is_read_or_raises_an_error_of_ours(
    workplace: Path, written: Path, base: Path, data: st.DataObject, read: Read
) -> None:
    shutil.copy(written / WEIGHTS_FILE, workplace)
    config = json.loads((written / CONFIG_FILE).read_text())
    keys = data.draw(st.sets(st.sampled_from(sorted(config)), max_size=2))
    changed = config | {key: data.draw(JSON) for key in sorted(keys)}
    (workplace / CONFIG_FILE).write_text(json.dumps(changed))
    try:
        read(workplace, base=base)
    except IsoglossError as error:
        assert "\n" not in str(error)
    finally:
        shutil.copy(written / CONFIG_FILE, workplace)
