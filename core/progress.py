"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """A bar on standard error when it is a terminal, else a line now and then.

    Used as a context manager, so that the bar is closed when the work is interrupted.

    Args:
        description: what is being done.
        total: how many units of work there are.
        done: how many of them an earlier run has done.
        unit: what is counted.
        enabled: False keeps quiet.
    """

    def __init__(
        self,
        description: str,
        *,
        total: int,
        done: int = 0,
        unit: str = "steps",
        enabled: bool = True,
    ) -> None:
        self.description = description
        self.total = total
        self.done = done
        self.unit = unit
        self.enabled = enabled
        self._note = ""
        self._last_line = time.monotonic()
        self._bar = None
        if enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=description, total=total, initial=done, unit=f" {unit}", leave=False
            )

    def advance(self, amount: int = 1, *, note: str = "") -> None:
        """Count `amount` more units; `note` stands beside the bar."""
        self.done += amount
        self._note = note
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
        elif self.enabled and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(
                f"{self.description}: {self.done:,}/{self.total:,} {self.unit} {note}".rstrip(),
                file=sys.stderr,
                flush=True,
            )

    def say(self, line: str) -> None:
        """Print a line that stays, above the bar."""
        if not self.enabled:
            return
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        """Start showing."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away, also after an interruption."""
        if self._bar is not None:
            self._bar.close()
