"""Uncertainty of predictions that are numbers: whether the pixels that are unsure are those that are wrong.

Sparsification (Ilg et al. 2018, "Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow"): the mean error
of what remains when the most unsure pixels are removed, against the same when the most wrong ones are removed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

__all__ = ["REMOVED", "Uncertainty"]

REMOVED = tuple(step / 20 for step in range(20))
_PIXELS_AN_IMAGE = 20_000  # evenly spaced ones


class Uncertainty:
    """Accumulates images; every figure is a mean over those in which both error and uncertainty vary."""

    def __init__(self) -> None:
        self._correlations: list[float] = []
        self._by_unsure: list[NDArray[np.float64]] = []
        self._by_wrong: list[NDArray[np.float64]] = []

    def update(self, unsure_hw: NDArray[Any], error_hw: NDArray[Any], valid_hw: NDArray[np.bool_]) -> float:
        """Add one image; returns its rank correlation, nan where error or uncertainty are the same everywhere.

        Args:
            unsure_hw: larger where the model is less sure.
            error_hw: 0 or more.
            valid_hw: where there is truth; other pixels count nowhere.
        """
        places_n = np.flatnonzero(valid_hw)
        places_n = places_n[:: max(1, len(places_n) // _PIXELS_AN_IMAGE)]
        unsure_n = unsure_hw.reshape(-1)[places_n].astype(np.float64)
        error_n = error_hw.reshape(-1)[places_n].astype(np.float64)
        if len(places_n) < len(REMOVED) or not (np.ptp(unsure_n) > 0 and np.ptp(error_n) > 0):
            return math.nan
        correlation = float(np.corrcoef(rankdata(unsure_n), rankdata(error_n))[0, 1])
        self._correlations.append(correlation)
        self._by_unsure.append(_remaining(error_n, unsure_n))
        self._by_wrong.append(_remaining(error_n, error_n))
        return correlation

    def compute(self) -> dict[str, Any]:
        """``images``; ``rank_correlation`` of uncertainty and error (Spearman); ``remaining_error`` by share removed
        (see `REMOVED`), 1 at none, and ``least_possible``, when the most wrong are removed; ``sparsification_error``:
        the mean of their difference, 0 at best. Without an image only ``images``."""
        if not self._correlations:
            return {"images": 0}
        unsure, wrong = np.mean(self._by_unsure, axis=0), np.mean(self._by_wrong, axis=0)
        return {
            "images": len(self._correlations),
            "rank_correlation": math.fsum(self._correlations) / len(self._correlations),
            "sparsification_error": float((unsure - wrong).mean()),
            "removed": list(REMOVED),
            "remaining_error": unsure.tolist(),
            "least_possible": wrong.tolist(),
        }


def _remaining(error_n: NDArray[np.float64], order_n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean error of what remains without the largest by ``order_n``, divided by that of all, for each of `REMOVED`."""
    mean_n = np.cumsum(error_n[np.argsort(order_n, kind="stable")]) / np.arange(1, len(error_n) + 1)
    kept = [len(error_n) - int(share * len(error_n)) for share in REMOVED]
    return np.asarray(mean_n[np.array(kept) - 1] / mean_n[-1])
