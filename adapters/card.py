"""The model card of an adapter folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .spec import AdapterSpec


# Of the training's record what has a place of its own in the card.
OWN_PARTS = ("data", "dev_metrics", "versions")


def write_card(spec: AdapterSpec) -> str:
    """A card in the Hub's form: YAML front matter, then what a reader wants to know."""
    # Quoted in the front matter: to YAML a bare `no`, Norwegian, is false.
    language = spec.locale.split("-", maxsplit=1)[0]
    settings = "\n".join(
        f"- {key}: {_readable(value)}"
        for key, value in spec.training.items()
        if key not in OWN_PARTS
    )
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

{_by_locale(spec)}{_rows(spec)}Training data: sha256 `{spec.data_digest}`. Settings and cost:

{settings}

Made {spec.created_at}. Publish it with `isogloss publish`{other}.
"""


def _by_locale(spec: AdapterSpec) -> str:
    """The dev figures of each locale, where there are several."""
    found = spec.training.get("dev_metrics")
    if not isinstance(found, dict) or not found:
        return ""
    names = list(spec.metrics)
    lines = [f"| dev set | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for locale, metrics in found.items():
        cells = (f"{metrics[name]:.3f}" if name in metrics else "" for name in names)
        lines.append(f"| {locale} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def _rows(spec: AdapterSpec) -> str:
    """How many rows each split of each locale has, and what they were trained with."""
    splits = spec.training.get("data")
    versions = spec.training.get("versions")
    text = ""
    if isinstance(splits, list):
        parts = [f"{one['rows']} {one['split']} rows of {one['locale']}" for one in splits]
        text += f"Rows: {', '.join(parts)}.\n\n"
    if isinstance(versions, dict):
        text += f"Made with {', '.join(f'{name} {at}' for name, at in versions.items())}.\n\n"
    return text


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
