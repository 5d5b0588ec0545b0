"""The model card of an adapter folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .spec import AdapterSpec


def write_card(spec: AdapterSpec) -> str:
    """A card in the Hub's form: YAML front matter, then what a reader wants to know."""
    # Quoted in the front matter: to YAML a bare `no`, Norwegian, is false.
    language = spec.locale.split("-", maxsplit=1)[0]
    settings = "\n".join(f"- {key}: {_readable(value)}" for key, value in spec.training.items())
    metrics = "\n".join(f"| {name} | {value:.3f} |" for name, value in spec.metrics.items())
    is_peft = spec.kind == "lora" or spec.prefix_positions == "shifted"
    library = "peft" if is_peft else "isogloss"
    other = ", or load it with\n`peft.PeftModel.from_pretrained`" if is_peft else ""
    labels = ", ".join(f"`{label}`" for label in spec.labels)
    labels = f"Labels: {labels}.\n\n" if labels else ""
    return f"""---
base_model: {json.dumps(spec.base)}
library_name: {library}
language: {json.dumps(language)}
tags:
- isogloss
- {spec.kind}
- {spec.task_type}
---

# {spec.task}/{spec.locale}

{_form(spec)} for the task *{spec.task}* ({spec.task_type}) in the
locale `{spec.locale}`, on the frozen base `{spec.base}` (fingerprint
`{spec.base_fingerprint}`).

{labels}| dev set | |
|---|---|
{metrics}

Training data: sha256 `{spec.data_digest}`. Settings:

{settings}

Made {spec.created_at}. Publish it with `isogloss publish`{other}.
"""


def _form(spec: AdapterSpec) -> str:
    if spec.kind == "prefix":
        length, positions = spec.prefix_length, spec.prefix_positions
        return f"A prefix adapter of length {length} (text positions {positions})"
    if spec.bottleneck is not None:
        form = spec.bottleneck
        return f"A bottleneck adapter ({form.placement}, size {form.size}, {form.activation})"
    return f"A {spec.kind} adapter of rank {spec.rank}"


def _readable(value: object) -> str:
    if value is None:
        return "default"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
