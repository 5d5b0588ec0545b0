"""Heads on their own; every head against PEFT is in test_loading.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from isogloss.adapters.heads import (
    ClassificationHead,
    Dense,
    EmbeddingHead,
    Head,
    MixedHead,
    TokenHead,
    apply_heads,
    head_name,
    head_outputs,
    head_tensors,
    mix_heads,
)
from isogloss.core.base import EncoderShape
from isogloss.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isogloss.adapters.spec import TaskType

WIDTH = 8
SPANS = ((3, 7), (0, 3), (7, 8), (8, 14))


@dataclass(frozen=True)
class Batch:
    """As much of a packed batch as heads look at."""

    rows: tuple[tuple[int, int], ...] = SPANS


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(outputs: int, seed: int) -> Dense:
    return Dense(weight=random(outputs, WIDTH, seed=seed), bias=random(outputs, seed=seed + 1))


def classifier(labels: int, seed: int = 1) -> ClassificationHead:
    return ClassificationHead(
        hidden=dense(WIDTH, seed),
        hidden_update=None,
        output=dense(labels, seed + 10),
        own_bytes=5,
    )


HIDDEN = random(14, WIDTH, seed=99)


def answers(heads: Sequence[Head | None], rows: Any = SPANS) -> list[torch.Tensor | None]:
    return apply_heads(Batch(rows), HIDDEN, heads)  # type: ignore[arg-type]


def one(head: Head, span: tuple[int, int]) -> torch.Tensor:
    (answer,) = answers([head], (span,))
    assert answer is not None
    return answer


def test_rows_of_any_heads_come_back_in_the_order_of_the_request() -> None:
    heads = [classifier(3), None, TokenHead(output=dense(5, 3)), EmbeddingHead(pooling="cls")]
    found = answers(heads)
    assert found[1] is None
    assert [None if answer is None else tuple(answer.shape) for answer in found] == [
        (3,),
        None,
        (1, 5),
        (WIDTH,),
    ]
    for head, span, answer in zip(heads, SPANS, found, strict=True):
        if head is not None and answer is not None:
            torch.testing.assert_close(answer, one(head, span))


def test_permuting_rows_permutes_answers_and_nothing_else() -> None:
    shared = classifier(4)
    heads: list[Head] = [shared, TokenHead(output=dense(2, 5)), EmbeddingHead(), shared]
    found = answers(heads)
    order = [2, 0, 3, 1]
    again = answers([heads[place] for place in order], tuple(SPANS[place] for place in order))
    for place, answer in zip(order, again, strict=True):
        torch.testing.assert_close(answer, found[place])


def test_embeddings_have_length_one() -> None:
    for pooling, pooled in {"mean": HIDDEN[3:7].mean(0), "cls": HIDDEN[3]}.items():
        answer = one(EmbeddingHead(pooling=pooling), (3, 7))  # type: ignore[arg-type]
        torch.testing.assert_close(answer, pooled / pooled.norm())
        assert answer.norm().item() == pytest.approx(1)


def test_hidden_states_of_half_precision_are_answered_in_fp32() -> None:
    for head in (classifier(3), TokenHead(output=dense(2, 5)), EmbeddingHead()):
        (answer,) = apply_heads(Batch(SPANS[:1]), HIDDEN.bfloat16(), [head])  # type: ignore[arg-type]
        assert answer is not None
        assert answer.dtype == torch.float32
        expected = one(head, SPANS[0])
        assert (answer - expected).abs().max() < 0.1


# -- mixtures


def test_a_mixture_is_the_weighted_sum() -> None:
    first, second = classifier(3, seed=1), classifier(3, seed=7)
    mixed = mix_heads([(first, 3.0), (second, 1.0)])
    assert isinstance(mixed, MixedHead)
    wanted = 0.75 * one(first, SPANS[0]) + 0.25 * one(second, SPANS[0])
    torch.testing.assert_close(one(mixed, SPANS[0]), wanted)
    # The heads themselves are left as they were.
    torch.testing.assert_close(one(mixed, SPANS[0]), wanted)
    assert mixed.own_bytes == 0
    torch.testing.assert_close(one(mixed.to(torch.device("cpu")), SPANS[0]), wanted)


def test_equal_heads_of_a_mixture_count_as_one() -> None:
    head = classifier(3)
    assert mix_heads([(head, 0.2)]) is head
    assert mix_heads([(head, 0.2), (head, 0.5)]) is head
    assert mix_heads([(EmbeddingHead(), 0.2), (EmbeddingHead(), 0.8)]) == EmbeddingHead()


def test_mixtures_that_make_no_sense() -> None:
    unequal = mix_heads([(classifier(3), 1.0), (classifier(4, seed=5), 1.0)])
    with pytest.raises(InputError, match=r"shapes \[3\] and \[4\]"):
        one(unequal, SPANS[0])
    with pytest.raises(InputError, match="mean and cls"):
        mix_heads([(EmbeddingHead(), 1.0), (EmbeddingHead(pooling="cls"), 1.0)])
    with pytest.raises(InputError, match="sum up to 0"):
        mix_heads([(classifier(3), 1.0), (classifier(3, seed=5), -1.0)])


# -- names


TASKS: tuple[TaskType, ...] = (
    "sequence-classification",
    "reranking",
    "token-classification",
    "question-answering",
)


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
def test_names_and_shapes_are_those_of_transformers_models(model_type: str) -> None:
    import transformers

    shape = EncoderShape(
        model_type=model_type,
        vocab_size=20,
        hidden_size=WIDTH,
        layers=1,
        intermediate_size=16,
        max_position_embeddings=20,
        pad_token_id=1,
    )
    family = "XLMRoberta" if model_type == "xlm-roberta" else "Bert"
    config = getattr(transformers, f"{family}Config")(
        vocab_size=20,
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    kinds = ("Sequence", "Sequence", "Token", "QuestionAnswering")
    for task_type, kind in zip(TASKS, kinds, strict=True):
        name = kind if kind.startswith("Q") else f"{kind}Classification"
        config.num_labels = outputs = 2 if kind.startswith("Q") else 5
        with torch.device("meta"):
            model = getattr(transformers, f"{family}For{name}")(config)
        own = {
            name: tuple(value.shape)
            for name, value in model.state_dict().items()
            if not name.startswith((f"{shape.prefix}.",))
        }
        assert head_tensors(shape, outputs, task_type, key_prefix="") == own
        assert head_outputs(own, key_prefix="") == outputs
        assert head_outputs(own, key_prefix="base_model.") is None
        assert head_name(shape, task_type) is not None
    headless: tuple[TaskType, ...] = ("embedding", "masked-lm")
    for task_type in headless:
        assert head_name(shape, task_type) is None
        assert head_tensors(shape, 3, task_type) == {}
