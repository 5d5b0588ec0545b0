"""Which quantizer each linear layer of an encoder reads through.

Query, key and value read the same activations and share one. Its outlier channels are told by the
weights before it (see outliers.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .outliers import find_outliers, gelu_peaks, linear_peaks, norm_peaks
from .quantized import Quantizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from .base import EncoderShape


def quantized_linears(
    shape: EncoderShape, read: Callable[[str], tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, Quantizer]]:
    """The linears of all layers, in the order of a forward.

    Args:
        shape: the encoder's.
        read: by name, a linear's or LayerNorm's weight and bias, in fp32.

    Yields:
        Name, weight `[out, in]`, bias `[out]`, and the quantizer of the activations.
    """
    width, wide = shape.hidden_size, shape.intermediate_size
    norm = read("embeddings.LayerNorm")
    for number in range(shape.layers):
        at = f"encoder.layer.{number}"
        inputs = Quantizer(find_outliers(norm_peaks(*norm)), width, uses=3)
        for part in ("query", "key", "value"):
            found = read(f"{at}.attention.self.{part}")
            yield (f"{at}.attention.self.{part}", *found, inputs)
        # Attention averages values, so that its channels are as large as theirs.
        averages = Quantizer(find_outliers(linear_peaks(*found, *norm)), width)
        yield (name := f"{at}.attention.output.dense", *read(name), averages)
        norm = read(f"{at}.attention.output.LayerNorm")
        found = read(f"{at}.intermediate.dense")
        normed = Quantizer(find_outliers(norm_peaks(*norm)), width)
        yield (f"{at}.intermediate.dense", *found, normed)
        activated = Quantizer(find_outliers(gelu_peaks(*found, *norm)), wide)
        yield (name := f"{at}.output.dense", *read(name), activated)
        norm = read(f"{at}.output.LayerNorm")
