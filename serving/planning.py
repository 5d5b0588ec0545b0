"""Which adapters answer a request, and what kind of answer it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..adapters.spec import reads_token_types
from ..core.errors import InputError, NoAdapterError, RegistryUnavailableError
from ..core.locale import read_tag
from ..registry import Resolution
from ..registry.locale_request import read_request, request_key
from ..registry.names import check_name
from .mixtures import LANGUAGE, Member, check_mixture, mixture_name, read_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..registry import Registry, Version
    from ..registry.following import Follower
    from .prefetch import Route

AdapterChoice = str | Mapping[str, float] | None

EMBEDDING = "embedding"
# What tasks of these names do where nothing published says otherwise.
KNOWN_TASKS = {"embedding": EMBEDDING, "lm": LANGUAGE, "masked-lm": LANGUAGE}
# What the bare base can do.
WITHOUT_ADAPTER = frozenset({EMBEDDING, LANGUAGE})
_NAMES_KEPT = 4096


# Compared by identity: the texts of one call that ask for the same share one plan.
@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """How all texts of one locale, task and choice of adapter are answered."""

    resolution: Resolution
    """Why so."""
    task_type: str | None
    """What kind of answer it is; None: nothing answers."""
    members: tuple[Member, ...]
    """The adapters, in the order of a stack; none: the bare base."""
    answering: tuple[Member, ...]
    """Those whose heads answer."""

    @property
    def name(self) -> str | None:
        """The version's name, or the mixture's; None: the bare base."""
        return mixture_name(self.members) if self.members else None

    @property
    def reads_token_types(self) -> bool:
        """Whether the texts keep their token types."""
        return all(
            reads_token_types(member.version.kind, member.version.task_type)
            for member in self.answering
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the head's outputs."""
        return self.answering[0].version.labels if self.answering else ()

    @property
    def digests(self) -> tuple[str, ...]:
        """Digests of the versions."""
        return tuple(member.version.digest for member in self.members)


class Planner:
    """Plans against one registry; threads may use it at once.

    Args:
        registry: where versions are looked up.
        saw: is told of what answers for a locale, task and alias.
        resolver: says which version answers; None: the registry.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        saw: Callable[[Route, Resolution], None],
        resolver: Registry | Follower | None = None,
    ) -> None:
        self._registry = registry
        self._resolver = registry if resolver is None else resolver
        self._saw = saw
        # Versions never change, so a whole name goes on meaning the same.
        self._versions: dict[str, Version] = {}
        self._task_types: dict[str, str] = {}

    def plans(
        self, requests: Sequence[tuple[str, str, AdapterChoice]], *, alias: str, strict: bool
    ) -> list[Plan]:
        """A plan for each task, locale and choice of adapter; equal ones share one.

        Raises:
            IsoglossError: as `plan`.
        """
        # One call sees the registry at one time, and looks at it once a task.
        wanted: dict[str, dict[str, None]] = {}
        for task, locale, adapter in requests:
            if adapter is None:
                wanted.setdefault(task, {})[locale] = None
        resolved = {
            (task, locale): resolution
            for task, locales in wanted.items()
            for locale, resolution in zip(
                locales, self._resolver.resolve_all(locales, task, alias=alias), strict=True
            )
        }
        found: dict[tuple[str, str, object], Plan] = {}
        plans = []
        for task, locale, adapter in requests:
            key = (task, locale, _choice_key(adapter))
            if key not in found:
                found[key] = (
                    self._by_locale(
                        task, locale, resolved[task, locale], alias=alias, strict=strict
                    )
                    if adapter is None
                    else self._by_name(task, locale, adapter)
                )
            plans.append(found[key])
        return plans

    def plan(
        self, task: str, locale: str, adapter: AdapterChoice, *, alias: str, strict: bool
    ) -> Plan:
        """Decide who answers.

        Args:
            task: the task's name.
            locale: BCP 47 tag, or an Accept-Language header.
            adapter: None (resolve by locale), the name of a version, or names with weights.
            alias: which alias answers.
            strict: raise when nothing answers.

        Raises:
            InvalidLocaleError: an ill-formed locale.
            InputError: a name that is none, or adapters that can't answer together.
            NoAdapterError: nothing answers; carries the trace.
            UnknownVersionError: a version that the registry lacks.
        """
        (plan,) = self.plans([(task, locale, adapter)], alias=alias, strict=strict)
        return plan

    def _by_name(self, task: str, locale: str, adapter: str | Mapping[str, float]) -> Plan:
        check_name("task", task)
        for tag in read_request(request_key(locale)).wanted:
            read_tag(tag)  # a slip of the pen is one here too
        weights = {adapter: 1.0} if isinstance(adapter, str) else read_weights(adapter)
        members = [
            Member(version=self.version(name), weight=weight) for name, weight in weights.items()
        ]
        answering = check_mixture(members, task)
        version = answering[0].version
        return Plan(
            resolution=Resolution(
                requested=locale,
                locale=version.locale,
                version=version,
                stage="exact",
                distance=None,
                trace=(f"{mixture_name(members)} was asked for by name",),
            ),
            task_type=version.task_type,
            members=tuple(members),
            answering=answering,
        )

    def version(self, name: str) -> Version:
        """A version by name; by its whole name it is looked up once.

        Raises:
            UnknownVersionError: no such version, or several.
        """
        found = self._versions.get(name)
        if found is None:
            found = self._registry.version(name)
            if name in {found.name, found.digest}:
                if len(self._versions) >= _NAMES_KEPT:
                    self._versions.clear()
                self._versions[name] = found
        return found

    def _by_locale(
        self, task: str, locale: str, resolution: Resolution, *, alias: str, strict: bool
    ) -> Plan:
        version = resolution.version
        if version is not None:
            self._saw((locale, task, alias), resolution)
            members = [
                Member(version=self.version(name), weight=weight)
                for name, weight in resolution.blend
            ] or [Member(version=version, weight=1.0)]
            return Plan(
                resolution=resolution,
                task_type=version.task_type,
                members=tuple(members),
                answering=check_mixture(members, task),
            )
        task_type: str | None = self._task_type(task)
        if task_type not in WITHOUT_ADAPTER:
            if strict:
                raise NoAdapterError(
                    f"no {alias} adapter answers for task {task!r} and locale {locale!r} "
                    f"({'; '.join(resolution.trace)}); publish one, or ask without strict",
                    trace=resolution.trace,
                )
            task_type = None
        return Plan(resolution=resolution, task_type=task_type, members=(), answering=())

    def _task_type(self, task: str) -> str | None:
        """What a task is, by its published versions, else by its name."""
        found = self._task_types.get(task)
        if found is None:
            try:
                versions = self._registry.versions(task=task, limit=1)
            # Whoever resolved to nothing while it was away is answered as before.
            except RegistryUnavailableError:
                versions = []
            if not versions:
                return KNOWN_TASKS.get(task)
            found = self._task_types[task] = versions[0].task_type
        return found


def _choice_key(adapter: AdapterChoice) -> object:
    """A choice of adapter as something that can be looked up.

    Raises:
        InputError: neither None, a name, nor names with weights.
    """
    if adapter is None or isinstance(adapter, str):
        return adapter
    if not isinstance(adapter, Mapping):
        raise InputError(
            f"adapter is {adapter!r:.80}; give the name of a version, or names with weights"
        )
    return tuple(read_weights(adapter).items())
