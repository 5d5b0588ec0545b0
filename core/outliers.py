"""Channels that are too large for int8, known from the base's weights alone.

In trained encoders a few channels are far larger than the rest, the same ones for any text; what
makes them so are the gains of the LayerNorms (arXiv 2105.06990, 2208.07339). What a LayerNorm gives
has the spread of its gain around its bias, whatever the text, and a linear layer after it carries
both on: so the magnitude of every channel that enters a linear layer can be foreseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# How many deviations above its mean a channel's largest value is taken to lie.
DEVIATIONS = 3.0
# A channel is an outlier beyond so many times the median channel's peak.
RATIO = 6.0
# At most so many channels, since each costs a product in single precision.
MOST = 8


def norm_peaks(gain: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Foreseen magnitudes `[width]` of what a LayerNorm gives."""
    return bias.abs() + DEVIATIONS * gain.abs()


def linear_peaks(
    weight: torch.Tensor, bias: torch.Tensor | None, gain: torch.Tensor, norm_bias: torch.Tensor
) -> torch.Tensor:
    """Foreseen magnitudes `[out]` of a linear layer `[out, in]` that reads a LayerNorm."""
    mean = weight @ norm_bias
    if bias is not None:
        mean = mean + bias
    return mean.abs() + DEVIATIONS * (weight.square() @ gain.square()).sqrt()


def gelu_peaks(
    weight: torch.Tensor, bias: torch.Tensor | None, gain: torch.Tensor, norm_bias: torch.Tensor
) -> torch.Tensor:
    """Foreseen magnitudes `[out]` of GELU after such a layer, which lets nothing below -0.17 by."""
    mean = weight @ norm_bias
    if bias is not None:
        mean = mean + bias
    highest = mean + DEVIATIONS * (weight.square() @ gain.square()).sqrt()
    return highest.clamp(min=0.17)


def find_outliers(peaks: torch.Tensor) -> torch.Tensor:
    """The channels int64 `[outliers]`, ascending, that stay out of the codes."""
    limit = RATIO * peaks.median()
    largest = peaks.topk(min(MOST, len(peaks)))
    return largest.indices[largest.values > limit].sort().values
