"""What a figure is: nothing is reported without it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Curve", "Detail", "Matrix", "MetricInfo", "Reliability"]


@dataclass(frozen=True)
class MetricInfo:
    """Meaning of one figure.

    Attributes:
        name: its name for people.
        unit: "" for a plain ratio.
        direction: which end is the better one; ``neither``: it is no figure to choose by.
        averaging: over what it is summed or averaged, in one phrase.
        description: one or two sentences, with the rule for 0/0.
    """

    name: str
    unit: str
    direction: Literal["higher", "lower", "neither"]
    averaging: str
    description: str


@dataclass(frozen=True)
class Matrix:
    """Behind the figures: counts of pixels by truth (rows) and prediction (columns)."""

    title: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Curve:
    """Behind the figures: values ``y`` at the places ``x``, each of so many pixels; places without any are left out."""

    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    y: Sequence[float]
    pixels: Sequence[int]


@dataclass(frozen=True)
class Reliability:
    """Behind the calibration error: of pixels of about one confidence, what share is right; bins without any are left
    out. ``error`` is the expected calibration error."""

    title: str
    confidence: Sequence[float]
    accuracy: Sequence[float]
    pixels: Sequence[int]
    error: float


Detail = Matrix | Curve | Reliability
