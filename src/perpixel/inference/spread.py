"""How much a model's answers to views of one image differ, pixel by pixel: an uncertainty of what is no probability."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.inference.base import ImagePredictor
from perpixel.inference.ensemble import Ensemble


def view_spread(predictor: ImagePredictor, image_hwc: NDArray[Any]) -> NDArray[np.float32]:
    """Standard deviation of the scores over the image and its mirror image, spread_hw, in the scores' unit.

    With ``inference.self_ensemble`` over all eight flips and quarter turns; of an ensemble over its members too. Its
    size is that of the scores; of several channels the mean.
    """
    views = []
    for member in predictor.members if isinstance(predictor, Ensemble) else [predictor]:
        turns = range(4) if member.inference.self_ensemble else range(1)
        views += [_one_view(member, image_hwc, turn, flip) for turn in turns for flip in (False, True)]
    spread_hw: NDArray[np.float32] = np.std(views, axis=0).mean(axis=0)
    return spread_hw


def _one_view(predictor: ImagePredictor, image_hwc: NDArray[Any], turn: int, flip: bool) -> NDArray[np.float32]:
    """scores_khw of a view, brought back to where they belong."""
    view_hwc = np.ascontiguousarray(np.rot90(image_hwc[:, ::-1] if flip else image_hwc, turn))
    asked = predictor.inference
    predictor.inference = asked.model_copy(update={"flip": False, "self_ensemble": False})
    try:
        scores_khw = np.rot90(predictor.scores([view_hwc])[0], -turn, (1, 2))
    finally:
        predictor.inference = asked
    return scores_khw[:, :, ::-1] if flip else scores_khw
