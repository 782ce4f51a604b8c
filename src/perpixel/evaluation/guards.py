"""Guards against figures that should not be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any

from perpixel.data.cache import DecodedSamples
from perpixel.evaluation.evaluate import Evaluation
from perpixel.inference.base import ImagePredictor
from perpixel.run import Run
from perpixel.tasks import Task

_LOOKED_AT = 4  # images whose way into the encoder is looked at
_EPOCHS = 3  # of a figure that repeats


def guarded(
    evaluation: Evaluation, predictor: ImagePredictor, decoded: DecodedSamples, positions: Sequence[int], figure: str
) -> Evaluation:
    """The evaluation with all that makes it unbelievable; ``figure`` is the monitored one."""
    doubts = predictor.doubts([decoded.image(position) for position in positions[:_LOOKED_AT]])
    found = [*warnings_of(evaluation, predictor.task, figure), *(f"WARNING: {doubt}" for doubt in doubts)]
    return replace(evaluation, warnings=found)


def run_warnings(run: Run) -> list[str]:
    """What makes all figures of a run unbelievable, a sentence each."""
    manifest = run.manifest
    inspection: Mapping[str, Any] = manifest.get("inspection") or {}
    found = [f"the split leaks: {line}" for line in inspection.get("split", ())]
    if inspection.get("forced"):
        errors = inspection.get("errors", ())
        found += [f"the data were not fit for training, and --force trained all the same: {line}" for line in errors]
    if manifest.get("bad_steps"):
        found.append(
            f"{manifest['bad_steps']} steps of the training were skipped: a loss or a derivative was not finite; the"
            " log names the samples"
        )
    repeats = run.recipe_path.is_file() and figure_that_repeats(run.read_history(), run.recipe.training.monitor)
    return [f"WARNING: {sentence}" for sentence in [*found, *([repeats] if repeats else [])]]


def figure_that_repeats(history: Sequence[Mapping[str, float]], monitor: str) -> str | None:
    """A sentence when the validation figure stood still to five digits in the last epochs while the loss moved.

    Epochs at less than a twentieth of the largest learning rate do not count: little is learned there.
    """
    name = f"val_{monitor}"
    top = max((row["learning_rate"] for row in history), default=0.0)
    rows = [row for row in history if row["learning_rate"] >= 0.05 * top and name in row]
    if not rows:
        return None
    last = f"{rows[-1][name]:.5g}"
    same = list(takewhile(lambda row: f"{row[name]:.5g}" == last, reversed(rows)))
    losses = [row["train_loss"] for row in same]
    if len(same) < _EPOCHS or not max(losses) - min(losses) > 0.01 * abs(max(losses, key=abs)):
        return None
    return (
        f"the validation figure {monitor} is {last} in {len(same)} epochs in a row while the training loss moved from"
        f" {losses[-1]:.4g} to {losses[0]:.4g}: look whether predictions sit on a clamp, or other weights are scored"
    )


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
