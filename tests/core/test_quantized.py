from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from isogloss.core import native
from isogloss.core.encoder import load_encoder
from isogloss.core.engine import Engine
from isogloss.core.errors import PrecisionError
from isogloss.core.int8 import Codes, quantize_tokens
from isogloss.core.packing import Row
from isogloss.core.quantized import Int8Linear, QuantizedEmbedding, QuantizedGelu, Quantizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..conftest import TinyBase

MODEL_TYPES = ("xlm-roberta", "bert")
NONE = torch.zeros(0, dtype=torch.int64)
SHOP = Path(__file__).parents[2] / "isogloss" / "shop"


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def shop_texts() -> list[str]:
    lines = [
        line for path in sorted(SHOP.rglob("*.jsonl")) for line in path.read_text().splitlines()
    ]
    return [json.loads(line)["text"] for line in lines[:: len(lines) // 150]]


def cosines(folder: Path, texts: list[str], *, without: list[int] | None = None) -> torch.Tensor:
    """Of each token's last hidden state in int8 and in fp32, `without` some channels."""
    left_out = torch.tensor(without or [], dtype=torch.int64)

    def states(precision: str) -> torch.Tensor:
        encoder = load_encoder(folder, device="cpu", precision=precision)
        rows = [row for row, _ in encoder.tokenize(texts)]
        return Engine(encoder, slots=1).forward(rows)[1].clone().index_fill_(1, left_out, 0)

    return functional.cosine_similarity(states("int8"), states("fp32"), dim=-1)


# -- layers


@pytest.mark.parametrize("outliers", [[], [3], [0, 17, 99]])
def test_a_linear_layer(outliers: list[int]) -> None:
    weight, bias, features = random(60, 100), random(60, seed=1), random(1, 40, 100, seed=2)
    features[..., outliers] *= 60
    quantizer = Quantizer(torch.tensor(outliers, dtype=torch.int64), 100)
    layer = Int8Linear(weight, bias, quantizer)
    assert (layer.in_features, layer.out_features) == (100, 60)
    assert torch.equal(layer.bias, bias)
    dense = layer.dense_weight()
    assert torch.equal(dense[:, outliers], weight[:, outliers])
    assert relative_error(dense, weight) < 0.01
    exact = functional.linear(features, weight, bias)
    result = layer(features)
    assert result.shape == exact.shape
    assert relative_error(result, functional.linear(features, dense, bias)) < 0.01
    assert relative_error(result, exact) < 0.015


def test_outliers_take_the_resolution_of_the_rest() -> None:
    """Why they are left out of the codes."""
    weight, features = random(60, 100), random(40, 100, seed=2)
    weight[:, 7] /= 100
    features[:, 7] *= 100
    exact = features @ weight.T
    errors = [
        relative_error(Int8Linear(weight, None, Quantizer(columns, 100))(features), exact)
        for columns in (NONE, torch.tensor([7]))
    ]
    assert errors[0] > 10 * errors[1]


def test_what_a_layer_holds() -> None:
    layer = Int8Linear(random(64, 128), None, Quantizer(NONE, 128))
    matrices = [buffer for buffer in layer.buffers() if buffer.ndim == 2 and buffer.numel()]
    assert [(buffer.dtype, buffer.numel()) for buffer in matrices] == [(torch.int8, 64 * 128)]
    assert not list(layer.parameters())
    assert torch.equal(layer.bias, torch.zeros(64))
    assert "128, 64" in repr(layer)


def test_activations_are_quantized_once_for_all_that_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quantized = []

    def count(features: torch.Tensor, factors: torch.Tensor | None) -> Codes:
        quantized.append(features)
        return quantize_tokens(features, factors)

    monkeypatch.setattr("isogloss.core.quantized.quantize_tokens", count)
    quantizer = Quantizer(NONE, 3, uses=3)
    first, second = torch.ones(1, 2, 3), torch.zeros(2, 3)
    codes = [quantizer(first[0]) for _ in range(3)]  # three views of one tensor
    assert len(quantized) == 1
    assert codes[0] is codes[1] is codes[2]
    quantizer(first[0])  # the fourth use is another forward's
    assert len(quantized) == 2
    quantizer(second)
    assert len(quantized) == 3
    # Another thread has its own.
    thread = threading.Thread(target=quantizer, args=(second,))
    thread.start()
    thread.join()
    assert len(quantized) == 4


def test_nothing_is_held_after_a_forward() -> None:
    import gc
    import weakref

    quantizer = Quantizer(NONE, 8, uses=2)
    layers = [Int8Linear(random(4, 8, seed=seed), None, quantizer) for seed in range(2)]
    features = random(5, 8)
    alive = weakref.ref(features)
    for layer in layers:
        layer(features)
    del features
    gc.collect()
    assert alive() is None


def test_gelu_leaves_codes_for_the_layer_that_reads_it() -> None:
    quantizer = Quantizer(torch.tensor([2]), 48)
    gelu, layer = QuantizedGelu(quantizer), Int8Linear(random(8, 48), None, quantizer)
    features = random(1, 6, 48, seed=1)
    expected = functional.gelu(features)
    activated = gelu(features)
    assert activated.data_ptr() == features.data_ptr()
    torch.testing.assert_close(activated, expected, rtol=1e-6, atol=1e-6)
    result = layer(activated)
    assert torch.equal(result, layer(activated.clone()))
    assert relative_error(result, functional.linear(expected, layer.dense_weight())) < 0.02


def test_an_embedding() -> None:
    table = random(50, 12) * torch.logspace(-4, 4, 50).unsqueeze(1)
    table[1] = 0
    embedding = QuantizedEmbedding(50, 12)
    embedding.fill(torch.split(table, 17))
    ids = torch.tensor([[3, 1, 49, 3]])
    dense = embedding.dense_rows()
    assert torch.equal(embedding(ids), dense[ids])
    assert torch.equal(embedding.dense_rows(10, 20), dense[10:20])
    assert torch.equal(dense[1], torch.zeros(12))
    error = (dense - table).abs().amax(1) / table.abs().amax(1).clamp(min=1e-9)
    assert error.max() < 0.004
    assert sum(buffer.nbytes for buffer in embedding.buffers()) == 50 * (12 + 4)


@pytest.mark.parametrize("module", [QuantizedGelu, lambda q: Int8Linear(random(4, 8), None, q)])
def test_gradients_are_refused(module: Callable[[Quantizer], torch.nn.Module]) -> None:
    layer = module(Quantizer(NONE, 8))
    features = random(2, 8).requires_grad_()
    with pytest.raises(PrecisionError, match="can't be trained through"):
        layer(features)
    with torch.no_grad():
        assert layer(features.clone()).shape[0] == 2


# -- whole encoders


@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_row_gives_the_same_bits_alone_and_in_any_batch(
    tiny_base: TinyBase, model_type: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "torch":
        monkeypatch.setenv("ISOGLOSS_NATIVE", "0")
    elif native.load() is None:
        pytest.skip(f"no compiled kernels: {native.status().note}")
    encoder = load_encoder(tiny_base(model_type), device="cpu", precision="int8")
    engine = Engine(encoder, slots=1)
    generator = torch.Generator().manual_seed(0)
    longest = encoder.shape.max_tokens
    lengths = [1, 2, 3, longest, *torch.randint(1, longest, (20,), generator=generator).tolist()]
    rows = [
        Row(token_ids=tuple(torch.randint(4, 60, (length,), generator=generator).tolist()))
        for length in lengths
    ]
    batch, together = engine.forward(rows)
    for row, (begin, end) in zip(rows, batch.rows, strict=True):
        assert torch.equal(engine.forward([row])[1], together[begin:end])
    turned, backwards = engine.forward(rows[::-1])
    for (begin, end), (first, last) in zip(batch.rows, turned.rows[::-1], strict=True):
        assert torch.equal(together[begin:end], backwards[first:last])


def test_the_embedded_base_on_real_texts() -> None:
    found = cosines(Path("mini"), shop_texts())
    assert len(found) > 500
    assert found.mean() > 0.9995
    assert found.quantile(0.01) > 0.999


@pytest.mark.parametrize("factor", [20, 50])
def test_planted_outliers(tmp_path: Path, factor: float) -> None:
    """Trained encoders have a few channels so much larger than the rest; random weights have none.

    The last LayerNorm stays as it is, and the planted channels don't count: they would hide what
    became of the rest.
    """
    from isogloss.core.base import EMBEDDED_FOLDER

    folder = tmp_path / "planted"
    shutil.copytree(EMBEDDED_FOLDER, folder)
    path = folder / "model.safetensors"
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    channels = [11, 75, 140, 201]
    norms = [name for name in tensors if name.endswith("LayerNorm.weight")]
    for name in norms:
        if not name.endswith("layer.5.output.LayerNorm.weight"):
            tensors[name][channels] *= factor
    save_file(tensors, path, metadata={"format": "pt"})
    found = cosines(folder, shop_texts(), without=channels)
    assert found.mean() > 0.999
    encoder = load_encoder(folder, device="cpu", precision="int8")
    reader = encoder.model.get_submodule("encoder.layer.3.intermediate.dense")
    assert isinstance(reader, Int8Linear)
    assert reader.columns.tolist() == channels
