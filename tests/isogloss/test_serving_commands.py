"""`predict`, `embed` and `rerank`, from their arguments to what they print."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from isogloss import Hub, Registry
from isogloss.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import PeftAdapter, TinyBase

REQUEST = ("--locale", "gsw-CH")


class Shell:
    """Commands against one registry and one base."""

    def __init__(
        self, folder: Path, base: Path, capsys: pytest.CaptureFixture[str], peft: PeftAdapter
    ) -> None:
        self.folder, self.base, self.capsys = folder, base, capsys
        with Registry.open(folder) as registry:
            self.names = [
                registry.publish(
                    peft(base), locale=locale, task="intent", labels=["a", "b", "c"], base=base
                ).name
                for locale in ("de", "gsw-CH")
            ]
            self.reranker = registry.publish(
                peft(base, labels=1), locale="gsw-CH", task="search", base=base
            ).name

    def __call__(self, command: str, *arguments: str) -> str:
        where = ("--registry", str(self.folder), "--base", str(self.base))
        main([command, *arguments, *REQUEST, *where])
        return self.capsys.readouterr().out

    def json(self, command: str, *arguments: str) -> Any:
        return json.loads(self(command, *arguments, "--json"))

    def fail(self, command: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            self(command, *arguments)
        assert caught.value.code == 2
        line: str = self.capsys.readouterr().err.splitlines()[-1]
        return line


@pytest.fixture
def shell(
    tmp_path: Path,
    tiny_base: TinyBase,
    peft_adapter: PeftAdapter,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    return Shell(tmp_path / "registry", tiny_base("xlm-roberta"), capsys, peft_adapter)


def test_predict_with_a_mixture(shell: Shell) -> None:
    first, second = shell.names
    (mixed,) = shell.json(
        "predict", "fox", "--task", "intent", "--adapter", f"{first}=0.6",
        "--adapter", f"{second}=0.4",
    )  # fmt: skip
    with Registry.open(shell.folder) as registry, Hub(registry, base=shell.base) as hub:
        (expected,) = hub.predict(
            ["fox"], task="intent", locale="gsw-CH", adapter={first: 0.6, second: 0.4}
        )
    assert mixed["adapter"] == expected.adapter == f"0.6·{first} + 0.4·{second}"
    assert mixed["logits"] == pytest.approx(expected.logits, abs=1e-6)
    (one,) = shell.json("predict", "fox", "--task", "intent", "--adapter", first)
    assert one["adapter"] == first
    table = shell("predict", "fox", "dog", "--task", "intent")
    assert second in table
    assert len(table.splitlines()) == 3


def test_predict_pairs(shell: Shell) -> None:
    pair, single = (
        shell.json("predict", "fox", "--task", "intent", *context)[0]["logits"]
        for context in (("--context", "the lazy dog"), ())
    )
    assert pair != pytest.approx(single, abs=1e-3)


def test_predict_mistakes(shell: Shell) -> None:
    first, second = shell.names
    task = ("fox", "--task", "intent")
    many = ("--adapter", f"{first}=1", "--adapter")
    assert "NAME=WEIGHT" in shell.fail("predict", *task, *many, second)
    assert "NAME=WEIGHT" in shell.fail("predict", *task, *many, f"{second}=much")
    assert "twice" in shell.fail("predict", *task, *many, f"{first}=2")
    assert "other than 0" in shell.fail("predict", *task, *many, f"{second}=0")
    assert "precision" in shell.fail("predict", *task, "--precision", "fp8")


def test_embed(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = shell.json("embed", "fox", "wo isch", "--out", str(tmp_path / "vectors.npy"))
    assert [entry["text"] for entry in entries] == ["fox", "wo isch"]
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose([entry["vector"] for entry in entries], vectors, atol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    monkeypatch.setattr(sys, "stdin", io.StringIO("fox\n\n wo isch \n"))
    table = shell("embed").splitlines()
    assert [line.split()[0] for line in table[1:]] == ["fox", "wo"]
    assert "name a task that embeds" in shell.fail("embed", "fox", "--task", "intent")


def test_rerank(shell: Shell) -> None:
    texts = ["the lazy dog", "päckli", "el perro"]
    entries = shell.json("rerank", "wo isch", *texts)
    assert sorted(entry["index"] for entry in entries) == [0, 1, 2]
    assert all(entry["text"] == texts[entry["index"]] for entry in entries)
    scores = [entry["score"] for entry in entries]
    assert scores == sorted(scores, reverse=True)
    table = shell("rerank", "wo isch", *texts).splitlines()
    assert table[1].rstrip().endswith(entries[0]["text"])
    assert "name a task that reranks" in shell.fail("rerank", "a", "b", "--task", "intent")
