"""What the frozen layers below an adapter give, kept from epoch to epoch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from ..core.packing import Row


class StateCache:
    """Hidden states of rows, in memory or in a file, up to a budget.

    What is in stays in: epochs read the same rows again and again, of which a cache that replaced
    the oldest would hold none when it is asked for.

    Args:
        budget: bytes.
        folder: where to put the file, which vanishes with the process; None: in memory.
    """

    def __init__(self, *, budget: int, folder: Path | None = None) -> None:
        self.budget = budget
        self.folder = folder
        # [tokens, width]; pages that are never written take no memory
        self._states: torch.Tensor | None = None
        self._places: dict[Row, tuple[int, int]] = {}
        self._used = 0

    def get(self, row: Row) -> torch.Tensor | None:
        """States `[tokens of the row, width]`, not to be written to; None: it isn't in."""
        place = self._places.get(row)
        return None if place is None or self._states is None else self._states[slice(*place)]

    def put(self, row: Row, states: torch.Tensor) -> None:
        """Keep a row's states `[tokens, width]`, if they fit."""
        if row in self._places:
            return
        if self._states is None:
            self._states = self._allocate(states)
        end = self._used + len(states)
        if end > len(self._states):
            return
        self._states[self._used : end] = states
        self._places[row] = (self._used, end)
        self._used = end

    def __len__(self) -> int:
        """How many rows it holds."""
        return len(self._places)

    @property
    def used_bytes(self) -> int:
        """Bytes of the states that it holds."""
        return 0 if self._states is None else self._states[: self._used].nbytes

    def _allocate(self, states: torch.Tensor) -> torch.Tensor:
        width = states.shape[1]
        tokens = self.budget // (width * states.itemsize)
        if self.folder is None or tokens == 0:
            return torch.empty(tokens, width, dtype=states.dtype)
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as place:
            # Mapped, the file outlives its name.
            return torch.from_file(
                str(Path(place) / "states"), shared=True, size=tokens * width, dtype=states.dtype
            ).view(tokens, width)
