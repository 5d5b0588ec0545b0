"""A base on disk: where it is, what shape it has, and its fingerprint. Needs no torch.

The fingerprint is the sha256 of the encoder's config and weights. It doesn't depend on the order
or the number of files, nor on the head that a checkpoint carries. BERT's pooler counts as part of
the encoder, since its classification head reads through it; XLM-R's is read by nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .errors import BaseNotFoundError, UnsupportedBaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

EMBEDDED = "mini"
EMBEDDED_FOLDER = Path(__file__).parent / EMBEDDED
# model_type → the prefix that checkpoints with a head put before the encoder's tensors
FAMILIES = {"xlm-roberta": "roberta", "bert": "bert"}
# model_type → what transformers takes where the config doesn't say
PAD_TOKEN_IDS = {"xlm-roberta": 1, "bert": 0}
CONFIG_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "layer_norm_eps",
    "max_position_embeddings",
    "type_vocab_size",
    "pad_token_id",
)
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = f"{WEIGHTS_FILE}.index.json"
HUB_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "*.model")
CACHE_FORMAT = 1  # raise it when the fingerprint is computed in another way
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """What an encoder's config says of its size."""

    model_type: str
    """`xlm-roberta` or `bert`."""
    vocab_size: int
    """Rows of the embedding."""
    hidden_size: int
    """Width."""
    layers: int
    """Transformer layers."""
    intermediate_size: int
    """Width of the feed-forward part."""
    max_position_embeddings: int
    """Rows of the position embedding."""
    pad_token_id: int
    """The id of padding; XLM-R counts positions from the one after it."""

    @property
    def prefix(self) -> str:
        """The name of the encoder inside a model with a head: `roberta` or `bert`."""
        return FAMILIES[self.model_type]

    @property
    def max_tokens(self) -> int:
        """The longest sequence, in tokens, special tokens included."""
        if self.model_type == "xlm-roberta":
            return self.max_position_embeddings - self.pad_token_id - 1
        return self.max_position_embeddings

    def linears(self) -> dict[str, tuple[int, int]]:
        """The encoder's linear modules by name, each with its (out, in) features."""
        hidden, wide = self.hidden_size, self.intermediate_size
        modules: dict[str, tuple[int, int]] = {}
        for layer in range(self.layers):
            at = f"encoder.layer.{layer}"
            for part in ("query", "key", "value"):
                modules[f"{at}.attention.self.{part}"] = (hidden, hidden)
            modules[f"{at}.attention.output.dense"] = (hidden, hidden)
            modules[f"{at}.intermediate.dense"] = (wide, hidden)
            modules[f"{at}.output.dense"] = (hidden, wide)
        if self.model_type == "bert":
            modules["pooler.dense"] = (hidden, hidden)
        return modules


@dataclass(frozen=True, kw_only=True)
class BaseFiles:
    """A base that has been found on disk."""

    name: str
    """How it was asked for; for a folder, the folder's own name, so that no path gets about."""
    folder: Path
    """Where it lies."""
    shape: EncoderShape
    """Its size."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """The identity of a base."""

    digest: str
    """sha256 of config and weights, 64 hex digits."""
    dtype: str
    """The data type in which the weights are stored, as safetensors names it: `F32`, `F16`."""


def locate_base(name: str | Path) -> BaseFiles:
    """Find a base by name or folder; a name on the Hugging Face Hub is downloaded if need be.

    Args:
        name: `mini` (the embedded base), a folder that transformers saved, or a Hub name such as
            `xlm-roberta-base`.

    Raises:
        BaseNotFoundError: no such folder or name, or the Hub can't be reached.
        UnsupportedBaseError: not an XLM-R or BERT encoder, or without safetensors weights.
    """
    if str(name) == EMBEDDED:
        return _read(EMBEDDED, EMBEDDED_FOLDER)
    folder = Path(name)
    try:
        is_folder = folder.is_dir()
    except OSError as error:  # a name that is too long, a folder above that may not be entered
        raise BaseNotFoundError(
            f"no base at {str(name)!r} ({error.strerror}); give another path or name"
        ) from None
    if is_folder:
        return _read(folder.resolve().name, folder)
    if folder.is_absolute() or str(name).count("/") > 1 or str(name).startswith("."):
        raise BaseNotFoundError(
            f"no base at {str(name)!r}; give a folder saved by transformers, a Hub name such as "
            f"xlm-roberta-base, or {EMBEDDED}"
        )
    return _read(str(name), _download(str(name)))


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=[*HUB_FILES, "vocab.txt"]))
    except (RepositoryNotFoundError, GatedRepoError, HFValidationError):
        raise BaseNotFoundError(
            f"no base named {name!r}: neither a folder here nor a public model on the Hub; "
            f"use {EMBEDDED} (embedded), a folder, or a Hub name such as xlm-roberta-base"
        ) from None
    except (LocalEntryNotFoundError, OSError) as error:
        raise BaseNotFoundError(
            f"no base named {name!r}: no such folder, not in the local cache, and the Hub can't be "
            f"reached ({type(error).__name__}); use {EMBEDDED} (embedded) or a folder"
        ) from None


def _read(name: str, folder: Path) -> BaseFiles:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BaseNotFoundError(f"{folder} holds no config.json, so it is no model") from None
    except OSError as error:
        raise UnsupportedBaseError(f"{path} can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UnsupportedBaseError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise UnsupportedBaseError(f"{path} holds {type(config).__name__}, not an object")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnsupportedBaseError(
            f"{name} is of type {model_type!r}; isogloss serves {' and '.join(FAMILIES)} encoders"
        )
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise UnsupportedBaseError(f"{name} is a decoder; isogloss serves encoders")
    pad_token_id = config.get("pad_token_id")
    try:
        shape = EncoderShape(
            model_type=model_type,
            vocab_size=int(config["vocab_size"]),
            hidden_size=int(config["hidden_size"]),
            layers=int(config["num_hidden_layers"]),
            intermediate_size=int(config["intermediate_size"]),
            max_position_embeddings=int(config["max_position_embeddings"]),
            pad_token_id=int(PAD_TOKEN_IDS[model_type] if pad_token_id is None else pad_token_id),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UnsupportedBaseError(f"{path} lacks or misstates {error}") from None
    _weight_files(folder)
    return BaseFiles(name=name, folder=folder, shape=shape)


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers loads; others that lie beside them don't count."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    index = folder / INDEX_FILE
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
    except FileNotFoundError:
        raise UnsupportedBaseError(
            f"{folder} holds no .safetensors weights; save it again with a current transformers"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UnsupportedBaseError(
            f"{index} is no index of weights ({type(error).__name__}: {error}); "
            "save or copy the base again"
        ) from None
    for path in files:
        if path.parent != folder or not path.is_file():
            raise UnsupportedBaseError(
                f"{folder} can't be loaded: {INDEX_FILE} lists {path.name}, which is not there; "
                "save or copy it again"
            )
    return files


def fingerprint(base: BaseFiles) -> Fingerprint:
    """The identity of a base, from the cache beside its folder or by hashing its weights.

    The cache holds for files of the same names, sizes and modification times.

    Raises:
        UnsupportedBaseError: weights that are no safetensors.
    """
    files = sorted([*_weight_files(base.folder), base.folder / "config.json"])
    # .resolve(): a Hub snapshot is made of links, whose own times say nothing.
    stats = {path.name: path.resolve().stat() for path in files}
    stamp = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
    for cache in _cache_files(base):
        try:
            record = json.loads(cache.read_text())
            if record["files"] == stamp and record["format"] == CACHE_FORMAT:
                return Fingerprint(digest=record["digest"], dtype=record["dtype"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    result = _compute(base)
    record = {
        "format": CACHE_FORMAT,
        "digest": result.digest,
        "dtype": result.dtype,
        "files": stamp,
    }
    for cache in _cache_files(base):
        if _write(cache, json.dumps(record, indent=1)):
            break
    return result


def _cache_files(base: BaseFiles) -> Iterator[Path]:
    """Where the fingerprint may be cached, best place first."""
    if base.folder == EMBEDDED_FOLDER:
        return  # small, and package folders aren't ours to write to
    folder = base.folder.resolve()
    if folder.parent.name != "snapshots":  # the Hub's cache admits no files of others
        yield folder.with_name(f".{folder.name}.fingerprint.json")
    from platformdirs import user_cache_path

    key = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    yield user_cache_path("isogloss") / "fingerprints" / f"{key}.json"


def _write(path: Path, text: str) -> bool:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        return False
    return True


def _compute(base: BaseFiles) -> Fingerprint:
    config = json.loads((base.folder / "config.json").read_text(encoding="utf-8"))
    tensors: dict[str, list[Any]] = {}
    for path in _weight_files(base.folder):
        tensors.update(_encoder_tensors(path, base.shape))
    if not tensors:
        raise UnsupportedBaseError(f"{base.folder} holds no weights of an encoder")
    identity = {
        "config": {key: config.get(key) for key in CONFIG_KEYS},
        "tensors": sorted([name, *entry] for name, entry in tensors.items()),
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()
    dtypes = sorted({entry[0] for entry in tensors.values()})
    return Fingerprint(digest=hashlib.sha256(canonical).hexdigest(), dtype="+".join(dtypes))


def _encoder_tensors(path: Path, shape: EncoderShape) -> Iterator[tuple[str, list[Any]]]:
    """The encoder's tensors in one file: name, and [dtype, shape, sha256 of the bytes]."""
    parts = (
        ("embeddings.", "encoder.", "pooler.")
        if shape.model_type == "bert"
        else (
            "embeddings.",
            "encoder.",
        )
    )  # XLM-R's pooler is used by nothing
    with path.open("rb") as file:
        for stored, (dtype, extents, begin, end) in _read_index(path, file).items():
            name = stored.removeprefix(f"{shape.prefix}.")
            # Checkpoints converted from TensorFlow call LayerNorm's parameters so.
            name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
            if not name.startswith(parts) or name == "embeddings.position_ids":
                continue
            file.seek(begin)
            digest = hashlib.sha256()
            left = end - begin
            while left > 0:
                chunk = file.read(min(left, 1 << 22))
                if not chunk:
                    raise UnsupportedBaseError(f"{path} is cut off within {stored}")
                digest.update(chunk)
                left -= len(chunk)
            yield name, [dtype, extents, digest.hexdigest()]


def _read_index(path: Path, file: BinaryIO) -> dict[str, tuple[str, list[int], int, int]]:
    """Each tensor's data type, shape, first byte and byte after the last."""
    length = path.stat().st_size
    size = int.from_bytes(file.read(8), "little")
    if size > MAX_HEADER_BYTES:
        raise UnsupportedBaseError(f"{path} is no safetensors file (header of {size} bytes)")
    index = {}
    try:
        header = json.loads(file.read(size))
        if not isinstance(header, dict):
            raise TypeError("its header is no JSON object")
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (int(value) for value in entry["data_offsets"])
            if not 0 <= begin <= end or not isinstance(entry["dtype"], str):
                raise ValueError(f"entry of {name} makes no sense")
            extents = [int(extent) for extent in entry["shape"]]
            index[name] = (entry["dtype"], extents, 8 + size + begin, 8 + size + end)
            if index[name][-1] > length:
                raise ValueError(f"it is cut off within {name}")
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UnsupportedBaseError(f"{path} is no safetensors file: {error}") from None
    return index
