"""Figures of finalised predictions, image by image at their original size. Needs no torch."""

from __future__ import annotations

from perpixel.metrics.depth import DepthMetrics
from perpixel.metrics.info import MetricInfo
from perpixel.metrics.restoration import RestorationMetrics
from perpixel.metrics.segmentation import SegmentationMetrics

__all__ = ["DepthMetrics", "MetricInfo", "RestorationMetrics", "SegmentationMetrics"]
