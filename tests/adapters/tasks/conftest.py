from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from isogloss.adapters.tasks import Encoding
from isogloss.core.base import locate_base
from isogloss.core.encoder import load_tokenizer
from isogloss.core.tokenization import RowTokenizer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def encoding(tiny_encoder: Path) -> Encoding:
    base = locate_base(tiny_encoder)
    tokenizer = load_tokenizer(base)
    return Encoding(
        tokenizer=RowTokenizer(tokenizer, base.shape),
        limit=base.shape.max_tokens,
        labels=("B-GOODS", "O"),
        special=frozenset(tokenizer.all_special_ids),
        pieces=len(tokenizer),
    )
