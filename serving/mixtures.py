"""Which adapters may answer together, and how their heads share the answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..registry import Version

MAX_MEMBERS = 16
# What a language adapter does: it is put under adapters of other tasks.
LANGUAGE = "masked-lm"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One adapter of a mixture; an adapter alone is a mixture of one."""

    version: Version
    """What it is."""
    weight: float
    """Factor of what it adds to the base, and its share of the answer where it has a head."""


def check_mixture(members: Sequence[Member], task: str) -> tuple[Member, ...]:
    """Check that adapters can answer together.

    Low-rank updates take any weights. A prefix is there or not, so there may be one, of weight 1;
    several bottlenecks read what those before them give, so each has weight 1 and their order
    counts. Adapters of the task share the answer through their heads and must agree on the labels;
    others must be language adapters, which have no say in it.

    Args:
        members: in the order in which they were given.
        task: what is asked for.

    Returns:
        The members whose heads answer.

    Raises:
        InputError: they can't; the message names the one that is in the way.
    """
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise InputError(f"a mixture of {len(members)} adapters; give 1 to {MAX_MEMBERS}")
    seen: dict[str, str] = {}
    for member in members:
        name = member.version.name
        if member.version.digest in seen:
            raise InputError(f"{name} stands twice in a mixture; give it one weight")
        seen[member.version.digest] = name
        if not math.isfinite(member.weight) or member.weight == 0:
            raise InputError(
                f"{name} has weight {member.weight} in a mixture; give a finite number other than "
                "0, or leave it out"
            )
    _check_kinds(members)
    return _check_heads(members, task)


def read_weights(adapter: Mapping[str, float]) -> dict[str, float]:
    """The weights of a mixture as it was asked for, as plain floats.

    Raises:
        InputError: a name that is no str, or a weight that is no number.
    """
    for name, weight in adapter.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not isinstance(name, str) or not number:
            raise InputError(
                f"adapter has {name!r:.80}: {weight!r:.40}; a mixture gives names of versions a "
                "number each"
            )
    return {name: float(weight) for name, weight in adapter.items()}


def mixture_name(members: Sequence[Member]) -> str:
    """`intent/gsw-CH@3f2c9a41b7d2`, or of several each with its weight: `0.7·… + 0.3·…`."""
    if len(members) == 1 and members[0].weight == 1:
        return members[0].version.name
    return " + ".join(f"{member.weight:g}·{member.version.name}" for member in members)


def _check_kinds(members: Sequence[Member]) -> None:
    prefixes = [member for member in members if member.version.kind == "prefix"]
    if len(prefixes) > 1:
        raise InputError(
            f"{prefixes[0].version.name} and {prefixes[1].version.name} are both prefix adapters; "
            "a mixture takes one"
        )
    if prefixes and prefixes[0].weight != 1:
        raise InputError(
            f"{prefixes[0].version.name} is a prefix adapter, and has weight "
            f"{prefixes[0].weight:g} in a mixture; give it 1"
        )
    bottlenecks = [member for member in members if member.version.kind == "bottleneck"]
    uneven = next((member for member in bottlenecks if member.weight != 1), None)
    if len(bottlenecks) > 1 and uneven is not None:
        raise InputError(
            f"{uneven.version.name} has weight {uneven.weight:g} and is one of "
            f"{len(bottlenecks)} bottleneck adapters in a mixture; these can only be stacked, "
            "each with weight 1"
        )


def _check_heads(members: Sequence[Member], task: str) -> tuple[Member, ...]:
    answering = tuple(member for member in members if member.version.task == task)
    for member in members:
        version = member.version
        if version.task != task and version.task_type != LANGUAGE:
            raise InputError(f"{version.name} does {version.task!r}, not {task!r}")
    if not answering:
        raise InputError(
            f"{members[0].version.name} does {members[0].version.task!r}, not {task!r}"
        )
    first = answering[0].version
    for member in answering[1:]:
        version = member.version
        if (version.task_type, version.labels) != (first.task_type, first.labels):
            raise InputError(
                f"{version.name} and {first.name} differ in their labels or their order; a mixture "
                "takes adapters that agree on them"
            )
    if sum(member.weight for member in answering) <= 0:
        raise InputError(
            f"the weights of {first.name} and the others that do {task!r} don't sum to more than "
            "0, so that they share no answer; raise some"
        )
    return answering
