from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaEmbeddings

from isogloss.core.base import EncoderShape
from isogloss.core.packing import Row, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isogloss.core.packing import PackedBatch

CPU = torch.device("cpu")
SLOTS = st.none() | st.integers(0, 3)


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


def packed(rows: Sequence[Row], model_type: str = "xlm-roberta") -> PackedBatch:
    return pack(rows, shape(model_type), CPU)


@st.composite
def batches(draw: st.DrawFn) -> list[Row]:
    rows = []
    for _ in range(draw(st.integers(1, 12))):
        ids = draw(st.lists(st.integers(0, 99), min_size=1, max_size=32))
        types = draw(st.none() | st.just(tuple(at % 2 for at in range(len(ids)))))
        rows.append(Row(token_ids=tuple(ids), type_ids=types, slot=draw(SLOTS)))
    return rows


def row_tokens(batch: PackedBatch, values: torch.Tensor) -> list[list[int]]:
    """The values of each row, in the order of the request."""
    flat = values[0].tolist()
    edges = [*batch.starts.tolist(), len(flat)]
    result: list[list[int]] = [[] for _ in batch.starts]
    for place, (begin, end) in zip(batch.order.tolist(), pairwise(edges), strict=True):
        result[place] = flat[begin:end]
    return result


@given(rows=batches())
def test_every_row_is_there_once_and_whole(rows: list[Row]) -> None:
    batch = packed(rows)
    assert row_tokens(batch, batch.token_ids) == [list(row.token_ids) for row in rows]
    assert row_tokens(batch, batch.type_ids) == [
        list(row.type_ids or (0,) * len(row.token_ids)) for row in rows
    ]
    assert sorted(batch.order.tolist()) == list(range(len(rows)))


@given(rows=batches(), model_type=st.sampled_from(["xlm-roberta", "bert"]))
def test_positions_begin_anew_in_each_row(rows: list[Row], model_type: str) -> None:
    batch = packed(rows, model_type)
    expected = []
    for row in rows:
        if model_type == "bert":
            expected.append(list(range(len(row.token_ids))))
        else:  # transformers' own rule
            ids = torch.tensor([row.token_ids])
            rule: Any = XLMRobertaEmbeddings.create_position_ids_from_input_ids
            expected.append(rule(ids, padding_idx=1)[0].tolist())
    assert row_tokens(batch, batch.position_ids) == expected


@given(rows=batches())
def test_segments_cover_tokens_and_rows_in_order(rows: list[Row]) -> None:
    batch = packed(rows)
    order = batch.order.tolist()
    tokens = row = 0
    for segment in batch.segments:
        assert (segment.begin, segment.first_row) == (tokens, row)
        members = [rows[order[at]] for at in range(segment.first_row, segment.last_row)]
        assert {member.slot for member in members} == {segment.slot}
        assert segment.end - segment.begin == sum(len(member.token_ids) for member in members)
        tokens, row = segment.end, segment.last_row
    assert (tokens, row) == (sum(len(each.token_ids) for each in rows), len(rows))
    # One run for each adapter, however the rows of a request are mixed.
    slots = [segment.slot for segment in batch.segments]
    assert len(slots) == len(set(slots))


@given(rows=batches())
def test_groups_of_equal_length_cover_every_token_once(rows: list[Row]) -> None:
    batch = packed(rows)
    starts = set(batch.starts.tolist())
    seen: list[int] = []
    for tokens in batch.same_length:
        for each in tokens.tolist():
            assert each[0] in starts
            assert each == list(range(each[0], each[0] + len(each)))
            seen.extend(each)
    assert sorted(seen) == list(range(batch.token_ids.shape[1]))
    lengths = [tokens.shape[1] for tokens in batch.same_length]
    assert sorted(lengths) == sorted({len(row.token_ids) for row in rows})


@given(rows=batches())
def test_restore_undoes_the_order(rows: list[Row]) -> None:
    batch = packed(rows)
    lengths = [len(row.token_ids) for row in rows]
    in_packed_order = torch.tensor([lengths[at] for at in batch.order.tolist()])
    assert batch.restore(in_packed_order).tolist() == lengths
    wide = in_packed_order.unsqueeze(1).expand(-1, 3)
    assert batch.restore(wide)[:, 2].tolist() == lengths


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
    ],
)
def test_our_own_mistakes_are_caught(rows: list[Row], problem: str) -> None:
    with pytest.raises(AssertionError, match=problem):
        packed(rows)
