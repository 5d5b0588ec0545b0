"""Every error that isogloss raises on purpose.

    IsoglossError
    ├── BaseModelError
    │   ├── BaseNotFoundError         no such folder, hub name, or hub connection
    │   ├── UnsupportedBaseError      an architecture other than XLM-R and BERT
    │   └── BaseMismatchError         an adapter that was trained on another base
    ├── AdapterError
    │   ├── AdapterFolderError        a missing, foreign or unreadable file
    │   ├── UnsafeWeightsError        weights that come only as pickle
    │   ├── AdapterTooLargeError      more bytes than any adapter needs
    │   ├── MalformedWeightsError     a safetensors file whose header or extent is wrong
    │   ├── AdapterConfigError        a config that is not JSON, or lacks or misstates a field
    │   ├── UnsupportedAdapterError   a kind or an option that isogloss does not serve
    │   ├── TensorKeysError           missing or extra tensors
    │   ├── TensorShapeError          a tensor that does not fit the base
    │   ├── NonFiniteWeightsError     NaN or infinity
    │   ├── RankLimitError            a rank outside 1..MAX_RANK
    │   ├── TargetModulesError        target modules that the base lacks
    │   ├── LabelCountError           labels and head that disagree
    │   └── SlotTooSmallError         an adapter larger than the slots that were set aside
    ├── DataError
    │   ├── DataNotFoundError         no such file or split
    │   ├── EmptyDataError            no rows, or no labelled rows
    │   ├── MalformedRowError         a row that can't be read (file and line)
    │   └── UnknownLabelError         a label that training did not see
    ├── InvalidLocaleError            not a valid BCP 47 tag
    ├── RegistryError
    │   ├── RegistryNotFoundError     no registry there, or one of a newer release
    │   ├── RegistryUnavailableError  its database or its store can't be reached now
    │   ├── NoAdapterError            nothing answers for this locale and task (carries the trace)
    │   ├── UnknownVersionError       no version with this name or digest
    │   ├── UnknownAliasError         an alias that points nowhere
    │   ├── ConflictError             an alias that somebody else has moved meanwhile
    │   ├── ProtectedAliasError       an alias that moves only by force and for a reason
    │   ├── VersionInUseError         a version that can't be removed, as something needs it
    │   ├── GateError                 figures below those that a promotion requires
    │   ├── SmokeTestError            a version that can't answer, or answers with no numbers
    │   ├── SignatureError            no valid signature by a trusted key, or a bad key
    │   ├── ArchiveError              an archive that is damaged, or that isogloss did not write
    │   ├── HuggingFaceError          a repository that can't be found, read or written there
    │   └── DamagedBlobError          stored bytes that don't match their digest
    ├── TrainingError
    │   ├── DivergedError             the loss is no longer finite
    │   ├── OutputFolderError         the output folder is taken
    │   └── CheckpointError           a checkpoint that belongs to another run
    ├── InputError                    an argument, setting or request that makes no sense
    └── PrecisionError                a precision or device that this machine lacks

A message says what was wrong, what was got, and what to do, on one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class IsoglossError(Exception):
    """The root of every error that isogloss raises on purpose."""


class BaseModelError(IsoglossError):
    """Something about the frozen base encoder."""


class BaseNotFoundError(BaseModelError):
    """No such folder, hub name, or no connection to the hub."""


class UnsupportedBaseError(BaseModelError):
    """The model is not an XLM-R or BERT encoder, or lacks a part that is needed."""


class BaseMismatchError(BaseModelError):
    """The adapter was trained on a base with another fingerprint."""


class AdapterError(IsoglossError):
    """Something about an adapter folder."""


class AdapterFolderError(AdapterError):
    """A file of the folder is missing, is no regular file, or can't be read."""


class UnsafeWeightsError(AdapterError):
    """The weights come only as pickle, which may run code when it is read."""


class AdapterTooLargeError(AdapterError):
    """A file is larger than any adapter needs."""


class MalformedWeightsError(AdapterError):
    """The safetensors file is damaged: header, extent, or data type."""


class AdapterConfigError(AdapterError):
    """A config file is not JSON, or lacks or misstates a field."""


class UnsupportedAdapterError(AdapterError):
    """A kind of adapter, or an option of it, that isogloss does not serve."""


class TensorKeysError(AdapterError):
    """Tensors are missing, or there are tensors that the config doesn't account for."""


class TensorShapeError(AdapterError):
    """A tensor's shape doesn't fit the base or the config."""


class NonFiniteWeightsError(AdapterError):
    """A tensor holds NaN or infinity."""


class RankLimitError(AdapterError):
    """A rank outside the limits."""


class TargetModulesError(AdapterError):
    """Target modules that the base doesn't have or that isogloss can't wrap."""


class LabelCountError(AdapterError):
    """The labels and the head's outputs differ in number, or labels repeat."""


class SlotTooSmallError(AdapterError):
    """The adapter is larger than the slots that were set aside for it."""


class DataError(IsoglossError):
    """Something about training or evaluation data."""


class DataNotFoundError(DataError):
    """No such data file, folder or split."""


class EmptyDataError(DataError):
    """No rows, or none with a label."""


class MalformedRowError(DataError):
    """One row can't be used; the message names the file and the line."""

    def __init__(self, path: Path, line: int, problem: str) -> None:
        super().__init__(f"{path}, line {line}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem

    def __reduce__(self) -> tuple[type[MalformedRowError], tuple[Path, int, str]]:
        # By itself an exception is unpickled from its message alone.
        return type(self), (self.path, self.line, self.problem)


class UnknownLabelError(DataError):
    """A label that training did not see."""


class InvalidLocaleError(IsoglossError, ValueError):
    """Not a valid BCP 47 language tag."""


class RegistryError(IsoglossError):
    """Something about the registry."""


class RegistryNotFoundError(RegistryError):
    """There is no registry at this place, or a newer release wrote it."""


class RegistryUnavailableError(RegistryError):
    """The registry's database or its store of blobs can't be reached now."""


class NoAdapterError(RegistryError):
    """Nothing answers for this locale and task.

    Attributes:
        trace: what was tried, one step each, in order.
    """

    def __init__(self, message: str, *, trace: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.trace = tuple(trace)


class UnknownVersionError(RegistryError):
    """No version has this name or digest, or several begin with it."""


class UnknownAliasError(RegistryError):
    """The alias points nowhere."""


class ConflictError(RegistryError):
    """The alias doesn't point to what was expected: somebody else has moved it meanwhile."""


class ProtectedAliasError(RegistryError):
    """The alias is protected: it moves only by force and for a reason."""


class VersionInUseError(RegistryError):
    """The version can't be removed: an alias, a mixture or the recent history needs it."""


class GateError(RegistryError):
    """The version's figures are below those that the promotion requires, or not known."""


class SmokeTestError(RegistryError):
    """The version can't answer on its base, or its answers are no finite numbers."""


class SignatureError(RegistryError):
    """The version has no valid signature by a trusted key, or a key can't be used."""


class ArchiveError(RegistryError):
    """The archive is damaged, was tampered with, or is not one that isogloss wrote."""


class HuggingFaceError(RegistryError):
    """A repository on the Hugging Face Hub can't be found, read or written."""


class DamagedBlobError(RegistryError):
    """Stored bytes are missing or don't match their digest."""


class TrainingError(IsoglossError):
    """Something about a training run."""


class DivergedError(TrainingError):
    """The loss is no longer a finite number."""


class OutputFolderError(TrainingError):
    """The output folder exists already, or can't be written."""


class CheckpointError(TrainingError):
    """The checkpoint belongs to a run with other settings or data."""


class InputError(IsoglossError, ValueError):
    """An argument, setting or request that makes no sense."""


class PrecisionError(IsoglossError):
    """A precision or device that this machine, or this release, doesn't have."""
