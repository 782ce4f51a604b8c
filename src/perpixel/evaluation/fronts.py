"""Quality of several runs against what a prediction costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perpixel.evaluation.evaluate import read_evaluation
from perpixel.reporting.pareto import pareto_png
from perpixel.run import Run


def pareto_plot(runs: Sequence[Run], names: Sequence[str], evaluations: Sequence[str], figure: str) -> bytes | None:
    """A figure of each run against the operations of an image, as PNG.

    None where fewer than two runs have both, or all cost the same.

    Args:
        names: of the runs, for people.
        evaluations: of each run the name of the evaluation that the figure is taken from.
    """
    points = [
        (name, operations, value, stored["meaning"][figure])
        for run, name, evaluation in zip(runs, names, evaluations, strict=True)
        if (operations := _operations(run.manifest)) is not None
        and (stored := read_evaluation(run, evaluation)) is not None
        and (value := stored["figures"].get(figure)) is not None
    ]
    if len({operations for _, operations, _, _ in points}) < 2:
        return None
    shown, costs, qualities, meanings = zip(*points, strict=True)
    return pareto_png(
        shown,
        costs,
        qualities,
        cost_label="billion operations an image (a multiplication and an addition are two)",
        quality_label=f"{figure} on {' and '.join(dict.fromkeys(evaluations))}",
        higher=meanings[0]["direction"] == "higher",
    )


def _operations(manifest: Mapping[str, Any]) -> float | None:
    count = (manifest.get("cost") or {}).get("operations_per_image")
    return None if count is None else count / 1e9
