"""The rules of mixtures by kind, which need no weights."""

from __future__ import annotations

import pytest

from isogloss import Version
from isogloss.core.errors import InputError
from isogloss.serving.mixtures import Member, check_mixture, mixture_name


def member(
    number: int,
    *,
    kind: str = "lora",
    weight: float = 1.0,
    task: str = "intent",
    labels: str = "ab",
) -> Member:
    version = Version(
        digest=f"{number:064}",
        locale="de",
        task=task,
        task_type="masked-lm" if task == "lm" else "sequence-classification",
        kind=kind,
        rank=None,
        labels=tuple(labels),
        base="mini",
        base_fingerprint=None,
        metrics={},
        data_digest=None,
        parent=None,
        files=(),
        bytes=0,
        created_at=None,
        published_at="",
        published_by="",
    )
    return Member(version=version, weight=weight)


def test_any_lora_with_one_prefix_and_one_bottleneck() -> None:
    members = [
        member(1, weight=0.3),
        member(2, kind="prefix"),
        member(3, kind="bottleneck", weight=0.5),
        member(4, task="lm", labels="", weight=2.0),
    ]
    assert check_mixture(members, "intent") == tuple(members[:3])
    assert check_mixture(members[3:], "lm") == (members[3],)


def test_stacked_bottlenecks() -> None:
    members = [member(1, kind="bottleneck"), member(2, kind="bottleneck")]
    assert check_mixture(members, "intent") == tuple(members)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([member(1, kind="prefix"), member(2, kind="prefix")], "both prefix adapters"),
        ([member(1, kind="prefix", weight=0.5)], "has weight 0.5 in a mixture; give it 1"),
        (
            [member(1, kind="bottleneck"), member(2, kind="bottleneck", weight=0.5)],
            r"0{12} has weight 0.5 and is one of 2 bottleneck",
        ),
        ([member(1, task="lm")], "does 'lm', not 'intent'"),
        ([member(1), member(2, labels="ba")], "differ in their labels"),
        ([member(1, weight=1.0), member(2, weight=-1.0)], "don't sum to more than 0"),
    ],
)
def test_what_is_refused(members: list[Member], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check_mixture(members, "intent")


def test_names() -> None:
    assert mixture_name([member(1)]) == "intent/de@000000000000"
    assert mixture_name([member(1, weight=0.5), member(2)]) == (
        "0.5·intent/de@000000000000 + 1·intent/de@000000000000"
    )
