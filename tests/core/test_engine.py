from __future__ import annotations

import threading
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isogloss.core.bank import LowRank
from isogloss.core.encoder import Encoder, load_encoder, quiet_transformers
from isogloss.core.engine import Engine
from isogloss.core.packing import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..conftest import TinyBase

MODEL_TYPES = ("xlm-roberta", "bert")
LONGEST = 40


class Resident:
    """An engine with adapters in two slots, and the same base as transformers runs it."""

    def __init__(self, encoder: Encoder, reference: torch.nn.Module, seed: int) -> None:
        self.encoder = encoder
        self.reference = reference
        self.engine = Engine(encoder, slots=3)
        generator = torch.Generator().manual_seed(seed)
        for slot in (0, 1):
            updates = {
                name: LowRank(
                    down=torch.randn(2, columns, generator=generator) / columns**0.5,
                    up=torch.randn(rows, 2, generator=generator),
                )
                for name, (rows, columns) in encoder.shape.linears().items()
                if "query" in name or "output.dense" in name
            }
            self.engine.bank.put(slot, updates)

    def rows(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Hidden states of each row `[tokens, width]`, in the order of the request."""
        batch, hidden = self.engine.forward(rows)
        edges = [*batch.starts.tolist(), len(hidden)]
        result = [hidden] * len(rows)
        for place, (begin, end) in zip(batch.order.tolist(), pairwise(edges), strict=True):
            result[place] = hidden[begin:end]
        return result

    def alone(self, row: Row) -> torch.Tensor:
        """One row of the bare base through transformers' own attention and positions."""
        with torch.inference_mode():
            output = self.reference(
                input_ids=torch.tensor([row.token_ids]),
                attention_mask=torch.ones(1, len(row.token_ids), dtype=torch.long),
                token_type_ids=torch.tensor([row.type_ids or (0,) * len(row.token_ids)]),
            )
        states: torch.Tensor = output.last_hidden_state[0]
        return states


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def residents(tiny_base: TinyBase) -> Callable[[str], Resident]:
    made: dict[str, Resident] = {}

    def resident(model_type: str) -> Resident:
        if model_type not in made:
            made[model_type] = make_resident(tiny_base, model_type)
        return made[model_type]

    return resident


def make_resident(tiny_base: TinyBase, model_type: str, precision: str = "fp32") -> Resident:
    from transformers import AutoModel

    folder = tiny_base(model_type)
    with quiet_transformers():
        reference = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    encoder = load_encoder(folder, device="cpu", precision=precision)
    return Resident(encoder, reference, seed=5)


def random_rows(
    encoder: Encoder,
    lengths: Sequence[int],
    *,
    slots: Sequence[int | None] = (None,),
    seed: int = 0,
) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, length in enumerate(lengths):
        # From 4 on: transformers takes a padding token within a row for padding.
        ids = torch.randint(4, encoder.shape.vocab_size, (length,), generator=generator)
        types = None
        if encoder.shape.model_type == "bert":
            types = tuple(int(at >= length // 2) for at in range(length))
        rows.append(
            Row(token_ids=tuple(ids.tolist()), type_ids=types, slot=slots[number % len(slots)])
        )
    return rows


def assert_close(result: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def assert_same(results: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for result, wanted in zip(results, expected, strict=True):
        assert_close(result, wanted)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_packed_equals_transformers_row_by_row(
    residents: Callable[[str], Resident], model_type: str
) -> None:
    resident = residents(model_type)
    lengths = list(range(LONGEST, 0, -1))
    assert resident.encoder.shape.max_tokens == LONGEST
    rows = random_rows(resident.encoder, lengths)
    expected = [resident.alone(row) for row in rows]
    # Rows that all come out alike would prove nothing.
    assert min((expected[at][0] - expected[at + 1][0]).abs().max() for at in range(39)) > 1e-3
    assert_same(resident.rows(rows), expected)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lengths=st.lists(st.integers(1, LONGEST), min_size=1, max_size=12),
    seed=st.integers(0, 2**31),
    model_type=st.sampled_from(MODEL_TYPES),
)
def test_any_lengths_equal_transformers_row_by_row(
    residents: Callable[[str], Resident], lengths: list[int], seed: int, model_type: str
) -> None:
    resident = residents(model_type)
    rows = random_rows(resident.encoder, lengths, seed=seed)
    assert_same(resident.rows(rows), [resident.alone(row) for row in rows])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_real_texts_and_pairs(residents: Callable[[str], Resident], model_type: str) -> None:
    resident = residents(model_type)
    singles = resident.encoder.tokenize(["wo isch mys päckli", "привет", "the lazy dog " * 30])
    pairs = resident.encoder.tokenize([("the dog", "el perro"), ("bitte", "wo isch mys päckli")])
    rows = [row for row, _ in [*singles, *pairs]]
    if model_type == "bert":
        assert any(1 in (row.type_ids or ()) for row in rows)
    assert_same(resident.rows(rows), [resident.alone(row) for row in rows])


def test_a_text_that_spells_out_padding(residents: Callable[[str], Resident]) -> None:
    """XLM-R gives such a token no position of its own."""
    resident = residents("xlm-roberta")
    ((row, _),) = resident.encoder.tokenize(["the <pad> dog"])
    assert 1 in row.token_ids
    assert_same(resident.rows([row]), [resident.alone(row)])


def test_token_types_count(residents: Callable[[str], Resident]) -> None:
    resident = residents("bert")
    (row,) = random_rows(resident.encoder, [8])
    without = Row(token_ids=row.token_ids)
    with_types, plain = resident.rows([row, without])
    assert (with_types - plain).abs().max() > 1e-2
    assert_same([plain], [resident.alone(without)])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_update_is_what_its_merged_weights_compute(
    residents: Callable[[str], Resident], model_type: str
) -> None:
    """Each slot against transformers with that slot's update added to its weights."""
    import copy

    resident = residents(model_type)
    slots = [0, None, 1]
    rows = random_rows(resident.encoder, [7, 3, 7, 12, 1, 40], slots=slots)
    results = resident.rows(rows)
    bare = resident.reference
    for slot in (0, 1):
        merged = copy.deepcopy(bare)
        for name, linear in resident.engine.bank._linears.items():
            update = linear.updates[slot]
            if update is not None:
                merged.get_parameter(f"{name}.weight").data += update.up @ update.down
        resident.reference = merged
        try:
            for row, result in zip(rows, results, strict=True):
                if row.slot == slot:
                    assert_close(result, resident.alone(row))
        finally:
            resident.reference = bare
    for row, result in zip(rows, results, strict=True):
        if row.slot is None:
            assert_close(result, resident.alone(row))


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    lengths=st.lists(st.integers(1, LONGEST), min_size=2, max_size=8),
    model_type=st.sampled_from(MODEL_TYPES),
)
def test_a_permuted_batch_gives_permuted_results(
    residents: Callable[[str], Resident],
    data: st.DataObject,
    lengths: list[int],
    model_type: str,
) -> None:
    resident = residents(model_type)
    rows = random_rows(resident.encoder, lengths, slots=[0, None, 1])
    order = data.draw(st.permutations(range(len(rows))))
    results = resident.rows(rows)
    permuted = resident.rows([rows[at] for at in order])
    assert_same(permuted, [results[at] for at in order])


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lengths=st.lists(st.integers(1, LONGEST), min_size=1, max_size=8),
    added=st.integers(1, LONGEST),
    slot=st.sampled_from([None, 0, 1]),
    model_type=st.sampled_from(MODEL_TYPES),
)
def test_another_row_changes_no_row(
    residents: Callable[[str], Resident],
    lengths: list[int],
    added: int,
    slot: int | None,
    model_type: str,
) -> None:
    resident = residents(model_type)
    rows = random_rows(resident.encoder, lengths, slots=[1, None, 0])
    (extra,) = random_rows(resident.encoder, [added], slots=[slot], seed=99)
    before = resident.rows(rows)
    assert_same(resident.rows([extra, *rows])[1:], before)


def test_equal_rows_give_equal_results(residents: Callable[[str], Resident]) -> None:
    resident = residents("xlm-roberta")
    (row,) = random_rows(resident.encoder, [9], slots=[1])
    first, *others = resident.rows([row] * 5)
    assert_same(others, [first] * 4)


def test_an_empty_slot_is_the_bare_base(tiny_base: TinyBase) -> None:
    resident = make_resident(tiny_base, "xlm-roberta")
    (row,) = random_rows(resident.encoder, [9], slots=[0])
    (bare,) = random_rows(resident.encoder, [9], slots=[None])
    (adapted,) = resident.rows([row])
    assert (adapted - resident.alone(bare)).abs().max() > 1e-2
    assert resident.engine.bank.bytes() > 0
    resident.engine.bank.clear(0)
    assert_same(resident.rows([row]), [resident.alone(bare)])
    resident.engine.bank.clear(1)
    assert resident.engine.bank.bytes() == 0


def test_a_slot_holds_nothing_of_what_was_there_before(tiny_base: TinyBase) -> None:
    """An adapter with fewer targets put over one with more."""
    resident = make_resident(tiny_base, "xlm-roberta")
    bank = resident.engine.bank
    name = "encoder.layer.0.attention.self.value"
    small = {name: LowRank(down=torch.randn(1, 16), up=torch.randn(16, 1))}
    bank.put(2, small)
    bank.put(0, small)
    over, fresh = random_rows(resident.encoder, [6, 6], slots=[0, 2])
    fresh = Row(token_ids=over.token_ids, slot=2)
    first, second = resident.rows([over, fresh])
    assert_close(first, second)


def test_outside_a_batch_the_linears_are_the_bases(residents: Callable[[str], Resident]) -> None:
    resident = residents("bert")
    linear: Any = resident.encoder.model.get_submodule("encoder.layer.0.attention.self.query")
    features = torch.randn(1, 5, 16)
    with torch.inference_mode():
        assert torch.equal(linear(features), linear.base(features))
    assert resident.engine.bank.batch is None


def test_an_error_leaves_no_batch_behind(residents: Callable[[str], Resident]) -> None:
    resident = residents("xlm-roberta")
    outside = Row(token_ids=(resident.encoder.shape.vocab_size,))
    with pytest.raises(IndexError):
        resident.engine.forward([outside])
    assert resident.engine.bank.batch is None


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_threads_do_not_mix_their_batches(
    residents: Callable[[str], Resident], model_type: str
) -> None:
    resident = residents(model_type)
    batches = [
        random_rows(resident.encoder, [3, 40, 7, 7], slots=[0, 1], seed=1),
        random_rows(resident.encoder, [12, 1], slots=[1, None], seed=2),
        random_rows(resident.encoder, [5, 5, 5, 9, 30], slots=[None, 0], seed=3),
    ]
    expected = [resident.rows(rows) for rows in batches]
    start = threading.Barrier(len(batches))
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            start.wait(timeout=30)
            for _ in range(20):
                assert_same(resident.rows(batches[number]), expected[number])
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not problems


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_bf16_stays_near_fp32(
    residents: Callable[[str], Resident], tiny_base: TinyBase, model_type: str
) -> None:
    exact = residents(model_type)
    half = make_resident(tiny_base, model_type, precision="bf16")
    rows = random_rows(exact.encoder, [4, 17, 40])
    assert half.encoder.dtype == torch.bfloat16
    for result, wanted in zip(half.rows(rows), exact.rows(rows), strict=True):
        assert result.dtype == torch.bfloat16
        assert torch.cosine_similarity(result.float(), wanted, dim=-1).min() > 0.98


def test_parameter_bytes_count_the_base_once(residents: Callable[[str], Resident]) -> None:
    resident = residents("bert")
    model = resident.reference
    tensors = [*model.parameters(), *model.buffers()]
    assert resident.engine.parameter_bytes() == sum(tensor.nbytes for tensor in tensors)
