"""Folders of random adapters, for benchmarks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_lora(
    folder: Path,
    base: Path,
    *,
    locale: str,
    task: str,
    rank: int,
    targets: Sequence[str],
    labels: int = 0,
    seed: int = 0,
) -> Path:
    """Write a LoRA adapter as PEFT lays it out; without labels, one for embeddings, headless."""
    from safetensors.numpy import save_file

    from isogloss.adapters.describe import CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE
    from isogloss.adapters.layout import complete_spec, expected_tensors, parse_layout
    from isogloss.adapters.spec import AdapterSpec
    from isogloss.core.base import fingerprint, locate_base

    found = locate_base(base)
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if labels else "FEATURE_EXTRACTION",
        "base_model_name_or_path": found.name,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": list(targets),
    }
    spec = AdapterSpec(
        locale=locale,
        task=task,
        task_type="sequence-classification" if labels else "embedding",
        labels=tuple(f"LABEL_{number}" for number in range(labels)),
        base=found.name,
        base_fingerprint=fingerprint(found).digest,
    )
    layout = parse_layout(spec, config, found.shape, {})
    spec = complete_spec(spec, layout, found.shape)
    generator = np.random.default_rng(seed)
    tensors = {
        name: generator.standard_normal(shape, dtype=np.float32) / 100
        for name, shape in expected_tensors(spec, layout, found.shape).items()
    }
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")
    (folder / SPEC_FILE).write_bytes(spec.to_json())
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    return folder
