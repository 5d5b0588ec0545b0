"""Adapter folders: read and check.

Nothing is trusted: every check here runs before a byte is stored or reaches the model. Files are
read once, and what was checked is what is stored. Needs neither torch nor pickle.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.base import fingerprint, locate_base
from ..core.errors import (
    AdapterConfigError,
    AdapterFolderError,
    AdapterTooLargeError,
    BaseMismatchError,
    BaseModelError,
    BaseNotFoundError,
    LabelCountError,
    UnsafeWeightsError,
    UnsupportedAdapterError,
)
from ..core.locale import parse_locale
from .card import write_card
from .describe import (
    BASE_KEY,
    CONFIG_FILE,
    SPEC_FILE,
    WEIGHTS_FILE,
    base_name,
    check_labels,
    check_task,
    describe,
)
from .guess import guess_shape
from .layout import (
    check_config,
    check_tensors,
    check_values,
    complete_spec,
    expected_tensors,
    parse_layout,
)
from .spec import AdapterSpec
from .weights import load_arrays, read_header, unique_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ..core.base import BaseFiles, EncoderShape
    from .layout import Layout
    from .weights import TensorInfo

__all__ = [
    "CARD_FILE",
    "CONFIG_FILE",
    "SIZE_LIMITS",
    "SPEC_FILE",
    "WEIGHTS_FILE",
    "CheckedFolder",
    "check_files",
    "read_adapter_folder",
]

CARD_FILE = "README.md"
# file → the most bytes that any adapter needs
SIZE_LIMITS = {
    SPEC_FILE: 4 << 20,
    CONFIG_FILE: 1 << 20,
    WEIGHTS_FILE: 256 << 20,
    CARD_FILE: 1 << 20,
}
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


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
    recorded = _read_spec(files[SPEC_FILE]) if SPEC_FILE in files else None
    config = _check_kind(folder, files, recorded)
    header = read_header(files[WEIGHTS_FILE])
    found = _find_base(base, recorded, config, trust_base=trust_base)
    if recorded is None:
        assert config is not None, "a folder without isogloss.json has a config"
        spec = describe(config, header, locale=locale, task=task, labels=labels)
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
    if config is not None:
        check_task(config, spec)
    check_labels(spec, header)
    if found is not None:
        spec = _check_base(spec, found, recorded)
    shape = found.shape if found is not None else guess_shape(spec, config, header)
    layout = _check_weights(spec, config, shape, header, files[WEIGHTS_FILE])
    spec = complete_spec(spec, layout, shape)
    # Read once more what is stored, so that no override can store what would not load.
    try:
        content = spec.to_json()
    except (TypeError, ValueError) as error:
        raise AdapterConfigError(f"labels and task must be Unicode text: {error}") from None
    AdapterSpec.from_json(content)
    files |= {SPEC_FILE: content} | _put_right(files, config or {}, spec, recorded)
    return CheckedFolder(spec=spec, files=files, left_out=left_out, base=found)


def check_files(files: Mapping[str, bytes]) -> AdapterSpec:
    """Check files that were stored before, here or in another registry, as those of a folder are.

    What hangs on the base is checked when they are loaded; nothing is looked for here.

    Args:
        files: name → content, `isogloss.json` among them.

    Returns:
        What `isogloss.json` says.

    Raises:
        AdapterError: one of its kinds for each check that fails.
        InvalidLocaleError: a locale that is no BCP 47 tag.
    """
    for name, content in files.items():
        if name not in SIZE_LIMITS:
            raise AdapterFolderError(
                f"{name[:80]!r} is no file of an adapter; expected {', '.join(SIZE_LIMITS)}"
            )
        if len(content) > SIZE_LIMITS[name]:
            raise AdapterTooLargeError(
                f"{name} is larger than {SIZE_LIMITS[name]:,} bytes, more than any adapter needs"
            )
    for required in (SPEC_FILE, WEIGHTS_FILE):
        if required not in files:
            raise AdapterFolderError(f"there is no {required}, so it is no adapter")
    spec = _read_spec(files[SPEC_FILE])
    config = _check_kind("the version", files, spec)
    header = read_header(files[WEIGHTS_FILE])
    if config is not None:
        check_task(config, spec)
    check_labels(spec, header)
    shape = guess_shape(spec, config, header)
    _check_weights(spec, config, shape, header, files[WEIGHTS_FILE])
    return spec


def _check_weights(
    spec: AdapterSpec,
    config: Mapping[str, Any] | None,
    shape: EncoderShape,
    header: Mapping[str, TensorInfo],
    content: bytes,
) -> Layout:
    layout = parse_layout(spec, config, shape, header)
    check_tensors(header, expected_tensors(spec, layout, shape))
    check_values(layout, load_arrays(content, header))
    return layout


def _put_right(
    files: Mapping[str, bytes],
    config: Mapping[str, Any],
    spec: AdapterSpec,
    recorded: AdapterSpec | None,
) -> dict[str, bytes]:
    """Config and card anew, where they would keep a machine path or what no longer holds."""
    anew = {}
    named = str(config.get(BASE_KEY) or "")
    if CONFIG_FILE in files and named != spec.base:
        try:
            anew[CONFIG_FILE] = json.dumps({**config, BASE_KEY: spec.base}, indent=2).encode()
        except RecursionError as error:
            raise AdapterConfigError(f"{CONFIG_FILE} is nested too deeply: {error}") from None
    given_anew = recorded is not None and (
        (spec.locale, spec.task) != (recorded.locale, recorded.task)
    )
    card = files.get(CARD_FILE, b"").decode(errors="replace")
    if card and (given_anew or (base_name(named) != named and named in card)):
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
    # Only our own kinds do without PEFT's config.
    for required in (*(() if SPEC_FILE in names else (CONFIG_FILE,)), WEIGHTS_FILE):
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


def _check_kind(
    folder: Path | str, files: Mapping[str, bytes], recorded: AdapterSpec | None
) -> dict[str, Any] | None:
    """PEFT's config, of a kind that is served; None for a kind that has none."""
    kind = recorded.kind if recorded is not None else None
    if kind == "mixture":
        raise UnsupportedAdapterError(
            f"{SPEC_FILE}: kind is 'mixture', which this release doesn't store; ask for the "
            "mixture with each request"
        )
    if CONFIG_FILE not in files:
        if kind != "bottleneck":
            raise AdapterFolderError(f"{folder} holds no {CONFIG_FILE}, so it is no adapter")
        return None
    config = _read_object(CONFIG_FILE, files[CONFIG_FILE])
    check_config(config)
    return config


def _read_spec(content: bytes) -> AdapterSpec:
    spec = AdapterSpec.from_json(content)
    _read_object(SPEC_FILE, content)
    return spec


def _read_object(name: str, content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise AdapterConfigError(f"{name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise AdapterConfigError(f"{name} holds {type(value).__name__}, not an object")
    return value


def _find_base(
    given: str | Path | None,
    recorded: AdapterSpec | None,
    config: Mapping[str, Any] | None,
    *,
    trust_base: bool,
) -> BaseFiles | None:
    name = given or (recorded.base if recorded else (config or {}).get(BASE_KEY))
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
