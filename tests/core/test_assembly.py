from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from isogloss.core.base import locate_base
from isogloss.core.encoder import load_encoder, quiet_transformers
from isogloss.core.engine import Engine
from isogloss.core.errors import UnsupportedBaseError
from isogloss.core.linears import BaseLinear, InPlaceGelu
from isogloss.core.quantized import Int8Linear, QuantizedEmbedding, QuantizedGelu

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..conftest import TinyBase
    from .conftest import ChangeConfig

MODEL_TYPES = ("xlm-roberta", "bert")
TEXTS = ("the quick brown fox", "wo isch mys päckli, es isch no nid aacho", "el perro")
POOLER = "pooler.dense"
# Loads a base and prints the growth of memory at its peak, and the bytes of the model.
MEASURE = """
import sys
from pathlib import Path
import torch
from transformers import XLMRobertaModel
from isogloss.core.encoder import load_encoder
from isogloss.core.linears import model_bytes

def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])

folder, precision = sys.argv[1:]
load_encoder("mini", device="cpu", precision=precision)  # libraries are no part of it
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
encoder = load_encoder(folder, device="cpu", precision=precision)
print(status("VmHWM") - before, model_bytes(encoder.model))
"""


def hidden(folder: Path, precision: str) -> list[torch.Tensor]:
    encoder = load_encoder(folder, device="cpu", precision=precision)
    batch, states = Engine(encoder, slots=1).forward([row for row, _ in encoder.tokenize(TEXTS)])
    return [states[begin:end].float() for begin, end in batch.rows]


def hidden_by_transformers(folder: Path) -> list[torch.Tensor]:
    from transformers import AutoModel, AutoTokenizer

    with quiet_transformers(), torch.inference_mode():
        model = AutoModel.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS
        ]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 0.1), ("int8", 0.1)])
def test_every_precision_computes_the_same_model(
    tiny_base: TinyBase, model_type: str, precision: str, tolerance: float
) -> None:
    expected = hidden_by_transformers(tiny_base(model_type))
    for found, right in zip(hidden(tiny_base(model_type), precision), expected, strict=True):
        torch.testing.assert_close(found, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_weights_are_those_of_the_checkpoint(
    tiny_base: TinyBase, model_type: str, precision: str
) -> None:
    folder = tiny_base(model_type)
    stored = load_file(folder / "model.safetensors")
    encoder = load_encoder(folder, device="cpu", precision=precision)
    tolerance = {"fp32": 0, "bf16": 0.005, "int8": 0.005}[precision]
    for name in encoder.shape.linears():
        module = encoder.model.get_submodule(name)
        weight = stored[f"{name}.weight"]
        if name == POOLER:
            pooler = encoder.model.get_parameter(f"{name}.weight")
            assert torch.equal(pooler, weight.to(encoder.dtype))
            continue
        assert isinstance(module, BaseLinear)
        error = (module.dense_weight() - weight).abs().max()
        assert error <= tolerance * weight.abs().max()
        assert module.bias is not None
        assert torch.equal(module.bias, stored[f"{name}.bias"].to(encoder.dtype))
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not any(module.training for module in encoder.model.modules())
    assert not any(tensor.is_meta for tensor in encoder.model.state_dict().values())


def test_what_int8_covers(tiny_base: TinyBase) -> None:
    """The embedding too; not the pooler, LayerNorms, positions and types."""
    model = load_encoder(tiny_base("bert"), device="cpu", precision="int8").model
    kinds = {type(module) for module in model.modules()}
    assert {Int8Linear, QuantizedEmbedding, QuantizedGelu} <= kinds
    assert {name.rpartition(".")[0] for name, _ in model.named_parameters()} == {
        "embeddings.position_embeddings",
        "embeddings.token_type_embeddings",
        "embeddings.LayerNorm",
        "pooler.dense",
        *(
            f"encoder.layer.{layer}.{norm}"
            for layer in range(2)
            for norm in ("attention.output.LayerNorm", "output.LayerNorm")
        ),
    }
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_another_activation_is_left_alone(
    copy_of: Callable[..., Path], change_config: ChangeConfig, precision: str
) -> None:
    folder = copy_of("xlm-roberta")
    change_config(folder, hidden_act="relu")
    kinds = {
        type(module)
        for module in load_encoder(folder, device="cpu", precision=precision).model.modules()
    }
    assert not kinds & {InPlaceGelu, QuantizedGelu}
    tolerance = 1e-5 if precision == "fp32" else 0.1
    for found, right in zip(hidden(folder, precision), hidden_by_transformers(folder), strict=True):
        torch.testing.assert_close(found, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_tensor_of_another_shape(copy_of: Callable[..., Path], precision: str) -> None:
    folder = copy_of("bert")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["encoder.layer.1.output.dense.bias"] = torch.zeros(5)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(UnsupportedBaseError, match=r"output\.dense\.bias has shape \(5,\)"):
        load_encoder(folder, device="cpu", precision=precision)


def measure(folder: Path, precision: str) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", MEASURE, str(folder), precision],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    peak, size = done.stdout.split()
    return int(peak), int(size)


@pytest.fixture
def large_base(copy_of: Callable[..., Path], change_config: ChangeConfig) -> Path:
    """A base of 96 MB, most of it in its embedding, as in XLM-R."""
    folder = copy_of("xlm-roberta")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    generator = torch.Generator().manual_seed(0)
    name = "embeddings.word_embeddings.weight"
    tensors[name] = torch.randn(1_500_000, 16, generator=generator)
    save_file(tensors, path, metadata={"format": "pt"})
    change_config(folder, vocab_size=1_500_000)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1.15), ("bf16", 0.65), ("int8", 0.6)])
def test_the_peak_of_memory_while_loading(large_base: Path, precision: str, limit: float) -> None:
    full = (large_base / "model.safetensors").stat().st_size
    peak, size = measure(large_base, precision)
    assert 0.5 * size < peak < limit * full


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_full_shape_of_xlm_r(tmp_path: Path) -> None:
    from isogloss.core.shapes import write_random_base

    folder = tmp_path / "xlm-roberta-base"
    write_random_base("xlm-roberta-base", folder)
    header = json.loads((folder / "config.json").read_text())
    assert (header["vocab_size"], header["hidden_size"]) == (250_002, 768)
    full = sum(tensor.nbytes for tensor in encoder_tensors(folder).values())
    peak, size = measure(folder, "int8")
    assert size < 0.27 * full
    assert peak < 0.6 * full
    peak, size = measure(folder, "fp32")
    assert peak < 1.15 * full


def encoder_tensors(folder: Path) -> dict[str, Any]:
    tensors = load_file(folder / "model.safetensors")
    assert locate_base(folder).shape.layers == 12
    return {name: tensor for name, tensor in tensors.items() if "pooler" not in name}
