"""Curves of one or several trainings in one plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perpixel.run import write_atomic

# Okabe and Ito (2008): told apart by colour-blind readers too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_LONGEST_NAME = 56
_NAMED = 12  # lines; of more, the others are grey and told of together


def plot_curves(path: Path, *arguments: Any, **options: Any) -> None:
    """Write what `curves_png` draws."""
    write_atomic(path, curves_png(*arguments, **options))


def curves_png(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    key: str,
    label: str,
    *,
    higher: bool = True,
    loss: bool = True,
) -> bytes:
    """A PNG: the figure by epoch, a line a run, its best epoch marked; beside it the training loss.

    Args:
        histories: by name of the run; of many the first twelve are named and coloured.
        higher: whether a higher figure is better.
        loss: whether the training loss stands beside it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11 if loss else 7, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots(1, 2 if loss else 1, squeeze=False)[0]
    known = [(name, rows) for name, rows in histories.items() if rows]
    for number, (name, rows) in reversed(list(enumerate(known))):  # the first lies on top
        named = number < _NAMED
        style = {
            "color": _COLORS[number % len(_COLORS)] if named else "#c4c4c4",
            "linestyle": "-" if number < len(_COLORS) or not named else "--",
            "linewidth": 1.8 if named else 0.8,
        }
        epochs = [row["epoch"] for row in rows]
        values = [row[key] for row in rows]
        (line,) = axes[0].plot(epochs, values, **style)
        if named:
            best = (max if higher else min)(range(len(values)), key=values.__getitem__)
            line.set_label(f"{_short(name)} (best {values[best]:.4f})")
            axes[0].plot(epochs[best], values[best], "o", color=style["color"], markersize=6)
        elif number == _NAMED:
            line.set_label(f"{len(known) - _NAMED} others")
        if loss:
            axes[1].plot(epochs, [row["train_loss"] for row in rows], **style)
    axes[0].set(xlabel="epoch", ylabel=label)
    # Not the "best" place inside: to find it takes long, and a curve has no empty corner for long names.
    if known:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    if loss:
        axes[1].set(xlabel="epoch", ylabel="training loss (compare shapes, not heights)")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
