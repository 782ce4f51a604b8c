"""Figures of finalised predictions, image by image at their original size. Needs no torch."""

from __future__ import annotations

from perpixel.metrics.calibration import SMALLEST_PROBABILITY, Calibration, TemperatureFit, tempered
from perpixel.metrics.depth import DepthMetrics
from perpixel.metrics.info import Curve, Detail, Matrix, MetricInfo, Reliability
from perpixel.metrics.restoration import RestorationMetrics
from perpixel.metrics.segmentation import SegmentationMetrics

__all__ = [
    "SMALLEST_PROBABILITY",
    "Calibration",
    "Curve",
    "DepthMetrics",
    "Detail",
    "Matrix",
    "MetricInfo",
    "Reliability",
    "RestorationMetrics",
    "SegmentationMetrics",
    "TemperatureFit",
    "tempered",
]
