"""The encoder in its final precision, made tensor by tensor.

transformers' own model is built without memory, then every part is put in place as it is read: no
more than one matrix is in memory in two forms at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .attention import NAME as PACKED_ATTENTION
from .linears import InPlaceGelu, PlainLinear, fp32_linear
from .llm_int8 import BitsandbytesLinear
from .precision import activation_dtype
from .quantized import Int8Linear, QuantizedEmbedding, QuantizedGelu
from .quantizers import quantized_linears
from .weights import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .base import BaseFiles, EncoderShape

EMBEDDING = "embeddings.word_embeddings"
POOLER = "pooler.dense"  # heads apply it to single rows, in full precision


def empty_model(base: BaseFiles) -> nn.Module:
    """The encoder of transformers for a base, its parameters without memory."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(base.folder, local_files_only=True)
    # XLM-R's pooler is used by nothing; BERT's is part of its classification head.
    kwargs: dict[str, Any] = {} if base.shape.model_type == "bert" else {"add_pooling_layer": False}
    with torch.device("meta"):
        model: nn.Module = AutoModel.from_config(  # type: ignore[no-untyped-call]
            config, attn_implementation=PACKED_ATTENTION, **kwargs
        )
    embeddings = model.get_submodule("embeddings")
    positions = torch.arange(base.shape.max_position_embeddings).unsqueeze(0)
    embeddings.register_buffer("position_ids", positions, persistent=False)
    embeddings.register_buffer("token_type_ids", torch.zeros_like(positions), persistent=False)
    assert {name for name, _ in model.named_buffers()} == {
        "embeddings.position_ids",
        "embeddings.token_type_ids",
    }
    return model


def assemble(
    base: BaseFiles, *, precision: str, device: torch.device
) -> tuple[nn.Module, Sequence[str]]:
    """The encoder of a base, and the names of the tensors that its checkpoint lacks.

    Args:
        base: where it is.
        precision: `fp32`, `bf16`, `int8` or `bitsandbytes`.
        device: where it will compute.

    Returns:
        The model, frozen; without weights where the checkpoint lacks any.

    Raises:
        ValueError: a tensor of another shape than the config says, or a damaged file.
    """
    model = empty_model(base)
    checkpoint = Checkpoint(base)
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    missing = [name for name in expected if name not in checkpoint]
    if missing:
        return model, missing
    for name, shape in expected.items():
        if checkpoint.shape(name) != shape:
            raise ValueError(f"{name} has shape {checkpoint.shape(name)}, the config says {shape}")
    linears = [name for name in base.shape.linears() if name != POOLER]
    dtype = activation_dtype(precision)
    for number in range(base.shape.layers):
        _put_gelu(model, number, InPlaceGelu())
    for name in expected:
        owner, _, attribute = name.rpartition(".")
        if owner not in linears and not (owner == EMBEDDING and precision == "int8"):
            values = checkpoint.read(name, dtype).to(device)
            setattr(
                model.get_submodule(owner), attribute, nn.Parameter(values, requires_grad=False)
            )
    if precision in {"fp32", "bf16"}:
        for name in linears:
            weight, bias = _read_linear(checkpoint, name)
            layer = fp32_linear if precision == "fp32" else PlainLinear
            _replace(model, name, layer(weight.to(device, dtype), bias.to(device, dtype)))
    else:
        _put_int8_layers(model, base.shape, checkpoint, precision=precision, device=device)
    if precision == "int8":
        embedding = QuantizedEmbedding(*expected[f"{EMBEDDING}.weight"], device=device)
        embedding.fill(checkpoint.blocks(f"{EMBEDDING}.weight"))
        _replace(model, EMBEDDING, embedding)
    return model.to(device).eval(), []


def _put_int8_layers(
    model: nn.Module,
    shape: EncoderShape,
    checkpoint: Checkpoint,
    *,
    precision: str,
    device: torch.device,
) -> None:
    """Linears of int8 weights, with the outliers that the base's own weights tell."""
    compiled = precision == "int8" and device.type == "cpu"

    def read(name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return _read_linear(checkpoint, name)

    for name, weight, bias, quantizer in quantized_linears(shape, read):
        layer = (
            Int8Linear(weight, bias, quantizer)
            if compiled
            else BitsandbytesLinear(weight, bias, quantizer, device=device)
        )
        _replace(model, name, layer)
        if compiled and name.endswith(".output.dense") and ".attention." not in name:
            _put_gelu(model, int(name.split(".")[2]), QuantizedGelu(quantizer))


def _put_gelu(model: nn.Module, layer: int, gelu: nn.Module) -> None:
    """Replace a layer's activation, if that is GELU."""
    from transformers.activations import GELUActivation

    name = f"encoder.layer.{layer}.intermediate.intermediate_act_fn"
    if isinstance(model.get_submodule(name), GELUActivation | InPlaceGelu):
        _replace(model, name, gelu)


def _read_linear(checkpoint: Checkpoint, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    return checkpoint.read(f"{name}.weight"), checkpoint.read(f"{name}.bias")


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
