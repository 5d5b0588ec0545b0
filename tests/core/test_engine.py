from __future__ import annotations

import functools
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isogloss.core import engine, native
from isogloss.core.delta import Delta, LowRank, SlotImage
from isogloss.core.encoder import Encoder, load_encoder, quiet_transformers
from isogloss.core.engine import Engine
from isogloss.core.errors import SlotTooSmallError
from isogloss.core.packing import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isogloss.core.packing import Mix

    from ..conftest import TinyBase
    from .conftest import DenseReference, MakeDelta

MODEL_TYPES = ("xlm-roberta", "bert")
LONGEST = 40
# The adapter in each slot: two of each kind, no two alike.
EACH = ("lora", "dora", "houlsby", "pfeiffer", "prefix", "shifting-prefix")
KINDS = tuple(kind for kind in EACH for _ in range(2))
LORA, DORA, HOULSBY, PFEIFFER, PREFIX, SHIFTING = (
    (number, number + 1) for number in range(0, 12, 2)
)
# A prefix and shifted positions leave this many tokens in any case.
LONGEST_SHIFTED = 36


class Resident:
    """An engine with an adapter of each kind in its slots, and what each row should give."""

    def __init__(
        self, encoder: Encoder, reference: DenseReference, deltas: Sequence[Delta], slots: int
    ) -> None:
        self.encoder = encoder
        self.reference = reference
        self.deltas = deltas
        self.engine = Engine(encoder, slots=slots)
        for slot, delta in enumerate(deltas):
            self.engine.bank.put(slot, SlotImage.of(delta))

    def rows(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """Hidden states of each row `[tokens, width]`, in the order of the request."""
        batch, hidden = self.engine.forward(rows)
        return [hidden[begin:end] for begin, end in batch.rows]

    def alone(self, row: Row) -> torch.Tensor:
        """One row, by the reference."""
        return self.reference(row, [(self.deltas[slot], weight) for slot, weight in row.mix])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class MakeResident(Protocol):
    def __call__(self, model_type: str, precision: str = "fp32", slots: int = 12) -> Resident: ...


@pytest.fixture(scope="module")
def make_resident(
    tiny_base: TinyBase,
    dense_reference: Callable[[str], DenseReference],
    make_delta: MakeDelta,
) -> MakeResident:
    def make(model_type: str, precision: str = "fp32", slots: int = 12) -> Resident:
        encoder = load_encoder(tiny_base(model_type), device="cpu", precision=precision)
        deltas = [make_delta(model_type, kind, seed) for seed, kind in enumerate(KINDS)]
        return Resident(encoder, dense_reference(model_type), deltas, slots)

    return make


@pytest.fixture(scope="module")
def residents(make_resident: MakeResident) -> Callable[[str], Resident]:
    return functools.cache(make_resident)


def random_rows(
    encoder: Encoder,
    lengths: Sequence[int],
    *,
    mixes: Sequence[Mix] = ((),),
    seed: int = 0,
) -> list[Row]:
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for number, length in enumerate(lengths):
        ids = torch.randint(4, encoder.shape.vocab_size, (length,), generator=generator)
        is_bert = encoder.shape.model_type == "bert"
        types = tuple(int(at >= length // 2) for at in range(length)) if is_bert else None
        mix = mixes[number % len(mixes)]
        rows.append(Row(token_ids=tuple(ids.tolist()), type_ids=types, mix=mix))
    return rows


def assert_close(result: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def assert_same(results: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> None:
    for result, wanted in zip(results, expected, strict=True):
        assert_close(result, wanted)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_packed_equals_transformers_row_by_row(
    residents: Callable[[str], Resident], tiny_base: TinyBase, model_type: str
) -> None:
    from transformers import AutoModel

    resident = residents(model_type)
    with quiet_transformers():
        reference = AutoModel.from_pretrained(tiny_base(model_type), attn_implementation="eager")
    assert resident.encoder.shape.max_tokens == LONGEST
    rows = random_rows(resident.encoder, list(range(LONGEST, 0, -1)))
    expected = []
    for row in rows:
        with torch.inference_mode():
            output = reference.eval()(
                input_ids=torch.tensor([row.token_ids]),
                attention_mask=torch.ones(1, len(row.token_ids), dtype=torch.long),
                token_type_ids=torch.tensor([row.type_ids or (0,) * len(row.token_ids)]),
            )
        expected.append(output.last_hidden_state[0])
    # Rows that all come out alike would prove nothing.
    assert min((expected[at][0] - expected[at + 1][0]).abs().max() for at in range(39)) > 1e-3
    assert_same(resident.rows(rows), expected)
    assert_same([resident.alone(row) for row in rows], expected)


@st.composite
def mixes(draw: st.DrawFn) -> Mix:
    """Any adapters that may serve one row together."""
    low_rank = draw(st.lists(st.sampled_from([*LORA, *DORA]), max_size=3, unique=True))
    weights = st.floats(-2, 2, width=16)
    parts = [(slot, draw(weights)) for slot in low_rank]
    stack = draw(st.lists(st.sampled_from([*HOULSBY, *PFEIFFER]), max_size=2, unique=True))
    prefix = draw(st.lists(st.sampled_from([*PREFIX, *SHIFTING]), max_size=1))
    return tuple(draw(st.permutations([*parts, *((slot, 1.0) for slot in [*stack, *prefix])])))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(st.tuples(st.integers(1, LONGEST_SHIFTED), mixes()), min_size=1, max_size=10),
    seed=st.integers(0, 2**31),
    model_type=st.sampled_from(MODEL_TYPES),
    compiled=st.booleans(),
)
def test_any_batch_equals_the_reference_row_by_row(
    residents: Callable[[str], Resident],
    rows: list[tuple[int, Mix]],
    seed: int,
    model_type: str,
    compiled: bool,
) -> None:
    resident = residents(model_type)
    batch = random_rows(
        resident.encoder, [size for size, _ in rows], mixes=[mix for _, mix in rows], seed=seed
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.SWITCH, "1" if compiled else "0")
        assert_same(resident.rows(batch), [resident.alone(row) for row in batch])


@pytest.mark.parametrize("by", ["length", "adapter"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_both_ways_to_pack_agree(
    residents: Callable[[str], Resident],
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    by: str,
) -> None:
    """Devices with a grid pack by adapter; here it is asked for."""
    resident = residents(model_type)
    each = [((slot, 1.0),) for slot in range(len(KINDS))]
    rows = random_rows(resident.encoder, [5, 9, 1, 36, 9, 5, 20] * 4, mixes=[(), *each])
    monkeypatch.setattr(engine, "LAYOUTS", {"cpu": by})
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


@pytest.mark.parametrize("slot", [None, SHIFTING[0]])
def test_a_text_that_spells_out_padding(
    residents: Callable[[str], Resident], slot: int | None
) -> None:
    """XLM-R gives such a token no position of its own."""
    resident = residents("xlm-roberta")
    ((row, _),) = resident.encoder.tokenize(["the <pad> dog"])
    assert 1 in row.token_ids
    row = replace(row, mix=() if slot is None else ((slot, 1.0),))
    assert_same(resident.rows([row]), [resident.alone(row)])


def test_token_types_count(residents: Callable[[str], Resident]) -> None:
    resident = residents("bert")
    (row,) = random_rows(resident.encoder, [8])
    without = Row(token_ids=row.token_ids)
    with_types, plain = resident.rows([row, without])
    assert (with_types - plain).abs().max() > 1e-2
    assert_same([plain], [resident.alone(without)])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_adapter_changes_its_rows(
    residents: Callable[[str], Resident], model_type: str
) -> None:
    resident = residents(model_type)
    (bare,) = random_rows(resident.encoder, [9])
    rows = [replace(bare, mix=((slot, 1.0),)) for slot in range(len(KINDS))]
    results = resident.rows([bare, *rows])
    for at, one in enumerate(results):
        for other in results[:at]:
            assert (one - other).abs().max() > 1e-2


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    rows=st.lists(st.tuples(st.integers(1, LONGEST_SHIFTED), mixes()), min_size=2, max_size=8),
    model_type=st.sampled_from(MODEL_TYPES),
)
def test_a_permuted_batch_gives_permuted_results(
    residents: Callable[[str], Resident],
    data: st.DataObject,
    rows: list[tuple[int, Mix]],
    model_type: str,
) -> None:
    resident = residents(model_type)
    batch = random_rows(
        resident.encoder, [size for size, _ in rows], mixes=[mix for _, mix in rows]
    )
    order = data.draw(st.permutations(range(len(batch))))
    results = resident.rows(batch)
    permuted = resident.rows([batch[at] for at in order])
    assert_same(permuted, [results[at] for at in order])


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(st.tuples(st.integers(1, LONGEST_SHIFTED), mixes()), min_size=1, max_size=8),
    added=st.tuples(st.integers(1, LONGEST_SHIFTED), mixes()),
    model_type=st.sampled_from(MODEL_TYPES),
)
def test_another_row_changes_no_row(
    residents: Callable[[str], Resident],
    rows: list[tuple[int, Mix]],
    added: tuple[int, Mix],
    model_type: str,
) -> None:
    resident = residents(model_type)
    batch = random_rows(
        resident.encoder, [size for size, _ in rows], mixes=[mix for _, mix in rows]
    )
    (extra,) = random_rows(resident.encoder, [added[0]], mixes=[added[1]], seed=99)
    before = resident.rows(batch)
    assert_same(resident.rows([extra, *batch])[1:], before)


def test_a_cleared_slot_is_the_bare_base(make_resident: MakeResident) -> None:
    resident = make_resident("xlm-roberta")
    bank = resident.engine.bank
    for slot in range(len(KINDS)):
        (row,) = random_rows(resident.encoder, [9], mixes=[((slot, 1.0),)])
        (adapted,) = resident.rows([row])
        bare = resident.alone(replace(row, mix=()))
        assert (adapted - bare).abs().max() > 1e-2
        bank.clear(slot)
        assert_same(resident.rows([row]), [bare])
    assert bank.used_bytes() == 0


def test_a_slot_holds_nothing_of_what_was_there_before(
    make_resident: MakeResident, make_delta: MakeDelta
) -> None:
    """Each kind put over each other one."""
    resident = make_resident("bert")
    for before in range(0, len(KINDS), 2):
        for after in range(0, len(KINDS), 2):
            bank = resident.engine.bank
            bank.put(1, SlotImage.of(resident.deltas[before]))
            bank.put(1, SlotImage.of(resident.deltas[after]))
            (over,) = random_rows(resident.encoder, [6], mixes=[((1, 1.0),)])
            assert_same(resident.rows([over]), [resident.alone(replace(over, mix=((after, 1.0),)))])


def test_an_adapter_that_does_not_fit(make_resident: MakeResident) -> None:
    resident = make_resident("xlm-roberta")
    bank = resident.engine.bank
    name = "encoder.layer.0.attention.self.value"
    rank = bank.slot_bytes // 4 // 16
    large = Delta(low_rank={name: LowRank(down=torch.ones(rank, 16), up=torch.ones(16, rank))})
    (row,) = random_rows(resident.encoder, [6], mixes=[((0, 1.0),)])
    before = resident.rows([row])
    with pytest.raises(SlotTooSmallError, match="slot_bytes="):
        bank.put(0, SlotImage.of(large))
    assert_same(resident.rows([row]), before)


def test_the_module_tree_never_changes_while_serving(make_resident: MakeResident) -> None:
    resident = make_resident("bert")
    names = [name for name, _ in resident.encoder.model.named_modules()]
    arena = resident.engine.bank.arena.data_ptr()
    resident.engine.bank.put(3, SlotImage.of(resident.deltas[0]))
    resident.rows(random_rows(resident.encoder, [3, 4], mixes=[((3, 1.0),)]))
    resident.engine.bank.clear(3)
    assert [name for name, _ in resident.encoder.model.named_modules()] == names
    assert resident.engine.bank.arena.data_ptr() == arena


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
    one, two, three = (((slot, 1.0),) for slot in (LORA[0], PREFIX[0], HOULSBY[0]))
    batches = [
        random_rows(resident.encoder, [3, 36, 7, 7], mixes=[one, two], seed=1),
        random_rows(resident.encoder, [12, 1], mixes=[two, ()], seed=2),
        random_rows(resident.encoder, [5, 5, 5, 9, 30], mixes=[(), three, one], seed=3),
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
def test_bf16_stays_near_fp32(make_resident: MakeResident, model_type: str) -> None:
    half = make_resident(model_type, precision="bf16")
    each = [((slot, 1.0),) for slot in range(len(KINDS))]
    rows = random_rows(half.encoder, [4, 17, 36] * 5, mixes=[(), *each])
    assert half.encoder.dtype == torch.bfloat16
    for row, result in zip(rows, half.rows(rows), strict=True):
        assert result.dtype == torch.bfloat16
        wanted = half.alone(row)
        assert torch.cosine_similarity(result.float(), wanted, dim=-1).min() > 0.98


def test_parameter_bytes_count_the_base_once(residents: Callable[[str], Resident]) -> None:
    resident = residents("bert")
    # Two buffers of positions and types beside the weights.
    tensors = sum(tensor.numel() * 4 for tensor in resident.reference.weights.values())
    assert tensors <= resident.engine.parameter_bytes() <= tensors + 2 * 8 * LONGEST
