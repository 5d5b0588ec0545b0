"""`isogloss resolve` and `isogloss alias-locale`."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from isogloss.cli import main
from isogloss.registry import StoredFile, Version
from isogloss.registry.catalog import Catalog
from isogloss.registry.records import manifest_digest
from isogloss.registry.times import utc_now

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs a command; gives its status, what it printed, and its errors."""

    def run_(*arguments: object) -> tuple[int, str, str]:
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            assert isinstance(exit_.code, int)
            status = exit_.code
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with adapters for intent in de and es-419, and for search in es."""
    with Catalog(tmp_path / "registry.db") as catalog:
        for locale, task in (("de", "intent"), ("es-419", "intent"), ("es", "search")):
            sha256 = hashlib.sha256(f"{locale} {task}".encode()).hexdigest()
            files = (StoredFile(path="isogloss.json", size=2, sha256=sha256),)
            version = Version(
                digest=manifest_digest(files),
                locale=locale,
                task=task,
                task_type="sequence-classification",
                kind="lora",
                rank=8,
                labels=("a", "b"),
                base="mini",
                base_fingerprint=None,
                metrics={},
                data_digest=None,
                parent=None,
                files=files,
                bytes=2,
                created_at=None,
                published_at=utc_now(),
                published_by="heidi",
            )
            catalog.publish(version, alias="production")
    return tmp_path


def test_among_a_list(run) -> None:  # type: ignore[no-untyped-def]
    status, out, err = run("resolve", "es-MX", "--among", "es, es-419")
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == ["es-MX: es-419", "stage: parent, distance 4"]
    assert "  CLDR parent es-419: published" in out.splitlines()
    status, out, _ = run("resolve", "is,fr;q=0.5", "--among", "en,fr", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["locale"], found["stage"], found["distance"]) == ("fr", "exact", 0)
    assert found["script_changed"] is False
    assert any("en (20): refused" in step for step in found["trace"])


def test_nothing_answers(run, registry: Path) -> None:  # type: ignore[no-untyped-def]
    for where in (("--among", "en"), ("--among", ""), ("--task", "intent", "--registry", registry)):
        status, out, err = run("resolve", "ta", *where)
        assert (status, err) == (1, "")
        assert out.startswith("ta: nothing answers\nstage: base\n")
        status, out, err = run("resolve", "ta", *where, "--json")
        assert (status, err) == (1, "")
        assert json.loads(out)["stage"] == "base"


def test_in_a_registry_each_task_by_itself(run, registry: Path) -> None:  # type: ignore[no-untyped-def]
    for task, locale, stage in (("intent", "es-419", "parent"), ("search", "es", "region")):
        where = ("--task", task, "--registry", registry)
        status, out, _ = run("resolve", "es-MX", *where, "--json")
        found = json.loads(out)
        assert (status, found["locale"], found["stage"]) == (0, locale, stage)
        assert found["name"].startswith(f"{task}/{locale}@")
        assert found["version"]["task"] == task
        assert f"es-MX: {found['name']}" in run("resolve", "es-MX", *where)[1]


def test_aliases_of_locales(run, registry: Path) -> None:  # type: ignore[no-untyped-def]
    where = ("--registry", registry)
    resolve = ("resolve", "bar", "--task", "intent", *where)
    assert run(*resolve)[0] == 1
    assert run("alias-locale", "set", "BAR", "de", *where)[:2] == (0, "BAR is answered as de\n")
    status, out, _ = run(*resolve)
    assert status == 0
    assert "stage: alias, distance 0" in out
    (listed,) = json.loads(run("alias-locale", "list", *where, "--json")[1])
    assert (listed["locale"], listed["instead"]) == ("bar", "de")
    assert "bar" in run("alias-locale", "list", *where)[1]
    assert run("alias-locale", "remove", "bar", *where)[0] == 0
    assert run(*resolve)[0] == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("resolve", "es"), "give either --task"),
        (("resolve", "es", "--among", "es", "--task", "intent"), "give either --task"),
        (("resolve", "e", "--among", "es"), "'e' is no locale"),
        (("resolve", "es", "--among", "e"), "'e' is no locale"),
        (("resolve", "es;q=7", "--among", "es"), "no weight"),
        (("alias-locale", "set", "bar", "bar"), "are one locale"),
        (("alias-locale", "set", "bar", "klingon"), "klingon"),
        (("alias-locale", "remove", "bar"), "bar is no alias of a locale"),
    ],
)
def test_mistakes(run, registry: Path, arguments: tuple[str, ...], problem: str) -> None:  # type: ignore[no-untyped-def]
    where = ("--registry", str(registry)) if arguments[0] == "alias-locale" else ()
    status, out, err = run(*arguments, *where)
    assert (status, out) == (2, "")
    assert err.startswith("isogloss: ")
    assert problem in err
    assert len(err.splitlines()) == 1
