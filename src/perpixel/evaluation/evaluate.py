"""Evaluation: the figures of a subset, image by image and in all, beside trivial baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perpixel.data.cache import DecodedSamples
from perpixel.inference.predictor import Predictor
from perpixel.run import Run, read_json, write_json, write_rows
from perpixel.tasks import Scored

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """Figures of one subset; ``per_image`` has a row a sample, ``baselines`` the figures of trivial predictions."""

    figures: dict[str, float]
    per_image: list[dict[str, Any]]
    infos: Mapping[str, Any]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)


def scored_samples(
    predictor: Predictor, decoded: DecodedSamples, positions: Sequence[int], progress: Progress | None = None
) -> Iterator[Scored]:
    """(scores, target) of each sample at its original size, in order, a batch at a time."""
    size = predictor.inference.batch_size
    for start in range(0, len(positions), size):
        chosen = positions[start : start + size]
        batch_scores = predictor.scores([decoded.image(position) for position in chosen])
        for position, scores_khw in zip(chosen, batch_scores, strict=True):
            yield scores_khw, decoded.target(position)
        if progress:
            progress(start + len(chosen), len(positions))


def evaluate_samples(
    predictor: Predictor,
    decoded: DecodedSamples,
    ids: Sequence[str],
    positions: Sequence[int],
    *,
    facts: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score the samples at ``positions`` at their original sizes.

    Args:
        ids: id of every position of ``decoded``.
        facts: what the task said of the training targets; given, baselines are scored too.
    """
    task = predictor.task
    metrics = task.metrics()
    trivial = task.baselines(facts) if facts is not None else {}
    baselines = {name: task.metrics() for name in trivial}
    rows = []
    for position, (scores_khw, target_hw) in zip(
        positions, scored_samples(predictor, decoded, positions, progress), strict=True
    ):
        valid_hw = task.valid(target_hw)
        predicted_hw = predictor.finalize(scores_khw)
        row = metrics.update(predicted_hw, target_hw, valid_hw, task.confidence(scores_khw, predicted_hw))
        rows.append({"sample": ids[position], **row})
        if not trivial:
            continue
        image_hwc, certain_hw = decoded.image(position), np.ones(target_hw.shape[:2], dtype=np.float32)
        for name, predict in trivial.items():
            baselines[name].update(predict(image_hwc), target_hw, valid_hw, certain_hw)
    return Evaluation(
        figures=metrics.compute(),
        per_image=rows,
        infos=metrics.infos(),
        baselines={name: accumulator.compute() for name, accumulator in baselines.items()},
    )


def chosen_on_validation(predictor: Predictor) -> list[str]:
    """What a run chose on its validation subset, whose figures are therefore too good."""
    return ["epoch", *(sorted(predictor.decision) if predictor.task.decides_on_validation else [])]


def write_evaluation(run: Run, name: str, evaluation: Evaluation, protocol: Mapping[str, Any]) -> None:
    """Write metrics.json and per_image.csv; ``protocol`` says how the figures came about."""
    folder = run.evaluation_dir(name)
    infos = {key: vars(info) for key, info in evaluation.infos.items()}
    write_rows(folder / "per_image.csv", evaluation.per_image)
    write_json(
        folder / "metrics.json",
        {
            "protocol": dict(protocol),
            "figures": finite(evaluation.figures),
            "baselines": {key: finite(figures) for key, figures in evaluation.baselines.items()},
            "meaning": infos,
        },
    )


def read_evaluation(run: Run, name: str) -> dict[str, Any] | None:
    """metrics.json of a subset, or None."""
    path = run.evaluation_dir(name) / "metrics.json"
    return read_json(path) if path.is_file() else None


def finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures for JSON, which knows no NaN: the figure of a class that is nowhere is null."""
    return {key: value if math.isfinite(value) else None for key, value in figures.items()}
