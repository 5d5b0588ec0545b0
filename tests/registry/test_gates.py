from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from isogloss.adapters.spec import AdapterSpec
from isogloss.core.errors import ConflictError, GateError, InputError
from isogloss.registry.gates import (
    MAX_REQUIREMENT,
    Contestant,
    check_gate,
    read_requirement,
    read_requirements,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from isogloss.registry import Registry, Version

    from .conftest import MakeAdapter

    Publish = Callable[..., Version]

NEW = Contestant(name="new", metrics={"f1": 0.8, "accuracy": 0.5, "ndcg@10": 0.25})
LIVE = Contestant(name="old", metrics={"f1": 0.9, "accuracy": 0.5})
ABOVE = Contestant(name="above", metrics={"f1": 0.4})


@pytest.mark.parametrize(
    ("requirement", "holds"),
    [
        ("f1>=0.8", True),
        ("f1>0.8", False),
        ("f1<=0.8", True),
        ("f1<.8", False),
        ("f1 >= 1 - 0.25", True),
        ("f1>=-1", True),
        ("ndcg@10>=0.25", True),
        ("f1>=current", False),
        ("f1>=0.8*current", True),
        ("f1>=current*0.8", True),
        ("f1>=0.9*current", False),
        ("f1>=0.9*current-0.02", True),
        ("f1>=current-0.11", True),
        ("f1>=0.5+0.25*current", True),
        ("f1>=current:accuracy", True),
        ("f1>=2*parent", True),
        ("f1>=parent:f1+current", False),
        ("f1>=0.5*current+0.5*parent", True),
        ("accuracy>=current", True),
    ],
)
def test_requirements(requirement: str, holds: bool) -> None:
    read = read_requirement(requirement)
    others = {"current": LIVE, "parent": ABOVE}
    if holds:
        assert "holds" in check_gate([read], NEW, others)  # type: ignore[arg-type]
    else:
        with pytest.raises(GateError, match="FAILS"):
            check_gate([read], NEW, others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "f1",
        "f1>=",
        ">=0.5",
        "f1=0.5",
        "f1==0.5",
        "f1>=0.5 0.5",
        "f1>=0.5*",
        "f1>=*current",
        "f1>=0.5*0.5",
        "f1>=0.9*previous",
        "f1>=current:",
        "f1>=currently",
        "f1>=0.9*current*2",
        "f1>=(0.5)",
        "f1>=1e999",
        "f1>=nan",
        "f1>=--1",
        "f1>=1.2.3",
        "parent:f1>=0.5",
        "__import__('os').system('true')>=0",
        "f1>=0.5;accuracy>=0.5",
        "f1>=" + "1+" * MAX_REQUIREMENT + "1",
        "ф1>=0.5",
        "f1>=٣",
    ],
)
def test_what_is_no_requirement(text: str) -> None:
    with pytest.raises(InputError, match="is no requirement"):
        read_requirement(text)


def test_several_requirements() -> None:
    assert [found.text for found in read_requirements("f1 >= 0.5, accuracy>0")] == [
        "f1>=0.5",
        "accuracy>0",
    ]
    assert len(read_requirements(["f1>=0.5,accuracy>0", "f1>=0.1"])) == 3


def test_a_refusal_has_all_figures_on_one_line() -> None:
    requirements = read_requirements("f1>=0.9*current, accuracy>=0.5, recall>=0.1, f1>=parent")
    with pytest.raises(GateError) as caught:
        check_gate(requirements, NEW, {"current": LIVE, "parent": None})
    assert str(caught.value) == (
        "new was not promoted: f1>=0.9*current: 0.8000 >= 0.8100 FAILS, current old has 0.9000 | "
        "accuracy>=0.5: 0.5000 >= 0.5000 holds | recall>=0.1: recall of new is not known | "
        "f1>=parent: 0.8000, holds, there is no parent version; "
        "publish a better one, or give data to judge by (--data)"
    )


def test_a_figure_of_the_live_version_that_is_not_known() -> None:
    with pytest.raises(GateError, match=r"ndcg@10>=current: ndcg@10 of old is not known"):
        check_gate(read_requirements("ndcg@10>=current"), NEW, {"current": LIVE})


@pytest.fixture
def publish(registry: Registry, make_adapter: MakeAdapter) -> Publish:
    """Publishes a version with this macro-F1; nothing about it is tried out."""
    seeds = iter(range(100))

    def make(
        score: float, locale: str = "es-MX", task: str = "intent", **options: object
    ) -> Version:
        folder = make_adapter(next(seeds))
        spec = AdapterSpec(
            locale=locale, task=task, labels=("a", "b", "c"), base="tiny",
            metrics={"macro_f1": score},
        )  # fmt: skip
        (folder / "isogloss.json").write_bytes(spec.to_json())
        base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
        return registry.publish(folder, base=base, smoke=False, **options)  # type: ignore[arg-type]

    return make


def live(registry: Registry, locale: str = "es-MX") -> str:
    return registry.aliases(locale=locale, alias="production")[0].digest


def test_promotion_with_a_requirement(registry: Registry, publish: Publish) -> None:
    old = publish(0.8)
    good, bad = publish(0.75, alias="canary"), publish(0.7, alias="canary")
    with pytest.raises(GateError, match=f"{bad.name} was not promoted") as caught:
        registry.promote(bad, require="macro_f1>=0.9*current", smoke=False)
    assert f"0.7000 >= 0.7200 FAILS, current {old.name} has 0.8000" in str(caught.value)
    assert live(registry) == old.digest

    registry.promote(good, require=["macro_f1>=0.9*current"], reason="newer", smoke=False)
    assert live(registry) == good.digest
    assert registry.history("es-MX", "intent")[0].reason == (
        "newer; no smoke forward; gate: macro_f1>=0.9*current: 0.7500 >= 0.7200 holds, "
        f"current {old.name} has 0.8000"
    )
    with pytest.raises(InputError, match="is no requirement"):
        registry.promote(old, require="better")


def test_the_first_version_has_nothing_to_compare_with(
    registry: Registry, publish: Publish
) -> None:
    version = publish(0.1, require="macro_f1>=current, macro_f1>=parent")
    assert live(registry) == version.digest
    with pytest.raises(GateError):
        publish(0.1, locale="fr", require="macro_f1>=0.5")
    assert registry.versions(locale="fr") == []


def test_the_parent_locale_is_compared_with(registry: Registry, publish: Publish) -> None:
    publish(0.9, "es")
    publish(0.6, "es-419")
    publish(0.1, "de")
    publish(0.7)  # es-MX: its own version is no parent of itself
    version = publish(0.65, alias="canary")
    with pytest.raises(GateError, match=r"0\.6500 >= 0\.6600 FAILS, parent intent/es-419@"):
        registry.promote(version, require="macro_f1>=1.1*parent", smoke=False)
    registry.promote(version, require="macro_f1>=parent:macro_f1", smoke=False)
    assert live(registry) == version.digest


def test_the_registry_s_own_gates(registry: Registry, publish: Publish) -> None:
    old = publish(0.8)
    gate = registry.rules.set_gate("int*", "macro_f1 >= current")
    assert gate.requires == ("macro_f1>=current",)
    with pytest.raises(GateError):
        publish(0.7)
    assert registry.versions() == [old]
    stored = {blob.digest for blob in registry._blobs.blobs()}
    assert stored == {file.sha256 for file in old.files}
    publish(0.7, alias="canary")
    publish(0.1, task="search")

    registry.rules.set_gate("*", "macro_f1>=0.5")
    registry.rules.set_gate("int*", ["macro_f1>=0.2", "macro_f1>=0.1"])
    assert [(found.pattern, found.requires) for found in registry.rules.gates()] == [
        ("*", ("macro_f1>=0.5",)),
        ("int*", ("macro_f1>=0.2", "macro_f1>=0.1")),
    ]
    with pytest.raises(GateError):
        publish(0.4)
    registry.rules.remove_gate("*")
    new = publish(0.4)
    assert live(registry) == new.digest
    # Going back is what a gate must not stand in the way of.
    registry.rules.set_gate("intent", "macro_f1>=2*current")
    assert registry.rollback("es-MX", "intent") == old
    with pytest.raises(InputError, match="no gate for 'production' of tasks 'search'"):
        registry.rules.remove_gate("search")
    for pattern in ("", "Int", "a/b", "[a]"):
        with pytest.raises(InputError, match="is no pattern"):
            registry.rules.set_gate(pattern, "macro_f1>=0")
    with pytest.raises(InputError, match="is no requirement"):
        registry.rules.set_gate("intent", "good")


def test_a_gate_is_asked_again_where_somebody_was_faster(
    registry: Registry, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(0.5)
    better = publish(0.9, alias="canary")
    version = publish(0.6, alias="canary")
    promote = registry._catalog.promote
    calls = []

    def promote_after_another(digest: str, **options: object) -> None:
        calls.append(digest)
        if len(calls) == 1:
            promote(better.digest, alias="production", by="peter")
        promote(digest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(registry._catalog, "promote", promote_after_another)
    with pytest.raises(GateError, match=f"current {better.name} has 0.9000"):
        registry.promote(version, require="macro_f1>=current", smoke=False)
    assert live(registry) == better.digest
    assert len(calls) == 1


def test_what_was_expected_is_not_asked_again(registry: Registry, publish: Publish) -> None:
    old, new = publish(0.5), publish(0.6)
    with pytest.raises(ConflictError):
        registry.promote(old, expected=old, require="macro_f1>=0", smoke=False)
        registry.promote(new, expected=new, require="macro_f1>=0", smoke=False)
    assert live(registry) == new.digest
