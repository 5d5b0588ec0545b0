"""Linear layers of a frozen base that gradients pass through, while an adapter is trained on it.

A frozen layer never needs the gradient of its own weight: `y = x Wᵀ + b` has `dx = dy W` for its
whole backward. So it keeps no activations, and its weight lies ready for both products, each in the
form in which this processor multiplies it fastest.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .allocation import keep_freed_memory
from .assembly import POOLER
from .errors import PrecisionError
from .linears import TYPICAL_TOKENS, fp32_linear
from .quantized import Int8Linear
from .quantizers import quantized_linears
from .weights import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from transformers import PreTrainedModel

    from .base import BaseFiles, EncoderShape
    from .linears import BaseLinear

    MakeLinear = Callable[[torch.Tensor, torch.Tensor | None], BaseLinear]

FrozenPrecision = Literal["fp32", "bf16", "int8"]
# LLM.int8's: activations beyond it are multiplied in half precision.
OUTLIER_THRESHOLD = 6.0


class FrozenLinear(nn.Linear):
    """A linear layer without a trainable weight; PEFT wraps it as it wraps any `nn.Linear`.

    Args:
        product: computes the layer.
        transposed: computes `dy W` from `dy`; it has no bias.
    """

    def __init__(self, product: BaseLinear, transposed: BaseLinear) -> None:
        # nn.Linear's own would make a weight.
        nn.Module.__init__(self)
        self.in_features, self.out_features = product.in_features, product.out_features
        assert product.bias is not None, "the linears of XLM-R and BERT have biases"
        # PEFT asks a layer's first parameter where to put its own.
        self.bias = nn.Parameter(product.bias, requires_grad=False)
        # No submodules: tensors in a layout of oneDNN's can't be saved, nor sent to processes.
        self._products = (product, transposed)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """A copy, fp32 `[out, in]`; DoRA reads it."""
        return self._products[0].dense_weight()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """fp32 `[…, in]` → `[…, out]`."""
        result: torch.Tensor = _Multiply.apply(  # type: ignore[no-untyped-call]
            features, *self._products
        )
        return result


class _Multiply(torch.autograd.Function):
    """A product whose backward is another product."""

    @staticmethod
    def forward(
        ctx: Any, features: torch.Tensor, product: BaseLinear, transposed: BaseLinear
    ) -> torch.Tensor:
        ctx.transposed = transposed
        # AdaLoRA adds to the result in place, which autograd forbids for what is a view in here.
        return product(features).data

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.transposed(gradient.contiguous()), None, None


class HalfLinear(nn.Module):
    """bf16 products of fp32 activations on a CPU that multiplies bf16 natively.

    Args:
        weight: fp32 `[out, in]`.
        bias: fp32 `[out]` or None.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(
            weight.bfloat16(), TYPICAL_TOKENS
        )
        self.bias = bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """fp32 `[…, in]` → fp32 `[…, out]`."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            features.bfloat16(), self.packed, None, "none", [], ""
        )
        return product.float() if self.bias is None else product + self.bias

    def dense_weight(self) -> torch.Tensor:
        """fp32 `[out, in]`."""
        return self.packed.to_dense().float()


@functools.cache
def multiplies_bf16() -> bool:
    """Whether this processor has bf16 products, and this build of torch gives them."""
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    weight = torch.arange(32 * 48, dtype=torch.float32).remainder(7).view(32, 48)
    features = torch.arange(6 * 48, dtype=torch.float32).remainder(5).view(6, 48)
    try:
        result = HalfLinear(weight, None)(features)
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return False
    return torch.allclose(result, features @ weight.T, rtol=2**-7)


def prepare_frozen(
    model: PreTrainedModel, base: BaseFiles, *, precision: FrozenPrecision = "fp32"
) -> None:
    """Freeze a model's encoder and give it the fastest linears for training around it.

    On a CPU its linears are replaced; on other devices int8 goes through bitsandbytes, and the rest
    is left to autocast. The head is left as it is, and so are BERT's pooler, which is part of a
    head, and the embedding, of which a training run reads few rows. Call it before PEFT wraps the
    model.

    Args:
        model: transformers' XLM-R or BERT, bare or with a head, in fp32, on its device.
        base: where its weights come from. They are read from there rather than from the model,
            which maps its file: pages that nobody touches take no memory.
        precision: of the frozen products: `fp32`; `bf16`; `int8`, which rounds activations and
            weights on the way forward only: gradients go back through bf16 or fp32 products.

    Raises:
        PrecisionError: bf16 on a processor without, or int8 elsewhere without bitsandbytes.
    """
    encoder: nn.Module = model.base_model
    encoder.requires_grad_(False)
    if next(encoder.parameters()).device.type != "cpu":
        if precision == "int8":
            use_bitsandbytes(model, base.shape)
        return
    if precision == "bf16" and not multiplies_bf16():
        raise PrecisionError(
            "precision bf16: this processor has no bf16 products; use fp32 or int8"
        )
    keep_freed_memory()
    for name, layer in _layers(base, precision):
        _replace(encoder, name, layer)


def use_bitsandbytes(model: PreTrainedModel, shape: EncoderShape) -> None:
    """Put bitsandbytes' 8-bit layers (LLM.int8, arXiv 2208.07339) in place of the linears.

    PEFT knows them and brings its own LoRA for them. The word embedding stays as it is.

    Raises:
        PrecisionError: bitsandbytes isn't installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PrecisionError(
            "precision int8 needs bitsandbytes here, which isn't installed; "
            "run pip install 'isogloss[int8]'"
        )
    from bitsandbytes.nn.modules import Int8Params, Linear8bitLt

    encoder: nn.Module = model.base_model
    for name in _linear_names(shape):
        weight, bias = (encoder.get_parameter(f"{name}.{part}").data for part in ("weight", "bias"))
        layer = Linear8bitLt(
            weight.shape[1], weight.shape[0], has_fp16_weights=False, threshold=OUTLIER_THRESHOLD
        )
        layer.weight = Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
        layer.bias = nn.Parameter(bias, requires_grad=False)
        _replace(encoder, name, layer.to(weight.device))  # type: ignore[no-untyped-call]
    # By this PEFT tells that such layers are there.
    model.is_loaded_in_8bit = True  # type: ignore[assignment]


def _layers(base: BaseFiles, precision: FrozenPrecision) -> Iterator[tuple[str, FrozenLinear]]:
    """New layers, one at a time, so that a weight in two forms is soon let go."""
    checkpoint = Checkpoint(base)

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return checkpoint.read(f"{name}.weight"), checkpoint.read(f"{name}.bias")

    if precision == "int8":
        back: MakeLinear = HalfLinear if multiplies_bf16() else fp32_linear
        for name, weight, bias, quantizer in quantized_linears(base.shape, read):
            product: Any = Int8Linear(weight, bias, quantizer)
            yield name, FrozenLinear(product, back(weight.T.contiguous(), None))
        return
    make: MakeLinear = HalfLinear if precision == "bf16" else fp32_linear
    for name in _linear_names(base.shape):
        weight, bias = read(name)
        yield name, FrozenLinear(make(weight, bias), make(weight.T.contiguous(), None))


def _linear_names(shape: EncoderShape) -> list[str]:
    return [name for name in shape.linears() if name != POOLER]


def _replace(encoder: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(encoder.get_submodule(parent), child, module)
