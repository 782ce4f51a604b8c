"""What a predicted depth map must be multiplied by, and what must be added, to fit the truth.

A model that knows depth up to a scale, or up to a scale and a shift, is judged after such a fit. The fit is reported
with the figures: it says how far from metres the model was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Alignment", "affine_alignment", "median_alignment"]


@dataclass(frozen=True)
class Alignment:
    """``scale * prediction + shift`` fits the truth; ``shift`` in the truth's unit."""

    scale: float
    shift: float = 0.0

    @property
    def sign(self) -> float:
        """1 when the prediction grows with the truth, -1 when it is inverted, 0 when it says nothing."""
        return float(np.sign(self.scale))

    def __call__(self, predicted: NDArray[Any]) -> NDArray[Any]:
        return self.scale * predicted + self.shift


def median_alignment(predicted_n: NDArray[Any], target_n: NDArray[Any]) -> Alignment:
    """The scale that makes the medians equal (Zhou et al. 2017).

    It is 1 where the predictions' median is not above 0: no scale is right for those.
    """
    median = float(np.median(predicted_n))
    return Alignment(float(np.median(target_n)) / median if median > 0 else 1.0)


def affine_alignment(predicted_n: NDArray[Any], target_n: NDArray[Any]) -> Alignment:
    """The scale and shift of least squares (Ranftl et al. 2020, equation 4), which may be negative.

    Predictions that do not vary get scale 0, and the mean of the truth as shift.
    """
    predicted_n = predicted_n.astype(np.float64)
    predicted_mean, target_mean = float(predicted_n.mean()), float(target_n.mean(dtype=np.float64))
    centred_n = predicted_n - predicted_mean
    variance = float(np.mean(centred_n**2))
    if math.sqrt(variance) <= 1e-7 * abs(predicted_mean):
        return Alignment(0.0, target_mean)
    scale = float(np.mean(centred_n * (target_n - target_mean))) / variance
    return Alignment(scale, target_mean - scale * predicted_mean)
