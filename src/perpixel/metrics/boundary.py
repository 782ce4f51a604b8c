"""Figures of edges: the bands of boundary IoU (Cheng et al. 2021), the contours of boundary F1 (Csurka et al. 2013)."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["band_width", "boundary_band", "boundary_f1", "contour_matches", "contour_tolerance"]


def band_width(height: int, width: int) -> int:
    """Width of the band in pixels: 2 % of the diagonal, at least 1."""
    return max(1, round(0.02 * math.hypot(height, width)))


def boundary_band(labels_hw: NDArray[Any], valid_hw: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Pixels that erosion by a square of radius `band_width` takes from their own class.

    A pixel stays in the eroded mask of its class when its whole window is of that class, that is when the
    window's smallest and largest label are equal; so one erosion and one dilation of the label map serve
    all classes. Outside the image there is background, as in the paper. Pixels without truth make no
    edge: they count as whatever is beside them.

    Args:
        labels_hw: class indices, 0..254; anything where ``valid_hw`` is False.
        valid_hw: where there is truth; None: everywhere.

    Returns:
        band_hw; False where there is no truth.
    """
    radius = band_width(*labels_hw.shape)
    lowest_hw = highest_hw = labels_hw.astype(np.uint8)
    if valid_hw is not None:
        lowest_hw = np.where(valid_hw, lowest_hw, np.uint8(255))
        highest_hw = np.where(valid_hw, highest_hw, np.uint8(0))
    square = np.ones((2 * radius + 1, 2 * radius + 1), dtype=np.uint8)
    band_hw: NDArray[np.bool_] = cv2.erode(lowest_hw, square) != cv2.dilate(highest_hw, square)
    band_hw[:radius] = band_hw[-radius:] = True
    band_hw[:, :radius] = band_hw[:, -radius:] = True
    return band_hw if valid_hw is None else band_hw & valid_hw


def contour_tolerance(height: int, width: int) -> float:
    """How far apart contours may lie, in pixels: 0.75 % of the diagonal (Csurka et al. 2013), at least 1."""
    return max(1.0, 0.0075 * math.hypot(height, width))


def contour_matches(
    target_hw: NDArray[Any], predicted_hw: NDArray[Any], valid_hw: NDArray[np.bool_] | None, classes: int
) -> NDArray[np.int64]:
    """Contour pixels of each class, and how many of them lie within the tolerance of the other map's contour.

    A contour pixel of a class has a pixel of another class among its 8 neighbours. Neither the image's border
    nor pixels without truth make a contour.

    Args:
        target_hw: class indices, 0..254; anything where ``valid_hw`` is False.
        predicted_hw: the same of the prediction.
        valid_hw: where there is truth; None: everywhere.
        classes: how many there are.

    Returns:
        counts_4k: true pixels, those near the predicted contour, predicted pixels, those near the true contour.
    """
    tolerance = contour_tolerance(*target_hw.shape)
    outside = classes  # a class of its own for pixels on no contour
    maps = [
        np.where(_contour(labels_hw, valid_hw), labels_hw, outside).astype(np.uint8)
        for labels_hw in (target_hw, predicted_hw)
    ]
    counts = []
    for own_hw, other_hw in (maps, maps[::-1]):
        rows_n, columns_n = np.nonzero(own_hw != outside)
        class_n = own_hw[rows_n, columns_n]
        near_n = _near(rows_n, columns_n, class_n, other_hw, tolerance, outside)
        counts += [np.bincount(class_n, minlength=classes), np.bincount(class_n[near_n], minlength=classes)]
    return np.stack(counts)


def boundary_f1(counts_4k: NDArray[np.int64]) -> NDArray[np.float64]:
    """F1 of each class from the counts of `contour_matches`; nan where neither map has a contour of the class."""
    true_k, found_k, predicted_k, right_k = counts_4k
    precision_k, recall_k = right_k / np.maximum(predicted_k, 1), found_k / np.maximum(true_k, 1)
    total_k = precision_k + recall_k
    f1_k = 2 * precision_k * recall_k / np.where(total_k > 0, total_k, 1)
    return np.where(true_k + predicted_k > 0, f1_k, np.nan)


def _contour(labels_hw: NDArray[Any], valid_hw: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Where the smallest and the largest label of a 3x3 window differ; what is outside the image counts for nothing."""
    lowest_hw = highest_hw = labels_hw.astype(np.uint8)
    if valid_hw is not None:
        lowest_hw = np.where(valid_hw, lowest_hw, np.uint8(255))
        highest_hw = np.where(valid_hw, highest_hw, np.uint8(0))
    square = np.ones((3, 3), dtype=np.uint8)
    contour_hw: NDArray[np.bool_] = cv2.erode(lowest_hw, square) != cv2.dilate(highest_hw, square)
    return contour_hw if valid_hw is None else contour_hw & valid_hw


def _near(
    rows_n: NDArray[Any],
    columns_n: NDArray[Any],
    class_n: NDArray[np.uint8],
    other_hw: NDArray[np.uint8],
    tolerance: float,
    outside: int,
) -> NDArray[np.bool_]:
    """Which contour pixels have a contour pixel of their class within ``tolerance`` in the other map.

    Contours are thin: looking around their pixels alone, nearest offsets first and only for those that are not
    matched yet, is many times faster than a distance transform a class.
    """
    reach = int(tolerance)
    padded = cv2.copyMakeBorder(other_hw, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=[outside])
    flat, width = padded.reshape(-1), padded.shape[1]
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    squared = (down**2 + right**2).reshape(-1)
    order = np.argsort(squared, kind="stable")[: np.count_nonzero(squared <= tolerance**2)]
    steps = (down * width + right).reshape(-1)[order].tolist()
    near_n = np.zeros(len(class_n), dtype=bool)
    left_n = np.arange(len(class_n))
    place_n, wanted_n = (rows_n + reach) * width + columns_n + reach, class_n
    for step in steps:
        hit_n = flat[place_n + step] == wanted_n
        near_n[left_n[hit_n]] = True
        left_n, place_n, wanted_n = left_n[~hit_n], place_n[~hit_n], wanted_n[~hit_n]
    return near_n
