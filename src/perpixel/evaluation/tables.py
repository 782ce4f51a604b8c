"""Figures as text: columns that a person can read in a terminal, and the same as Markdown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perpixel.evaluation.calibration import calibration_line
from perpixel.evaluation.choices import choice_lines
from perpixel.evaluation.evaluate import Evaluation

_HEADING = 11  # characters of a column's heading in one line
_NONE = "-"


def headline_keys(figures: Iterable[str], monitor: str | None = None) -> list[str]:
    """The monitored figure, then all that are not of one class (``figure/class``)."""
    plain = [key for key in figures if "/" not in key]
    return plain if monitor is None else [monitor, *(key for key in plain if key != monitor)]


def by_class(figures: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Figures that are named ``figure/class``: class -> figure -> value, in their order."""
    classes: dict[str, dict[str, float]] = {}
    for key, value in figures.items():
        figure, slash, name = key.partition("/")
        if slash:
            classes.setdefault(name, {})[figure] = value
    return classes


def figures_table(evaluation: Evaluation, protocol: Mapping[str, Any], monitor: str | None = None) -> str:
    """The figures of one evaluation: headlines beside the trivial baselines, then a row a class."""
    lines = [
        f"{protocol['subset']}: {protocol['images']} images at their original size, decision {protocol['decision']}"
    ]
    lines += choice_lines(protocol)
    names = list(evaluation.baselines)
    keys = headline_keys(evaluation.figures, monitor)
    width = max(len(key) for key in keys)
    lines.append("  ".join([" " * width, "   model", *(f"{name:>9}" for name in names), "averaging"]))
    for key in keys:
        columns = [f"{evaluation.baselines[name][key]:{max(9, len(name))}.4f}" for name in names]
        value = evaluation.figures[key]
        lines.append("  ".join([f"{key:{width}}", f"{value:8.4f}", *columns, evaluation.infos[key].averaging]))
    return "\n".join([*lines, *calibration_line(evaluation.details), *_class_lines(evaluation)])


def _class_lines(evaluation: Evaluation) -> list[str]:
    """A row a class, with the figures that each class has; nothing where there are none."""
    classes = by_class(evaluation.figures)
    if not classes:
        return []
    columns = list(dict.fromkeys(figure for figures in classes.values() for figure in figures))
    averagings = dict.fromkeys(evaluation.infos[key].averaging for key in evaluation.figures if "/" in key)
    rows = [[name, *(number(figures.get(column)) for column in columns)] for name, figures in classes.items()]
    table = text_table(["class", *columns], rows)
    return ["", f"in parts ({'; '.join(averagings)}):", *table]


def number(value: float | None) -> str:
    """Four digits; a dash where there is no number."""
    return _NONE if value is None or not math.isfinite(value) else f"{value:.4f}"


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of aligned columns, the first ``left`` of them to the left. Long headings are broken at their words."""
    broken = [textwrap.wrap(heading.replace("_", " "), _HEADING, break_long_words=False) for heading in headings]
    height = max(map(len, broken))
    grid = [[""] * (height - len(lines)) + lines for lines in broken]
    widths = [
        max(len(cell) for cell in [*grid[column], *(row[column] for row in rows)]) for column in range(len(headings))
    ]
    lines = [[grid[column][line] for column in range(len(headings))] for line in range(height)]
    return [
        "  ".join(
            f"{cell:<{width}}" if column < left else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [*lines, *map(list, rows)]
    ]
