"""The checks before an alias moves: a smoke forward, gates, and that nobody was faster.

A gate's verdict holds for the version that the alias pointed to when it was reached. The move
therefore expects that version; where another came in between, the gate is asked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar

from ..core.errors import ConflictError
from .gates import Contestant, Requirement, Side, check_gate, gates_for, read_requirements
from .records import ANYTHING, Version
from .resolution import LocaleResolver
from .trials import Candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .catalog import Catalog
    from .policy import Policy
    from .records import Expected
    from .trials import Trials

PRODUCTION = "production"
"""The alias that answers unless another is asked for."""

# So often may others move the alias while a gate is asked; then whoever asked is told.
_ATTEMPTS = 5

_Result = TypeVar("_Result")


class Intention(TypedDict, total=False):
    """Why an alias is moved, and what that goes by: keyword arguments of `Registry.rollback`."""

    reason: str | None
    """Why; kept in the history, where what the checks have found is added."""
    expected: Version | str | Expected | None
    """The version to which the alias must point now, or its name; None: the alias must be new.
    Where it is otherwise, nothing moves. Left out: wherever it points."""
    force: bool
    """Move an alias that is protected; it needs a reason, too."""


class MoveOptions(Intention, total=False):
    """How an alias may be moved: keyword arguments of `Registry.publish` and `Registry.promote`."""

    require: str | Sequence[str]
    """Requirements such as `macro_f1>=0.9*current` (see `gates.py`), beside the registry's own
    gates; in one string they are separated by commas."""
    data: str | Path | None
    """File of labelled rows on which all versions that requirements name are judged; else their
    stored metrics are."""
    smoke: bool
    """Run a few rows through the version before it becomes `production`; that needs torch, and
    seconds the first time. False is written into the history."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How an alias is to be moved."""

    alias: str
    """The alias."""
    reason: str | None = None
    """Kept in the history."""
    expected: str | Expected | None = ANYTHING
    """Digest of the version to which it must point now; None: it must be new."""
    force: bool = False
    """Move it though it is protected."""
    requirements: tuple[Requirement, ...] = ()
    """What must hold, beside the gates that the registry has."""
    data: Path | None = None
    """Labelled rows to judge all versions by; None: by the metrics that are stored."""
    smoke: bool = True
    """Try the version out before it becomes `production`."""


class Promoter:
    """Moves aliases; may be used by several threads."""

    def __init__(
        self,
        catalog: Catalog,
        trials: Trials,
        read: Callable[[Version], Mapping[str, bytes]],
        policy: Policy | None,
    ) -> None:
        self._catalog = catalog
        self._trials = trials
        self._read = read
        self._policy = policy

    def move(
        self,
        candidate: Candidate,
        terms: Terms,
        commit: Callable[[str | Expected | None, str | None], _Result],
    ) -> _Result:
        """Check a version, and have an alias moved to it.

        Args:
            candidate: the version.
            terms: how it is to be moved.
            commit: moves it, given what the alias is expected to point to, and the reason with
                what the checks have found.

        Raises:
            SmokeTestError: it can't answer.
            GateError: a requirement doesn't hold.
            ConflictError: the alias doesn't point to what was expected.
            IsoglossError: data or a base that can't be used.
        """
        version = candidate.version
        current = self._catalog.check_move(
            version,
            alias=terms.alias,
            reason=terms.reason,
            expected=terms.expected,
            force=terms.force,
            signatures=candidate.signatures,
        )
        if current == version.digest:
            return commit(terms.expected, terms.reason)
        notes = [terms.reason, self._smoke(candidate, terms)]
        gates = gates_for(self._catalog.rules.gates(), version.task, terms.alias)
        requirements = tuple(dict.fromkeys(terms.requirements + gates))
        if not requirements:
            return commit(terms.expected, _joined(notes))
        for attempt in range(1, _ATTEMPTS + 1):
            outcome = self._ask(candidate, terms, requirements, current)
            fixed = terms.expected is not ANYTHING
            try:
                return commit(terms.expected if fixed else current, _joined([*notes, outcome]))
            except ConflictError:
                if fixed or attempt == _ATTEMPTS:
                    raise
            current = self._current(version, terms.alias)
        raise AssertionError

    def _smoke(self, candidate: Candidate, terms: Terms) -> str | None:
        """What the history should know of the smoke forward; None: it went well."""
        if terms.alias != PRODUCTION:
            return None
        if not terms.smoke:
            return "no smoke forward"
        problem = self._trials.smoke(candidate)
        return None if problem is None else f"no smoke forward: {problem}"

    def _ask(
        self,
        candidate: Candidate,
        terms: Terms,
        requirements: tuple[Requirement, ...],
        current: str | None,
    ) -> str:
        sides = frozenset[Side]().union(*(requirement.sides for requirement in requirements))
        others: dict[Side, Contestant | None] = {}
        if "current" in sides:
            others["current"] = self._contestant(current, terms)
        if "parent" in sides:
            others["parent"] = self._contestant(self._parent(candidate.version, terms.alias), terms)
        return check_gate(requirements, self._figures(candidate, terms), others)

    def _contestant(self, digest: str | None, terms: Terms) -> Contestant | None:
        version = None if digest is None else self._catalog.version(digest)
        if version is None:
            return None
        return self._figures(Candidate(version=version, read=partial(self._read, version)), terms)

    def _figures(self, candidate: Candidate, terms: Terms) -> Contestant:
        version = candidate.version
        metrics = version.metrics
        if terms.data is not None:
            metrics = self._trials.figures(candidate, terms.data)
        return Contestant(name=version.name, metrics=metrics)

    def _current(self, version: Version, alias: str) -> str | None:
        found = self._catalog.aliases(locale=version.locale, task=version.task, alias=alias)
        return found[0].digest if found else None

    def _parent(self, version: Version, alias: str) -> str | None:
        """What would answer for the version's locale, in its language, if it had none itself."""
        published = self._catalog.published(task=version.task, alias=alias)
        others = {tag: at for tag, at in published.digests.items() if tag != version.locale}
        resolver = LocaleResolver(others, published.locale_aliases, self._policy)
        found = resolver.resolve(version.locale)
        return None if found.locale is None or found.stage == "default" else others[found.locale]


def read_terms(alias: str, options: MoveOptions) -> Terms:
    """Terms from the arguments of `Registry.promote`; `expected` is a digest already.

    Raises:
        InputError: a requirement that is none.
    """
    expected = options.get("expected", ANYTHING)
    assert not isinstance(expected, Version)
    require, data = options.get("require", ()), options.get("data")
    return Terms(
        alias=alias,
        reason=options.get("reason"),
        expected=expected,
        force=options.get("force", False),
        requirements=read_requirements(require) if require else (),
        data=None if data is None else Path(data),
        smoke=options.get("smoke", True),
    )


def _joined(notes: list[str | None]) -> str | None:
    return "; ".join(note for note in notes if note) or None
