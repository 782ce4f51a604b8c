"""Edges of depth maps, and how well a predicted map has them: boundary F1 of Depth Pro (Bochkovskii et al. 2024).

Two neighbours make an edge at threshold t when one is more than t times as far as the other. A predicted edge is
right when the truth has one between the same two pixels, the same one in front. Scale changes nothing.

As in the paper there are ten thresholds from 1.05 to 1.25, and each weighs as much as it is. Unlike in the paper's
code, which averages the four directions and counts 0 where there is no edge, the directions' counts are added up, and
thresholds at which neither map has an edge are left out: so a perfect map scores 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["THRESHOLDS", "depth_edge_counts", "depth_edge_f1"]

THRESHOLDS = np.linspace(1.05, 1.25, 10)


def depth_edge_counts(
    log_predicted_hw: NDArray[Any], log_target_hw: NDArray[Any], valid_hw: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Counts of edges between valid neighbours, at every threshold.

    Args:
        log_predicted_hw: natural logarithm of the predicted depth; anything finite where ``valid_hw`` is False.
        log_target_hw: the same of the truth.
        valid_hw: where there is truth.

    Returns:
        counts_3t: edges in both, predicted edges, true edges.
    """
    limits_t = np.log(THRESHOLDS)
    counts_3t = np.zeros((3, len(limits_t)), dtype=np.int64)
    for axis in (0, 1):
        first, second = (slice(None),) * axis + (slice(None, -1),), (slice(None),) * axis + (slice(1, None),)
        pairs = valid_hw[first] & valid_hw[second]
        predicted_n, target_n = (
            (log_hw[second] - log_hw[first])[pairs] for log_hw in (log_predicted_hw, log_target_hw)
        )
        both_n = np.where(predicted_n * target_n > 0, np.minimum(abs(predicted_n), abs(target_n)), 0)
        for row, jumps_n in enumerate((both_n, abs(predicted_n), abs(target_n))):
            jumps_n = np.sort(jumps_n[jumps_n > limits_t[0]])
            counts_3t[row] += len(jumps_n) - np.searchsorted(jumps_n, limits_t, side="right")
    return counts_3t


def depth_edge_f1(counts_3t: NDArray[np.int64]) -> float:
    """F1 from the counts of `depth_edge_counts`, averaged over the thresholds; nan when neither map has an edge."""
    both_t, predicted_t, true_t = counts_3t
    weights_t = np.where(predicted_t + true_t > 0, THRESHOLDS, 0)
    if not weights_t.any():
        return math.nan
    f1_t = 2 * both_t / np.maximum(predicted_t + true_t, 1)  # 2 TP / (2 TP + FP + FN)
    return float((weights_t * f1_t).sum() / weights_t.sum())
