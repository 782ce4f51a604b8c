"""Whether an exported file gives what its run gives: scores at two sizes and in two batch sizes, figures, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.cache import DecodedSamples
from perpixel.evaluation.evaluate import evaluate_samples, finite
from perpixel.inference.base import ImagePredictor
from perpixel.inference.exported import ExportedPredictor
from perpixel.inference.predictor import Predictor

# Of the largest score on these images. Resizing rounds to 8 bits: a tie that falls to the other side is one level of
# 255 at the input, and where a network exaggerates it a percent at a pixel; a wrong graph is off by more.
LARGEST_DIFFERENCE, MEAN_DIFFERENCE = 0.02, 0.001
# The monitored figure: 0.05 points in floating point, 0.5 points in int8; of figures above 1 (decibels) that part.
_FIGURE_CHANGE = {"float32": 0.0005, "bf16": 0.0005, "int8": 0.005}
_DIFFERENT_PIXELS = 0.001
_ROUNDS = 5


@dataclass(frozen=True)
class Check:
    """A batch of images of one size (pixels).

    Attributes:
        largest, mean: difference of scores, as parts of the largest score.
        different: share of the pixels where the graph decides otherwise on its scores than the run would on the same;
            None where the graph leaves something out. Otherwise: by more than `MEAN_DIFFERENCE` of the largest
            metre, level or class.
    """

    height: int
    width: int
    batch: int
    largest: float
    mean: float
    different: float | None

    @property
    def good(self) -> bool:
        """Within what rounding explains; never where a score is no number."""
        scores = self.largest <= LARGEST_DIFFERENCE and self.mean <= MEAN_DIFFERENCE
        return scores and (self.different is None or self.different <= _DIFFERENT_PIXELS)


def check_scores(
    reference: Predictor, exported: ImagePredictor, image_hwc: NDArray[Any], *, two_sizes: bool
) -> list[Check]:
    """An image and its mirror image, alone and together; of ``two_sizes`` also an odd part of them."""
    height, width = image_hwc.shape[:2]
    parts = [(height, width)]
    if two_sizes:
        parts.append((max(1, height * 3 // 4 | 1), max(1, width * 2 // 3 | 1)))
    checks = []
    for rows, columns in parts:
        part_hwc = image_hwc[:rows, :columns]
        batch = [part_hwc, np.ascontiguousarray(part_hwc[:, ::-1])]
        checks += [_check(reference, exported, batch[:count]) for count in (1, 2)]
    return checks


def _check(reference: Predictor, exported: ImagePredictor, batch: Sequence[NDArray[Any]]) -> Check:
    wanted_bkhw = np.stack(reference.scores(batch))
    scores_bkhw = np.stack(exported.scores(batch))
    scale = max(float(np.abs(wanted_bkhw).max()), 1e-12)
    difference = np.abs(scores_bkhw - wanted_bkhw) / scale
    different = None
    whole = isinstance(exported, ExportedPredictor) and not exported.tiled(batch[0])
    if whole and not reference.task.left_out_of_graph(reference.decision):
        assert isinstance(exported, ExportedPredictor)
        prediction = exported.run(np.stack(batch))[0]
        wanted = np.stack([reference.finalize(scores_khw) for scores_khw in scores_bkhw])
        gap = np.abs(prediction.astype(np.float64) - wanted.astype(np.float64))
        slack = MEAN_DIFFERENCE * float(np.abs(wanted).max())  # below 1 of classes and levels: any other one counts
        different = round(float((gap > slack).mean()), 6)
    rows, columns = batch[0].shape[:2]
    return Check(rows, columns, len(batch), float(difference.max()), float(difference.mean()), different)


def figures_of(
    predictor: ImagePredictor, decoded: DecodedSamples, ids: Sequence[str], positions: Sequence[int]
) -> dict[str, float | None]:
    """The figures of a predictor on some images; null where there is none."""
    return finite(evaluate_samples(predictor, decoded, ids, positions).figures)


def tolerated(before: float | None, after: float | None, precision: str) -> bool:
    """Whether the monitored figure may change so in this arithmetic: ``float32``, ``bf16`` or ``int8``."""
    if before is None or after is None:
        return before is after
    return abs(after - before) <= allowed_change(precision) * max(1.0, abs(before))


def allowed_change(precision: str) -> float:
    """By how much a figure up to 1 may change, or which part of a larger one; weights keep the run's own arithmetic."""
    return _FIGURE_CHANGE.get(precision, _FIGURE_CHANGE["float32"])


def tolerances(monitor: str) -> dict[str, dict[str, float]]:
    """For JSON: what each arithmetic may change."""
    scores = {"largest": LARGEST_DIFFERENCE, "mean": MEAN_DIFFERENCE}
    return {
        precision: (scores if precision == "float32" else {}) | {monitor: change}
        for precision, change in _FIGURE_CHANGE.items()
    }


def seconds_per_image(predictors: Sequence[ImagePredictor], image_hwc: NDArray[Any]) -> list[float]:
    """From an image in memory to its scores: medians over rounds in which all take their turn, after one to warm up."""
    seconds: list[list[float]] = [[] for _ in predictors]
    for number in range(_ROUNDS + 1):
        for predictor, own in zip(predictors, seconds, strict=True):
            began = time.perf_counter()
            predictor.scores([image_hwc])
            if number:
                own.append(time.perf_counter() - began)
    return [round(statistics.median(own), 6) for own in seconds]


def as_rows(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """For JSON."""
    return [asdict(check) for check in checks]
