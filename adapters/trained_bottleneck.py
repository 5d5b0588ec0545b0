"""Bottlenecks with gradients, put behind the modules of a transformers model.

What they compute is what `core/bank.py` computes for a served one; see `bottleneck.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..core.delta import ACTIVATIONS
from .bottleneck import BottleneckLayout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.base import EncoderShape
    from .spec import BottleneckSpec

# So that a new bottleneck changes almost nothing.
DEVIATION = 1e-3


class TrainedBottleneck(nn.Module):
    """Two layers: `h → scaling · (up act(down h + down_bias) + up_bias)`.

    Args:
        width: of the hidden states.
        form: size, activation and scaling.
    """

    def __init__(self, width: int, form: BottleneckSpec) -> None:
        super().__init__()
        self.down = nn.Linear(width, form.size)
        self.up = nn.Linear(form.size, width)
        nn.init.normal_(self.up.weight, std=DEVIATION)
        nn.init.zeros_(self.up.bias)
        self.activation = ACTIVATIONS[form.activation]
        self.scaling = form.scaling

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[…, width]` → `[…, width]`."""
        result: torch.Tensor = self.up(self.activation(self.down(hidden)))
        return result if self.scaling == 1.0 else self.scaling * result


class AfterLinear(nn.Module):
    """A linear layer and a bottleneck that adds to what it gives (Houlsby's)."""

    def __init__(self, base: nn.Module, bottleneck: TrainedBottleneck) -> None:
        super().__init__()
        self.base, self.bottleneck = base, bottleneck

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[…, in]` → `[…, width]`."""
        hidden: torch.Tensor = self.base(features)
        result: torch.Tensor = hidden + self.bottleneck(hidden)
        return result


class AroundNorm(nn.Module):
    """A LayerNorm, and a bottleneck that adds to what it normalises (Pfeiffer's)."""

    def __init__(self, base: nn.Module, bottleneck: TrainedBottleneck) -> None:
        super().__init__()
        self.base, self.bottleneck = base, bottleneck

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """`[…, width]` → `[…, width]`."""
        result: torch.Tensor = self.base(hidden + self.bottleneck(self.base(hidden)))
        return result


def attach_bottlenecks(encoder: Any, form: BottleneckSpec, shape: EncoderShape) -> BottleneckLayout:
    """Put a bottleneck behind each module that has one; only they are trained in the encoder.

    Args:
        encoder: transformers' encoder.
        form: the bottlenecks'.
        shape: the encoder's.
    """
    layout = BottleneckLayout.of(form, shape)
    for name in layout.places.values():
        base = encoder.get_submodule(name)
        around = AroundNorm if name.endswith("LayerNorm") else AfterLinear
        bottleneck = TrainedBottleneck(shape.hidden_size, form)
        parent, _, child = name.rpartition(".")
        module = around(base, bottleneck.to(next(encoder.parameters()).device))
        setattr(encoder.get_submodule(parent), child, module)
    return layout


def bottleneck_tensors(host: Any, layout: BottleneckLayout) -> dict[str, NDArray[np.float32]]:
    """The tensors by the names that a folder has for them."""
    return {
        f"{name}.{part}": parameter.detach().cpu().numpy()
        for name, module in layout.places.items()
        for part, parameter in host.base_model.get_submodule(
            f"{module}.bottleneck"
        ).named_parameters()
    }
