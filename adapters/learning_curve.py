"""The learning curve of a run as a small SVG: loss and dev metric, epoch by epoch."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .checkpoint import Epoch

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 64, 32, 40
LOSS, METRIC = "#b35900", "#0b5fa5"


def draw_curve(history: Sequence[Epoch], metric: str, *, title: str) -> str:
    """An SVG.

    Args:
        history: the epochs, at least one.
        metric: which of the dev metrics is drawn.
        title: what stands above it.
    """
    losses = [epoch.loss for epoch in history]
    values = [epoch.metrics[metric] for epoch in history]
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="20" text-anchor="middle">{escape(title)}</text>',
        f'<path d="M{LEFT} {TOP}V{bottom}H{right}V{TOP}" fill="none" stroke="#888"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">epoch</text>',
        *_axis(losses, LEFT - 6, "end", LOSS, "loss"),
        *_axis(values, right + 6, "start", METRIC, f"dev {metric}"),
        *(
            f'<text x="{_across(at, len(history)):.1f}" y="{bottom + 16}" '
            f'text-anchor="middle">{at + 1}</text>'
            for at in sorted({0, (len(history) - 1) // 2, len(history) - 1})
        ),
        _line(losses, LOSS),
        _line(values, METRIC),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _axis(values: Sequence[float], x: float, anchor: str, colour: str, name: str) -> list[str]:
    low, high = min(values), max(values)
    style = f'text-anchor="{anchor}" fill="{colour}"'
    marks = {low: f"{low:.3g}", high: f"{high:.3g}"}
    return [
        *(
            f'<text x="{x}" y="{_down(value, values) + 4:.1f}" {style}>{text}</text>'
            for value, text in marks.items()
        ),
        f'<text x="{x}" y="{TOP - 12}" {style}>{escape(name)}</text>',
    ]


def _line(values: Sequence[float], colour: str) -> str:
    points = " ".join(
        f"{_across(at, len(values)):.1f},{_down(value, values):.1f}"
        for at, value in enumerate(values)
    )
    first = points.split(" ", maxsplit=1)[0].split(",")
    # A line of one point would not be seen.
    dot = f'<circle cx="{first[0]}" cy="{first[1]}" r="3" fill="{colour}"/>'
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>{dot}'


def _across(at: int, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (at / (count - 1) if count > 1 else 0.5)


def _down(value: float, values: Sequence[float]) -> float:
    low, high = min(values), max(values)
    share = (value - low) / (high - low) if high > low else 0.5
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (0.05 + 0.9 * share)
