"""In which order rows are trained on: by chance, evenly over labels, or evenly over locales.

An order depends on the seed and the epoch alone, so that a run may be resumed amid an epoch, and
all processes of a run draw the same.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray


def class_weights(labels: Sequence[str], order: Sequence[str]) -> tuple[float, ...]:
    """Weights with which every class counts as much in the loss: rows / (classes * rows of it).

    The formula of scikit-learn's `class_weight="balanced"`.

    Args:
        labels: one label a row (or a token).
        order: the classes in the order of the head's outputs.

    Returns:
        A weight for each of `order`; 1 for a class without rows.
    """
    counts = Counter(labels)
    present = sum(1 for label in order if counts[label])
    return tuple(
        len(labels) / (present * counts[label]) if counts[label] else 1.0 for label in order
    )


def locale_shares(sizes: Mapping[str, int], temperature: float) -> dict[str, float]:
    """Shares of an epoch that sum to 1, in proportion to size**(1/temperature).

    The sampling of multilingual BERT and XLM-R (Conneau et al., 2020,
    https://arxiv.org/abs/1911.02116), whose exponent is 1/temperature.

    Args:
        sizes: rows of each locale, at least one.
        temperature: 1: as the data is; higher: small locales are seen more often; infinity: all
            alike.

    Raises:
        InputError: a temperature below 1.
    """
    if not temperature >= 1:
        raise InputError(f"temperature is {temperature}; it must be at least 1")
    largest = max(sizes.values())
    # Of the largest's size, so that no power overflows.
    raised = {name: (size / largest) ** (1 / temperature) for name, size in sizes.items()}
    total = math.fsum(raised.values())
    return {name: share / total for name, share in raised.items()}


@dataclass(frozen=True, kw_only=True)
class SamplerState:
    """How far a run has come in its rows; enough to go on from there."""

    epoch: int = 0
    """Epochs that are over."""
    position: int = 0
    """Rows of this epoch that were used."""


@dataclass(frozen=True, kw_only=True)
class RowSampler:
    """Draws the rows of each epoch."""

    groups: tuple[NDArray[np.int64], ...]
    """The rows of each group, `[rows of it]`; a row is in one group."""
    quotas: tuple[int, ...]
    """How many rows an epoch takes of each group."""
    seed: int
    """Decides every draw."""

    @property
    def rows(self) -> int:
        """Rows an epoch."""
        return sum(self.quotas)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The rows of one epoch, `[rows]`.

        Within a group each row comes equally often, give or take one, and which ones come once
        more is drawn anew each epoch.
        """
        generator = np.random.default_rng((self.seed, epoch))
        drawn = []
        for group, quota in zip(self.groups, self.quotas, strict=True):
            whole, rest = divmod(quota, len(group))
            drawn += [np.tile(group, whole), generator.permutation(group)[:rest]]
        return generator.permutation(np.concatenate(drawn))

    def batches(
        self, size: int, state: SamplerState | None = None
    ) -> Iterator[tuple[NDArray[np.int64], SamplerState]]:
        """Batches without end, from a state on; an epoch's last one may be smaller.

        Args:
            size: rows a batch, at least 1.
            state: where to begin; else at the beginning.

        Yields:
            The rows of a batch, `[size]`, and the state after it.
        """
        state = state or SamplerState()
        while True:
            order = self.order(state.epoch)
            for first in range(state.position, len(order), size):
                last = first + size >= len(order)
                after = (
                    SamplerState(epoch=state.epoch + 1)
                    if last
                    else SamplerState(epoch=state.epoch, position=first + size)
                )
                yield order[first : first + size], after
            state = SamplerState(epoch=state.epoch + 1)


def make_sampler(
    locales: Sequence[str],
    *,
    seed: int,
    temperature: float = 1.0,
    labels: Sequence[str] | None = None,
) -> RowSampler:
    """A sampler over as many rows an epoch as there are.

    Args:
        locales: the locale of each row.
        seed: decides every draw.
        temperature: over locales, see `locale_shares`; 1: each row once.
        labels: the label of each row; if given, every label of a locale is drawn equally often.

    Raises:
        InputError: no rows, or a temperature below 1.
    """
    if not locales:
        raise InputError("there are no rows to sample; give at least one")
    members: dict[tuple[str, str], list[int]] = {}
    for row, locale in enumerate(locales):
        members.setdefault((locale, labels[row] if labels is not None else ""), []).append(row)
    shares = locale_shares(Counter(locales), temperature)
    groups_of = Counter(locale for locale, _ in members)
    wanted = [shares[locale] / groups_of[locale] for locale, _ in members]
    return RowSampler(
        groups=tuple(np.array(rows, dtype=np.int64) for rows in members.values()),
        quotas=_whole_numbers(wanted, len(locales)),
        seed=seed,
    )


def _whole_numbers(shares: Sequence[float], total: int) -> tuple[int, ...]:
    """Whole numbers in proportion to `shares` that sum to `total` (largest remainders)."""
    exact = [share * total for share in shares]
    # A share of 3 rows in 10 must not become 2.9999…
    floors = [math.floor(value + 1e-9) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda index: floors[index] - exact[index])
    for index in by_rest[: total - sum(floors)]:
        floors[index] += 1
    return tuple(floors)
