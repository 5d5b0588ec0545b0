"""The command line, from its arguments to what it prints."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from isogloss.cli import main
from isogloss.output import print_table

LABELS = "negative,neutral,positive"


def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which has imported torch already."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(SystemExit) as exit_,
    ):
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        main([str(argument) for argument in arguments])
        sys.exit(0)
    status = exit_.value.code
    assert isinstance(status, int)
    return subprocess.CompletedProcess("isogloss", status, out.getvalue(), err.getvalue())


def run_process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does."""
    script = Path(sys.executable).with_name("isogloss")
    return subprocess.run(
        [script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdin=subprocess.DEVNULL,
    )


def succeed(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(*arguments: object) -> str:
    """The one line that a mistake gives."""
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("isogloss: ")]
    assert done.stderr.splitlines()[-1:] == lines
    return lines[0]


@pytest.fixture
def base(tiny_base) -> Path:  # type: ignore[no-untyped-def]
    folder: Path = tiny_base("xlm-roberta")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        rows = [
            {"text": f"{word} {split} {number}", "label": label}
            for number in range(8)
            for label, word in (("good", "lazy dog"), ("bad", "wo isch mys päckli"))
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_train_evaluate_publish_resolve_predict(base: Path, data: Path, tmp_path: Path) -> None:
    out, registry = tmp_path / "A", tmp_path / "registry"
    trained = json.loads(
        succeed(
            *("train", "--base", base, "--locale", "min_id", "--task", "sentiment"),
            *("--data", data, "--out", out, "--epochs", 4, "--rank", 4, "--json"),
        )
    )
    assert trained["labels"] == ["bad", "good"]
    judged = json.loads(
        succeed("evaluate", out, "--data", data / "test.jsonl", "--base", base, "--json")
    )
    assert judged["rows"] == 16
    assert set(judged["metrics"]) == {"accuracy", "macro_f1"}
    published = json.loads(
        succeed("publish", out, "--base", base, "--registry", registry, "--json")
    )
    assert published["locale"] == "min-ID"
    assert published["metrics"] == trained["metrics"]

    (listed,) = json.loads(succeed("ls", "--registry", registry, "--json"))
    assert listed["name"] == published["name"]
    assert listed["aliases"] == ["production"]
    shown = json.loads(succeed("show", published["name"], "--registry", registry, "--json"))
    assert shown == listed | {"signatures": []}
    resolved = json.loads(
        succeed("resolve", "min-ID-x-pdg", "--task", "sentiment", "--registry", registry, "--json")
    )
    assert (resolved["stage"], resolved["name"]) == ("drop-private", published["name"])
    assert resolved["trace"]

    (prediction,) = json.loads(
        succeed(
            *("predict", "lazy dog 3", "--locale", "min-ID", "--task", "sentiment"),
            *("--base", base, "--registry", registry, "--json"),
        )
    )
    assert prediction["label"] in {"good", "bad"}
    assert prediction["adapter"] == published["name"]
    piped = run(
        *("predict", "--locale", "min-ID", "--task", "sentiment", "--base", base),
        *("--registry", registry, "--json"),
        stdin="lazy dog 3\n\nwo isch mys päckli\n",
    )
    assert json.loads(piped.stdout)[0]["label"] == prediction["label"]
    assert len(json.loads(piped.stdout)) == 2
    for command in (
        ("ls",),
        ("show", published["name"]),
        ("resolve", "min-ID", "--task", "sentiment"),
    ):
        assert published["name"] in succeed(*command, "--registry", registry)


def test_history_and_rollback(base: Path, peft_adapter, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    registry = tmp_path / "registry"
    names = [
        json.loads(
            succeed(
                *("publish", peft_adapter(base), "--locale", "de", "--task", "sentiment"),
                *("--labels", LABELS, "--base", base, "--registry", registry, "--json"),
            )
        )["digest"]
        for _ in range(2)
    ]
    where = ("--locale", "de", "--task", "sentiment", "--registry", registry)
    succeed("rollback", *where, "--reason", "worse on returns")
    changes = json.loads(succeed("history", *where, "--json"))
    assert [change["digest"] for change in changes] == [names[0], names[1], names[0]]
    assert changes[0]["reason"] == "worse on returns"
    assert "worse on returns" in succeed("history", *where)
    promoted = json.loads(succeed("promote", names[1], "--registry", registry, "--json"))
    assert (promoted["digest"], promoted["alias"]) == (names[1], "production")
    (first, *_) = json.loads(succeed("history", *where, "--json"))
    assert first["digest"] == names[1]


def test_plain_peft_folder(base: Path, peft_adapter, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder, registry = peft_adapter(base), tmp_path / "registry"
    assert "--locale, --task" in fail("publish", folder, "--base", base, "--registry", registry)
    succeed(
        *("publish", folder, "--locale", "de", "--task", "sentiment"),
        *("--base", base, "--registry", registry),
    )
    (listed,) = json.loads(succeed("ls", "--registry", registry, "--json"))
    assert listed["labels"] == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_mistakes_in_training(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "A"

    def attempt(**changes: object) -> str:
        options = {"base": base, "locale": "de", "task": "t", "data": data, "out": out} | changes
        line = fail("train", *(part for k, v in options.items() for part in (f"--{k}", v)))
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        return line

    (data / "empty.jsonl").write_text("\n")
    (data / "unlabelled.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    (data / "malformed.jsonl").write_text('{"text": "a", "label": "x"}\n{"text": "b", \n')
    unseen = tmp_path / "unseen"
    unseen.mkdir()
    (unseen / "train.jsonl").write_text((data / "train.jsonl").read_text())
    (unseen / "dev.jsonl").write_text('{"text": "a", "label": "ugly"}\n')
    before = sorted(path.name for path in tmp_path.iterdir())

    assert "no base" in attempt(base="no-such-base")
    assert "no locale" in attempt(locale="klingon")
    assert "no rows" in attempt(data=data / "empty.jsonl")
    assert "none of the 2 rows" in attempt(data=data / "unlabelled.jsonl")
    assert "malformed.jsonl, line 2: " in attempt(data=data / "malformed.jsonl")
    assert "'ugly' was not seen in training" in attempt(data=unseen)
    assert "can't read" in attempt(data=tmp_path / "nowhere")
    assert "rank is 0" in attempt(rank=0)
    assert "kind is 'ia3'" in attempt(kind="ia3")
    assert "don't fit" in attempt(targets="nothing")
    assert "task" in attempt(task="Not A Task")
    assert "exists" in attempt(out=data)


def test_mistakes_in_publishing_and_predicting(  # type: ignore[no-untyped-def]
    tiny_base, peft_adapter, tmp_path: Path
) -> None:
    registry = tmp_path / "registry"
    mine, other = tiny_base("xlm-roberta", seed=1), tiny_base("xlm-roberta", seed=2)
    where = ("--registry", registry)
    request = ("--locale", "de", "--task", "sentiment")
    assert "no registry" in fail("ls", *where)
    assert "no registry" in fail("predict", "a", *request, "--base", mine, *where)
    assert "no adapter folder" in fail("publish", tmp_path / "nowhere", *where)
    adapter = peft_adapter(mine)
    assert "is no name" in fail("publish", adapter, *request, "--alias", "Not A Name", *where)
    labels = ("--labels", "a,,b")
    assert "empty" in fail("publish", adapter, *request, "--base", mine, *labels, *where)
    assert not registry.exists()
    succeed("publish", peft_adapter(mine), *request, "--base", mine, *where)

    assert "trained on" in fail("predict", "a", *request, "--base", other, *where)
    assert "no locale" in fail("resolve", "min-", "--task", "sentiment", *where)
    assert "no texts" in fail("predict", *request, "--base", mine, *where)
    assert "empty" in fail("predict", " ", *request, "--base", mine, *where)
    line = fail("predict", "a", "--locale", "fi", "--task", "sentiment", "--base", mine, *where)
    assert "fi: nothing published" in line
    assert "no version" in fail("show", "ffffffff", *where)
    assert "is no name" in fail("ls", "--task", "Not A Name", *where)
    assert "is no name" in fail("ls", "--task", "\udcff", *where)
    assert "no alias" in fail("history", "--locale", "de", "--task", "nope", *where)


def test_adapter_of_another_base_is_not_published(  # type: ignore[no-untyped-def]
    tiny_base, data: Path, tmp_path: Path
) -> None:
    mine, other = tiny_base("xlm-roberta", seed=1), tiny_base("xlm-roberta", seed=2)
    succeed(
        *("train", "--base", mine, "--locale", "de", "--task", "sentiment", "--data", data),
        *("--out", tmp_path / "A", "--epochs", 1),
    )
    registry = tmp_path / "registry"
    line = fail("publish", tmp_path / "A", "--base", other, "--registry", registry)
    assert "fingerprint" in line
    assert not registry.exists()


def test_quick_commands_import_no_torch(base: Path, peft_adapter, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    script = (
        "import sys; from isogloss.cli import cli;"
        "cli(sys.argv[1:], standalone_mode=False);"
        "print(sorted({'torch', 'transformers', 'peft'} & sys.modules.keys()), file=sys.stderr)"
    )
    registry = ("--registry", tmp_path / "registry")
    for arguments in (
        (
            *("publish", peft_adapter(base), "--locale", "de", "--task", "t", "--base", base),
            "--no-smoke",
        ),
        ("ls",),
        ("resolve", "de-AT", "--task", "t"),
        ("history", "--locale", "de", "--task", "t"),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-c", script, *map(str, (*arguments, *registry))],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.splitlines()[-1] == "[]", arguments


def test_registry_from_the_environment(base: Path, peft_adapter, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "elsewhere"
    done = run_process(
        *("publish", peft_adapter(base), "--locale", "de", "--task", "t", "--base", base),
        ISOGLOSS_REGISTRY=str(folder),
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(succeed("ls", "--registry", folder, "--json"))) == 1


def test_doctor() -> None:
    report = json.loads(succeed("doctor", "--json"))
    assert report["facts"]["torch"].startswith("2.")
    assert {check["name"] for check in report["precisions"] if check["works"]} >= {"fp32", "bf16"}
    assert "fp32" in succeed("doctor")


def test_bench_memory(base: Path) -> None:
    report = json.loads(
        succeed("bench", "memory", "--base", base, "--adapters", "1,3", "--copies", "1", "--json")
    )
    assert [row["adapters"] for row in report["rows"]] == [1, 3]
    for row in report["rows"]:
        assert row["predicted_bytes"] == (
            report["base_bytes"] + row["adapters"] * report["adapter_bytes"]
        )
        assert row["measured_bytes"] == pytest.approx(row["predicted_bytes"], rel=0.01)
        assert row["resident_set_bytes"] > 0
    assert report["full_copy_bytes"] > report["base_bytes"]
    assert [row["full_copies_measured"] for row in report["rows"]] == [True, False]
    assert "whole numbers" in fail("bench", "memory", "--base", base, "--adapters", "many")


def test_files_left_out_are_named(base: Path, peft_adapter, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = peft_adapter(base)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "\udcff").touch()  # as os.fsdecode gives a name that is no UTF-8
    publish = (
        *("publish", folder, "--locale", "de", "--task", "t", "--base", base),
        *("--registry", tmp_path / "registry"),
    )
    done = run(*publish)
    assert done.returncode == 0, done.stderr
    left_out, unnamed = done.stderr.splitlines()
    assert ascii(left_out) == ascii("left out: tokenizer.json, \udcff")
    assert unnamed.startswith("no labels were given")
    assert json.loads(succeed(*publish, "--json"))["left_out"] == ["tokenizer.json", "\udcff"]


def test_evaluate_a_plain_peft_folder(base: Path, peft_adapter, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    data = tmp_path / "test.jsonl"
    data.write_text('{"text": "lazy dog", "label": "neutral"}\n')
    folder = peft_adapter(base)
    assert "LABEL_0" in fail("evaluate", folder, "--data", data)
    judged = json.loads(succeed("evaluate", folder, "--data", data, "--labels", LABELS, "--json"))
    assert judged["rows"] == 1


def test_a_long_cell_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["text", "label"], [["x" * 400, "refund"]])
    assert f"{'x' * 400}  refund\n" in capsys.readouterr().out


def test_a_long_cell_is_folded_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_table(["text", "label"], [["x" * 400, "refund"]])
    out = capsys.readouterr().out
    assert "refund" in out
    assert out.count("x") == 401  # one is in the heading


def test_what_no_check_foresees_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "File name too long" in fail("ls", "--registry", tmp_path / ("x" * 300))

    def raise_(error: Exception) -> str:
        def break_(*_: object, **__: object) -> NoReturn:
            raise error

        monkeypatch.setattr("isogloss.registry.Registry.open", break_)
        return fail("ls")

    assert "No space left on device (/x); check" in raise_(
        OSError(28, "No space left on device", "/x")
    )
    assert "UTF-8" in raise_(UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"))


def test_usage_errors_are_one_line() -> None:
    assert "No such command" in fail("trian")
    assert "Missing option" in fail("train")
    assert run("--help").returncode == 0
    assert run("--version").stdout.startswith("isogloss, version ")


def test_installed_command(tmp_path: Path) -> None:
    done = run_process("ls", "--registry", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("isogloss: no registry at ")
    assert len(done.stderr.splitlines()) == 1
