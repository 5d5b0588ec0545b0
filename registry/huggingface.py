"""Adapters from the Hugging Face Hub, and to it: in PEFT's layout, with a card.

Of a repository only the files that an adapter needs are downloaded, at one commit, and only after
their sizes were looked at; then they go through the checks of any folder.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters.card import write_card
from ..adapters.files import (
    CARD_FILE,
    PICKLE_SUFFIXES,
    SIZE_LIMITS,
    SPEC_FILE,
    WEIGHTS_FILE,
    read_adapter_folder,
)
from ..adapters.spec import AdapterSpec
from ..core.errors import (
    AdapterFolderError,
    AdapterTooLargeError,
    HuggingFaceError,
    InputError,
    IsoglossError,
    UnsafeWeightsError,
)
from .names import check_names
from .promotion import PRODUCTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Unpack

    from huggingface_hub import HfApi, HfUri

    from .promotion import MoveOptions
    from .records import Version
    from .registry import Registry


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What came from the Hub."""

    version: Version
    """The version that it is here."""
    source: str
    """Where it came from: `hf://user/repo@commit`."""
    left_out: tuple[str, ...]
    """Files of the repository that were not downloaded."""


def pull(
    registry: Registry,
    url: str,
    *,
    locale: str | None = None,
    task: str | None = None,
    alias: str | None = PRODUCTION,
    labels: Sequence[str] | None = None,
    base: str | Path | None = None,
    trust_base: bool = False,
    author: str | None = None,
    sign: str | Path | None = None,
    endpoint: str | None = None,
    **options: Unpack[MoveOptions],
) -> Pulled:
    """Publish an adapter that is on the Hub.

    Args:
        registry: where it is published.
        url: `hf://user/repo`, with `@revision` and a folder within it where need be.
        locale: as in `Registry.publish`, and so is all that follows.
        task: the task's name.
        alias: the alias to point to it.
        labels: labels in the order of the outputs, for a plain PEFT folder.
        base: name or folder of the base.
        trust_base: accept an adapter whose base can't be found.
        author: who made it; None: the repository and its commit.
        sign: file of a private key.
        endpoint: URL of the Hub; None: what HF_ENDPOINT says, else huggingface.co.
        **options: as `MoveOptions` describes.

    Raises:
        InputError: a URL that is no model repository's, or as `Registry.publish`.
        HuggingFaceError: it can't be found, or the Hub can't be reached.
        IsoglossError: as `Registry.publish`.
    """
    uri = parse_repository(url)
    check_names(alias=alias, task=task)
    with tempfile.TemporaryDirectory(prefix="isogloss-pull-") as temporary:
        folder, commit, left_out = _download(_api(endpoint), uri, Path(temporary))
        checked = read_adapter_folder(
            folder, locale=locale, task=task, labels=labels, base=base, trust_base=trust_base
        )
    source = f"hf://{uri.id}@{commit}" + (f"/{uri.path_in_repo}" if uri.path_in_repo else "")
    reason = options.get("reason")
    # Where an alias is protected, the reason has to be somebody's own.
    if reason or not options.get("force"):
        options["reason"] = f"{reason}; from {source}" if reason else f"from {source}"
    version = registry.publish_checked(
        checked, alias=alias, author=author or source, sign=sign, **options
    )
    return Pulled(version=version, source=source, left_out=left_out)


def push(
    registry: Registry,
    name: str,
    url: str,
    *,
    private: bool | None = None,
    message: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Put a version on the Hub, in one commit; the repository is made where there is none.

    With HF_HUB_DISABLE_XET=1 files go by Git LFS, for a Hub or mirror that has no Xet storage.

    Args:
        registry: where the version is.
        name: the version's.
        url: `hf://user/repo`, with `@branch` and a folder within it where need be.
        private: whether a new repository is private; None: as the account has it.
        message: of the commit.
        endpoint: as in `pull`.

    Returns:
        The commit's URL.

    Raises:
        UnknownVersionError: no such version.
        DamagedBlobError: its content is damaged or missing.
        InputError: a URL that is no model repository's.
        HuggingFaceError: the Hub refuses, or can't be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    uri = parse_repository(url)
    version = registry.version(name)
    files = registry.read(version)
    if CARD_FILE not in files:
        files[CARD_FILE] = write_card(AdapterSpec.from_json(files[SPEC_FILE])).encode()
    at = f"{uri.path_in_repo}/" if uri.path_in_repo else ""
    api = _api(endpoint)
    with _reaching(uri):
        api.create_repo(uri.id, private=private, exist_ok=True)
        if uri.revision is not None:
            api.create_branch(uri.id, branch=uri.revision, exist_ok=True)
        there = _sizes(api, uri)[1]
        # What another kind of adapter left there would be read together with this one.
        stale = [name for name in SIZE_LIMITS if name not in files and f"{at}{name}" in there]
        done = api.create_commit(
            uri.id,
            [
                *(CommitOperationAdd(f"{at}{name}", content) for name, content in files.items()),
                *(CommitOperationDelete(f"{at}{name}") for name in stale),
            ],
            commit_message=message or f"{version.name}",
            revision=uri.revision,
        )
    return str(done.commit_url)


def parse_repository(url: str) -> HfUri:
    """Read `hf://user/repo@revision/folder`.

    Raises:
        InputError: it is none, or no model's.
    """
    from huggingface_hub import parse_hf_uri

    try:
        uri = parse_hf_uri(url)
    except ValueError as error:
        raise InputError(
            f"{url!r:.200} names no repository ({_one_line(error)}); write hf://user/repo@revision"
        ) from None
    if uri.type != "model":
        raise InputError(f"{url!r:.200} is a {uri.type}; adapters are in repositories of models")
    if any(part in ("", ".", "..") for part in uri.path_in_repo.split("/") if uri.path_in_repo):
        raise InputError(f"{url!r:.200} has no folder's name at its end; write it without dots")
    return uri


def _api(endpoint: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, library_name="isogloss")


def _sizes(api: HfApi, uri: HfUri) -> tuple[str, dict[str, int | None]]:
    """The commit of a revision, and its files with their sizes."""
    info = api.model_info(uri.id, revision=uri.revision, files_metadata=True)
    return str(info.sha), {file.rfilename: file.size for file in info.siblings or ()}


def _download(api: HfApi, uri: HfUri, into: Path) -> tuple[Path, str, tuple[str, ...]]:
    """The adapter's folder, the commit, and the files that were left where they are."""
    with _reaching(uri):
        commit, sizes = _sizes(api, uri)
    at = f"{uri.path_in_repo}/" if uri.path_in_repo else ""
    wanted = [name for name in SIZE_LIMITS if f"{at}{name}" in sizes]
    if WEIGHTS_FILE not in wanted:
        _refuse_without_weights(uri, [name for name in sizes if name.startswith(at)])
    for name in wanted:
        size = sizes[f"{at}{name}"]
        if size is None or size > SIZE_LIMITS[name]:
            raise AdapterTooLargeError(
                f"{name} of {uri.id} has {'?' if size is None else f'{size:,}'} bytes and was not "
                f"downloaded; no adapter needs more than {SIZE_LIMITS[name]:,}"
            )
    with _reaching(uri):
        for name in wanted:
            api.hf_hub_download(uri.id, f"{at}{name}", revision=commit, local_dir=into)
    taken = {f"{at}{name}" for name in wanted}
    return into / uri.path_in_repo, commit, tuple(sorted(sizes.keys() - taken))


def _refuse_without_weights(uri: HfUri, names: list[str]) -> None:
    pickled = [name for name in names if name.endswith(PICKLE_SUFFIXES)]
    if pickled:
        raise UnsafeWeightsError(
            f"{uri.id} has its weights only as pickle ({pickled[0]:.80}), which may run code when "
            "it is read; ask its author for safetensors"
        )
    raise AdapterFolderError(
        f"{uri.id} holds no {WEIGHTS_FILE}, so it is no adapter; where it is in a folder of the "
        "repository, write hf://user/repo@revision/folder"
    )


@contextmanager
def _reaching(uri: HfUri) -> Iterator[None]:
    try:
        yield
    except IsoglossError:
        raise
    # The Hub's client raises errors of its own, of its HTTP client, and of Python.
    except Exception as error:
        at = f"@{uri.revision}" if uri.revision else ""
        reason = _one_line(error)
        if isinstance(error.__cause__, Exception):
            reason += f" ({_one_line(error.__cause__)})"
        raise HuggingFaceError(
            f"hf://{uri.id}{at} can't be used: {reason}; check the name, your access "
            "(hf auth login, or HF_TOKEN), and the connection"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
