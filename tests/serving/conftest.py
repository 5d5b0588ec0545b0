from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pytest
from safetensors.numpy import save_file

from isogloss import Registry
from isogloss.adapters.spec import AdapterSpec
from isogloss.core.base import fingerprint, locate_base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isogloss import Version

    from ..conftest import PeftAdapter, TinyBase


class PublishPeft(Protocol):
    """Publishes an adapter that PEFT wrote; options as `peft_adapter` takes them."""

    def __call__(
        self, base: Path, locale: str, task: str = "intent", **options: object
    ) -> tuple[Path, Version]: ...


class PublishLora(Protocol):
    """Publishes a LoRA classifier with random weights; the same one for the same seed."""

    def __call__(
        self,
        base: Path,
        locale: str,
        *,
        seed: int,
        task: str = "intent",
        rank: int = 2,
        labels: tuple[str, ...] = ("a", "b", "c"),
        alias: str = "production",
    ) -> Version: ...


class Damage(Protocol):
    """Changes a byte of a version's weights in the registry; gives what puts it back."""

    def __call__(self, version: Version) -> Callable[[], None]: ...


@pytest.fixture(params=["xlm-roberta", "bert"])
def base(request: pytest.FixtureRequest, tiny_base: TinyBase) -> Path:
    return tiny_base(request.param)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry") as opened:
        yield opened


@pytest.fixture
def damage(registry: Registry, tmp_path: Path) -> Damage:
    def change(version: Version) -> Callable[[], None]:
        digest = next(f.sha256 for f in version.files if f.path.endswith(".safetensors"))
        blob = next((tmp_path / "registry").rglob(digest))
        content = blob.read_bytes()
        blob.chmod(0o644)
        blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

        def mend() -> None:
            blob.write_bytes(content)

        return mend

    return change


@pytest.fixture
def publish_peft(registry: Registry, peft_adapter: PeftAdapter) -> PublishPeft:
    def publish(
        base: Path, locale: str, task: str = "intent", **options: object
    ) -> tuple[Path, Version]:
        folder = peft_adapter(base, **options)  # type: ignore[arg-type]
        labels = [f"{task}-{number}" for number in range(int(str(options.get("labels", 3))))]
        return folder, registry.publish(folder, locale=locale, task=task, labels=labels, base=base)

    return publish


@pytest.fixture
def publish_lora(registry: Registry, tmp_path: Path) -> PublishLora:
    def publish(
        base: Path,
        locale: str,
        *,
        seed: int,
        task: str = "intent",
        rank: int = 2,
        labels: tuple[str, ...] = ("a", "b", "c"),
        alias: str = "production",
    ) -> Version:
        folder = tmp_path / f"lora-{task}-{locale}-{seed}"
        if not folder.exists():
            _write_lora(folder, base, locale, task, seed=seed, rank=rank, labels=labels)
        return registry.publish(folder, base=base, alias=alias)

    return publish


def _write_lora(
    folder: Path,
    base: Path,
    locale: str,
    task: str,
    *,
    seed: int,
    rank: int,
    labels: tuple[str, ...],
) -> None:
    found = locate_base(base)
    shape = found.shape
    width = shape.hidden_size
    generator = np.random.default_rng(seed)

    def random(*extents: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return generator.standard_normal(extents, dtype=np.float32) / np.float32(extents[-1] ** 0.5)

    tensors = {}
    for layer in range(shape.layers):
        for name in ("query", "value"):
            at = f"base_model.model.{shape.prefix}.encoder.layer.{layer}.attention.self.{name}"
            tensors[f"{at}.lora_A.weight"] = random(rank, width)
            tensors[f"{at}.lora_B.weight"] = random(width, rank)
    at = "base_model.model.classifier."
    if shape.model_type == "xlm-roberta":
        tensors[f"{at}dense.weight"] = random(width, width)
        tensors[f"{at}dense.bias"] = random(width)
        at += "out_proj."
    tensors[f"{at}weight"] = random(len(labels), width)
    tensors[f"{at}bias"] = random(len(labels))
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["query", "value"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    spec = AdapterSpec(
        locale=locale,
        task=task,
        rank=rank,
        targets=("query", "value"),
        labels=labels,
        head=f"{shape.model_type}-classification",
        base=found.name,
        base_fingerprint=fingerprint(found).digest,
    )
    (folder / "isogloss.json").write_bytes(spec.to_json())
