"""Calibration: whether of all pixels that a model is 80 % sure of, 80 % are right; and the temperature that mends it.

A temperature T divides the logits of every class (Guo et al. 2017, "On Calibration of Modern Neural Networks"). From
probabilities p the logits are ln p but for a constant that cancels, so probabilities that were averaged over views and
resized can be tempered as well: p^(1/T), divided by their sum. One T for all classes keeps their order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.metrics.info import Reliability

__all__ = ["BINS", "SMALLEST_PROBABILITY", "Calibration", "TemperatureFit", "tempered"]

BINS = 15  # of equal width, as Guo et al. 2017
_CONFIDENCE_STEPS = 2**20  # confidences are summed in whole numbers, so that no order of images changes a digit
SMALLEST_PROBABILITY = 1e-7  # of a probability: float32 tells 1 from its neighbour by 6e-8
_TEMPERATURES = np.exp(np.linspace(np.log(1 / 8), np.log(8), 97))
_PIXELS_AN_IMAGE = 4096  # evenly spaced ones: neighbours say the same


class Calibration:
    """Accumulates images: how often predictions are right, by how sure the model was of them.

    The expected calibration error is the mean over pixels of |share that is right - mean confidence| of their bin.
    """

    def __init__(self) -> None:
        # Rows: pixels, confidence summed in steps, pixels that are right.
        self._sums_3b = np.zeros((3, BINS), dtype=np.int64)

    def update(
        self, confidence_hw: NDArray[np.float32], right_hw: NDArray[np.bool_], valid_hw: NDArray[np.bool_]
    ) -> None:
        """Add one image.

        Args:
            confidence_hw: of the predicted class, 0..1.
            right_hw: where the prediction equals the truth.
            valid_hw: where there is truth; other pixels count nowhere.

        Raises:
            ValueError: the shapes differ, or a valid pixel's confidence is not within 0..1.
        """
        if not confidence_hw.shape == right_hw.shape == valid_hw.shape:
            shapes = f"{confidence_hw.shape}, {right_hw.shape} and {valid_hw.shape}"
            raise ValueError(f"confidence, right and valid must be of one size; they are {shapes}")
        confidence_n = confidence_hw[valid_hw].astype(np.float64)
        if confidence_n.size and not (confidence_n.min() >= 0 and confidence_n.max() <= 1):
            raise ValueError(f"confidence must be 0 to 1; it is {confidence_n.min()} to {confidence_n.max()}")
        # Bins are closed on the right, as in the paper; 0 belongs to the first.
        bin_n = np.maximum(np.ceil(confidence_n * BINS).astype(np.int64) - 1, 0)
        steps_n = np.rint(confidence_n * _CONFIDENCE_STEPS)
        for row, weights in enumerate((None, steps_n, right_hw[valid_hw])):
            self._sums_3b[row] += np.bincount(bin_n, weights, minlength=BINS).astype(np.int64)

    def merge(self, other: Calibration) -> None:
        """Add what another accumulator has seen, as if its images had been added here."""
        self._sums_3b = self._sums_3b + other._sums_3b

    def compute(self) -> float:
        """The expected calibration error, 0 to 1; nan before the first valid pixel."""
        pixels_b, steps_b, right_b = self._sums_3b
        total = int(pixels_b.sum())
        return float(np.abs(right_b - steps_b / _CONFIDENCE_STEPS).sum() / total) if total else math.nan

    def reliability(self, title: str) -> Reliability:
        """What lies behind the error; bins without a pixel are left out."""
        pixels_b, steps_b, right_b = self._sums_3b
        seen_b = pixels_b > 0
        return Reliability(
            title,
            confidence=(steps_b[seen_b] / _CONFIDENCE_STEPS / pixels_b[seen_b]).tolist(),
            accuracy=(right_b[seen_b] / pixels_b[seen_b]).tolist(),
            pixels=pixels_b[seen_b].tolist(),
            error=self.compute(),
        )


def tempered(probability_khw: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities after the logits were divided by a temperature; above 1 the model becomes less sure.

    Args:
        probability_khw: of each class; of one channel alone, the probability of the second of two classes.
        temperature: above 0. Of 1 nothing is changed.
    """
    if temperature == 1:
        return probability_khw
    logit_khw = _logits(probability_khw) / np.float32(temperature)
    logit_khw -= logit_khw.max(axis=0)
    power_khw = np.exp(logit_khw)
    power_khw /= power_khw.sum(axis=0)
    result_khw: NDArray[np.float32] = power_khw[1:] if len(probability_khw) == 1 else power_khw
    # What is no number stays none: hiding it would hide a broken model.
    return np.where(np.isnan(probability_khw), probability_khw, result_khw).astype(np.float32, copy=False)


class TemperatureFit:
    """Accumulates images; the temperature with the least negative log-likelihood of the true classes.

    A grid of temperatures, evenly spaced in their logarithm, is summed image by image, so that no scores are kept; a
    parabola through the three lowest places refines it. Of each image some thousand evenly spaced pixels are looked at.
    """

    def __init__(self) -> None:
        self._likelihoods: list[NDArray[np.float64]] = []

    def update(
        self, probability_khw: NDArray[np.float32], target_hw: NDArray[Any], valid_hw: NDArray[np.bool_]
    ) -> None:
        """Add one image: probabilities as `tempered` takes them, and the true class of each valid pixel."""
        places_n = np.flatnonzero(valid_hw)
        places_n = places_n[:: max(1, len(places_n) // _PIXELS_AN_IMAGE)]
        probability_kn = probability_khw.reshape(len(probability_khw), -1)[:, places_n]
        known_n = np.isfinite(probability_kn).all(axis=0)
        logit_kn = _logits(probability_kn[:, known_n]).astype(np.float64)
        true_n = target_hw.reshape(-1)[places_n][known_n].astype(np.int64)
        if not true_n.size:
            return
        true_logit_n = np.take_along_axis(logit_kn, true_n[None], axis=0)[0]
        highest_n = logit_kn.max(axis=0)
        weight = np.count_nonzero(valid_hw) / len(true_n)
        self._likelihoods.append(
            np.array([weight * _surprise(logit_kn, true_logit_n, highest_n, beta) for beta in 1 / _TEMPERATURES])
        )

    def compute(self) -> float:
        """The temperature, within 1/8 to 8; 1 when nothing was seen."""
        if not self._likelihoods:
            return 1.0
        total_t = [math.fsum(values) for values in np.stack(self._likelihoods, axis=1)]
        best = int(np.argmin(total_t))
        step = math.log(_TEMPERATURES[1] / _TEMPERATURES[0])
        if not 0 < best < len(total_t) - 1:
            return round(float(_TEMPERATURES[best]), 4)
        left, middle, right = total_t[best - 1 : best + 2]
        curvature = left - 2 * middle + right
        shift = 0.5 * (left - right) / curvature if curvature > 0 else 0.0
        return round(float(_TEMPERATURES[best] * math.exp(shift * step)), 4)


def _surprise(
    logit_kn: NDArray[np.float64], true_logit_n: NDArray[np.float64], highest_n: NDArray[np.float64], beta: float
) -> float:
    """Negative log-likelihood summed over pixels, with logits times ``beta``."""
    log_sum_n = np.log(np.exp(beta * (logit_kn - highest_n)).sum(axis=0)) + beta * highest_n
    return float((log_sum_n - beta * true_logit_n).sum())


def _logits(probability_kn: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of every class but for a constant; one channel stands for two classes."""
    if len(probability_kn) == 1:
        probability_kn = np.concatenate([1 - probability_kn, probability_kn])
    return np.log(np.maximum(probability_kn, np.float32(SMALLEST_PROBABILITY)))
