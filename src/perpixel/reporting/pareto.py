"""Quality against cost, and the Pareto front: what nothing else beats in both."""

from __future__ import annotations

import io
from collections.abc import Sequence

from perpixel.reporting.plots import name_points

__all__ = ["pareto_front", "pareto_png"]

_FRONT, _OTHERS = "#0072B2", "#999999"


def pareto_front(costs: Sequence[float], qualities: Sequence[float], *, higher: bool) -> list[int]:
    """Positions of the points that no other one beats: none is as cheap and as good, and better in one. Cheapest first.

    Args:
        higher: whether a higher quality is better.
    """
    sign = 1 if higher else -1
    order = sorted(range(len(costs)), key=lambda place: (costs[place], -sign * qualities[place]))
    front: list[int] = []
    for place in order:
        equal = bool(front) and (costs[place], qualities[place]) == (costs[front[-1]], qualities[front[-1]])
        if not front or equal or sign * qualities[place] > sign * qualities[front[-1]]:
            front.append(place)
    return front


def pareto_png(
    names: Sequence[str],
    costs: Sequence[float],
    qualities: Sequence[float],
    *,
    cost_label: str,
    quality_label: str,
    higher: bool,
) -> bytes:
    """A PNG: a named point each, those of the front joined by a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    front = pareto_front(costs, qualities, higher=higher)
    others = [place for place in range(len(names)) if place not in front]
    for places, style, color, label in (
        (front, "o-", _FRONT, "Pareto front: no other is as cheap and as good"),
        (others, "s", _OTHERS, "beaten in cost and quality"),
    ):
        if places:
            axes.plot(
                [costs[place] for place in places],
                [qualities[place] for place in places],
                style,
                color=color,
                drawstyle="steps-post" if places is front else None,
                label=label,
            )
    name_points(figure, axes, names, costs, qualities)
    if min(costs) > 0 and max(costs) > 20 * min(costs):
        axes.set_xscale("log")
    axes.set(xlabel=cost_label, ylabel=quality_label + ("" if higher else " (lower is better)"))
    axes.margins(0.12)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
