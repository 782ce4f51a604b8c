"""Beside the figures of depth: what alignment had to do, and what guards look at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.metrics.info import MetricInfo

__all__ = ["ALIGNED", "IMAGES", "PIXELS", "RangeAtPlaces", "fact_infos"]

PIXELS = "sum over all valid pixels of the subset"
IMAGES = "mean over images"
_GRID = 16  # places a side of an image where predictions are held against those of the other images
ALIGNED = {
    "": "Raw predictions, as a user gets them.",
    "median_aligned/": "Each prediction was multiplied by median(truth) / median(prediction) of its image.",
    "affine_aligned/": "Each prediction was fitted to its truth by scale and shift (least squares in depth).",
    "disparity_aligned/": "Each prediction was fitted to its truth by scale and shift (least squares in 1 / depth).",
}


class RangeAtPlaces:
    """How far predictions go apart from image to image at the same place: whether a model looks at its input."""

    def __init__(self) -> None:
        self.images = 0
        self._lowest_gg, self._highest_gg = np.full((2, _GRID, _GRID), np.nan)  # nan where there was no prediction

    def add(self, predicted_hw: NDArray[Any], counted_hw: NDArray[np.bool_]) -> None:
        """One image; only counted pixels are looked at."""
        rows, columns = (((np.arange(_GRID) + 0.5) * side / _GRID).astype(int) for side in counted_hw.shape)
        chosen = np.ix_(rows, columns)
        values_gg = np.where(counted_hw[chosen], predicted_hw[chosen].astype(np.float64), np.nan)
        self._take(values_gg, values_gg, 1)

    def merge(self, other: RangeAtPlaces) -> None:
        """Add what another one has seen."""
        self._take(other._lowest_gg, other._highest_gg, other.images)

    def _take(self, lowest_gg: NDArray[np.float64], highest_gg: NDArray[np.float64], images: int) -> None:
        self._lowest_gg = np.fmin(self._lowest_gg, lowest_gg)
        self._highest_gg = np.fmax(self._highest_gg, highest_gg)
        self.images += images

    def compute(self) -> float:
        """The range at a place over its middle, the median of all places; nan of fewer than two images."""
        seen_gg = np.isfinite(self._lowest_gg)
        if self.images < 2 or not seen_gg.any():
            return math.nan
        low_n, high_n = self._lowest_gg[seen_gg], self._highest_gg[seen_gg]
        return float(np.median((high_n - low_n) / np.maximum(np.abs(high_n + low_n) / 2, 1e-12)))


def fact_infos(predicts: str) -> dict[str, MetricInfo]:
    """What `DepthMetrics.compute` says beside the figures of quality."""
    infos: dict[str, MetricInfo] = {}
    fits = {"affine_aligned/": "m", "disparity_aligned/": "1/m"}
    if predicts == "metres":
        text = ALIGNED["median_aligned/"] + " The mean of these factors; 1 needs no alignment."
        infos["median_aligned/scale"] = MetricInfo("scale, median aligned", "", "neither", IMAGES, text)
    else:
        del fits["affine_aligned/"]
    for prefix, unit in fits.items():
        name, text = prefix[:-1].replace("_", " "), ALIGNED[prefix]
        infos[f"{prefix}scale"] = MetricInfo(f"scale, {name}", "", "neither", IMAGES, f"{text} The scale.")
        infos[f"{prefix}shift"] = MetricInfo(f"shift, {name}", unit, "neither", IMAGES, f"{text} The shift.")
        sign = f"{text} 1 where the scale is above 0, -1 where the prediction is inverted, 0 where it is flat."
        infos[f"{prefix}sign"] = MetricInfo(f"sign, {name}", "", "higher", IMAGES, sign)
    ranks = "Spearman's, of predicted and true depth; nan, and left out, where one of both is flat."
    infos["rank_correlation"] = MetricInfo("rank correlation", "", "higher", IMAGES, ranks)
    if predicts == "metres":
        clamp = "Share of the pixels whose prediction is at or beyond the nearest or farthest value there can be."
        infos["share_at_clamp"] = MetricInfo("share at the clamp", "", "lower", PIXELS, clamp)
        ratio = "Median of the prediction over median of the truth; 1 is right."
        infos["median_ratio"] = MetricInfo("ratio of medians", "", "neither", "median over images", ratio)
    inside = "Standard deviation of an image's predictions over their mean size; 0 is a flat map."
    infos["variation_inside"] = MetricInfo("variation inside images", "", "neither", IMAGES, inside)
    between = "Range of the predictions at one place of the image over their middle; 0: all images get the same map."
    over = "range over images, median over 256 places"
    infos["variation_between"] = MetricInfo("variation between images", "", "neither", over, between)
    return infos
