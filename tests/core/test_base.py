from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from isogloss.core.base import EMBEDDED, EMBEDDED_FOLDER, fingerprint, locate_base
from isogloss.core.encoder import load_encoder
from isogloss.core.errors import BaseNotFoundError, UnsupportedBaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..conftest import TinyBase

MODEL_TYPES = ("xlm-roberta", "bert")


@pytest.fixture(autouse=True)
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


def digest(folder: Path) -> str:
    return fingerprint(locate_base(folder)).digest


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# -- finding a base


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_folder_gives_name_and_shape(tiny_base: TinyBase, model_type: str) -> None:
    folder = tiny_base(model_type)
    base = locate_base(folder)
    assert base.name == folder.name
    assert base.folder == folder
    assert base.shape.model_type == model_type
    assert (base.shape.hidden_size, base.shape.layers, base.shape.intermediate_size) == (16, 2, 32)
    assert base.shape.max_tokens == 40


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_linears_are_those_that_the_model_has(tiny_base: TinyBase, model_type: str) -> None:
    from torch import nn

    encoder = load_encoder(tiny_base(model_type), device="cpu")
    real = {
        name: tuple(module.weight.shape)
        for name, module in encoder.model.named_modules()
        if isinstance(module, nn.Linear)
    }
    assert encoder.shape.linears() == real


def test_no_path_gets_into_the_name(
    tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tiny_base("bert")
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert locate_base(link).name == folder.name
    monkeypatch.chdir(folder)
    assert locate_base(".").name == folder.name


def test_the_embedded_base_goes_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tiny_base: TinyBase, tmp_path: Path
) -> None:
    # A folder of that name in the working directory must not stand in for it.
    shutil.copytree(tiny_base("bert"), tmp_path / EMBEDDED)
    monkeypatch.chdir(tmp_path)
    base = locate_base(EMBEDDED)
    assert (base.name, base.folder) == (EMBEDDED, EMBEDDED_FOLDER)
    assert base.shape.model_type == "xlm-roberta"
    before = set(EMBEDDED_FOLDER.parent.iterdir())
    assert len(fingerprint(base).digest) == 64
    # Package folders aren't ours to write to.
    assert set(EMBEDDED_FOLDER.parent.iterdir()) == before


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nowhere", "../nowhere", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(BaseNotFoundError, match="no base at") as caught:
        locate_base(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["not a name", "-x-", "\0", "x" * 200])
def test_an_impossible_hub_name(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseNotFoundError, match="no base named"):
        locate_base(name)


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BaseNotFoundError, match=r"holds no config\.json"):
        locate_base(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '"bert"',
        "[" * 100_000,
        '{"model_type": ["bert"]}',
        b'{"model_type": "\xff"}',
    ],
    ids=["empty", "cut", "list", "null", "string", "deep", "type-list", "latin"],
)
def test_a_config_that_is_no_config(copy_of: Callable[..., Path], content: str | bytes) -> None:
    folder = copy_of()
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / "config.json").write_bytes(raw)
    with pytest.raises(UnsupportedBaseError) as caught:
        locate_base(folder)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_a_folder(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(UnsupportedBaseError, match=r"config\.json can't be read"):
        locate_base(folder)


@pytest.mark.parametrize("model_type", ["gpt2", "roberta", "distilbert", None])
def test_other_model_types_are_named(copy_of: Callable[..., Path], model_type: str | None) -> None:
    folder = copy_of()
    change_config(folder, model_type=model_type)
    with pytest.raises(UnsupportedBaseError, match="xlm-roberta and bert") as caught:
        locate_base(folder)
    assert repr(model_type) in str(caught.value)


@pytest.mark.parametrize("option", ["is_decoder", "add_cross_attention"])
def test_decoders_are_refused(copy_of: Callable[..., Path], option: str) -> None:
    folder = copy_of()
    change_config(folder, **{option: True})
    with pytest.raises(UnsupportedBaseError, match="decoder"):
        locate_base(folder)


@pytest.mark.parametrize("value", ["many", None, [16], float("inf")])
def test_a_size_that_is_no_number(copy_of: Callable[..., Path], value: object) -> None:
    folder = copy_of()
    change_config(folder, hidden_size=value)
    with pytest.raises(UnsupportedBaseError, match="lacks or misstates"):
        locate_base(folder)


def test_a_missing_size_is_named(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    path = folder / "config.json"
    config = json.loads(path.read_text())
    del config["num_hidden_layers"]
    path.write_text(json.dumps(config))
    with pytest.raises(UnsupportedBaseError, match="num_hidden_layers"):
        locate_base(folder)


def test_weights_as_pickle_only_are_refused(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedBaseError, match="safetensors"):
        locate_base(folder)


# -- Hub names, from a cache in the Hub's own layout


@pytest.fixture
def hub_cache(tiny_base: TinyBase, tmp_path: Path) -> Path:
    """The Hub's cache as huggingface_hub lays it out, with both names that people use."""
    cache = tmp_path / "hub"
    for name, model_type in (
        ("xlm-roberta-base", "xlm-roberta"),
        ("google-bert--bert-base-multilingual-cased", "bert"),
        ("bert-base-multilingual-cased", "bert"),
    ):
        folder = cache / f"models--{name}"
        revision = "0123456789abcdef0123456789abcdef01234567"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(revision)
        (folder / "blobs").mkdir()
        snapshot = folder / "snapshots" / revision
        snapshot.mkdir(parents=True)
        for number, path in enumerate(sorted(tiny_base(model_type).iterdir())):
            blob = folder / "blobs" / f"{number:040x}"
            shutil.copy(path, blob)
            (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)
    return cache


def in_a_fresh_process(
    code: str, *arguments: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A process of its own: huggingface_hub reads its settings once, when imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE"))}
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=cwd,
        env=kept | environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


LOCATE = """
import json, sys
from isogloss.core.base import fingerprint, locate_base
from isogloss.core.errors import BaseNotFoundError
results = []
for name in sys.argv[1:]:
    try:
        base = locate_base(name)
        results.append([base.name, str(base.folder), fingerprint(base).digest])
    except BaseNotFoundError as error:
        results.append(str(error))
assert "torch" not in sys.modules
print(json.dumps(results))
"""


def test_hub_names_come_from_the_local_cache(
    hub_cache: Path, tiny_base: TinyBase, tmp_path: Path
) -> None:
    names = [
        "xlm-roberta-base",
        "google-bert/bert-base-multilingual-cased",
        "bert-base-multilingual-cased",
        "nobody/no-such-model",
    ]
    before = sorted(hub_cache.rglob("*"))
    done = in_a_fresh_process(
        LOCATE, *names, cwd=tmp_path, HF_HUB_CACHE=str(hub_cache), HF_HUB_OFFLINE="1"
    )
    assert done.returncode == 0, done.stderr
    *found, missing = json.loads(done.stdout)
    expected = [digest(tiny_base(model_type)) for model_type in ("xlm-roberta", "bert", "bert")]
    assert [name for name, _, _ in found] == names[:3]
    assert all(folder.startswith(str(hub_cache)) for _, folder, _ in found)
    assert [digest for _, _, digest in found] == expected
    assert "not in the local cache" in missing
    assert "nobody/no-such-model" in missing
    assert "\n" not in missing
    # The Hub's cache admits no files of others.
    assert sorted(hub_cache.rglob("*")) == before
    assert list((tmp_path / "user-cache" / "isogloss" / "fingerprints").iterdir())


@pytest.mark.parametrize("name", ["xlm-roberta-base", "nobody/no-such-model"])
def test_an_unreachable_hub(tmp_path: Path, name: str) -> None:
    done = in_a_fresh_process(
        LOCATE,
        name,
        cwd=tmp_path,
        HF_HUB_CACHE=str(tmp_path / "hub"),
        # Nothing listens there.
        HF_ENDPOINT="http://127.0.0.1:9",
        NO_PROXY="*",
    )
    assert done.returncode == 0, done.stderr
    (message,) = json.loads(done.stdout)
    assert f"no base named {name!r}" in message
    assert "the Hub can't be reached" in message


def test_a_base_from_the_hub_cache_loads(hub_cache: Path, tmp_path: Path) -> None:
    code = """
from isogloss.core.encoder import load_encoder
encoder = load_encoder("xlm-roberta-base", device="cpu")
print(encoder.name, len(encoder.tokenize(["wo isch mys päckli"])))
"""
    done = in_a_fresh_process(
        code, cwd=tmp_path, HF_HUB_CACHE=str(hub_cache), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["xlm-roberta-base", "1"]


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
    for begin, end in pairwise(edges):
        part = {f"roberta.{name}": tensors[name] for name in names[begin:end]}
        _write_in_order(folder / f"model-{9 - begin % 10}-{begin}.safetensors", part)
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
    copy_of: Callable[..., Path], key: str, value: object
) -> None:
    folder = copy_of()
    before = digest(folder)
    change_config(folder, **{key: value})
    assert digest(folder) != before


def test_what_the_config_says_of_its_origin_does_not_count(copy_of: Callable[..., Path]) -> None:
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


def test_the_cache_ends_when_a_file_is_added(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    before = digest(folder)
    extra = {"encoder.layer.9.output.dense.bias": np.ones(3, np.float32)}
    save_file(extra, folder / "more.safetensors")
    assert digest(folder) != before


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
