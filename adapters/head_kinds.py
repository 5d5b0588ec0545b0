"""The kinds of heads: packed hidden states and the ranges of rows → one answer a row, in fp32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from ..core.delta import LowRank
    from .spec import Pooling


class Head(Protocol):
    """Answers for rows of a packed batch."""

    def __call__(
        self, hidden: torch.Tensor, rows: Sequence[tuple[int, int]]
    ) -> Sequence[torch.Tensor]:
        """`[tokens, width]` and the token range of each row → one fp32 tensor for each row."""
        ...

    @property
    def own_bytes(self) -> int:
        """Bytes of the tensors that belong to the adapter alone."""
        ...

    def to(self, device: torch.device) -> Head:
        """The same head elsewhere."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """A linear layer's parameters."""

    # [out, in]
    weight: torch.Tensor
    # [out]
    bias: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """`[rows, in]` → `[rows, out]`."""
        import torch

        return torch.nn.functional.linear(features, self.weight, self.bias)

    @property
    def nbytes(self) -> int:
        """Bytes of both tensors."""
        return self.weight.nbytes + self.bias.nbytes

    def to(self, device: torch.device) -> Dense:
        """The same layer elsewhere."""
        return Dense(weight=self.weight.to(device), bias=self.bias.to(device))


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassificationHead:
    """A text's first token → `[labels]`: classification, and reranking with its one logit."""

    hidden: Dense
    """XLM-R: the head's own layer. BERT: the base's pooler."""
    hidden_update: LowRank | None
    """What the adapter adds to the base's pooler, if it targets it."""
    output: Dense
    """To the labels."""
    own_bytes: int
    """Bytes of the tensors that belong to the adapter."""

    def __call__(
        self, hidden: torch.Tensor, rows: Sequence[tuple[int, int]]
    ) -> Sequence[torch.Tensor]:
        """`[labels]` for each row."""
        import torch

        # [rows, width]
        first = hidden[[begin for begin, _ in rows]].float()
        if self.hidden_update is None:
            features = self.hidden(first)
        else:
            product = first @ self.hidden.weight.T
            if self.hidden_update.gain is not None:
                product = product * self.hidden_update.gain
            features = product + self.hidden.bias + self.hidden_update(first)
        return self.output(torch.tanh(features)).unbind()

    def to(self, device: torch.device) -> ClassificationHead:
        """The same head elsewhere."""
        import torch

        update = self.hidden_update
        return replace(
            self,
            hidden=self.hidden.to(device),
            hidden_update=None if update is None else update.to(device, torch.float32),
            output=self.output.to(device),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenHead:
    """Each token → `[labels]`, or for question answering `[2]`: begins, ends the answer."""

    output: Dense
    """To the labels."""

    def __call__(
        self, hidden: torch.Tensor, rows: Sequence[tuple[int, int]]
    ) -> Sequence[torch.Tensor]:
        """`[tokens of the row, labels]` for each row."""
        import torch

        tokens = torch.cat([hidden[begin:end] for begin, end in rows]).float()
        return torch.split(self.output(tokens), [end - begin for begin, end in rows])

    @property
    def own_bytes(self) -> int:
        """Bytes of its tensors."""
        return self.output.nbytes

    def to(self, device: torch.device) -> TokenHead:
        """The same head elsewhere."""
        return TokenHead(output=self.output.to(device))


@dataclass(frozen=True, kw_only=True)
class EmbeddingHead:
    """A text's tokens → its embedding `[width]`, of length 1. All of one pooling are equal."""

    pooling: Pooling = "mean"
    """`mean` of all tokens, special ones included, or the first (`cls`)."""

    def __call__(
        self, hidden: torch.Tensor, rows: Sequence[tuple[int, int]]
    ) -> Sequence[torch.Tensor]:
        """`[width]` for each row."""
        import torch

        if self.pooling == "cls":
            pooled = hidden[[begin for begin, _ in rows]].float()
        else:
            pooled = torch.stack([hidden[begin:end].float().mean(dim=0) for begin, end in rows])
        return torch.nn.functional.normalize(pooled, dim=1).unbind()

    @property
    def own_bytes(self) -> int:
        """It has no tensors."""
        return 0

    def to(self, device: torch.device) -> EmbeddingHead:  # noqa: ARG002
        """Itself."""
        return self
