from __future__ import annotations

from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
import transformers
from torch.nn import functional

from isogloss.core import frozen
from isogloss.core.base import locate_base
from isogloss.core.encoder import quiet_transformers
from isogloss.core.errors import PrecisionError
from isogloss.core.frozen import (
    FrozenLinear,
    HalfLinear,
    multiplies_bf16,
    prepare_frozen,
    use_bitsandbytes,
)
from isogloss.core.linears import PlainLinear, fp32_linear

if TYPE_CHECKING:
    from pathlib import Path

    from ..conftest import TinyBase

OUT, IN = 24, 40
needs_bf16 = pytest.mark.skipif(not multiplies_bf16(), reason="no bf16 products here")


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(OUT, IN, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def bias() -> torch.Tensor:
    return torch.randn(OUT, generator=torch.Generator().manual_seed(1))


def classifier(folder: Path) -> Any:
    with quiet_transformers():
        return transformers.AutoModelForSequenceClassification.from_pretrained(folder)


def frozen_names(model: Any) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, FrozenLinear)}


@pytest.mark.parametrize("make", [fp32_linear, PlainLinear])
def test_both_products_are_those_of_torch(
    weight: torch.Tensor, bias: torch.Tensor, make: Any
) -> None:
    layer = FrozenLinear(make(weight, bias), make(weight.T.contiguous(), None))
    features = torch.randn(2, 5, IN, requires_grad=True)
    gradient = torch.randn(2, 5, OUT)
    expected = functional.linear(features, weight, bias)
    (expected_gradient,) = torch.autograd.grad(expected, features, gradient)

    result = layer(features)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    (found,) = torch.autograd.grad(result, features, gradient)
    torch.testing.assert_close(found, expected_gradient, rtol=1e-5, atol=1e-5)
    assert torch.equal(layer.weight, weight)


def test_nothing_is_kept_for_the_backward(weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer = FrozenLinear(fp32_linear(weight, bias), fp32_linear(weight.T.contiguous(), None))
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(3, IN, requires_grad=True))
    assert kept == []


def test_a_gradient_that_is_one_value_everywhere_is_laid_out_first(
    weight: torch.Tensor, bias: torch.Tensor
) -> None:
    layer = FrozenLinear(fp32_linear(weight, bias), fp32_linear(weight.T.contiguous(), None))
    features = torch.randn(3, IN, requires_grad=True)
    layer(features).sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, weight.sum(0).expand(3, -1))


def test_its_weight_cannot_be_set(weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer = FrozenLinear(fp32_linear(weight, bias), fp32_linear(weight.T.contiguous(), None))
    with pytest.raises(AttributeError):
        layer.weight = torch.zeros(OUT, IN)  # type: ignore[misc]
    assert list(layer.state_dict()) == ["bias"]
    assert not any(parameter.requires_grad for parameter in layer.parameters())


@needs_bf16
def test_bf16_products_are_close(weight: torch.Tensor, bias: torch.Tensor) -> None:
    features = torch.randn(7, IN)
    result = HalfLinear(weight, bias)(features)
    expected = functional.linear(features, weight, bias)
    assert result.dtype == torch.float32
    assert functional.cosine_similarity(result.flatten(), expected.flatten(), dim=0) > 0.9999
    assert torch.equal(HalfLinear(weight, None).dense_weight(), weight.bfloat16().float())


def test_bf16_is_refused_where_it_would_be_slow(
    tiny_base: TinyBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "multiplies_bf16", lambda: False)
    base = locate_base(tiny_base("bert"))
    model = classifier(base.folder)
    with pytest.raises(PrecisionError, match="use fp32 or int8"):
        prepare_frozen(model, base, precision="bf16")
    assert frozen_names(model) == set()


@pytest.mark.parametrize("has_bf16", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
def test_only_the_encoders_linears_are_replaced(
    tiny_base: TinyBase,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    precision: Any,
    has_bf16: bool,
) -> None:
    monkeypatch.setattr(frozen, "multiplies_bf16", lambda: has_bf16 and multiplies_bf16())
    base = locate_base(tiny_base(model_type))
    model = classifier(base.folder)
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prepare_frozen(model, base, precision=precision)

    expected = {f"{base.shape.prefix}.{name}" for name in base.shape.linears()}
    assert frozen_names(model) == expected - {f"{base.shape.prefix}.pooler.dense"}
    for name in frozen_names(model):
        weight = model.get_submodule(name).weight
        closeness = 1e-7 if precision == "fp32" else 0.02
        torch.testing.assert_close(weight, original[f"{name}.weight"], rtol=0, atol=closeness)
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert trained
    assert all(name.startswith("classifier.") for name in trained)


def test_preparing_twice_changes_nothing(tiny_base: TinyBase) -> None:
    base = locate_base(tiny_base("bert"))
    model = classifier(base.folder)
    prepare_frozen(model, base)
    ids = torch.tensor([[2, 7, 9, 3]])
    expected = model(ids).logits
    prepare_frozen(model, base)
    assert torch.equal(model(ids).logits, expected)


def test_peft_trains_around_bitsandbytes_layers(tiny_base: TinyBase) -> None:
    base = locate_base(tiny_base("xlm-roberta"))
    exact, rounded = classifier(base.folder), classifier(base.folder)
    rounded.load_state_dict(exact.state_dict())
    use_bitsandbytes(rounded, base.shape)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "output.dense"])
    gradients = []
    for model in (exact, rounded):
        torch.manual_seed(0)
        adapted: Any = peft.get_peft_model(model, config).eval()
        loss = adapted(torch.tensor([[0, 7, 9, 2], [0, 5, 6, 2]]), labels=torch.tensor([0, 1])).loss
        loss.backward()
        gradients.append(
            {
                name: parameter.grad
                for name, parameter in adapted.named_parameters()
                if "lora_B" in name
            }
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        found = gradients[1][name]
        assert functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.98
