from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from isogloss.core.base import fingerprint, locate_base
from isogloss.core.encoder import load_encoder
from isogloss.core.errors import UnsupportedBaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..conftest import TinyBase
    from .conftest import ChangeConfig

pytestmark = pytest.mark.usefixtures("user_cache")
MODEL_TYPES = ("xlm-roberta", "bert")


def digest(folder: Path) -> str:
    return fingerprint(locate_base(folder)).digest


# -- the fingerprint


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_head_does_not_count(tiny_base: TinyBase, model_type: str) -> None:
    plain = digest(tiny_base(model_type))
    assert digest(tiny_base(model_type, saved_as="AutoModelForSequenceClassification")) == plain
    masked = digest(tiny_base(model_type, saved_as="AutoModelForMaskedLM"))
    if model_type == "bert":  # saved without its pooler, which is part of classification heads
        assert masked != plain
    else:
        assert masked == plain


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_shards_do_not_count(tiny_base: TinyBase, model_type: str) -> None:
    sharded = tiny_base(model_type, max_shard_size="8KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert digest(sharded) == digest(tiny_base(model_type))


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_order_does_not_count(
    tiny_base: TinyBase, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    source = tiny_base("xlm-roberta")
    tensors = load_file(source / "model.safetensors")
    names = data.draw(st.permutations(sorted(tensors)))
    cuts = data.draw(st.sets(st.integers(1, len(names) - 1), max_size=3))
    folder = tmp_path_factory.mktemp("shuffled") / "base"
    folder.mkdir()
    shutil.copy(source / "config.json", folder)
    edges = [0, *sorted(cuts), len(names)]
    weight_map: dict[str, str] = {}
    for begin, end in pairwise(edges):
        part = {f"roberta.{name}": tensors[name] for name in names[begin:end]}
        file = f"model-{9 - begin % 10}-{begin}.safetensors"
        _write_in_order(folder / file, part)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert digest(folder) == digest(source)


def _write_in_order(path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """A safetensors file with the tensors in the order given; `save_file` sorts them."""
    header, content = {}, b""
    for name, tensor in tensors.items():
        data = tensor.tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [len(content), len(content) + len(data)],
        }
        content += data
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content)


def test_one_weight_counts(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    before = digest(folder)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in ("embeddings.LayerNorm.bias", "encoder.layer.1.output.dense.weight"):
        changed = {key: value.copy() for key, value in tensors.items()}
        changed[name].flat[-1] = np.nextafter(changed[name].flat[-1], np.float32(9))
        save_file(changed, path)
        assert digest(folder) != before
    save_file(tensors, path)
    assert digest(folder) == before


@pytest.mark.parametrize(
    ("key", "value"), [("layer_norm_eps", 1e-7), ("hidden_act", "relu"), ("num_attention_heads", 4)]
)
def test_what_the_config_computes_counts(
    copy_of: Callable[..., Path], key: str, value: object, change_config: ChangeConfig
) -> None:
    folder = copy_of()
    before = digest(folder)
    change_config(folder, **{key: value})
    assert digest(folder) != before


def test_what_the_config_says_of_its_origin_does_not_count(
    copy_of: Callable[..., Path], change_config: ChangeConfig
) -> None:
    folder = copy_of()
    before = digest(folder)
    change_config(folder, transformers_version="4.0.0", _name_or_path="elsewhere", id2label={})
    assert digest(folder) == before


def test_tensorflow_names_of_layer_norm_are_the_same(copy_of: Callable[..., Path]) -> None:
    folder = copy_of("bert")
    before = digest(folder)
    path = folder / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for key, value in load_file(path).items():
        name = key
        for new, previous in old.items():
            name = name.replace(new, previous)
        tensors[name] = value
    assert any(name.endswith("gamma") for name in tensors)
    save_file(tensors, path)
    assert digest(folder) == before


def test_the_data_type_is_recorded(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    single = fingerprint(locate_base(folder))
    path = folder / "model.safetensors"
    save_file({k: v.astype(np.float16) for k, v in load_file(path).items()}, path)
    half = fingerprint(locate_base(folder))
    assert (single.dtype, half.dtype) == ("F32", "F16")
    assert single.digest != half.digest


# -- its cache


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the weights files that are opened from now on."""
    opened: list[str] = []
    original = Path.open

    def watched(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.suffix == ".safetensors":
            opened.append(self.name)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", watched)
    return opened


def test_the_second_time_no_weights_are_read(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of()
    opened = count_reads(monkeypatch)
    first = fingerprint(locate_base(folder))
    assert opened == ["model.safetensors"]
    assert fingerprint(locate_base(folder)) == first
    assert opened == ["model.safetensors"]
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        ".copy.fingerprint.json",
        "copy",
    ]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_the_cache_ends_when_a_file_changes(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = copy_of()
    digest(folder)
    opened = count_reads(monkeypatch)
    status = (folder / name).stat()
    os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    digest(folder)
    assert opened == ["model.safetensors"]


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "8KB"}], ids=["one", "sharded"])
def test_weights_that_transformers_does_not_load_do_not_count(
    copy_of: Callable[..., Path], options: dict[str, str]
) -> None:
    folder = copy_of(**options)
    before = digest(folder)
    extra = {"encoder.layer.9.output.dense.bias": np.ones(3, np.float32)}
    save_file(extra, folder / "adapter_model.safetensors")
    assert digest(folder) == before
    (folder.parent / ".copy.fingerprint.json").unlink()
    assert digest(folder) == before


def test_the_cache_ends_when_another_file_is_loaded(copy_of: Callable[..., Path]) -> None:
    folder = copy_of(max_shard_size="8KB")
    before = digest(folder)
    # transformers prefers it to the index.
    shutil.copy(min(folder.glob("model-*.safetensors")), folder / "model.safetensors")
    assert digest(folder) != before


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "no index of weights"),
        ("[]", "no index of weights"),
        ('{"weight_map": {"a": 1}}', "no index of weights"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "which is not there"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "which is not there"),
    ],
)
def test_an_index_that_is_none(copy_of: Callable[..., Path], content: str, part: str) -> None:
    folder = copy_of()
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UnsupportedBaseError, match=part) as caught:
        locate_base(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"files": 1}', '{"digest": "0"}', "\0", b"\xff"]
)
def test_a_damaged_cache_is_ignored(
    copy_of: Callable[..., Path], content: str | bytes, tiny_base: TinyBase
) -> None:
    folder = copy_of()
    raw = content if isinstance(content, bytes) else content.encode()
    (folder.parent / ".copy.fingerprint.json").write_bytes(raw)
    assert digest(folder) == digest(tiny_base("xlm-roberta"))


def test_an_unwritable_parent_falls_back_to_the_users_cache(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, user_cache: Path
) -> None:
    folder = copy_of()
    # A folder in the place of the file: nobody can write there, the superuser included.
    (folder.parent / ".copy.fingerprint.json").mkdir()
    first = digest(folder)
    (cached,) = (user_cache / "isogloss" / "fingerprints").iterdir()
    assert json.loads(cached.read_text())["digest"] == first
    # Nothing half-written stays beside the base.
    assert {path.name for path in folder.parent.iterdir()} == {"copy", ".copy.fingerprint.json"}
    opened = count_reads(monkeypatch)
    assert digest(folder) == first
    assert opened == []


def test_no_cache_at_all_is_fine(
    copy_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = copy_of()
    (folder.parent / ".copy.fingerprint.json").mkdir()
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, so no folder can be made within it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert digest(folder) == digest(folder)


# -- damaged weights


def test_truncated_weights(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for keep in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:keep])
        with pytest.raises(UnsupportedBaseError, match=r"model\.safetensors"):
            fingerprint(locate_base(folder))
        with pytest.raises(UnsupportedBaseError, match=r"model\.safetensors"):
            load_encoder(folder, device="cpu")


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"null",
        b'{"embeddings.x": 1}',
        b'{"embeddings.x": {"dtype": "F32", "shape": [1]}}',
        b'{"embeddings.x": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        b'{"embeddings.x": {"dtype": "F32", "shape": [1], "data_offsets": ["a", "b"]}}',
        b'{"embeddings.x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"embeddings.x": {"dtype": "F32", "shape": [1], "data_offsets": [-99, 0]}}',
        b'{"embeddings.x": {"dtype": 7, "shape": [1], "data_offsets": [0, 4]}}',
        b"[" * 100_000,
    ],
)
def test_a_header_that_makes_no_sense(copy_of: Callable[..., Path], header: bytes) -> None:
    folder = copy_of()
    size = len(header).to_bytes(8, "little")
    (folder / "model.safetensors").write_bytes(size + header + b"\0" * 4)
    with pytest.raises(UnsupportedBaseError, match=r"model\.safetensors"):
        digest(folder)


def test_a_header_of_endless_length(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UnsupportedBaseError, match="header of"):
        digest(folder)


def test_weights_of_something_else(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    save_file({"unrelated": np.ones(3, np.float32)}, folder / "model.safetensors")
    with pytest.raises(UnsupportedBaseError, match="no weights of an encoder"):
        digest(folder)
