from __future__ import annotations

from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
import transformers
from torch.nn import functional

from isogloss.adapters.packed_training import (
    PackedEncoder,
    classification_logits,
    lowest_trained,
)
from isogloss.adapters.state_cache import StateCache
from isogloss.core.base import locate_base
from isogloss.core.encoder import quiet_transformers
from isogloss.core.frozen import multiplies_bf16, prepare_frozen
from isogloss.core.packing import Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from isogloss.core.base import EncoderShape

    from ..conftest import TinyBase

MODEL_TYPES = ("xlm-roberta", "bert")
LENGTHS = (7, 3, 12, 7, 1, 30, 12, 5)
LABELS = 3
KINDS: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["query", "value"]),
    "rslora": lambda: peft.LoraConfig(
        r=4, use_rslora=True, target_modules=["query", "key", "value", "dense"]
    ),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, target_modules=["query", "output.dense"]),
    "adalora": lambda: peft.AdaLoraConfig(
        init_r=4, target_r=2, total_step=10, target_modules=["key", "intermediate.dense"]
    ),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4),
    "projected prefix": lambda: peft.PrefixTuningConfig(
        num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=6
    ),
}


class Side:
    """A classifier with an adapter, all of it drawn by one seed: equal on both sides."""

    def __init__(
        self,
        folder: Path,
        config: Any,
        *,
        precision: Any = None,
        layers: Sequence[int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        base = locate_base(folder)
        self.shape = base.shape
        torch.manual_seed(5)
        with quiet_transformers():
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=LABELS,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
                classifier_dropout=0.0,
            )
        if precision is not None:
            prepare_frozen(model, base, precision=precision)
        config.task_type = "SEQ_CLS"
        if layers is not None:
            config.layers_to_transform = list(layers)
        self.model: Any = peft.get_peft_model(model, config).train()
        generator = torch.Generator().manual_seed(6)
        for parameter in self.trained.values():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        return {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def padded(self, rows: Sequence[Row], labels: torch.Tensor) -> torch.Tensor:
        """The loss as plain transformers and PEFT compute it."""
        longest = max(len(row.token_ids) for row in rows)

        def pad(parts: Sequence[tuple[int, ...]], filler: int) -> torch.Tensor:
            return torch.tensor([[*part, *[filler] * (longest - len(part))] for part in parts])

        logits = self.model(
            input_ids=pad([row.token_ids for row in rows], self.shape.pad_token_id),
            attention_mask=pad([(1,) * len(row.token_ids) for row in rows], 0),
            token_type_ids=pad([row.type_ids or (0,) * len(row.token_ids) for row in rows], 0),
        ).logits
        return functional.cross_entropy(logits, labels)

    def encoder(self, **options: Any) -> PackedEncoder:
        return PackedEncoder(self.model, self.shape, **options)

    def loss(
        self, encoder: PackedEncoder, rows: Sequence[Row], labels: torch.Tensor, *, first: bool
    ) -> torch.Tensor:
        """The loss by the packed forward."""
        hidden, batch = encoder(rows, first_tokens=first)
        if not first:
            hidden = hidden[[begin for begin, _ in batch.rows]]
        return functional.cross_entropy(classification_logits(self.model, hidden), labels)

    def gradients(self, loss: torch.Tensor) -> dict[str, torch.Tensor]:
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        found = {name: parameter.grad for name, parameter in self.trained.items()}
        return {name: gradient for name, gradient in found.items() if gradient is not None}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def random_rows(shape: EncoderShape, lengths: Sequence[int] = LENGTHS) -> list[Row]:
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length in lengths:
        ids = torch.randint(4, shape.vocab_size, (length,), generator=generator)
        types = None
        if shape.model_type == "bert":
            types = tuple(int(at >= length // 2) for at in range(length))
        rows.append(Row(token_ids=tuple(ids.tolist()), type_ids=types))
    return rows


LABELS_OF_ROWS = torch.arange(len(LENGTHS)) % LABELS


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert len(ours) > 2
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-5, atol=1e-5, msg=name)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_gradients_are_those_of_the_padded_batch(
    tiny_base: TinyBase, model_type: str, kind: str, first: bool
) -> None:
    folder = tiny_base(model_type)
    plain = Side(folder, KINDS[kind]())
    rows = random_rows(plain.shape)
    expected = plain.padded(rows, LABELS_OF_ROWS)
    theirs = plain.gradients(expected)

    ours = Side(folder, KINDS[kind](), precision="fp32")
    loss = ours.loss(ours.encoder(), rows, LABELS_OF_ROWS, first=first)

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert_same(ours.gradients(loss), theirs)


def test_layers_below_the_lowest_trained_have_no_graph_and_may_be_cached(
    tiny_base: TinyBase, tmp_path: Path
) -> None:
    folder = tiny_base("xlm-roberta")
    make = KINDS["lora"]
    plain = Side(folder, make(), layers=[1])
    rows = random_rows(plain.shape)
    expected = plain.gradients(plain.padded(rows, LABELS_OF_ROWS))

    ours = Side(folder, make(), precision="fp32", layers=[1])
    caches = (
        None,
        StateCache(budget=1 << 20),
        StateCache(budget=1 << 20, folder=tmp_path / "cache"),
        StateCache(budget=20 * ours.shape.hidden_size * 4),
    )
    for cache in caches:
        encoder = ours.encoder(cache=cache)
        assert encoder.first_layer == 1
        for _ in range(2):  # the second time out of the cache
            loss = ours.loss(encoder, rows, LABELS_OF_ROWS, first=True)
            assert_same(ours.gradients(loss), expected)
    assert [len(cache) for cache in caches if cache] == [len(rows), len(rows), 4]
    assert list((tmp_path / "cache").iterdir()) == []


def test_cached_states_are_the_same_while_dropout_is_on(tiny_base: TinyBase) -> None:
    ours = Side(tiny_base("bert"), KINDS["lora"](), precision="fp32", layers=[1], dropout=0.5)
    rows = random_rows(ours.shape)

    def losses(cache: StateCache | None) -> list[float]:
        torch.manual_seed(0)
        encoder = ours.encoder(cache=cache)
        with torch.no_grad():
            return [ours.loss(encoder, rows, LABELS_OF_ROWS, first=True).item() for _ in range(3)]

    found = losses(None)
    assert found == losses(StateCache(budget=1 << 20))
    assert len(set(found)) == 3, "dropout above the cached layers"


def test_a_head_alone_trains_on_cached_states(tiny_base: TinyBase) -> None:
    folder = tiny_base("xlm-roberta")
    shape = locate_base(folder).shape
    with quiet_transformers():
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    prepare_frozen(model, locate_base(folder))
    cache = StateCache(budget=1 << 20)
    encoder = PackedEncoder(model, shape, cache=cache)
    rows = random_rows(shape)
    hidden, batch = encoder(rows)
    again, _ = encoder(rows, first_tokens=True)

    assert encoder.first_layer == shape.layers == lowest_trained(encoder.encoder)
    assert not hidden.requires_grad
    assert torch.equal(hidden[[begin for begin, _ in batch.rows]], again)


def test_attention_dropout_is_applied(tiny_base: TinyBase) -> None:
    ours = Side(tiny_base("xlm-roberta"), KINDS["lora"](), precision="fp32")
    rows = random_rows(ours.shape)
    for layer in ours.encoder().layers:
        layer.attention.self.dropout.p = 0.5
    encoder = ours.encoder()
    losses = {ours.loss(encoder, rows, LABELS_OF_ROWS, first=True).item() for _ in range(4)}
    ours.model.eval()
    calm = {ours.loss(encoder, rows, LABELS_OF_ROWS, first=True).item() for _ in range(4)}
    assert len(losses) == 4
    assert len(calm) == 1


@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_gradient_checkpointing_changes_nothing(tiny_base: TinyBase, kind: str) -> None:
    ours = Side(tiny_base("xlm-roberta"), KINDS[kind](), precision="fp32")
    rows = random_rows(ours.shape)
    encoder = ours.encoder()
    expected = ours.gradients(ours.loss(encoder, rows, LABELS_OF_ROWS, first=False))
    ours.model.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
    found = ours.gradients(ours.loss(encoder, rows, LABELS_OF_ROWS, first=False))
    assert_same(found, expected)


@pytest.mark.parametrize("precision", ["int8", "bf16"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_rounded_products_give_gradients_of_nearly_the_same_direction(
    tiny_base: TinyBase, model_type: str, precision: str
) -> None:
    if precision == "bf16" and not multiplies_bf16():
        pytest.skip("no bf16 products here")
    folder = tiny_base(model_type)
    exact = Side(folder, KINDS["rslora"](), precision="fp32")
    rows = random_rows(exact.shape)
    expected = exact.gradients(exact.loss(exact.encoder(), rows, LABELS_OF_ROWS, first=True))
    ours = Side(folder, KINDS["rslora"](), precision=precision)
    found = ours.gradients(ours.loss(ours.encoder(), rows, LABELS_OF_ROWS, first=True))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        cosine = functional.cosine_similarity(gradient.flatten(), expected[name].flatten(), dim=0)
        assert cosine > 0.99, name


def test_int8_trains_to_nearly_the_same_losses(tiny_base: TinyBase) -> None:
    def losses(precision: str) -> torch.Tensor:
        side = Side(tiny_base("xlm-roberta"), KINDS["rslora"](), precision=precision)
        rows = random_rows(side.shape)
        encoder = side.encoder()
        optimizer = torch.optim.AdamW(side.trained.values(), lr=3e-3)
        found = []
        for _ in range(40):
            loss = side.loss(encoder, rows, LABELS_OF_ROWS, first=True)
            side.gradients(loss)
            optimizer.step()
            found.append(loss.item())
        return torch.tensor(found)

    exact, rounded = losses("fp32"), losses("int8")
    assert exact[-1] < 0.5 * exact[0]
    assert (exact - rounded).abs().max() < 0.03


def test_peft_saves_what_it_would_around_plain_linears(tiny_base: TinyBase, tmp_path: Path) -> None:
    folder = tiny_base("xlm-roberta")
    sides = {
        precision: Side(folder, KINDS["dora"](), precision=precision)
        for precision in (None, "fp32")
    }
    states = {
        precision: peft.get_peft_model_state_dict(side.model, save_embedding_layers=False)
        for precision, side in sides.items()
    }
    assert states[None].keys() == states["fp32"].keys()
    for name, tensor in states["fp32"].items():
        torch.testing.assert_close(tensor, states[None][name], rtol=1e-6, atol=1e-6)
