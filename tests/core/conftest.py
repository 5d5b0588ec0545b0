from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from isogloss.core.base import locate_base
from isogloss.core.delta import ACTIVATIONS, Bottleneck, Delta, LowRank, Prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from isogloss.core.packing import Row

    from ..conftest import TinyBase

    Parts = Sequence[tuple[Delta, float]]


class ChangeConfig(Protocol):
    """Sets entries of the `config.json` of a folder."""

    def __call__(self, folder: Path, **changes: object) -> None: ...


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's own cache out of it."""
    folder = tmp_path / "user-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def copy_of(tiny_base: TinyBase, tmp_path: Path) -> Callable[..., Path]:
    """A base to change at will, with no cached fingerprint beside it."""

    def make(model_type: str = "xlm-roberta", name: str = "copy", **options: Any) -> Path:
        folder = tmp_path / "bases" / name
        shutil.copytree(tiny_base(model_type, **options), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def change_config() -> ChangeConfig:
    def change(folder: Path, **changes: object) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


class DenseReference:
    """An encoder written out in fp64, one row at a time, from a folder's weights."""

    def __init__(self, folder: Path) -> None:
        self.shape = locate_base(folder).shape
        stored = load_file(folder / "model.safetensors")
        self.weights = {
            name.removeprefix(f"{self.shape.prefix}."): tensor.double()
            for name, tensor in stored.items()
        }
        config = json.loads((folder / "config.json").read_text())
        self.heads: int = config["num_attention_heads"]
        self.epsilon: float = config["layer_norm_eps"]

    def __call__(self, row: Row, parts: Parts = ()) -> torch.Tensor:
        """Last hidden states `[tokens, width]` of a row with weighted adapters."""
        ids = torch.tensor(row.token_ids)
        types = torch.tensor(row.type_ids or (0,) * len(ids))
        prefix = next((delta.prefix for delta, _ in parts if delta.prefix), None)
        shift = prefix.length if prefix and prefix.shifts_positions else 0
        positions = torch.arange(len(ids)) + shift
        if self.shape.model_type == "xlm-roberta":
            real = ids != self.shape.pad_token_id
            positions = (real.cumsum(0) + shift) * real + self.shape.pad_token_id
        names = {"word": ids, "position": positions, "token_type": types}
        embedded = sum(
            self.weights[f"embeddings.{name}_embeddings.weight"][at] for name, at in names.items()
        )
        assert isinstance(embedded, torch.Tensor)
        hidden = self._norm("embeddings.LayerNorm", embedded)
        for layer in range(self.shape.layers):
            hidden = self._layer(layer, hidden, parts, prefix)
        return hidden.float()

    def _layer(
        self, layer: int, hidden: torch.Tensor, parts: Parts, prefix: Prefix | None
    ) -> torch.Tensor:
        at = f"encoder.layer.{layer}"
        query, key, value = (
            self._linear(f"{at}.attention.self.{name}", hidden, parts)
            for name in ("query", "key", "value")
        )
        if prefix is not None:
            key = torch.cat([prefix.keys[layer].double(), key])
            value = torch.cat([prefix.values[layer].double(), value])
        q, k, v = (
            part.view(len(part), self.heads, -1).transpose(0, 1) for part in (query, key, value)
        )
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1)
        context = (scores @ v).transpose(0, 1).flatten(1)
        attended = self._linear(f"{at}.attention.output.dense", context, parts)
        hidden = self._norm(f"{at}.attention.output.LayerNorm", attended + hidden)
        wide = functional.gelu(self._linear(f"{at}.intermediate.dense", hidden, parts))
        total = self._linear(f"{at}.output.dense", wide, parts) + hidden
        norm = f"{at}.output.LayerNorm"
        for delta, weight in parts:
            if norm in delta.bottlenecks:
                total = total + weight * _inner(delta.bottlenecks[norm], self._norm(norm, total))
        return self._norm(norm, total)

    def _linear(self, name: str, features: torch.Tensor, parts: Parts) -> torch.Tensor:
        product = features @ self.weights[f"{name}.weight"].T
        output = product + self.weights[f"{name}.bias"]
        for delta, weight in parts:
            update = delta.low_rank.get(name)
            if update is not None:
                output = output + weight * (features @ (update.up @ update.down).double().T)
                if update.gain is not None:
                    output = output + weight * (update.gain.double() - 1) * product
        for delta, weight in parts:
            if name in delta.bottlenecks:
                output = output + weight * _inner(delta.bottlenecks[name], output)
        return output

    def _norm(self, name: str, values: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(
            values,
            values.shape[-1:],
            self.weights[f"{name}.weight"],
            self.weights[f"{name}.bias"],
            self.epsilon,
        )


def _inner(layer: Bottleneck, values: torch.Tensor) -> torch.Tensor:
    down = values @ layer.down.double().T + layer.down_bias.double()
    return ACTIVATIONS[layer.activation](down) @ layer.up.double().T + layer.up_bias.double()


@pytest.fixture(scope="session")
def dense_reference(tiny_base: TinyBase) -> Callable[[str], DenseReference]:
    """The fp64 reference of a tiny base."""
    return lambda model_type: DenseReference(tiny_base(model_type))


class MakeDelta(Protocol):
    """A random adapter of a kind, on a tiny base; the same one for the same seed."""

    def __call__(self, model_type: str, kind: str, seed: int) -> Delta: ...


@pytest.fixture(scope="session")
def make_delta(tiny_base: TinyBase) -> MakeDelta:
    def make(model_type: str, kind: str, seed: int) -> Delta:
        shape = locate_base(tiny_base(model_type)).shape
        generator = torch.Generator().manual_seed(seed)

        def random(*extents: int) -> torch.Tensor:
            return torch.randn(*extents, generator=generator)

        def low_rank(rows: int, columns: int) -> LowRank:
            rank = int(torch.randint(1, 7, (), generator=generator))
            return LowRank(
                down=random(rank, columns) / columns**0.5,
                up=random(rows, rank) / 4,
                gain=1 + random(rows) / 4 if kind == "dora" else None,
            )

        def bottleneck() -> Bottleneck:
            width, size = shape.hidden_size, 1 + seed % 5
            return Bottleneck(
                down=random(size, width) / width**0.5,
                down_bias=random(size) / 4,
                up=random(width, size) / 4,
                up_bias=random(width) / 4,
                activation=("relu", "gelu", "swish", "tanh")[seed % 4],
            )

        layers = [f"encoder.layer.{layer}" for layer in range(shape.layers)]
        if kind in ("lora", "dora"):
            linears = {name: size for name, size in shape.linears().items() if "pooler" not in name}
            chosen = [name for name in linears if random(1) > 0] or list(linears)[:1]
            return Delta(low_rank={name: low_rank(*linears[name]) for name in chosen})
        if kind == "houlsby":
            places = [f"{at}.{name}" for at in layers for name in ("attention.output.dense",)]
            places += [f"{at}.output.dense" for at in layers]
            return Delta(bottlenecks={place: bottleneck() for place in places})
        if kind == "pfeiffer":
            return Delta(bottlenecks={f"{at}.output.LayerNorm": bottleneck() for at in layers})
        assert kind in ("prefix", "shifting-prefix")
        length = 1 + seed % 4
        return Delta(
            prefix=Prefix(
                keys=random(shape.layers, length, shape.hidden_size),
                values=random(shape.layers, length, shape.hidden_size),
                shifts_positions=kind == "shifting-prefix",
            )
        )

    return make
