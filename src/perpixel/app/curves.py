"""Curves of several runs as SVG: in the page's own colours, in light and dark, and readable by a screen reader."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["curves"]

# Okabe and Ito (2008): told apart by colour-blind readers too; black would vanish in the dark.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
_DASHES = ("none", "7 4", "2 3")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 860, 340, 64, 40, 12, 16
_STEPS = (1, 2, 2.5, 5, 10)


def curves(histories: Mapping[str, Sequence[tuple[float, float]]], label: str) -> str:
    """A plot of (epoch, value) pairs, a line a run, with its legend; nothing where there are no points."""
    points = [point for line in histories.values() for point in line]
    if not points:
        return ""
    epochs, values = [point[0] for point in points], [point[1] for point in points]
    across, up = _ticks(min(epochs), max(epochs), 10), _ticks(min(values), max(values), 6)

    def place(epoch: float, value: float) -> tuple[float, float]:
        x = _LEFT + (epoch - across[0]) / (across[-1] - across[0]) * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (value - up[0]) / (up[-1] - up[0]) * (_HEIGHT - _BOTTOM - _TOP)
        return round(x, 1), round(y, 1)

    parts, legend = [], []
    for tick in up:
        y = place(across[0], tick)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{tick:g}</text>')
    for tick in across:
        x = place(tick, up[0])[0]
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">epoch</text>')
    for number, (name, line) in enumerate((name, line) for name, line in histories.items() if line):
        style = f'stroke="{_COLORS[number % 7]}" stroke-dasharray="{_DASHES[number // 7 % 3]}"'
        path = " ".join(f"{x},{y}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke-width="2.2" {style}/>')
        parts += [
            _dot(*place(*point), _COLORS[number % 7], f"{name}: epoch {point[0]:g}, {point[1]:.4f}") for point in line
        ]
        key = f'<svg width="28" height="10" aria-hidden="true"><path d="M0 5H28" stroke-width="3" {style}/></svg>'
        legend.append(f"<li>{key} {escape(name)}: last {line[-1][1]:.4f}</li>")
    title = escape(f"{label} by epoch")
    return (
        f'<figure class="pp-curves"><figcaption>{title}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' aria-label="{title}">{"".join(parts)}</svg><ul>{"".join(legend)}</ul></figure>'
    )


def _dot(x: float, y: float, color: str, told: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"><title>{escape(told)}</title></circle>'


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, at least two."""
    span = high - low or abs(high) or 1.0
    unit = 10 ** math.floor(math.log10(span / most))
    step = next(unit * factor for factor in _STEPS if unit * factor * most >= span)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]
