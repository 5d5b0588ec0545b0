"""What a version must reach before an alias may point to it: `macro_f1>=0.9*current`.

    requirement  metric comparison bound
    comparison   >= > <= <
    bound        terms, with + or - between them
    term         number, reference, number*reference or reference*number
    reference    current, parent, and each with another metric: current:accuracy, parent:macro_f1

`current` is the version that the alias points to now, `parent` the one that would answer for the
locale, by its CLDR parents, region or script, if it had no adapter of its own. Where there is no
such version there is nothing to compare with, and the requirement holds.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from ..core.errors import GateError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .records import Gate

Side = Literal["current", "parent"]

MAX_REQUIREMENT = 200
"""Characters of the longest requirement."""

# The longer ones first, as a pattern tries them in order.
_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_METRIC = r"[A-Za-z][A-Za-z0-9_.@]*"
_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_REFERENCE = rf"(?:current|parent)(?::{_METRIC})?"
_TERM = re.compile(
    rf"(?P<sign>[+-]?)(?:(?P<factor>{_NUMBER})\*(?P<right>{_REFERENCE})"
    rf"|(?P<left>{_REFERENCE})(?:\*(?P<after>{_NUMBER}))?|(?P<number>{_NUMBER}))(?![A-Za-z0-9_.:*])"
)
_HEAD = re.compile(rf"(?P<metric>{_METRIC})(?P<compare>{'|'.join(_COMPARE)})")


@dataclass(frozen=True, kw_only=True)
class Term:
    """A part of a bound: `factor`, times a metric of another version if there is a side."""

    factor: float
    """The number, with its sign."""
    side: Side | None = None
    """Whose metric; None: the number alone."""
    metric: str | None = None
    """Which metric; None with `side` None."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One requirement, read."""

    text: str
    """As it was written, without blanks."""
    metric: str
    """The new version's metric."""
    compare: str
    """`>=`, `>`, `<=` or `<`."""
    terms: tuple[Term, ...]
    """Their sum is the bound."""

    @property
    def sides(self) -> frozenset[Side]:
        """The versions that it compares with."""
        return frozenset(term.side for term in self.terms if term.side is not None)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A version and its figures."""

    name: str
    """Its name."""
    metrics: Mapping[str, float] = field(hash=False)
    """By name."""


def read_requirement(text: str) -> Requirement:
    """Read one requirement.

    Raises:
        InputError: it doesn't follow the grammar above.
    """
    compact = "".join(text.split())
    head = _HEAD.match(compact)
    terms: list[Term] = []
    if head is not None and len(compact) <= MAX_REQUIREMENT:
        at = head.end()
        while at < len(compact):
            found = _TERM.match(compact, at)
            if found is None or (terms and not found["sign"]):
                terms = []
                break
            terms.append(_term(found, head["metric"]))
            at = found.end()
    if head is None or not terms:
        raise InputError(
            f"{text[:MAX_REQUIREMENT]!r} is no requirement; write such as macro_f1>=0.9*current, "
            "accuracy>=0.8, macro_f1>=parent-0.02 or f1>=current:macro_f1"
        )
    return Requirement(
        text=compact, metric=head["metric"], compare=head["compare"], terms=tuple(terms)
    )


def read_requirements(texts: str | Iterable[str]) -> tuple[Requirement, ...]:
    """Read several requirements; in one string they are separated by commas.

    Raises:
        InputError: one that doesn't follow the grammar.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    parts = [part for text in listed for part in text.split(",")]
    return tuple(read_requirement(part) for part in parts)


def gates_for(gates: Iterable[Gate], task: str, alias: str) -> tuple[Requirement, ...]:
    """The requirements of all gates that guard an alias of a task.

    Raises:
        InputError: one that a newer release has written in another grammar.
    """
    found = [gate for gate in gates if gate.alias == alias and fnmatchcase(task, gate.pattern)]
    return tuple(read_requirement(text) for gate in found for text in gate.requires)


def check_gate(
    requirements: Sequence[Requirement],
    candidate: Contestant,
    others: Mapping[Side, Contestant | None],
) -> str:
    """Check all requirements.

    Args:
        requirements: what must hold.
        candidate: the version that an alias is to point to.
        others: whom it is compared with; None where there is no such version.

    Returns:
        The figures of each requirement, for the history.

    Raises:
        GateError: one doesn't hold, or a figure is not known; with the figures of all of them.
    """
    verdicts = [_verdict(requirement, candidate, others) for requirement in requirements]
    table = " | ".join(text for _, text in verdicts)
    if not all(holds for holds, _ in verdicts):
        raise GateError(
            f"{candidate.name} was not promoted: {table}; "
            "publish a better one, or give data to judge by (--data)"
        )
    return f"gate: {table}"


def _verdict(
    requirement: Requirement, candidate: Contestant, others: Mapping[Side, Contestant | None]
) -> tuple[bool, str]:
    absent = [side for side in sorted(requirement.sides) if others.get(side) is None]
    value = candidate.metrics.get(requirement.metric)
    if value is None:
        return False, f"{requirement.text}: {requirement.metric} of {candidate.name} is not known"
    if absent:
        return True, f"{requirement.text}: {value:.4f}, holds, there is no {absent[0]} version"
    bound, known = 0.0, []
    for term in requirement.terms:
        other = None if term.side is None else others[term.side]
        if other is None or term.metric is None:
            bound += term.factor
            continue
        figure = other.metrics.get(term.metric)
        if figure is None:
            return False, f"{requirement.text}: {term.metric} of {other.name} is not known"
        bound += term.factor * figure
        known.append(f", {term.side} {other.name} has {figure:.4f}")
    holds = bool(_COMPARE[requirement.compare](value, bound))
    verdict = "holds" if holds else "FAILS"
    compared = f"{value:.4f} {requirement.compare} {bound:.4f}"
    return holds, f"{requirement.text}: {compared} {verdict}{''.join(dict.fromkeys(known))}"


def _term(found: re.Match[str], metric: str) -> Term:
    sign = -1.0 if found["sign"] == "-" else 1.0
    if found["number"]:
        return Term(factor=sign * float(found["number"]))
    factor = sign * float(found["factor"] or found["after"] or 1)
    name, _, other = (found["right"] or found["left"]).partition(":")
    side: Side = "current" if name == "current" else "parent"
    return Term(factor=factor, side=side, metric=other or metric)
