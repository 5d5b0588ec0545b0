"""What an adapter is: the content of `isogloss.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from ..core.errors import AdapterConfigError
from ..core.locale import parse_locale

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
    """Architecture of the head: `xlm-roberta-classification`, `bert-classification`."""
    base: Annotated[str, Field(max_length=255)]
    """Name of the base: `mini`, a Hub name, or the name of a folder."""
    base_fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of the base's config and weights; None: not known, the publisher vouches for it."""
    metrics: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = field(default_factory=dict)
    """Figures on the dev set, 0..1: `accuracy`, `macro_f1`."""
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

    def to_json(self) -> bytes:
        """The bytes of `isogloss.json`; equal specs give equal bytes."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False)
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
        if spec.locale != str(parse_locale(spec.locale)):
            raise AdapterConfigError(
                f"isogloss.json: locale is {spec.locale!r}; its canonical form is "
                f"{parse_locale(spec.locale)}"
            )
        return spec


_SPEC = TypeAdapter(AdapterSpec)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    got = repr(problem["input"])
    shown = f" (got {got[:80]})" if where else ""
    return f"{where + ': ' if where else ''}{problem['msg']}{shown}"
