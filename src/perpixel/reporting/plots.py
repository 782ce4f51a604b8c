"""Plots of what lies behind figures, as PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["curve_png", "matrix_png", "name_points", "points_png", "reliability_png", "sparsification_png"]

_COLOR = "#0072B2"
_SECOND = "#D55E00"
_WRITTEN = 12  # classes up to which each cell's share is written into it
_MOST_NAMES = 12  # points of a plot that are named
_SHORT_NAME = 18  # characters of a name that may stand beside its point
_LONGEST_NAME = 70


def matrix_png(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> bytes:
    """A confusion matrix: of each true class, the share that was predicted as each class."""
    counts_kk = np.asarray(counts, dtype=float)
    total_k1 = counts_kk.sum(axis=1, keepdims=True)
    share_kk = np.divide(counts_kk, total_k1, out=np.full_like(counts_kk, np.nan), where=total_k1 > 0)
    side = min(9.0, 2.4 + 0.55 * len(labels))
    figure, axes = _figure(side + 0.8, side)
    shown = axes.imshow(share_kk, cmap="cividis", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="truth")
    if len(labels) <= _WRITTEN:
        for row, column in zip(*np.nonzero(np.isfinite(share_kk)), strict=True):
            share = share_kk[row, column]
            ink = "black" if share > 0.55 else "white"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=ink, fontsize=8)
    figure.colorbar(shown, ax=axes, label="share of the true class's pixels", shrink=0.85)
    return _png(figure)


def curve_png(x_label: str, y_label: str, x: Sequence[float], y: Sequence[float], pixels: Sequence[int]) -> bytes:
    """Values along an axis, over bars that say how many pixels each value is of."""
    figure, axes = _figure(7, 3.8)
    counts = axes.twinx()
    width = 0.9 * min(np.diff(x), default=1.0)
    counts.bar(x, np.asarray(pixels) / max(1, sum(pixels)), width=width, color="#999999", alpha=0.35)
    counts.set_ylabel("share of pixels (bars)")
    counts.spines[["top"]].set_visible(False)
    axes.set_zorder(counts.get_zorder() + 1)
    axes.patch.set_visible(False)
    axes.plot(x, y, "o-", color=_COLOR, markersize=4)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    return _png(figure)


def points_png(x_label: str, y_label: str, x: Sequence[float], y: Sequence[float], names: Sequence[str] = ()) -> bytes:
    """A point an image, with the running median; or named points."""
    figure, axes = _figure(7, 3.8)
    axes.plot(x, y, "o", color=_COLOR, markersize=6 if names else 3, alpha=1 if names else 0.45)
    if names:
        name_points(figure, axes, names, x, y)
        axes.margins(0.12)
    if not names and len(x) >= 20:
        order = np.argsort(x)
        parts = np.array_split(order, min(10, len(x) // 10))
        middle = [(np.median(np.asarray(x)[part]), np.median(np.asarray(y)[part])) for part in parts]
        axes.plot(*zip(*middle, strict=True), color=_SECOND, linewidth=2, label="median")
        axes.legend(loc="upper right", frameon=False)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.25)
    return _png(figure)


def name_points(figure: Any, axes: Any, names: Sequence[str], x: Sequence[float], y: Sequence[float]) -> None:
    """Name the points of a plot: beside each where names are few and short, else by numbers that are told below it.

    Of many points the first twelve are named.
    """
    beside = len(names) <= _MOST_NAMES and max(map(len, names)) <= _SHORT_NAME
    middle = (min(x) + max(x)) / 2
    for number, (name, place_x, place_y) in enumerate(zip(names, x, y, strict=True), start=1):
        if number > _MOST_NAMES:
            break
        right = place_x > middle and beside
        label = axes.annotate(
            name if beside else str(number),
            (place_x, place_y),
            xytext=(-5 if right else 5, 4),
            ha="right" if right else "left",
            textcoords="offset points",
            fontsize=8,
        )
        label.set_in_layout(False)  # a name takes no room from the axes
    if beside:
        return
    from matplotlib.lines import Line2D

    told = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..." for name in names[:_MOST_NAMES]]
    lines = [Line2D([], [], linestyle="none", label=f"{number}  {name}") for number, name in enumerate(told, start=1)]
    columns = 1 if max(map(len, told)) > _LONGEST_NAME // 2 else 2
    figure.set_figheight(figure.get_figheight() + 0.18 * -(-len(told) // columns))
    figure.legend(
        handles=lines,
        loc="outside lower left",
        ncols=columns,
        frameon=False,
        fontsize=8,
        handlelength=0,
        handletextpad=0,
    )


def reliability_png(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float], Sequence[int]]],
) -> bytes:
    """A reliability diagram: by name (confidence, share that is right, pixels) of each bin; below, where pixels are."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 5.6), dpi=110, layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], "--", color="#999999", label="as often right as it is sure")
    for (name, (confidence, accuracy, pixels)), color, style in zip(
        curves.items(), (_SECOND, _COLOR), ("o-", "s-"), strict=False
    ):
        axes.plot(confidence, accuracy, style, color=color, markersize=5, label=name)
        counts.plot(confidence, np.asarray(pixels) / max(1, sum(pixels)), style, color=color, markersize=3)
    axes.set(ylabel="share of pixels that are right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    counts.set(xlabel="confidence in the predicted class", ylabel="share of\npixels", ylim=(0, None))
    for axis in (axes, counts):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def sparsification_png(removed: Sequence[float], remaining: Sequence[float], least: Sequence[float]) -> bytes:
    """What error remains when the least sure pixels are removed, and when the most wrong ones are."""
    figure, axes = _figure(6, 4)
    axes.axhline(1, linestyle="--", color="#999999", label="removed by chance")
    axes.plot(removed, remaining, "o-", color=_COLOR, markersize=4, label="the least sure removed")
    axes.plot(removed, least, "s-", color=_SECOND, markersize=4, label="the most wrong removed")
    axes.set(xlabel="share of pixels removed", ylabel="mean error of the rest, 1: of all", ylim=(0, None))
    axes.grid(alpha=0.25)
    axes.legend(loc="lower left", frameon=False)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
