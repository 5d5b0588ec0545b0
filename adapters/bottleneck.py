"""Bottleneck adapters: two small layers after parts of each transformer layer.

`houlsby` (Houlsby et al., 2019, https://arxiv.org/abs/1902.00751) acts on what the dense layers at
the end of attention and of the feed-forward part give, before their residual and LayerNorm;
`pfeiffer` (Pfeiffer et al., 2021, https://arxiv.org/abs/2005.00247) after the feed-forward part
alone: it reads the LayerNorm's result, adds to what the LayerNorm was given, and normalises anew.
AdapterHub (https://docs.adapterhub.ml) calls them `double_seq_bn` and `seq_bn`; what they compute
here is what they compute there.

PEFT has no such adapters, so the folder has no `adapter_config.json`: `isogloss.json` gives the
form. The tensors, for each layer N, of width W and size S:

    encoder.layer.N.attention.output.bottleneck.down.weight [S, W]   down.bias [S]     (houlsby)
    encoder.layer.N.attention.output.bottleneck.up.weight [W, S]     up.bias [W]       (houlsby)
    encoder.layer.N.output.bottleneck.down.weight …                                    (both)

and those of a head as in transformers' models, such as `classifier.weight`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import AdapterConfigError
from .weights import as_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ..core.base import EncoderShape
    from ..core.delta import Bottleneck
    from .spec import BottleneckSpec

PARTS = ("down.weight", "down.bias", "up.weight", "up.bias")


@dataclass(frozen=True, kw_only=True)
class BottleneckLayout:
    """Where the bottlenecks of an adapter act, and how their tensors are called."""

    form: BottleneckSpec
    """Placement, size, activation and scaling."""
    places: dict[str, str]
    """The name of each bottleneck, and the module after which it acts."""

    @classmethod
    def of(cls, form: BottleneckSpec, shape: EncoderShape) -> BottleneckLayout:
        """The layout for a base."""
        return cls(form=form, places=dict(_places(form, shape)))

    def tensors(self, shape: EncoderShape) -> dict[str, tuple[int, ...]]:
        """The names and shapes of the tensors that must be there."""
        width, size = shape.hidden_size, self.form.size
        shapes = dict(zip(PARTS, ((size, width), (size,), (width, size), (width,)), strict=True))
        return {
            f"{name}.{part}": extents for name in self.places for part, extents in shapes.items()
        }

    def build(self, arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, Bottleneck]:
        """The bottlenecks by the module after which each acts, the scaling folded in.

        Raises:
            AdapterConfigError: the scaling carries values out of fp32's range.
        """
        from ..core.delta import Bottleneck

        scaled = self.scaled(arrays)
        return {
            module: Bottleneck(
                down=as_tensor(arrays[f"{name}.down.weight"]),
                down_bias=as_tensor(arrays[f"{name}.down.bias"]),
                up=as_tensor(scaled[f"{name}.up.weight"]),
                up_bias=as_tensor(scaled[f"{name}.up.bias"]),
                activation=self.form.activation,
            )
            for name, module in self.places.items()
        }

    def scaled(self, arrays: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        """The second layers' tensors with the scaling folded in.

        Raises:
            AdapterConfigError: the scaling carries values out of fp32's range.
        """
        import numpy as np

        result = {}
        with np.errstate(over="ignore", invalid="ignore"):
            for name in self.places:
                for part in ("up.weight", "up.bias"):
                    values = arrays[f"{name}.{part}"] * self.form.scaling
                    if not np.isfinite(values).all():
                        raise AdapterConfigError(
                            f"isogloss.json: bottleneck.scaling carries {name}.{part} out of "
                            "single precision's range; make it smaller"
                        )
                    result[f"{name}.{part}"] = values.astype(np.float32, copy=False)
        return result


def _places(form: BottleneckSpec, shape: EncoderShape) -> Iterator[tuple[str, str]]:
    for layer in range(shape.layers):
        at = f"encoder.layer.{layer}"
        if form.placement == "houlsby":
            yield f"{at}.attention.output.bottleneck", f"{at}.attention.output.dense"
            yield f"{at}.output.bottleneck", f"{at}.output.dense"
        else:
            yield f"{at}.output.bottleneck", f"{at}.output.LayerNorm"
