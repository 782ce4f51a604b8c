"""Calibration of an evaluation: of the probabilities as the network gives them, and after the run's temperature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.inference.base import ImagePredictor
from perpixel.metrics import Calibration, Detail, Reliability
from perpixel.metrics.calibration import BINS
from perpixel.reporting.plots import reliability_png


class CalibrationBeside:
    """Accumulates images, with and without the temperature of a predictor."""

    def __init__(self, predictor: ImagePredictor) -> None:
        self.predictor = predictor
        temperature = predictor.decision.get("temperature")
        self._before = Calibration()
        self._after = Calibration() if temperature is not None else None
        self._titles = (
            "Calibration without temperature" if self._after else "Calibration",
            f"Calibration with temperature {temperature}",
        )

    def add(
        self,
        scores_khw: NDArray[np.float32],
        confidence_hw: NDArray[np.float32],
        predicted_hw: NDArray[Any],
        target_hw: NDArray[Any],
        valid_hw: NDArray[np.bool_],
    ) -> None:
        """Add one image, with its confidence after the temperature.

        Nothing is done where the task's predictions are not right or wrong.
        """
        if not self.predictor.task.right_or_wrong:
            return
        right_hw = predicted_hw == target_hw
        self._before.update(self.predictor.task.confidence(scores_khw, predicted_hw), right_hw, valid_hw)
        if self._after:
            self._after.update(confidence_hw, right_hw, valid_hw)

    def details(self) -> list[Reliability]:
        """Without, then with the temperature; none where nothing was added."""
        found = [
            calibration.reliability(title)
            for title, calibration in zip(self._titles, (self._before, self._after), strict=True)
            if calibration is not None
        ]
        return [detail for detail in found if detail.pixels]


def calibration_line(details: Sequence[Detail]) -> list[str]:
    """The calibration errors in one line; none where there are none."""
    found = [detail for detail in details if isinstance(detail, Reliability)]
    if not found:
        return []
    told = ", ".join(f"{detail.error:.4f} {_manner(detail.title)}".rstrip() for detail in reversed(found))
    return [f"expected calibration error: {told} ({BINS} bins, all valid pixels)"]


def reliability_plot(details: Sequence[Detail]) -> bytes | None:
    """The reliability diagram as PNG; None where there is nothing to draw."""
    found = [detail for detail in details if isinstance(detail, Reliability)]
    if not found:
        return None
    return reliability_png(
        {
            f"{_manner(detail.title) or 'model'}, ECE {detail.error:.3f}": (
                detail.confidence,
                detail.accuracy,
                detail.pixels,
            )
            for detail in found
        }
    )


def _manner(title: str) -> str:
    return title.removeprefix("Calibration").strip()
