"""Prefix tuning (Li and Liang, 2021, https://arxiv.org/abs/2101.00190) as PEFT writes it.

The folder holds one tensor `prompt_embeddings` [length, layers · 2 · width], also when a projection
was trained: for each position of the prefix and each layer first a key, then a value.

PEFT runs transformers' models with the prefix as a past, so that a text's positions are counted
from the end of the prefix; a prefix of ours can leave them where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import AdapterConfigError
from .lora import check_kind
from .spec import MAX_PREFIX
from .weights import as_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from ..core.base import EncoderShape
    from ..core.delta import Prefix
    from .spec import PrefixPositions

TENSOR = "prompt_embeddings"
# A text has at least its special tokens and one piece.
LEAST_TOKENS = 3


@dataclass(frozen=True, kw_only=True)
class PrefixLayout:
    """What a prefix config says of the tensor beside it."""

    length: int
    """How many keys and values each layer gets."""
    positions: PrefixPositions
    """Whether a text's positions are counted from the prefix's end."""

    @classmethod
    def parse(
        cls, config: Mapping[str, Any], shape: EncoderShape, *, positions: PrefixPositions
    ) -> PrefixLayout:
        """Read PEFT's `adapter_config.json`.

        Args:
            config: its content.
            shape: the base's.
            positions: `shifted`, as PEFT has them, or `kept`.

        Raises:
            UnsupportedAdapterError: another kind of adapter.
            AdapterConfigError: a field that is missing, ill-typed, or doesn't fit the base.
        """
        check_kind(config, "PREFIX_TUNING")
        length = config.get("num_virtual_tokens")
        if isinstance(length, bool) or not isinstance(length, int):
            raise AdapterConfigError(
                f"adapter_config.json: num_virtual_tokens is {length!r}; expected an integer"
            )
        if not 1 <= length <= MAX_PREFIX:
            raise AdapterConfigError(
                f"adapter_config.json: num_virtual_tokens is {length}; it must lie in "
                f"1..{MAX_PREFIX}"
            )
        expected = {
            "num_transformer_submodules": 1,
            "num_layers": shape.layers,
            "token_dim": shape.hidden_size,
        }
        for field, value in expected.items():
            if config.get(field) not in (None, value):
                raise AdapterConfigError(
                    f"adapter_config.json: {field} is {str(config[field])[:80]}; the base needs "
                    f"{value}"
                )
        left = shape.max_tokens - length
        # A base that nobody can look at has no positions to compare with.
        if positions == "shifted" and shape.max_position_embeddings and left < LEAST_TOKENS:
            raise AdapterConfigError(
                f"adapter_config.json: num_virtual_tokens is {length}, which shifts positions and "
                f"leaves a text {max(left, 0)} of {shape.max_tokens}; train a shorter prefix"
            )
        return cls(length=length, positions=positions)

    def tensors(self, shape: EncoderShape) -> dict[str, tuple[int, ...]]:
        """The name and shape of the tensor that must be there."""
        return {TENSOR: (self.length, shape.layers * 2 * shape.hidden_size)}

    def build(self, arrays: Mapping[str, NDArray[np.float32]], shape: EncoderShape) -> Prefix:
        """Keys and values for every layer."""
        from ..core.delta import Prefix

        # [layers, key or value, length, width]
        parts = (
            as_tensor(arrays[TENSOR])
            .view(self.length, shape.layers, 2, shape.hidden_size)
            .permute(1, 2, 0, 3)
        )
        return Prefix(
            keys=parts[:, 0], values=parts[:, 1], shifts_positions=self.positions == "shifted"
        )
