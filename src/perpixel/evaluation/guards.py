"""Guards against figures that should not be believed."""

from __future__ import annotations

import math

from perpixel.evaluation.evaluate import Evaluation
from perpixel.tasks import Task


def warnings_of(evaluation: Evaluation, task: Task, figure: str) -> list[str]:
    """What makes an evaluation unbelievable, a sentence each; ``figure`` is the monitored one."""
    found = [f"WARNING: {sentence}" for sentence in task.guards(evaluation.figures)]
    trivial = no_better_than_baseline(evaluation, figure)
    return [*found, *([trivial] if trivial else [])]


def no_better_than_baseline(evaluation: Evaluation, figure: str) -> str | None:
    """A warning when a trivial prediction does as well by this figure; None when the model is ahead of all."""
    sign = 1 if evaluation.infos[figure].direction == "higher" else -1
    value = evaluation.figures[figure]
    best = max(evaluation.baselines.items(), key=lambda item: _comparable(sign * item[1][figure]), default=None)
    if best is None or _comparable(sign * value) > _comparable(sign * best[1][figure]):
        return None
    name, figures = best
    return (
        f"WARNING: the model is no better than a trivial prediction:"
        f" {figure} {value:.4f}, {name!r} {figures[figure]:.4f}"
    )


def _comparable(value: float) -> float:
    return value if math.isfinite(value) else -math.inf
