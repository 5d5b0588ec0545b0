"""The base's own masked-LM head, whose last layer is its embedding.

Language adapters answer through it, and the bare base does. Only checkpoints that were saved with
a head have one (`XLMRobertaForMaskedLM`, `BertForMaskedLM`, `BertForPreTraining`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.base import WEIGHTS_FILE
from ..core.encoder import loading_errors
from ..core.errors import UnsupportedBaseError
from .head_kinds import Dense

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch
    from torch import nn

    from ..core.base import BaseFiles
    from ..core.encoder import Encoder

# transformers' names of the head's tensors, by the encoder's type
NAMES = {
    "xlm-roberta": {
        "dense.weight": "lm_head.dense.weight",
        "dense.bias": "lm_head.dense.bias",
        "norm.weight": "lm_head.layer_norm.weight",
        "norm.bias": "lm_head.layer_norm.bias",
        "bias": "lm_head.bias",
    },
    "bert": {
        "dense.weight": "cls.predictions.transform.dense.weight",
        "dense.bias": "cls.predictions.transform.dense.bias",
        "norm.weight": "cls.predictions.transform.LayerNorm.weight",
        "norm.bias": "cls.predictions.transform.LayerNorm.bias",
        "bias": "cls.predictions.bias",
    },
}
# How many pieces are scored at a time: their rows of the embedding are made fp32 for it.
PIECES = 16_384


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedLMHead:
    """Each token → `[vocabulary]` logits of the piece that stands there.

    Rows may be ranges of any tokens: `(begin + 3, begin + 4)` asks for the token at place 3 alone.
    """

    dense: Dense
    """`[width, width]`."""
    activation: Callable[[torch.Tensor], torch.Tensor]
    """After it."""
    norm: nn.LayerNorm
    """After that."""
    # [vocabulary]
    bias: torch.Tensor
    embedding: nn.Module
    """The base's: ids `[pieces]` → `[pieces, width]`."""

    def __call__(
        self, hidden: torch.Tensor, rows: Sequence[tuple[int, int]]
    ) -> Sequence[torch.Tensor]:
        """`[tokens of the row, vocabulary]` for each row."""
        import torch

        tokens = torch.cat([hidden[begin:end] for begin, end in rows]).float()
        features = self.norm(self.activation(self.dense(tokens)))
        logits = torch.empty(len(tokens), len(self.bias), device=tokens.device)
        for first in range(0, len(self.bias), PIECES):
            last = min(first + PIECES, len(self.bias))
            pieces = self.embedding(torch.arange(first, last, device=tokens.device))
            torch.addmm(
                self.bias[first:last], features, pieces.float().T, out=logits[:, first:last]
            )
        return torch.split(logits, [end - begin for begin, end in rows])

    @property
    def own_bytes(self) -> int:
        """Bytes of its tensors, the embedding apart."""
        norm = sum(parameter.nbytes for parameter in self.norm.parameters())
        return self.dense.nbytes + norm + self.bias.nbytes

    def to(self, device: torch.device) -> MaskedLMHead:
        """The same head elsewhere; the embedding stays where the base is."""
        return replace(
            self,
            dense=self.dense.to(device),
            norm=self.norm.to(device),
            bias=self.bias.to(device),
        )


def base_lm_head(encoder: Encoder, base: BaseFiles) -> MaskedLMHead:
    """Read the masked-LM head that a base was saved with.

    Args:
        encoder: the base in memory.
        base: the same on disk.

    Raises:
        UnsupportedBaseError: it was saved without one, or its last layer isn't the embedding.
    """
    from torch import nn
    from transformers.activations import ACT2FN

    config: Any = encoder.model.config
    if not getattr(config, "tie_word_embeddings", True):
        raise UnsupportedBaseError(
            f"{base.folder} has a masked-LM head of its own output layer "
            "(tie_word_embeddings is false), which isn't served; use a base that ties it"
        )
    tensors = _read_tensors(base)
    width = encoder.shape.hidden_size
    norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
    norm.load_state_dict({"weight": tensors["norm.weight"], "bias": tensors["norm.bias"]})
    # XLM-R's head has GELU whatever the encoder's activation is.
    is_bert = encoder.shape.model_type == "bert"
    activation = ACT2FN[config.hidden_act if is_bert else "gelu"]
    return MaskedLMHead(
        dense=Dense(weight=tensors["dense.weight"], bias=tensors["dense.bias"]),
        activation=activation,
        norm=norm.requires_grad_(requires_grad=False),
        bias=tensors["bias"],
        embedding=encoder.model.get_submodule("embeddings.word_embeddings"),
    ).to(encoder.device)


def _read_tensors(base: BaseFiles) -> Mapping[str, torch.Tensor]:
    from safetensors import safe_open

    whole = base.folder / WEIGHTS_FILE
    paths = [whole] if whole.is_file() else sorted(base.folder.glob("model-*.safetensors"))
    wanted = {name: part for part, name in NAMES[base.shape.model_type].items()}
    found: dict[str, torch.Tensor] = {}
    with loading_errors(base):
        for path in paths:
            with safe_open(path, framework="pt") as file:
                for stored in file.keys():  # noqa: SIM118 - it is no mapping
                    # Checkpoints converted from TensorFlow call LayerNorm's parameters so.
                    name = stored.replace(".gamma", ".weight").replace(".beta", ".bias")
                    if name in wanted:
                        found[wanted[name]] = file.get_tensor(stored).float()
    missing = sorted(name for name, part in wanted.items() if part not in found)
    if missing:
        raise UnsupportedBaseError(
            f"{base.folder} was saved without a masked-LM head (it lacks {missing[0]}); save it "
            "with AutoModelForMaskedLM"
        )
    width, pieces = base.shape.hidden_size, base.shape.vocab_size
    shapes = {"dense.weight": (width, width), "bias": (pieces,)}
    for part, tensor in found.items():
        if tuple(tensor.shape) != shapes.get(part, (width,)):
            raise UnsupportedBaseError(
                f"{base.folder}: {part} of the masked-LM head is {list(tensor.shape)}, which "
                "doesn't fit the encoder; save it again"
            )
    return found
