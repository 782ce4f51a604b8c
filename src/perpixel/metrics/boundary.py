"""Boundary IoU (Cheng et al. 2021): IoU of the bands along the edges of a class."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["band_width", "boundary_band"]


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
