from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from isogloss.adapters.state_cache import StateCache
from isogloss.core.packing import Row

if TYPE_CHECKING:
    from pathlib import Path

WIDTH = 8
TOKEN_BYTES = 4 * WIDTH


def states(tokens: int) -> torch.Tensor:
    return torch.randn(tokens, WIDTH, generator=torch.Generator().manual_seed(tokens))


def row(tokens: int, kind: int = 0) -> Row:
    return Row(token_ids=tuple(range(tokens)), type_ids=(kind,) * tokens)


@pytest.mark.parametrize("in_file", [True, False])
def test_it_gives_back_what_was_put_in(tmp_path: Path, in_file: bool) -> None:
    folder = tmp_path / "new" / "states" if in_file else None
    cache = StateCache(budget=100 * TOKEN_BYTES, folder=folder)
    assert cache.get(row(3)) is None
    for tokens in (3, 1, 40):
        cache.put(row(tokens), states(tokens))
    for tokens in (40, 3, 1):
        found = cache.get(row(tokens))
        assert found is not None
        assert torch.equal(found, states(tokens))
    assert cache.get(row(3, kind=1)) is None
    assert (len(cache), cache.used_bytes) == (3, 44 * TOKEN_BYTES)
    if folder is not None:
        assert list(folder.iterdir()) == []


def test_what_is_in_stays_in_and_what_does_not_fit_stays_out() -> None:
    cache = StateCache(budget=10 * TOKEN_BYTES + 1)
    for tokens in (6, 5, 4, 1):
        cache.put(row(tokens), states(tokens))
    assert [cache.get(row(tokens)) is not None for tokens in (6, 5, 4, 1)] == [
        *(True, False, True, False)
    ]
    assert cache.used_bytes == 10 * TOKEN_BYTES


def test_a_row_is_kept_once() -> None:
    cache = StateCache(budget=10 * TOKEN_BYTES)
    cache.put(row(4), states(4))
    cache.put(row(4), torch.zeros(4, WIDTH))
    found = cache.get(row(4))
    assert found is not None
    assert torch.equal(found, states(4))
    assert len(cache) == 1


@pytest.mark.parametrize("in_file", [True, False])
def test_without_a_budget_it_stays_empty(tmp_path: Path, in_file: bool) -> None:
    cache = StateCache(budget=0, folder=tmp_path if in_file else None)
    cache.put(row(4), states(4))
    assert cache.get(row(4)) is None
    assert (len(cache), cache.used_bytes) == (0, 0)
