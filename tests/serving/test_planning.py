from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isogloss import Registry, Resolution, Version
from isogloss.core.errors import InputError, InvalidLocaleError, NoAdapterError
from isogloss.registry.policy import Blend, Policy
from isogloss.serving.planning import Planner

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import TinyBase
    from .conftest import PublishLora

Seen = list[tuple[tuple[str, str, str], Resolution]]


@pytest.fixture
def folder(tiny_base: TinyBase) -> Path:
    return tiny_base("xlm-roberta")


@pytest.fixture
def seen() -> Seen:
    return []


@pytest.fixture
def planner(registry: Registry, seen: Seen) -> Planner:
    return Planner(registry, saw=lambda route, resolution: seen.append((route, resolution)))


def test_equal_requests_share_a_plan(
    planner: Planner, folder: Path, publish_lora: PublishLora, seen: Seen
) -> None:
    version = publish_lora(folder, "de", seed=1)
    requests = [
        ("intent", "de", None),
        ("intent", "de-AT", None),
        ("intent", "de", None),
        ("intent", "de", version.name),
        ("intent", "de", {version.name: 1.0}),
        ("intent", "de", {version.name: 1}),
    ]
    plans = planner.plans(requests, alias="production", strict=True)
    assert plans[0] is plans[2]
    assert plans[4] is plans[5]
    assert len(set(plans)) == 4
    assert {plan.name for plan in plans} == {version.name}
    assert {plan.labels for plan in plans} == {("a", "b", "c")}
    assert [route for route, _ in seen] == [
        ("de", "intent", "production"),
        ("de-AT", "intent", "production"),
    ]


def test_a_header_may_say_what_is_wanted(
    planner: Planner, folder: Path, publish_lora: PublishLora
) -> None:
    version = publish_lora(folder, "de", seed=1)
    (plan,) = planner.plans(
        [("intent", "fi;q=0.9, de;q=0.5", None)], alias="production", strict=True
    )
    assert plan.resolution.version == version
    (named,) = planner.plans(
        [("intent", "fi;q=0.9, de;q=0.5", version.name)], alias="production", strict=True
    )
    assert named.resolution.requested == "fi;q=0.9, de;q=0.5"
    with pytest.raises(InvalidLocaleError):
        planner.plans([("intent", "d, e", version.name)], alias="production", strict=True)


@pytest.mark.parametrize(
    ("task", "task_type"), [("embedding", "embedding"), ("lm", "masked-lm"), ("intent", None)]
)
def test_what_a_task_is_when_nothing_is_published(
    planner: Planner, task: str, task_type: str | None
) -> None:
    (plan,) = planner.plans([(task, "de", None)], alias="production", strict=False)
    assert (plan.task_type, plan.members, plan.name, plan.labels) == (task_type, (), None, ())
    if task_type is None:
        with pytest.raises(NoAdapterError, match="no canary adapter answers"):
            planner.plans([(task, "de", None)], alias="canary", strict=True)


def test_what_is_published_says_what_a_task_is(
    planner: Planner, folder: Path, publish_lora: PublishLora
) -> None:
    """A classifier called `embedding` is a classifier, and the bare base doesn't stand in."""
    publish_lora(folder, "de", seed=1, task="embedding")
    with pytest.raises(NoAdapterError):
        planner.plans([("embedding", "fi", None)], alias="production", strict=True)


def test_names_are_looked_up_once(
    planner: Planner,
    registry: Registry,
    folder: Path,
    publish_lora: PublishLora,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = publish_lora(folder, "de", seed=1)
    asked = []
    find = registry.version

    def counted(name: str) -> Version:
        asked.append(name)
        return find(name)

    monkeypatch.setattr(registry, "version", counted)
    short = version.name[:-4]
    for _ in range(2):
        for name in (version.name, version.digest, short):
            assert planner.version(name) == version
    # What is cut short may become ambiguous, and so is asked for again.
    assert asked == [version.name, version.digest, short, short]


def test_a_blend_of_the_fallback_path(
    folder: Path, publish_lora: PublishLora, tmp_path: Path
) -> None:
    near = publish_lora(folder, "gsw-CH", seed=1)
    far = publish_lora(folder, "de", seed=2)
    policy = Policy(blend=Blend(adapters=2, decay=0.5))
    with Registry.open(tmp_path / "registry", policy=policy) as registry:
        planner = Planner(registry, saw=lambda *_: None)
        (plan,) = planner.plans([("intent", "gsw-CH", None)], alias="production", strict=True)
    assert plan.members[0].version == near
    assert {member.version for member in plan.members} <= {near, far}
    assert sum(member.weight for member in plan.members) == pytest.approx(1)


def test_names_that_are_none(planner: Planner) -> None:
    with pytest.raises(InputError, match="task 'No' is no name"):
        planner.plans([("No", "de", None)], alias="production", strict=True)
    with pytest.raises(InputError, match="alias 'No' is no name"):
        planner.plans([("intent", "de", None)], alias="No", strict=True)
