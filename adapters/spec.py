"""What an adapter is: the content of `isogloss.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ..core.errors import AdapterConfigError
from ..core.locale import check_registered, parse_locale, read_tag

FORMAT: Literal[1] = 1
TASK_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
MAX_LABELS = 10_000

TaskType = Literal[
    "sequence-classification",
    "token-classification",
    "embedding",
    "reranking",
    "masked-lm",
    "question-answering",
]
Kind = Literal["lora", "prefix", "bottleneck", "mixture"]
Pooling = Literal["mean", "cls"]
PrefixPositions = Literal["shifted", "kept"]
Placement = Literal["houlsby", "pfeiffer"]
BottleneckActivation = Literal["relu", "gelu", "swish", "tanh"]
MAX_BOTTLENECK = 4096
MAX_PREFIX = 512
# Fields that only some adapters have; where they are None, the file doesn't name them.
OPTIONAL = ("pooling", "prefix_length", "prefix_positions", "bottleneck")


@dataclass(frozen=True, kw_only=True)
class BottleneckSpec:
    """The form of a bottleneck adapter, the same in every layer."""

    placement: Placement
    """`houlsby`: after attention and after the feed-forward part; `pfeiffer`: after the latter."""
    size: Annotated[int, Field(ge=1, le=MAX_BOTTLENECK)]
    """Width of the bottleneck."""
    activation: BottleneckActivation = "relu"
    """Between the two layers; `gelu` is the exact one, `swish` is x · sigmoid(x)."""
    scaling: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Factor of the second layer's result."""


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """One adapter: for which locale and task, on which base, of which kind."""

    locale: Annotated[str, Field(max_length=255)]
    """Canonical BCP 47 tag."""
    task: Annotated[str, Field(pattern=TASK_PATTERN)]
    """The task's name, such as `intent`."""
    task_type: TaskType = "sequence-classification"
    """What the head does."""
    kind: Kind = "lora"
    """How the adapter changes the base."""
    rank: Annotated[int, Field(ge=1)] | None = None
    """Rank of a LoRA adapter."""
    targets: tuple[str, ...] = ()
    """Names of the linear modules that it changes, as PEFT matches them."""
    labels: Annotated[tuple[str, ...], Field(max_length=MAX_LABELS)] = ()
    """Labels in the order of the head's outputs."""
    head: str | None = None
    """Architecture of the head: `xlm-roberta-classification`, `bert-classification`,
    `token-classification`, `question-answering`; None: no tensors of its own."""
    pooling: Pooling | None = None
    """How an embedding is made of a text's tokens; None, for an embedding: `mean`."""
    prefix_length: Annotated[int, Field(ge=1, le=MAX_PREFIX)] | None = None
    """How many keys and values a prefix adapter adds to each layer."""
    prefix_positions: PrefixPositions | None = None
    """Where a prefix adapter's texts begin to count: after the prefix (`shifted`, as PEFT trains
    them, and what None says of a prefix adapter) or where they do without it (`kept`)."""
    bottleneck: BottleneckSpec | None = None
    """The form of a bottleneck adapter."""
    base: Annotated[str, Field(max_length=255)]
    """Name of the base: `mini`, a Hub name, or the name of a folder."""
    base_fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of the base's config and weights; None: not known, the publisher vouches for it."""
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = field(default_factory=dict)
    """Figures on the dev set: `accuracy`, `macro_f1`, `perplexity`; finite."""
    data_digest: str | None = None
    """sha256 of the training rows."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of the training run."""
    created_at: str | None = None
    """UTC, ISO 8601."""
    parent: str | None = None
    """Digest of the version from which training went on."""
    format: Literal[1] = FORMAT
    """Version of this file's format."""

    @property
    def reads_token_types(self) -> bool:
        """Whether its texts keep their token types; else all are zero."""
        return reads_token_types(self.kind, self.task_type)

    def to_json(self) -> bytes:
        """The bytes of `isogloss.json`; equal specs give equal bytes."""
        fields = asdict(self)
        for name in OPTIONAL:
            if fields[name] is None:
                del fields[name]
        text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()

    @classmethod
    def from_json(cls, content: bytes) -> AdapterSpec:
        """Read `isogloss.json`.

        Raises:
            AdapterConfigError: no JSON, an unknown, missing or ill-typed field.
            InvalidLocaleError: a locale that is no BCP 47 tag.
        """
        try:
            spec = _SPEC.validate_json(content, strict=False, extra="forbid")
            spec.to_json()
        except ValidationError as error:
            raise AdapterConfigError(f"isogloss.json: {_first_problem(error)}") from None
        except ValueError as error:  # `training` may hold NaN, which is no JSON
            raise AdapterConfigError(f"isogloss.json: {error}") from None
        # Aliases aside: the next CLDR may have new ones, and this file must stay readable.
        if spec.locale != str(read_tag(spec.locale)):
            raise AdapterConfigError(
                f"isogloss.json: locale is {spec.locale!r}; its canonical form is "
                f"{parse_locale(spec.locale)}"
            )
        check_registered(parse_locale(spec.locale))
        return spec


def reads_token_types(kind: str, task_type: str) -> bool:
    """Whether texts keep their token types (BERT's pairs) for an adapter; else all are zero.

    PEFT's models leave them out in question answering, and in embeddings with a prefix, so
    adapters that were trained there have never seen any.
    """
    if kind == "bottleneck":
        return True
    return task_type != "question-answering" and (kind, task_type) != ("prefix", "embedding")


_SPEC = TypeAdapter(AdapterSpec)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    got = repr(problem["input"])
    shown = f" (got {got[:80]})" if where else ""
    return f"{where + ': ' if where else ''}{problem['msg']}{shown}"
