"""Which modules of the base a PEFT config reaches: by name, by suffix, or by pattern.

The rules are PEFT's (`check_target_module_exists` and `get_pattern_key`), so that a folder changes
the same modules here and there. Patterns come from files that nobody vouches for, and a pattern can
be written to run for ever: they are matched by the `regex` package, which can be given a time.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import regex  # type: ignore[import-untyped]

from ..core.errors import AdapterConfigError, TargetModulesError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ..core.base import EncoderShape
    from .spec import TaskType

CONFIG = "adapter_config.json"
ALL_LINEAR = "all-linear"
POOLER = "pooler.dense"
EMBEDDINGS = tuple(f"embeddings.{kind}_embeddings" for kind in ("word", "position", "token_type"))
# Time for all patterns of one config together, far more than honest ones take.
MATCH_SECONDS = 1.0
MAX_PATTERN = 2_000  # characters
# What `regex` understands and `re`, by which PEFT matches, doesn't: recursion, fuzzy counts…
FOREIGN = re.compile(r"\(\?(?!:|=|!|<=|<!|P<|P=)|\{(?![0-9,])")


@dataclass(frozen=True, kw_only=True)
class HostModel:
    """The transformers model around which PEFT was wrapped, as far as adapters see it."""

    prefix: str
    """What stands before the encoder's modules in its names: `roberta.`, `bert.` or nothing."""
    linears: dict[str, tuple[int, int]]
    """The encoder's linear modules, without the prefix, each with its (out, in) features."""
    head: tuple[str, ...]
    """Names of the linear modules of its head, which PEFT trains as a whole or not at all."""
    served_head: bool
    """Whether adapters bring that head along; else it is the base's own."""

    @classmethod
    def of(cls, shape: EncoderShape, task_type: TaskType, names: Collection[str] = ()) -> HostModel:
        """The model for a task, as the names of an adapter's tensors show it.

        Args:
            shape: the base's.
            task_type: what the adapter does.
            names: the tensors of its folder. An embedding model may have a pooler that it doesn't
                read, and a language adapter may have been trained with the bare encoder.
        """
        linears = shape.linears()
        pooler = (shape.hidden_size, shape.hidden_size)
        linears.pop(POOLER, None)
        prefix = f"{shape.prefix}."
        is_bert = shape.model_type == "bert"
        if task_type in ("sequence-classification", "reranking"):
            if is_bert:
                return cls(
                    prefix=prefix,
                    linears=linears | {POOLER: pooler},
                    head=("classifier",),
                    served_head=True,
                )
            parts = ("classifier", "classifier.dense", "classifier.out_proj")
            return cls(prefix=prefix, linears=linears, head=parts, served_head=True)
        if task_type in ("token-classification", "question-answering"):
            part = "classifier" if task_type == "token-classification" else "qa_outputs"
            return cls(prefix=prefix, linears=linears, head=(part,), served_head=True)
        start = "base_model.model."
        if any(name.startswith(f"{start}{prefix}") for name in names):
            lm_head = (
                ("cls.predictions.transform.dense", "cls.predictions.decoder")
                if is_bert
                else ("lm_head.dense", "lm_head.decoder")
            )
            return cls(prefix=prefix, linears=linears, head=lm_head, served_head=False)
        if any(name.startswith(f"{start}{POOLER}.") for name in names):
            linears[POOLER] = pooler
        return cls(prefix="", linears=linears, head=(), served_head=False)


class Patterns:
    """Matches the patterns of one config, within a time for all of them."""

    def __init__(self) -> None:
        self._left = MATCH_SECONDS

    def fullmatch(self, field: str, pattern: str, name: str) -> regex.Match[str] | None:
        """`re.fullmatch`.

        Args:
            field: where the config has the pattern, for the message.
            pattern: the pattern.
            name: a module's name.

        Raises:
            AdapterConfigError: it is no pattern, or matching takes for ever.
        """
        begin = time.monotonic()
        try:
            if len(pattern) > MAX_PATTERN or self._left <= 0:
                raise TimeoutError
            if FOREIGN.search(pattern):
                raise ValueError("its syntax isn't that of Python's re")
            return regex.fullmatch(pattern, name, timeout=self._left)
        except TimeoutError:
            raise AdapterConfigError(
                f"{CONFIG}: {field} has the pattern {pattern[:80]!r}, which is too long or takes "
                "too long to match; list the modules by name"
            ) from None
        except (regex.error, RecursionError, LookupError, OverflowError, ValueError) as error:
            raise AdapterConfigError(
                f"{CONFIG}: {field} has {pattern[:80]!r}, which is no pattern ({str(error)[:80]})"
            ) from None
        finally:
            self._left -= time.monotonic() - begin

    def key(self, field: str, keys: Iterable[str], name: str) -> str | None:
        """The first of the keys that matches the end of a module's name."""
        for key in keys:
            if self.fullmatch(field, rf"(?:.*\.)?({key})", name):
                return key
        return None


def find_targets(
    config: Mapping[str, Any], shape: EncoderShape, host: HostModel, patterns: Patterns
) -> tuple[tuple[str, ...], dict[str, tuple[int, int]]]:
    """The targets as the config names them, and the encoder's modules that they reach.

    Raises:
        TargetModulesError: targets that the base lacks or that can't be served.
        AdapterConfigError: ill-typed fields.
    """
    given = config.get("target_modules")
    named: list[str] = []
    if isinstance(given, str) and given:
        targets: tuple[str, ...] = (given,)
    elif isinstance(given, list) and given and all(isinstance(name, str) for name in given):
        targets = tuple(sorted(given))
        named = list(targets)
    else:
        raise TargetModulesError(
            f"{CONFIG}: target_modules is {str(given)[:80]!r}; expected a list of names, a pattern "
            f"or {ALL_LINEAR}"
        )
    layers = _layers(config, is_pattern=not named)
    everything = not named and targets[0].lower() == ALL_LINEAR

    def is_hit(name: str) -> bool:
        """Whether a module of the whole model is a target."""
        if _is_excluded(config, name, patterns):
            return False
        if everything:
            return not name.endswith(EMBEDDINGS)
        if not named:
            return bool(patterns.fullmatch("target_modules", targets[0], name))
        if name in named:
            return True
        if not name.endswith(tuple(f".{target}" for target in named)):
            return False
        return layers is None or _layer(config, name, patterns) in layers

    _check_names(named, host)
    _check_served(host, is_hit)
    modules = {name: size for name, size in host.linears.items() if is_hit(host.prefix + name)}
    if not modules:
        raise TargetModulesError(
            f"{CONFIG}: target_modules {', '.join(targets)[:80]} in layers_to_transform "
            f"{str(config.get('layers_to_transform'))[:80]} leave nothing to change; the base has "
            f"layers 0..{shape.layers - 1} with {_endings(host)}"
        )
    return targets, modules


def _check_names(named: list[str], host: HostModel) -> None:
    """A name that reaches nothing is a slip of the pen, which PEFT passes over."""
    known = [host.prefix + name for name in (*host.linears, *EMBEDDINGS)] + list(host.head)
    for target in named:
        if not any(name == target or name.endswith(f".{target}") for name in known):
            raise TargetModulesError(
                f"{CONFIG}: target module {target!r} matches no linear module of the base; it has "
                f"{_endings(host)}"
            )


def _check_served(host: HostModel, is_hit: Any) -> None:
    for name in EMBEDDINGS:
        if is_hit(host.prefix + name):
            target = name.rpartition(".")[2]
            raise TargetModulesError(
                f"{CONFIG}: target module {target!r} matches no linear module but an embedding, "
                f"which isn't served; the base has {_endings(host)}"
            )
    for name in () if host.served_head else host.head:
        if is_hit(name):
            raise TargetModulesError(
                f"{CONFIG}: target_modules reach {name!r}, a part of the base's own head, which "
                "isn't changed by adapters; train with exclude_modules naming it"
            )


def _endings(host: HostModel) -> str:
    return ", ".join(sorted({name.rsplit(".", 1)[1] for name in host.linears}))


def _is_excluded(config: Mapping[str, Any], name: str, patterns: Patterns) -> bool:
    excluded = config.get("exclude_modules")
    if not excluded:
        return False
    if isinstance(excluded, str):
        return bool(patterns.fullmatch("exclude_modules", excluded, name))
    if isinstance(excluded, list) and all(isinstance(each, str) for each in excluded):
        return any(name == each or name.endswith(f".{each}") for each in excluded)
    raise AdapterConfigError(
        f"{CONFIG}: exclude_modules is {str(excluded)[:80]}; expected a list of names or a pattern"
    )


def _layers(config: Mapping[str, Any], *, is_pattern: bool) -> tuple[int, ...] | None:
    """The layers in which targets count; None: in all."""
    layers, pattern = config.get("layers_to_transform"), config.get("layers_pattern")
    # PEFT refuses both, so that no such adapter can have been trained.
    if is_pattern and (pattern is not None or layers is not None):
        raise AdapterConfigError(
            f"{CONFIG}: layers_to_transform is {str(layers)[:80]} and layers_pattern "
            f"{str(pattern)[:80]} beside a target_modules that is no list; put the layers into it"
        )
    if pattern and layers is None:
        raise AdapterConfigError(
            f"{CONFIG}: layers_pattern is {str(pattern)[:80]} and layers_to_transform "
            f"{str(layers)[:80]}; a pattern needs layers"
        )
    if layers is None or layers == []:
        return None
    chosen = layers if isinstance(layers, list) else [layers]
    if any(isinstance(layer, bool) or not isinstance(layer, int) for layer in chosen):
        raise AdapterConfigError(
            f"{CONFIG}: layers_to_transform is {str(layers)[:80]}; expected integers"
        )
    return tuple(chosen)


def _layer(config: Mapping[str, Any], name: str, patterns: Patterns) -> int | None:
    """The layer of a module, as PEFT finds it."""
    given = config.get("layers_pattern") or r"[^.]+"
    for pattern in [given] if isinstance(given, str) else given:
        if not isinstance(pattern, str):
            raise AdapterConfigError(
                f"{CONFIG}: layers_pattern is {str(given)[:80]}; expected a name or a list of names"
            )
        found = patterns.fullmatch("layers_pattern", rf"(?:|.*?\.)(?:{pattern})\.(\d+)\..*", name)
        if found:
            return int(found[found.re.groups])  # ours is the last group
    return None
