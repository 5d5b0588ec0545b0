"""Commands that decide what answers: promotion, gates, protection, keys, removal."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from isogloss.adapters.spec import AdapterSpec
from isogloss.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Publish = Callable[..., str]


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit status, output, messages."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as exit_,
    ):
        main([str(argument) for argument in arguments])
        sys.exit(0)
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "registry"
    monkeypatch.setenv("ISOGLOSS_REGISTRY", str(folder))
    return folder


def succeed(*arguments: object) -> str:
    status, out, err = call(*arguments)
    assert status == 0, err
    return out


def fail(*arguments: object) -> str:
    status, out, err = call(*arguments)
    assert (status, out) == (2, ""), err
    (line,) = err.splitlines()
    return line


@pytest.fixture
def publish(tiny_base: Any, peft_adapter: Any) -> Publish:
    """Publishes a version with this macro-F1, as `canary` unless said otherwise; gives its name."""

    def make(score: float, *arguments: object, alias: str = "canary") -> str:
        base = tiny_base("xlm-roberta")
        folder: Path = peft_adapter(base)
        labels = ("LABEL_0", "LABEL_1", "LABEL_2")
        spec = AdapterSpec(
            locale="gsw-CH", task="t", labels=labels, base="b", metrics={"macro_f1": score}
        )
        (folder / "isogloss.json").write_bytes(spec.to_json())
        out = succeed("publish", folder, "--base", base, "--alias", alias, "--json", *arguments)
        name: str = json.loads(out)["name"]
        return name

    return make


WHERE = ("--locale", "gsw-CH", "--task", "t")


def live() -> str:
    (newest, *_) = json.loads(succeed("history", *WHERE, "--json"))
    return str(newest["digest"])


def test_gated_promotion(publish: Publish) -> None:
    old = publish(0.8, alias="production")
    good, bad = publish(0.75), publish(0.5)
    line = fail("promote", bad, "--require", "macro_f1>=0.9*current")
    assert "0.5000 >= 0.7200 FAILS" in line
    assert old in line
    succeed("promote", good, "--require", "macro_f1>=0.9*current", "--require", "macro_f1>=0.7")
    assert good.endswith(live()[:12])
    assert "gate: macro_f1>=0.9*current: 0.7500" in succeed("history", *WHERE)
    assert "is no requirement" in fail("promote", bad, "--require", "nice")

    succeed("gate", "set", "t*", "macro_f1>=0.6", "macro_f1>=parent")
    assert json.loads(succeed("gate", "list", "--json"))[0]["requires"] == [
        "macro_f1>=0.6",
        "macro_f1>=parent",
    ]
    assert "macro_f1>=0.6, macro_f1>=parent" in succeed("gate", "list")
    assert "was not promoted" in fail("promote", bad)
    succeed("gate", "rm", "t*")
    succeed("promote", bad, "--no-smoke")
    assert "no smoke forward" in succeed("history", *WHERE)
    assert "no gate" in fail("gate", "rm", "t*")


def test_promotion_that_expects_something(publish: Publish) -> None:
    one, two = publish(0.5, alias="production"), publish(0.6)
    assert "was expected to point to" in fail("promote", two, "--expect", two)
    assert "was expected not to exist" in fail("promote", two, "--expect", "none")
    succeed("promote", two, "--expect", one)
    assert "was expected to point to" in fail("rollback", *WHERE, "--expect", one)
    succeed("rollback", *WHERE, "--expect", two)
    assert one.endswith(live()[:12])
    succeed("promote", two, "--alias", "next", "--expect", "none")


def test_a_protected_alias(publish: Publish) -> None:
    publish(0.5, alias="production")
    two = publish(0.6)
    assert "is protected" in succeed("protect", "set", "production")
    assert json.loads(succeed("protect", "list", "--json")) == ["production"]
    assert "production" in succeed("protect", "list")
    assert "--force --reason" in fail("promote", two, "--force")
    succeed("promote", two, "--force", "--reason", "incident 7")
    assert "--force --reason" in fail("rollback", *WHERE, "--reason", "no")
    assert "incident 7" in succeed("history", *WHERE)
    succeed("protect", "rm", "production")
    succeed("rollback", *WHERE)


def test_what_was_live_at_a_time(publish: Publish) -> None:
    one = publish(0.5, alias="production")
    after = datetime.now(UTC).isoformat()
    two = publish(0.6, alias="production")
    (found,) = json.loads(succeed("history", *WHERE, "--at", after, "--json"))
    assert one.endswith(found["digest"][:12])
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert two.rpartition("@")[2] in succeed("history", *WHERE, "--at", tomorrow)
    assert "didn't exist yet" in succeed("history", *WHERE, "--at", "2020-01-01")
    assert json.loads(succeed("history", *WHERE, "--at", "2020-01-01", "--json")) == []
    assert "is no time" in fail("history", *WHERE, "--at", "noon")


def test_removal(publish: Publish) -> None:
    one, two = publish(0.5, alias="production"), publish(0.6, "--no-alias")
    assert "alias 'production' of t/gsw-CH points to it" in fail("rm", one)
    removed = json.loads(succeed("rm", two, "--reason", "a mistake", "--json"))
    assert (removed["name"], removed["reason"]) == (two, "a mistake")
    assert "no version" in fail("show", two)
    three = publish(0.7)
    publish(0.8)
    assert "was moved at" in fail("rm", three)
    assert "is removed" in succeed("rm", three, "--keep-days", "0")


def test_what_show_tells(publish: Publish, tmp_path: Path) -> None:
    made = json.loads(succeed("keys", "generate", tmp_path / "key", "--json"))
    name = publish(0.5, "--author", "Heidi", "--sign", tmp_path / "key")
    shown = json.loads(succeed("show", name, "--json"))
    assert shown["author"] == "Heidi"
    assert shown["tools"].keys() >= {"isogloss", "peft", "torch"}
    assert shown["parent"] is None
    assert [signature["key_id"] for signature in shown["signatures"]] == [made["id"]]
    text = succeed("show", name)
    assert "Heidi" in text
    assert made["id"] in text


def test_signatures_and_a_change_of_keys(publish: Publish, tmp_path: Path) -> None:
    keys = [tmp_path / "old", tmp_path / "new"]
    ids = [json.loads(succeed("keys", "generate", key, "--json"))["id"] for key in keys]
    name = publish(0.5, alias="production")
    succeed("keys", "trust", f"{keys[0]}.pub", "--name", "2025")
    assert "would no longer answer" in fail("keys", "require", "on")
    assert ids[0] in succeed("keys", "sign", name, "--key", keys[0])
    assert "signatures are required" in succeed("keys", "require", "on")
    assert "alone vouches for" in fail("keys", "revoke", ids[0])

    succeed("keys", "trust", f"{keys[1]}.pub", "--name", "2026")
    succeed("keys", "sign", name, "--key", keys[1])
    succeed("keys", "revoke", ids[0], "--reason", "a year is over")
    listed = json.loads(succeed("keys", "list", "--json"))
    assert {key["id"]: bool(key["revoked_at"]) for key in listed} == {ids[0]: True, ids[1]: False}
    assert "a year is over" in succeed("keys", "list")
    publish(0.6, "--sign", keys[1])
    with pytest.raises(AssertionError, match="sign it with a trusted key"):
        publish(0.6, "--sign", keys[0])
    succeed("keys", "require", "off")
    publish(0.6)
