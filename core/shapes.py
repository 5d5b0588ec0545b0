"""Random weights in the shapes of well-known models, for speed and memory.

The models' own weights take a download; how fast a product is, and how many bytes it takes, doesn't
depend on the values.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from .base import EMBEDDED_FOLDER

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

SHAPES: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": {
        "model_type": "xlm-roberta",
        "vocab_size": 250_002,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    },
    "bert-base-multilingual-cased": {
        "model_type": "bert",
        "vocab_size": 119_547,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    },
}


def write_random_base(shape: str, folder: Path, *, seed: int = 0) -> None:
    """Write a base that loads like any other, with the embedded base's tokenizer.

    Args:
        shape: one of SHAPES.
        folder: where to; made if it isn't there.
        seed: of the weights.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    from .encoder import quiet_transformers

    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        config = AutoConfig.for_model(**SHAPES[shape])
        model: nn.Module = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
        model.save_pretrained(folder)  # type: ignore[operator]
    for path in EMBEDDED_FOLDER.glob("tokenizer*"):
        shutil.copy(path, folder / path.name)
