from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isogloss.core.base import EMBEDDED, EMBEDDED_FOLDER, fingerprint, locate_base
from isogloss.core.encoder import quiet_transformers
from isogloss.core.errors import BaseNotFoundError, UnsupportedBaseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..conftest import TinyBase
    from .conftest import ChangeConfig

pytestmark = pytest.mark.usefixtures("user_cache")
MODEL_TYPES = ("xlm-roberta", "bert")


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
    from transformers import AutoModel

    folder = tiny_base(model_type)
    with quiet_transformers():
        model = AutoModel.from_pretrained(folder)
    real = {
        name: tuple(module.weight.shape)
        for name, module in model.named_modules()
        # XLM-R's pooler is used by nothing.
        if isinstance(module, nn.Linear) and (model_type == "bert" or "pooler" not in name)
    }
    assert locate_base(folder).shape.linears() == real


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


def test_a_name_that_no_file_may_have() -> None:
    with pytest.raises(BaseNotFoundError, match=r"no base at .*File name too long"):
        locate_base("x" * 300)


def test_a_config_without_pad_token_id(copy_of: Callable[..., Path]) -> None:
    for model_type, default in (("xlm-roberta", 1), ("bert", 0)):
        folder = copy_of(model_type, name=model_type)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        del config["pad_token_id"]
        path.write_text(json.dumps(config))
        assert locate_base(folder).shape.pad_token_id == default


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
def test_other_model_types_are_named(
    copy_of: Callable[..., Path], model_type: str | None, change_config: ChangeConfig
) -> None:
    folder = copy_of()
    change_config(folder, model_type=model_type)
    with pytest.raises(UnsupportedBaseError, match="xlm-roberta and bert") as caught:
        locate_base(folder)
    assert repr(model_type) in str(caught.value)


@pytest.mark.parametrize("option", ["is_decoder", "add_cross_attention"])
def test_decoders_are_refused(
    copy_of: Callable[..., Path], option: str, change_config: ChangeConfig
) -> None:
    folder = copy_of()
    change_config(folder, **{option: True})
    with pytest.raises(UnsupportedBaseError, match="decoder"):
        locate_base(folder)


@pytest.mark.parametrize("value", ["many", None, [16], float("inf")])
def test_a_size_that_is_no_number(
    copy_of: Callable[..., Path], value: object, change_config: ChangeConfig
) -> None:
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
    expected = [
        fingerprint(locate_base(tiny_base(model_type))).digest
        for model_type in ("xlm-roberta", "bert", "bert")
    ]
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
