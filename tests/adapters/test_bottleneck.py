from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, get_args

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from isogloss.adapters.bottleneck import BottleneckLayout
from isogloss.adapters.files import (
    CARD_FILE,
    CONFIG_FILE,
    SPEC_FILE,
    WEIGHTS_FILE,
    read_adapter_folder,
)
from isogloss.adapters.heads import apply_heads, head_tensors
from isogloss.adapters.lm_head import base_lm_head
from isogloss.adapters.loading import load_adapter
from isogloss.adapters.spec import AdapterSpec, BottleneckActivation, BottleneckSpec, TaskType
from isogloss.adapters.writing import write_bottleneck_folder
from isogloss.core.base import fingerprint, locate_base
from isogloss.core.delta import SlotImage
from isogloss.core.encoder import load_encoder, quiet_transformers
from isogloss.core.engine import Engine
from isogloss.core.errors import (
    AdapterConfigError,
    AdapterFolderError,
    LabelCountError,
    NonFiniteWeightsError,
    TensorKeysError,
    TensorShapeError,
    UnsafeWeightsError,
    UnsupportedAdapterError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from isogloss.core.packing import Row

    from ..conftest import TinyBase
    from .conftest import Refused

MODEL_TYPES = ("xlm-roberta", "bert")
CLASSES = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "reranking": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "embedding": "AutoModel",
    "masked-lm": "AutoModelForMaskedLM",
}
OUTPUTS = {"reranking": 1, "question-answering": 2, "embedding": 0, "masked-lm": 0}
LAYER = "encoder.layer.1"
TEXTS = ("wo isch mys päckli", ("the lazy dog", "el perro"), "привет", "bitte " * 60)


class WriteBottleneck(Protocol):
    """Writes an adapter of random weights, beside a folder of its own for each call."""

    def __call__(
        self, base: Path, task_type: TaskType, form: BottleneckSpec, *, pooling: Any = None
    ) -> Path: ...


@pytest.fixture
def write(tmp_path: Path) -> WriteBottleneck:
    def make(base: Path, task_type: TaskType, form: BottleneckSpec, *, pooling: Any = None) -> Path:
        shape = locate_base(base).shape
        outputs = OUTPUTS.get(task_type, 3)
        expected = BottleneckLayout.of(form, shape).tensors(shape) | head_tensors(
            shape, outputs, task_type, key_prefix=""
        )
        generator = np.random.default_rng(len(list(tmp_path.iterdir())))
        tensors = {
            name: generator.standard_normal(extents, dtype=np.float32) / extents[-1] ** 0.5
            for name, extents in expected.items()
        }
        spec = AdapterSpec(
            locale="gsw-CH",
            task="intent",
            task_type=task_type,
            kind="bottleneck",
            bottleneck=form,
            labels=("a", "b", "c") if task_type.endswith("classification") else (),
            base=str(base),
            base_fingerprint=fingerprint(locate_base(base)).digest,
            pooling=pooling,
        )
        folder = tmp_path / f"adapter-{len(list(tmp_path.iterdir()))}"
        write_bottleneck_folder(folder, spec, tensors, shape)
        return folder

    return make


# -- what it computes


def change_of(
    tensors: dict[str, torch.Tensor], name: str, form: BottleneckSpec, hidden: torch.Tensor
) -> torch.Tensor:
    """What one bottleneck adds, straight from its definition."""
    acts: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "relu": lambda x: x.clamp(min=0),
        "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "swish": lambda x: x / (1 + torch.exp(-x)),
        "tanh": lambda x: 1 - 2 / (torch.exp(2 * x) + 1),
    }
    inner = acts[form.activation](
        hidden @ tensors[f"{name}.down.weight"].T + tensors[f"{name}.down.bias"]
    )
    return form.scaling * (inner @ tensors[f"{name}.up.weight"].T + tensors[f"{name}.up.bias"])


def with_hooks(base: Path, folder: Path) -> Any:
    """transformers' own model with bottlenecks added by hooks, and the adapter's head."""
    import transformers

    spec = AdapterSpec.from_json((folder / SPEC_FILE).read_bytes())
    form = spec.bottleneck
    assert form is not None
    tensors = {
        name: torch.from_numpy(value) for name, value in load_file(folder / WEIGHTS_FILE).items()
    }
    outputs = {"num_labels": OUTPUTS.get(spec.task_type, 3)} if spec.head else {}
    with quiet_transformers():
        model = getattr(transformers, CLASSES[spec.task_type]).from_pretrained(base, **outputs)
    head = {name: value for name, value in tensors.items() if "bottleneck" not in name}
    assert not model.load_state_dict(head, strict=False).unexpected_keys

    def after_dense(_: Any, __: Any, output: torch.Tensor, *, name: str) -> torch.Tensor:
        return output + change_of(tensors, name, form, output)

    def after_norm(norm: Any, given: Any, output: torch.Tensor, *, name: str) -> torch.Tensor:
        total = given[0] + change_of(tensors, name, form, output)
        mean: torch.Tensor = total.mean(-1, keepdim=True)
        variance = total.var(-1, keepdim=True, unbiased=False)
        scaled: torch.Tensor = (total - mean) / (variance + norm.eps) ** 0.5
        normalised: torch.Tensor = scaled * norm.weight + norm.bias
        return normalised

    for number, layer in enumerate(model.base_model.encoder.layer):
        at = f"encoder.layer.{number}"
        if form.placement == "houlsby":
            for part, name in (
                (layer.attention.output.dense, f"{at}.attention.output.bottleneck"),
                (layer.output.dense, f"{at}.output.bottleneck"),
            ):
                part.register_forward_hook(partial(after_dense, name=name))
        else:
            layer.output.LayerNorm.register_forward_hook(
                partial(after_norm, name=f"{at}.output.bottleneck")
            )
    return model.eval()


def reference(model: Any, task_type: TaskType, row: Row, pooling: str) -> torch.Tensor:
    with torch.inference_mode():
        output = model(
            input_ids=torch.tensor([row.token_ids]),
            token_type_ids=torch.tensor([row.type_ids or (0,) * len(row.token_ids)]),
        )
    if task_type == "question-answering":
        return torch.stack([output.start_logits[0], output.end_logits[0]], dim=1)
    if task_type == "embedding":
        hidden = output.last_hidden_state[0]
        pooled = hidden[0] if pooling == "cls" else hidden.mean(dim=0)
        embedding: torch.Tensor = pooled / pooled.norm()
        return embedding
    logits: torch.Tensor = output.logits[0]
    return logits


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_placement_activation_and_head_equals_a_dense_reference(
    model_type: str, tiny_base: TinyBase, write: WriteBottleneck
) -> None:
    base = tiny_base(model_type, saved_as="AutoModelForPreTraining")
    encoder = load_encoder(base, device="cpu")
    lm_head = base_lm_head(encoder, locate_base(base))
    forms = [
        replace(form, activation=activation)
        for form in (
            BottleneckSpec(placement="houlsby", size=3, scaling=0.5),
            BottleneckSpec(placement="pfeiffer", size=5),
        )
        for activation in get_args(BottleneckActivation)
    ]
    tasks: list[TaskType] = [*get_args(TaskType), "embedding", "masked-lm"]
    poolings = ["cls" if number == 6 else "mean" for number in range(len(tasks))]
    folders = [
        write(base, task_type, form, pooling=pooling)
        for task_type, form, pooling in zip(tasks, forms, poolings, strict=True)
    ]
    engine = Engine(encoder, slots=len(folders))
    adapters = []
    for slot, folder in enumerate(folders):
        adapters.append(load_adapter(read_adapter_folder(folder).files, encoder))
        engine.bank.put(slot, SlotImage.of(adapters[-1].delta))
    rows = [
        replace(row, mix=((slot, 1.0),))
        for row, _ in encoder.tokenize(TEXTS)
        for slot in range(len(folders))
    ]
    heads = [adapters[row.mix[0][0]].head or lm_head for row in rows]
    answers = apply_heads(*engine.forward(rows), heads)
    models = [with_hooks(base, folder) for folder in folders]
    for row, answer in zip(rows, answers, strict=True):
        slot = row.mix[0][0]
        wanted = reference(models[slot], tasks[slot], row, poolings[slot])
        torch.testing.assert_close(answer, wanted, rtol=1e-5, atol=1e-5)


# -- the folder


FORM = BottleneckSpec(placement="houlsby", size=4)


@pytest.fixture
def folder(tiny_base: TinyBase, write: WriteBottleneck) -> Path:
    return write(tiny_base("xlm-roberta"), "sequence-classification", FORM)


def change_spec(folder: Path, **changes: Any) -> None:
    path = folder / SPEC_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(folder: Path, **changes: Any) -> None:
    path = folder / WEIGHTS_FILE
    tensors = load_file(path) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, path)


def test_what_is_written_is_read_back(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [CARD_FILE, WEIGHTS_FILE, SPEC_FILE]
    checked = read_adapter_folder(folder)
    assert set(checked.files) == {SPEC_FILE, WEIGHTS_FILE, CARD_FILE}
    assert checked.files[WEIGHTS_FILE] == (folder / WEIGHTS_FILE).read_bytes()
    assert (checked.spec.kind, checked.spec.bottleneck) == ("bottleneck", FORM)
    assert (checked.spec.rank, checked.spec.targets) == (None, ())
    assert checked.spec.head == "xlm-roberta-classification"
    card = (folder / CARD_FILE).read_text()
    assert "bottleneck adapter (houlsby, size 4, relu)" in card
    assert "peft" not in card


def test_tensor_names_are_stable(folder: Path) -> None:
    parts = ("down.bias", "down.weight", "up.bias", "up.weight")
    places = ("attention.output", "output")
    assert sorted(load_file(folder / WEIGHTS_FILE)) == [
        *("classifier.dense.bias", "classifier.dense.weight"),
        *("classifier.out_proj.bias", "classifier.out_proj.weight"),
        *(
            f"encoder.layer.{layer}.{place}.bottleneck.{part}"
            for layer in (0, 1)
            for place in places
            for part in parts
        ),
    ]


@pytest.mark.usefixtures("no_pickle")
@pytest.mark.parametrize(
    ("name", "value", "error", "part"),
    [
        (f"{LAYER}.output.bottleneck.up.bias", None, TensorKeysError, "lacks 1 tensors"),
        ("surprise", np.ones(1, np.float32), TensorKeysError, "has 1 that"),
        (
            f"{LAYER}.output.bottleneck.down.weight",
            np.ones((5, 16), np.float32),
            TensorShapeError,
            "is [5, 16]",
        ),
        (
            f"{LAYER}.output.bottleneck.up.bias",
            np.full(16, np.nan, np.float32),
            NonFiniteWeightsError,
            "holds NaN",
        ),
        ("classifier.out_proj.weight", None, TensorKeysError, "no classification head"),
    ],
)
def test_tensors_are_checked_like_those_of_other_kinds(
    folder: Path, name: str, value: Any, error: Any, part: str, refused: Refused
) -> None:
    change_tensors(folder, **{name: value})
    refused(error, folder, name if "head" not in part else part, part)


@pytest.mark.usefixtures("no_pickle")
@pytest.mark.parametrize(
    ("changes", "error", "part"),
    [
        ({"bottleneck": None}, AdapterConfigError, "with its form under `bottleneck`"),
        ({"kind": "lora"}, AdapterFolderError, "adapter_config.json"),
        ({"kind": "prefix"}, AdapterFolderError, "adapter_config.json"),
        ({"kind": "mixture"}, UnsupportedAdapterError, "kind is 'mixture'"),
        (
            {"bottleneck": {"placement": "pfeiffer", "size": 4}},
            TensorKeysError,
            "attention.output.bottleneck",
        ),
        (
            {"bottleneck": {"placement": "houlsby", "size": 5}},
            TensorShapeError,
            "need [5]",
        ),
        (
            {"bottleneck": {"placement": "houlsby", "size": 4, "scaling": 1e39}},
            AdapterConfigError,
            "bottleneck.scaling",
        ),
        ({"labels": ["a", "b"]}, LabelCountError, "2 labels for a head with 3"),
    ],
)
def test_a_spec_that_misstates(
    folder: Path, changes: dict[str, Any], error: Any, part: str, refused: Refused
) -> None:
    change_spec(folder, **changes)
    refused(error, folder, part)


def test_a_peft_config_beside_it(folder: Path, refused: Refused) -> None:
    (folder / CONFIG_FILE).write_text(json.dumps({"peft_type": "LORA", "task_type": "SEQ_CLS"}))
    refused(UnsupportedAdapterError, folder, "kind is 'bottleneck'", "the config is LORA")


def test_weights_only_as_pickle(folder: Path, refused: Refused) -> None:
    (folder / WEIGHTS_FILE).rename(folder / "pytorch_adapter.bin")
    refused(UnsafeWeightsError, folder, "only as pickle")


def test_a_base_that_nobody_can_look_at(folder: Path) -> None:
    change_spec(folder, base="/gone/tiny")
    spec = read_adapter_folder(folder, trust_base=True).spec
    assert (spec.kind, spec.bottleneck) == ("bottleneck", FORM)


def test_tensors_that_do_not_fit_are_not_written(
    tmp_path: Path, folder: Path, tiny_base: TinyBase
) -> None:
    shape = locate_base(tiny_base("xlm-roberta")).shape
    spec = AdapterSpec.from_json((folder / SPEC_FILE).read_bytes())
    tensors = load_file(folder / WEIGHTS_FILE)
    tensors.popitem()
    with pytest.raises(TensorKeysError):
        write_bottleneck_folder(tmp_path / "new", spec, tensors, shape)
    assert not (tmp_path / "new").exists()
