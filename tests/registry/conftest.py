from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest
from safetensors.numpy import save_file

from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIDTH, LAYERS, RANK = 8, 2, 2


class MakeAdapter(Protocol):
    """Writes a plain PEFT folder; other seeds give other weights."""

    def __call__(self, seed: int = 0, *, labels: int = 3) -> Path: ...


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny XLM-R encoder, as transformers saves it."""
    folder = tmp_path_factory.mktemp("bases") / "tiny"
    folder.mkdir()
    config = {
        "model_type": "xlm-roberta",
        "vocab_size": 32,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "intermediate_size": 4 * WIDTH,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": 34,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = np.random.default_rng(7)
    tensors = {"embeddings.word_embeddings.weight": normal(generator, 32, WIDTH)}
    for layer in range(LAYERS):
        for part in ("query", "key", "value"):
            name = f"encoder.layer.{layer}.attention.self.{part}.weight"
            tensors[name] = normal(generator, WIDTH, WIDTH)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture
def make_adapter(base: Path, tmp_path: Path) -> MakeAdapter:
    def make(seed: int = 0, *, labels: int = 3) -> Path:
        folder = tmp_path / "adapters" / f"{seed}-{labels}"
        folder.mkdir(parents=True)
        config = {
            "base_model_name_or_path": str(base),
            "bias": "none",
            "inference_mode": True,
            "lora_alpha": 2 * RANK,
            "lora_dropout": 0.0,
            "modules_to_save": ["classifier", "score"],
            "peft_type": "LORA",
            "r": RANK,
            "target_modules": ["query", "value"],
            "task_type": "SEQ_CLS",
            "use_rslora": False,
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))
        generator = np.random.default_rng(seed)
        tensors = {}
        for layer in range(LAYERS):
            for part in ("query", "value"):
                at = f"base_model.model.roberta.encoder.layer.{layer}.attention.self.{part}"
                tensors[f"{at}.lora_A.weight"] = normal(generator, RANK, WIDTH)
                tensors[f"{at}.lora_B.weight"] = normal(generator, WIDTH, RANK)
        head = "base_model.model.classifier"
        tensors[f"{head}.dense.weight"] = normal(generator, WIDTH, WIDTH)
        tensors[f"{head}.dense.bias"] = normal(generator, WIDTH)
        tensors[f"{head}.out_proj.weight"] = normal(generator, labels, WIDTH)
        tensors[f"{head}.out_proj.bias"] = normal(generator, labels)
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        return folder

    return make


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry") as opened:
        yield opened


def normal(generator: np.random.Generator, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return generator.standard_normal(shape).astype(np.float32)
