"""Quality of several runs against what a prediction costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perpixel.evaluation.evaluate import read_evaluation
from perpixel.reporting.pareto import pareto_png
from perpixel.run import Run


def pareto_plot(
    compared: Sequence[Sequence[Run]], names: Sequence[str], evaluations: Sequence[str], figure: str
) -> bytes | None:
    """A figure of each configuration (the mean of its runs) against the operations of an image, as PNG.

    None where fewer than two of them have both, or all cost the same.

    Args:
        names: of the configurations, for people.
        evaluations: of each configuration the name of the evaluation that the figure is taken from.
    """
    points = [
        (name, operations, value, direction)
        for runs, name, evaluation in zip(compared, names, evaluations, strict=True)
        if (operations := _operations(runs[0].manifest)) is not None
        and (found := _mean(runs, evaluation, figure)) is not None
        for value, direction in [found]
    ]
    if len({operations for _, operations, _, _ in points}) < 2:
        return None
    shown, costs, qualities, directions = zip(*points, strict=True)
    return pareto_png(
        shown,
        costs,
        qualities,
        cost_label="billion operations an image (a multiplication and an addition are two)",
        quality_label=f"{figure} on {' and '.join(dict.fromkeys(evaluations))}",
        higher=directions[0] == "higher",
    )


def _mean(runs: Sequence[Run], evaluation: str, figure: str) -> tuple[float, str] | None:
    """The mean of the runs' figures, and which direction is better; None where a run has no such figure."""
    stored = [found for run in runs if (found := read_evaluation(run, evaluation)) is not None]
    values = [value for each in stored if (value := each["figures"].get(figure)) is not None]
    if len(values) < len(runs):
        return None
    return sum(values) / len(values), stored[0]["meaning"][figure]["direction"]


def _operations(manifest: Mapping[str, Any]) -> float | None:
    count = (manifest.get("cost") or {}).get("operations_per_image")
    return None if count is None else count / 1e9
