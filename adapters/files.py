"""Adapter folders: read and check.

Nothing is trusted: every check here runs before a byte is stored or reaches the model. Files are
read once, and what was checked is what is stored. Needs neither torch nor pickle.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from ..core.base import EncoderShape, fingerprint, locate_base
from ..core.errors import (
    AdapterConfigError,
    AdapterFolderError,
    AdapterTooLargeError,
    BaseMismatchError,
    BaseModelError,
    BaseNotFoundError,
    InputError,
    LabelCountError,
    TensorKeysError,
    TensorShapeError,
    UnsafeWeightsError,
    UnsupportedAdapterError,
)
from ..core.locale import parse_locale
from .card import write_card
from .heads import head_name, head_outputs, head_tensors
from .lora import LoraLayout, check_kind
from .spec import MAX_LABELS, AdapterSpec
from .weights import TensorInfo, check_finite, read_header

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..core.base import BaseFiles

SPEC_FILE = "isogloss.json"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "README.md"
# file → the most bytes that any adapter needs
SIZE_LIMITS = {
    SPEC_FILE: 4 << 20,
    CONFIG_FILE: 1 << 20,
    WEIGHTS_FILE: 256 << 20,
    CARD_FILE: 1 << 20,
}
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
BASE_KEY = "base_model_name_or_path"
TASK_TYPES = {"SEQ_CLS": "sequence-classification"}


@dataclass(frozen=True, kw_only=True)
class CheckedFolder:
    """An adapter folder that has passed every check."""

    spec: AdapterSpec
    """What it is."""
    files: dict[str, bytes]
    """Exactly what to store, `isogloss.json` included."""
    left_out: tuple[str, ...]
    """Names of files in the folder that are not taken."""
    base: BaseFiles | None
    """The base that it was checked against; None: nobody could look at it."""


def read_adapter_folder(
    folder: Path,
    *,
    locale: str | None = None,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    base: str | Path | None = None,
    trust_base: bool = False,
) -> CheckedFolder:
    """Read an adapter folder, ours or one that PEFT wrote, and check all of it.

    Args:
        folder: the folder.
        locale: the locale it answers for; needed when there is no `isogloss.json`, else it
            replaces the one recorded there.
        task: the task's name, likewise.
        labels: labels in the order of the outputs, for a plain PEFT folder; else `LABEL_0`…
            Those of a folder with `isogloss.json` are recorded there, and can only be repeated.
        base: name or folder of the base; else the one recorded in the folder.
        trust_base: accept an adapter whose base can't be found.

    Raises:
        AdapterError: one of its kinds for each check that fails.
        BaseModelError: no such base, or another one than the adapter was trained on.
        InvalidLocaleError: a locale that is no BCP 47 tag.
        InputError: a plain PEFT folder without locale or task.
    """
    files, left_out = _read_files(folder)
    config = _read_config(files[CONFIG_FILE])
    check_kind(config)
    recorded = AdapterSpec.from_json(files[SPEC_FILE]) if SPEC_FILE in files else None
    header = read_header(files[WEIGHTS_FILE])
    found = _find_base(base, recorded, config, trust_base=trust_base)
    outputs = head_outputs({name: info.shape for name, info in header.items()})
    if recorded is None:
        spec = _describe(config, locale=locale, task=task, labels=labels, outputs=outputs)
    else:
        if labels is not None and tuple(labels) != recorded.labels:
            raise LabelCountError(
                f"labels {str(list(labels))[:80]} were given, and {SPEC_FILE} records "
                f"{str(list(recorded.labels))[:80]}; leave labels= (--labels) out"
            )
        spec = replace(
            recorded,
            locale=str(parse_locale(locale)) if locale is not None else recorded.locale,
            task=task if task is not None else recorded.task,
        )
    _check_task(config, spec)
    _check_labels(spec, outputs)
    if found is not None:
        spec = _check_base(spec, found, recorded)
    shape = found.shape if found is not None else _guess_shape(header)
    layout = LoraLayout.parse(config, shape)
    check_tensors(header, layout.tensors(shape) | head_tensors(shape, len(spec.labels)))
    check_finite(files[WEIGHTS_FILE], header)
    spec = replace(spec, rank=layout.rank, targets=layout.targets, head=head_name(shape))
    # Read once more what is stored, so that no override can store what would not load.
    try:
        content = spec.to_json()
    except (TypeError, ValueError) as error:
        raise AdapterConfigError(f"labels and task must be Unicode text: {error}") from None
    AdapterSpec.from_json(content)
    files |= {SPEC_FILE: content} | _put_right(files, config, spec, recorded)
    return CheckedFolder(spec=spec, files=files, left_out=left_out, base=found)


def _put_right(
    files: Mapping[str, bytes],
    config: Mapping[str, Any],
    spec: AdapterSpec,
    recorded: AdapterSpec | None,
) -> dict[str, bytes]:
    """Config and card anew, where they would keep a machine path or what no longer holds."""
    anew = {}
    named = str(config.get(BASE_KEY) or "")
    if named != spec.base:
        try:
            anew[CONFIG_FILE] = json.dumps({**config, BASE_KEY: spec.base}, indent=2).encode()
        except RecursionError as error:
            raise AdapterConfigError(f"{CONFIG_FILE} is nested too deeply: {error}") from None
    given_anew = recorded is not None and (
        (spec.locale, spec.task) != (recorded.locale, recorded.task)
    )
    card = files.get(CARD_FILE, b"").decode(errors="replace")
    if card and (given_anew or (_base_name(named) != named and named in card)):
        anew[CARD_FILE] = write_card(spec).encode()
    return anew


def _read_files(folder: Path) -> tuple[dict[str, bytes], tuple[str, ...]]:
    try:
        if not folder.is_dir():
            raise AdapterFolderError(f"no adapter folder at {folder}")
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise AdapterFolderError(
            f"{folder} can't be read ({error.strerror}); check the path and the permissions"
        ) from None
    if WEIGHTS_FILE not in names:
        pickled = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
        if pickled:
            raise UnsafeWeightsError(
                f"{folder} has its weights only as pickle ({pickled[0]}), which may run code when "
                f"it is read; save the adapter again with safetensors"
            )
    for required in (CONFIG_FILE, WEIGHTS_FILE):
        if required not in names:
            raise AdapterFolderError(f"{folder} holds no {required}, so it is no adapter")
    files = {name: _read_file(folder / name) for name in SIZE_LIMITS if name in names}
    return files, tuple(name for name in names if name not in SIZE_LIMITS)


def _read_file(path: Path) -> bytes:
    """The content of a regular file within its size limit."""
    limit = SIZE_LIMITS[path.name]
    try:
        # Neither a link, which may point anywhere, nor a pipe, which may never end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise AdapterFolderError(
            f"{path} can't be read ({os.strerror(error.errno or 0)}); it must be a regular file, "
            "not a link"
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise AdapterFolderError(f"{path} is no regular file")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size <= limit:
            content = file.read(limit + 1)
            if len(content) <= limit:
                return content
    raise AdapterTooLargeError(
        f"{path} is larger than {limit:,} bytes, more than any adapter needs"
    )


def _read_config(content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AdapterConfigError(f"{CONFIG_FILE} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise AdapterConfigError(f"{CONFIG_FILE} holds {type(config).__name__}, not an object")
    return config


def _find_base(
    given: str | Path | None,
    recorded: AdapterSpec | None,
    config: Mapping[str, Any],
    *,
    trust_base: bool,
) -> BaseFiles | None:
    name = given or (recorded.base if recorded else config.get(BASE_KEY))
    if not name:
        if trust_base:
            return None
        raise BaseNotFoundError(
            "the folder doesn't say on which base it was trained; name it with base= (--base)"
        )
    try:
        return locate_base(str(name))
    except BaseModelError as error:
        if trust_base and given is None:
            return None
        if given is None:
            raise type(error)(
                f"the adapter's base can't be found: {error}; name it with base= (--base), or "
                "vouch for it with trust_base= (--trust-base)"
            ) from None
        raise


def _describe(
    config: Mapping[str, Any],
    *,
    locale: str | None,
    task: str | None,
    labels: Sequence[str] | None,
    outputs: int | None,
) -> AdapterSpec:
    """The spec of a plain PEFT folder, from what the publisher says and the tensors show."""
    if locale is None or task is None:
        raise InputError(
            f"the folder has no {SPEC_FILE}; say for which locale and task it answers "
            "(--locale, --task)"
        )
    if (outputs or 0) > MAX_LABELS:
        raise LabelCountError(f"the head has {outputs:,} outputs; {MAX_LABELS:,} is the limit")
    if "" in (labels or ()):
        raise InputError(
            f"labels {str(list(labels or ()))[:80]} have an empty one; name every output"
        )
    names = (
        tuple(labels) if labels is not None else tuple(f"LABEL_{i}" for i in range(outputs or 0))
    )
    named = config.get(BASE_KEY)
    return AdapterSpec(
        locale=str(parse_locale(locale)),
        task=task,
        labels=names,
        base=_base_name(str(named or "")),
    )


def _base_name(named: str) -> str:
    """A Hub name as it is; of a path the folder's own name, so that no machine path is kept."""
    is_path = named.startswith((".", "/", "~")) or named.count("/") > 1 or "\\" in named
    return PureWindowsPath(named).name if is_path else named


def _check_task(config: Mapping[str, Any], spec: AdapterSpec) -> None:
    wanted = TASK_TYPES.get(str(config.get("task_type")))
    if wanted is None or spec.task_type != wanted:
        raise UnsupportedAdapterError(
            f"{CONFIG_FILE}: task_type is {config.get('task_type')!r} and {SPEC_FILE} says "
            f"{spec.task_type!r}; this release serves sequence classification (SEQ_CLS)"
        )
    if spec.kind != "lora":
        raise UnsupportedAdapterError(f"{SPEC_FILE}: kind is {spec.kind!r}, but the config is LORA")
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or any(name not in ("classifier", "score") for name in saved):
        raise UnsupportedAdapterError(
            f"{CONFIG_FILE}: modules_to_save is {str(saved)[:80]}; only the classifier is served"
        )


def _check_labels(spec: AdapterSpec, outputs: int | None) -> None:
    if outputs is None:
        raise TensorKeysError(
            f"{WEIGHTS_FILE} has no classification head; train with task_type='SEQ_CLS', so that "
            "PEFT saves it"
        )
    if len(spec.labels) != outputs:
        raise LabelCountError(
            f"{len(spec.labels)} labels for a head with {outputs} outputs; give one label per "
            "output, in order"
        )
    if len(set(spec.labels)) != len(spec.labels):
        repeated = next(name for name in spec.labels if spec.labels.count(name) > 1)
        raise LabelCountError(f"label {repeated!r} occurs twice; labels must differ")


def _check_base(spec: AdapterSpec, base: BaseFiles, recorded: AdapterSpec | None) -> AdapterSpec:
    actual = fingerprint(base).digest
    if recorded is None or recorded.base_fingerprint is None:
        return replace(spec, base=base.name, base_fingerprint=actual)
    if recorded.base_fingerprint != actual:
        raise BaseMismatchError(
            f"the adapter was trained on {recorded.base} with fingerprint "
            f"{recorded.base_fingerprint[:12]}, but {base.name} has {actual[:12]}; use the base "
            "that it was trained on"
        )
    return spec


def _guess_shape(header: Mapping[str, TensorInfo]) -> EncoderShape:
    """A shape that the tensors themselves imply, for a base that nobody can look at."""
    model_type = "bert" if any(".bert." in name for name in header) else "xlm-roberta"
    layers = [
        int(part)
        for name in header
        for part in name.split(".")
        if part.isascii() and part.isdigit() and len(part) <= 3
    ]
    hidden = [
        info.shape[-1]
        for name, info in header.items()
        if name.endswith("query.lora_A.weight") and info.shape
    ]
    head = [
        info.shape[-1] for name, info in header.items() if ".classifier." in name and info.shape[1:]
    ]
    wide = [
        info.shape[0]
        for name, info in header.items()
        if name.endswith("intermediate.dense.lora_B.weight") and info.shape
    ]
    width = (hidden or head or [0])[0]
    return EncoderShape(
        model_type=model_type,
        vocab_size=0,
        hidden_size=width,
        layers=max(layers, default=-1) + 1,
        intermediate_size=(wide or [4 * width])[0],
        max_position_embeddings=0,
        pad_token_id=0,
    )


def check_tensors(
    header: Mapping[str, TensorInfo], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that exactly the expected tensors are there, each in its shape.

    Raises:
        TensorKeysError: missing or extra tensors.
        TensorShapeError: a tensor of another shape.
    """
    missing = sorted(expected.keys() - header.keys())
    extra = sorted(header.keys() - expected.keys())
    if missing or extra:
        parts = []
        if missing:
            parts.append(f"lacks {len(missing)} tensors, {missing[0]} first")
        if extra:
            parts.append(f"has {len(extra)} that the config doesn't account for, {extra[0]} first")
        raise TensorKeysError(f"{WEIGHTS_FILE} {' and '.join(parts)}")
    for name, info in sorted(header.items()):
        if info.shape != expected[name]:
            raise TensorShapeError(
                f"{WEIGHTS_FILE}: {name} is {list(info.shape)}; the base and the config need "
                f"{list(expected[name])}"
            )
