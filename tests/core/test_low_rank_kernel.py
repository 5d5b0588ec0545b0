from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isogloss.core import native

SLOTS = 3


def kernels() -> native.Native:
    found = native.load()
    if found is None:
        pytest.skip(f"no compiled kernels: {native.status().note}")
    return found


class Problem:
    """Random tokens and adapters; `run` computes by the kernel, `expected` by numpy in fp64."""

    def __init__(self, tokens: int, width: int, outputs: int, ranks: list[int], seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.x = torch.from_numpy(generator.standard_normal((tokens, width), dtype=np.float32))
        self.y = torch.from_numpy(generator.standard_normal((tokens, outputs), dtype=np.float32))
        parts, places, at = [], [], 0
        for rank in ranks:
            down = generator.standard_normal((rank, width), dtype=np.float32) / width**0.5
            up = generator.standard_normal((rank, outputs), dtype=np.float32)
            places.append((at, at + down.size, rank))
            parts += [down.ravel(), up.ravel()]
            at += down.size + up.size
        self.arena = torch.from_numpy(np.concatenate(parts))
        self.places = torch.tensor(places)

    def run(self, segments: list[tuple[int, int, int]], weights: list[float]) -> torch.Tensor:
        y = self.y.clone()
        table, factors = torch.tensor(segments).view(-1, 3), torch.tensor(weights)
        kernels().over_rows(
            "isogloss_low_rank",
            len(y),
            *(self.x, y, self.x.shape[1], y.shape[1], self.arena, self.places),
            *(table, factors, len(table)),
        )
        return y

    def expected(self, segments: list[tuple[int, int, int]], weights: list[float]) -> torch.Tensor:
        y = self.y.double()
        for (begin, end, slot), weight in zip(segments, weights, strict=True):
            down, up, rank = self.places[slot].tolist()
            width, outputs = self.x.shape[1], y.shape[1]
            a = self.arena[down : down + rank * width].view(rank, width).double()
            b = self.arena[up : up + rank * outputs].view(rank, outputs).double()
            y[begin:end] += weight * (self.x[begin:end].double() @ a.T) @ b
        return y.float()


@settings(deadline=None, max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    width=st.integers(1, 70),
    outputs=st.integers(1, 70),
    ranks=st.lists(st.integers(0, 70), min_size=SLOTS, max_size=SLOTS),
    data=st.data(),
)
def test_it_computes_the_weighted_sum_of_updates(
    lengths: list[int], width: int, outputs: int, ranks: list[int], data: st.DataObject
) -> None:
    problem = Problem(sum(lengths), width, outputs, ranks, seed=len(lengths))
    segments, weights, at = [], [], 0
    for length in lengths:
        for slot in data.draw(st.lists(st.integers(0, SLOTS - 1), max_size=3)):
            segments.append((at, at + length, slot))
            weights.append(data.draw(st.floats(-2, 2, width=16)))
        at += length
    torch.testing.assert_close(
        problem.run(segments, weights),
        problem.expected(segments, weights),
        rtol=1e-5,
        atol=1e-4,
    )


def test_a_token_gives_the_same_bits_in_any_segment() -> None:
    problem = Problem(50, 37, 75, [8, 5, 66], seed=1)
    whole = problem.run([(0, 50, slot) for slot in range(SLOTS)], [0.5, 1.0, -1.5])
    for begin, end in ((0, 1), (3, 5), (7, 20), (49, 50)):
        part = problem.run([(begin, end, slot) for slot in range(SLOTS)], [0.5, 1.0, -1.5])
        assert torch.equal(part[begin:end], whole[begin:end])
        untouched = torch.cat([part[:begin], part[end:]])
        assert torch.equal(untouched, torch.cat([problem.y[:begin], problem.y[end:]]))


def test_threads_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(200, 32, 48, [4, 0, 9], seed=2)
    segments = [(0, 90, 0), (90, 101, 1), (101, 200, 2), (101, 200, 0)]
    alone = problem.run(segments, [1.0, 1.0, 0.5, 2.0])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(problem.run(segments, [1.0, 1.0, 0.5, 2.0]), alone)
