"""What a folder says of itself: its spec, and whether task, labels and config agree."""

from __future__ import annotations

from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any, get_args

from ..core.errors import (
    InputError,
    LabelCountError,
    TensorKeysError,
    UnsupportedAdapterError,
)
from ..core.locale import parse_locale
from .heads import head_outputs
from .layout import HEAD_PREFIXES, check_config
from .spec import MAX_LABELS, AdapterSpec, TaskType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .weights import TensorInfo

SPEC_FILE = "isogloss.json"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
BASE_KEY = "base_model_name_or_path"
# PEFT's name for a task → the task types that are trained so. PEFT has no name for masked-LM.
TASK_TYPES: dict[str | None, tuple[TaskType, ...]] = {
    "SEQ_CLS": ("sequence-classification", "reranking"),
    "TOKEN_CLS": ("token-classification",),
    "QUESTION_ANS": ("question-answering",),
    "FEATURE_EXTRACTION": ("embedding", "masked-lm"),
    None: get_args(TaskType),
}
SERVED = ", ".join(name for name in TASK_TYPES if name)
# Modules that PEFT saves as a whole, and that are heads.
HEAD_MODULES = ("classifier", "score", "qa_outputs")


def describe(
    config: Mapping[str, Any],
    header: Mapping[str, TensorInfo],
    *,
    locale: str | None,
    task: str | None,
    labels: Sequence[str] | None,
) -> AdapterSpec:
    """The spec of a plain PEFT folder, from what the publisher says and the tensors show.

    Raises:
        InputError: no locale or task, or a label without a name.
        LabelCountError: more outputs than anyone needs.
        UnsupportedAdapterError: a kind or task that isn't served.
    """
    if locale is None or task is None:
        raise InputError(
            f"the folder has no {SPEC_FILE}; say for which locale and task it answers "
            "(--locale, --task)"
        )
    if "" in (labels or ()):
        raise InputError(
            f"labels {str(list(labels or ()))[:80]} have an empty one; name every output"
        )
    kind = check_config(config)
    outputs = head_outputs(
        {name: info.shape for name, info in header.items()}, key_prefix=HEAD_PREFIXES[kind]
    )
    if (outputs or 0) > MAX_LABELS:
        raise LabelCountError(f"the head has {outputs:,} outputs; {MAX_LABELS:,} is the limit")
    task_type = _task_type(config, header, outputs, labels)
    names = tuple(labels) if labels is not None else ()
    if labels is None and task_type in ("sequence-classification", "token-classification"):
        names = tuple(f"LABEL_{number}" for number in range(outputs or 0))
    return AdapterSpec(
        locale=str(parse_locale(locale)),
        task=task,
        task_type=task_type,
        kind=kind,
        labels=names,
        base=base_name(str(config.get(BASE_KEY) or "")),
    )


def _task_type(
    config: Mapping[str, Any],
    header: Mapping[str, TensorInfo],
    outputs: int | None,
    labels: Sequence[str] | None,
) -> TaskType:
    """What a plain folder does, going by PEFT's task type and the names of its tensors."""
    given = config.get("task_type")
    if given == "SEQ_CLS":
        # One logit for a text, or a pair of them, is a score.
        return "reranking" if outputs == 1 and labels is None else "sequence-classification"
    if given is None and outputs is None:
        # The bare encoder's modules begin at `encoder`, those within a model at its name.
        wrapped = any(name.startswith("base_model.model.") for name in header) and not any(
            name.startswith("base_model.model.encoder.") for name in header
        )
        return "masked-lm" if wrapped else "embedding"
    served = TASK_TYPES.get(given, ()) if isinstance(given, str) else ()
    if not served:
        raise UnsupportedAdapterError(
            f"{CONFIG_FILE}: task_type is {given!r:.80}; this release serves {SERVED}"
        )
    return served[0]


def base_name(named: str) -> str:
    """A Hub name as it is; of a path the folder's own name, so that no machine path is kept."""
    is_path = named.startswith((".", "/", "~")) or named.count("/") > 1 or "\\" in named
    return PureWindowsPath(named).name if is_path else named


def check_task(config: Mapping[str, Any], spec: AdapterSpec) -> None:
    """Check that config and spec agree on the task, and that only the head was trained beside it.

    Raises:
        UnsupportedAdapterError: they don't, nor on the kind, or other modules were.
    """
    if check_config(config) != spec.kind:
        raise UnsupportedAdapterError(
            f"{SPEC_FILE}: kind is {spec.kind!r}, but the config is {config['peft_type']}"
        )
    given = config.get("task_type")
    served = TASK_TYPES.get(given, ()) if isinstance(given, str | None) else ()
    if spec.task_type not in served:
        raise UnsupportedAdapterError(
            f"{CONFIG_FILE}: task_type is {given!r:.80} and {SPEC_FILE} says "
            f"{spec.task_type!r}; this release serves {SERVED}"
        )
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or any(name not in HEAD_MODULES for name in saved):
        raise UnsupportedAdapterError(
            f"{CONFIG_FILE}: modules_to_save is {str(saved)[:80]}; only the head of the task "
            f"({', '.join(HEAD_MODULES)}) is served"
        )


def check_labels(spec: AdapterSpec, header: Mapping[str, TensorInfo]) -> None:
    """Check labels against the head.

    Raises:
        TensorKeysError: there is no head where the task needs one.
        LabelCountError: labels and outputs differ in number, or labels repeat.
    """
    outputs = head_outputs(
        {name: info.shape for name, info in header.items()}, key_prefix=HEAD_PREFIXES[spec.kind]
    )
    labels = spec.labels
    if spec.task_type in ("embedding", "masked-lm"):
        if labels:
            raise LabelCountError(f"{len(labels)} labels for {spec.task_type}, which has none")
        return
    if outputs is None:
        raise TensorKeysError(
            f"{WEIGHTS_FILE} has no classification head; train with task_type='SEQ_CLS' (or "
            "TOKEN_CLS, QUESTION_ANS), so that PEFT saves it"
        )
    if spec.task_type == "reranking" and (outputs, len(labels)) not in ((1, 0), (1, 1)):
        raise LabelCountError(
            f"{len(labels)} labels and {outputs} outputs for reranking; it has one output, and a "
            "label at most"
        )
    if spec.task_type == "question-answering" and (outputs, len(labels)) != (2, 0):
        raise LabelCountError(
            f"{len(labels)} labels and {outputs} outputs for question answering; it has two "
            "outputs, begin and end, and no labels"
        )
    if spec.task_type.endswith("classification") and len(labels) != outputs:
        raise LabelCountError(
            f"{len(labels)} labels for a head with {outputs} outputs; give one label per "
            "output, in order"
        )
    if len(set(labels)) != len(labels):
        repeated = next(name for name in labels if labels.count(name) > 1)
        raise LabelCountError(f"label {repeated!r} occurs twice; labels must differ")
