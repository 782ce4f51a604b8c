"""The one mapping between an image's own size and the size a network sees, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.recipe import InputSection


@dataclass(frozen=True)
class Fit:
    """An image of ``original`` size is scaled to ``scaled`` and stands at (top, left) in ``size``; all (h, w)."""

    original: tuple[int, int]
    scaled: tuple[int, int]
    size: tuple[int, int]
    top: int
    left: int


def plan_fit(original_hw: tuple[int, int], spec: InputSection) -> Fit:
    """How an image of this size is brought to the network's size."""
    height, width = spec.size
    if spec.fit == "resize":
        return Fit(original_hw, (height, width), (height, width), 0, 0)
    factor = min(1.0, height / original_hw[0], width / original_hw[1])
    scaled = (max(1, round(original_hw[0] * factor)), max(1, round(original_hw[1] * factor)))
    return Fit(original_hw, scaled, (height, width), (height - scaled[0]) // 2, (width - scaled[1]) // 2)


def fit_image(image_hwc: NDArray[np.uint8], fit: Fit) -> NDArray[np.uint8]:
    """Scale (area average along what shrinks, bilinear along what grows), then mirror the border into the padding."""
    height, width = image_hwc.shape[:2]
    smaller = (min(height, fit.scaled[0]), min(width, fit.scaled[1]))
    if smaller != (height, width):
        image_hwc = _resize(image_hwc, smaller, cv2.INTER_AREA)
    if smaller != fit.scaled:
        image_hwc = _resize(image_hwc, fit.scaled, cv2.INTER_LINEAR)
    if fit.scaled != fit.size:
        image_hwc = cv2.copyMakeBorder(image_hwc, *_borders(fit), cv2.BORDER_REFLECT_101)
    return image_hwc


def fit_target(target_hw: NDArray[Any], fit: Fit, fill: int) -> NDArray[Any]:
    """Scale by nearest neighbour; the padding is ``fill``, which the valid mask leaves out."""
    if target_hw.shape[:2] != fit.scaled:
        target_hw = _resize(target_hw, fit.scaled, cv2.INTER_NEAREST_EXACT)
    if fit.scaled != fit.size:
        target_hw = cv2.copyMakeBorder(target_hw, *_borders(fit), cv2.BORDER_CONSTANT, value=[fill])
    return target_hw


def unfit_scores(scores_khw: NDArray[np.float32], fit: Fit) -> NDArray[np.float32]:
    """Scores of the network's size brought back to the image's own size: crop, then bilinear."""
    cropped = scores_khw[:, fit.top : fit.top + fit.scaled[0], fit.left : fit.left + fit.scaled[1]]
    if fit.scaled == fit.original:
        return np.ascontiguousarray(cropped)
    return np.stack([_resize(np.ascontiguousarray(plane), fit.original, cv2.INTER_LINEAR) for plane in cropped])


def _resize(array: NDArray[Any], size_hw: tuple[int, int], interpolation: int) -> NDArray[Any]:
    resized: NDArray[Any] = cv2.resize(array, (size_hw[1], size_hw[0]), interpolation=interpolation)
    return resized


def _borders(fit: Fit) -> tuple[int, int, int, int]:
    bottom = fit.size[0] - fit.scaled[0] - fit.top
    right = fit.size[1] - fit.scaled[1] - fit.left
    return fit.top, bottom, fit.left, right
