from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

from isogloss.core.base import EncoderShape
from isogloss.core.delta import PrefixPlace
from isogloss.core.packing import Layout, Mix, Row, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isogloss.core.packing import PackedBatch

CPU = torch.device("cpu")
LAYOUTS: st.SearchStrategy[Layout] = st.sampled_from(["length", "adapter"])
# Slots 0 to 2 hold no prefix.
SHIFTING, SHIFT = 4, 3
PREFIXES = {
    3: PrefixPlace(keys=0, values=0, length=2, shifts_positions=False),
    SHIFTING: PrefixPlace(keys=0, values=0, length=SHIFT, shifts_positions=True),
}
MIXES: st.SearchStrategy[Mix] = st.sampled_from(
    [(), ((0, 1.0),), ((1, 0.5), (2, 0.25)), ((3, 1.0),), ((0, 2.0), (SHIFTING, 1.0))]
)


def shape(
    model_type: str = "xlm-roberta", *, positions: int = 34, padding: int = 1
) -> EncoderShape:
    return EncoderShape(
        model_type=model_type,
        vocab_size=100,
        hidden_size=8,
        layers=1,
        intermediate_size=16,
        max_position_embeddings=positions,
        pad_token_id=padding,
    )


def packed(
    rows: Sequence[Row],
    model_type: str = "xlm-roberta",
    *,
    by: Layout = "length",
    join: bool = True,
) -> PackedBatch:
    return pack(rows, shape(model_type), CPU, prefix=PREFIXES.get, by=by, join=join)


@st.composite
def batches(draw: st.DrawFn) -> list[Row]:
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        ids = draw(st.lists(st.integers(0, 99), min_size=1, max_size=28))
        types = draw(st.none() | st.just(tuple(at % 2 for at in range(len(ids)))))
        rows.append(Row(token_ids=tuple(ids), type_ids=types, mix=draw(MIXES)))
    return rows


def row_tokens(batch: PackedBatch, values: torch.Tensor) -> list[list[int]]:
    """The values of each row, in the order of the request."""
    flat = values[0].tolist()
    return [flat[begin:end] for begin, end in batch.rows]


@given(rows=batches(), by=LAYOUTS)
def test_every_row_is_there_once_and_whole(rows: list[Row], by: Layout) -> None:
    batch = packed(rows, by=by)
    assert row_tokens(batch, batch.token_ids) == [list(row.token_ids) for row in rows]
    assert row_tokens(batch, batch.type_ids) == [
        list(row.type_ids or (0,) * len(row.token_ids)) for row in rows
    ]
    tokens = sorted(at for begin, end in batch.rows for at in range(begin, end))
    assert tokens == list(range(batch.token_ids.shape[1]))


@given(rows=batches(), model_type=st.sampled_from(["xlm-roberta", "bert"]), by=LAYOUTS)
def test_positions_begin_anew_in_each_row(rows: list[Row], model_type: str, by: Layout) -> None:
    batch = packed(rows, model_type, by=by)
    expected = []
    for row in rows:
        shift = SHIFT if any(slot == SHIFTING for slot, _ in row.mix) else 0
        if model_type == "bert":
            expected.append(list(range(shift, shift + len(row.token_ids))))
        else:  # transformers' own rule
            ids = torch.tensor([row.token_ids])
            rule: Any = XLMRobertaEmbeddings.create_position_ids_from_input_ids
            expected.append(rule(ids, 1, shift)[0].tolist())
    assert row_tokens(batch, batch.position_ids) == expected


@given(rows=batches(), by=LAYOUTS, join=st.booleans())
def test_runs_name_the_adapters_of_every_token(rows: list[Row], by: Layout, join: bool) -> None:
    batch = packed(rows, by=by, join=join)
    covered: dict[int, Mix] = {}
    for run in batch.runs:
        covered |= dict.fromkeys(range(run.begin, run.end), run.mix)
    for row, (begin, end) in zip(rows, batch.rows, strict=True):
        assert all(covered.get(token, ()) == row.mix for token in range(begin, end))
    assert sum(run.end - run.begin for run in batch.runs) == len(covered)
    assert [
        (run.begin, run.end, slot, weight) for run in batch.runs for slot, weight in run.mix
    ] == [
        (*segment, weight)
        for segment, weight in zip(batch.segments.tolist(), batch.weights.tolist(), strict=True)
    ]
    if by == "adapter" and join:  # one run for each, however the rows of a request are mixed
        assert len({run.mix for run in batch.runs}) == len(batch.runs)
    if not join:
        assert {(run.begin, run.end) for run in batch.runs} == {
            span for span, row in zip(batch.rows, rows, strict=True) if row.mix
        }


@given(rows=batches())
def test_rows_of_equal_length_and_prefix_stand_together(rows: list[Row]) -> None:
    batch = packed(rows)
    assert batch.grid is None
    spans = dict(zip(batch.rows, rows, strict=True))
    seen = 0
    for group in batch.same_length:
        assert group.begin == seen
        prefixes = []
        for _ in range(group.rows):
            row = spans[seen, seen + group.length]
            prefixes += [slot for slot, _ in row.mix if PREFIXES.get(slot)]
            seen += group.length
        assert group.prefix_slots == tuple(prefixes)
        assert len({PREFIXES[slot].length for slot in prefixes}) <= 1
        assert len(prefixes) in (0, group.rows)
    assert seen == batch.token_ids.shape[1]


@given(rows=batches())
def test_the_grid_has_every_token_and_key_in_its_place(rows: list[Row]) -> None:
    batch = packed(rows, by="adapter")
    grid = batch.grid
    assert grid is not None
    assert not batch.same_length
    assert grid.tokens.flatten()[grid.places].tolist() == list(range(batch.token_ids.shape[1]))
    in_order = sorted(range(len(rows)), key=lambda row: batch.rows[row])
    before = grid.keys.shape[-1] - grid.tokens.shape[1]
    for place, row in enumerate(in_order):
        length = len(rows[row].token_ids)
        slots = [slot for slot, _ in rows[row].mix if slot in PREFIXES]
        prefix = PREFIXES[slots[0]].length if slots else 0
        assert grid.prefix_slots[place] == (slots[0] if slots else None)
        real = [True] * prefix + [False] * (before - prefix)
        real += [True] * length + [False] * (grid.tokens.shape[1] - length)
        assert grid.keys[place, 0, 0].tolist() == real


@pytest.mark.parametrize(
    ("model_type", "positions", "padding", "longest"),
    [("xlm-roberta", 514, 1, 512), ("xlm-roberta", 34, 0, 33), ("bert", 512, 0, 512)],
)
def test_the_longest_row(model_type: str, positions: int, padding: int, longest: int) -> None:
    base = shape(model_type, positions=positions, padding=padding)
    assert base.max_tokens == longest
    batch = pack([Row(token_ids=(5,) * longest)], base, CPU)
    assert batch.position_ids.max() == positions - 1
    with pytest.raises(AssertionError, match="longer than the base takes"):
        pack([Row(token_ids=(5,) * (longest + 1))], base, CPU)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "empty batch"),
        ([Row(token_ids=())], "empty row"),
        ([Row(token_ids=(1, 2), type_ids=(0,))], "a type for each token"),
        ([Row(token_ids=(1,), mix=((3, 1.0), (SHIFTING, 1.0)))], "one prefix at most"),
        ([Row(token_ids=(5,) * 30, mix=((SHIFTING, 1.0),))], "longer than the base takes"),
    ],
)
def test_our_own_mistakes_are_caught(rows: list[Row], problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        packed(rows)
