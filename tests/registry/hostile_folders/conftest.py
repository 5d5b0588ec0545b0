from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest
from safetensors.numpy import save

from isogloss.adapters.files import read_adapter_folder
from isogloss.adapters.layout import expected_tensors, parse_layout
from isogloss.adapters.spec import AdapterSpec, BottleneckSpec
from isogloss.core.base import fingerprint, locate_base
from isogloss.core.errors import AdapterError, IsoglossError, RegistryError
from isogloss.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Files = dict[str, bytes]


class Refused(Protocol):
    """Checks that a folder is refused, by a named error on one line, and that nothing is stored."""

    def __call__(self, folder: Path, **options: Any) -> IsoglossError: ...


class Write(Protocol):
    """Writes files to a folder of their own."""

    def __call__(self, files: Files) -> Path: ...


@pytest.fixture(scope="session")
def good(base: Path) -> dict[str, Files]:
    """A good folder of each kind; `peft` is a plain one, without isogloss.json."""
    found = locate_base(base)
    common: dict[str, Any] = {
        "locale": "gsw-CH",
        "task": "intent",
        "base": found.name,
        "base_fingerprint": fingerprint(found).digest,
        "labels": ("a", "b", "c"),
    }
    shape = found.shape
    lora = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": found.name,
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["query", "value"],
        "modules_to_save": ["classifier"],
        "bias": "none",
    }
    prefix = {
        "peft_type": "PREFIX_TUNING",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": found.name,
        "num_virtual_tokens": 3,
        "num_layers": shape.layers,
        "token_dim": shape.hidden_size,
        "num_attention_heads": 2,
        "num_transformer_submodules": 1,
        "prefix_projection": False,
        "encoder_hidden_size": shape.hidden_size,
        "modules_to_save": ["classifier"],
    }
    form = BottleneckSpec(placement="houlsby", size=3)
    kinds: dict[str, tuple[AdapterSpec, dict[str, Any] | None]] = {
        "lora": (AdapterSpec(**common), lora),
        "prefix": (AdapterSpec(**common, kind="prefix"), prefix),
        "bottleneck": (AdapterSpec(**common, kind="bottleneck", bottleneck=form), None),
    }
    folders: dict[str, Files] = {}
    for kind, (spec, config) in kinds.items():
        names: list[str] = []
        if kind == "lora":
            names = [
                f"base_model.model.roberta.{module}.lora_{part}.weight"
                for module in shape.linears()
                if module.endswith(("query", "value"))
                for part in "AB"
            ]
        expected = expected_tensors(spec, parse_layout(spec, config, shape, names), shape)
        generator = np.random.default_rng(3)
        tensors = {
            name: generator.standard_normal(extents).astype(np.float32)
            for name, extents in expected.items()
        }
        folders[kind] = {
            "isogloss.json": spec.to_json(),
            "adapter_model.safetensors": save(tensors),
        }
        if config is not None:
            folders[kind]["adapter_config.json"] = json.dumps(config).encode()
    folders["peft"] = {**folders["lora"]}
    del folders["peft"]["isogloss.json"]
    return folders


@pytest.fixture(scope="session")
def shut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Path]]:
    """A registry in which nothing is to be stored, and its folder of blobs."""
    folder = tmp_path_factory.mktemp("shut")
    with Registry.open(folder) as registry:
        yield registry, folder / "blobs"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_folder(files: Files) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    return to_folder


@pytest.fixture
def refused(shut: tuple[Registry, Path], base: Path) -> Refused:
    registry, blobs = shut

    def stored() -> tuple[object, ...]:
        files = {path for path in blobs.rglob("*") if path.is_file()}
        return registry.versions(), registry.aliases(), files

    def check(folder: Path, **options: Any) -> IsoglossError:
        options = {"base": base, "smoke": False, **options}
        if not (folder / "isogloss.json").exists():
            options = {"locale": "gsw-CH", "task": "intent", **options}
        before = stored()
        with pytest.raises(IsoglossError) as caught:
            registry.publish(folder, **options)
        error = caught.value
        assert type(error) not in (IsoglossError, AdapterError, RegistryError)
        assert "\n" not in str(error)
        assert 10 < len(str(error)) < 1000
        assert stored() == before
        return error

    return check


@pytest.fixture
def checked(base: Path) -> Callable[[Path], Files]:
    """The files of a folder that is good."""

    def read(folder: Path) -> Files:
        more: dict[str, Any] = (
            {} if (folder / "isogloss.json").exists() else {"locale": "gsw-CH", "task": "intent"}
        )
        return read_adapter_folder(folder, base=base, **more).files

    return read
