"""Loss terms of segmentation, whose contract is in `perpixel.losses.base`, and of depth."""

from __future__ import annotations

from perpixel.losses.base import LossFunction, LossOptions
from perpixel.losses.catalogue import LOSSES, WarmStartLoss, WeightedLoss
from perpixel.losses.depth import DEPTH_LOSSES, DepthLossOptions, WeightedDepthLoss

__all__ = [
    "DEPTH_LOSSES",
    "LOSSES",
    "DepthLossOptions",
    "LossFunction",
    "LossOptions",
    "WarmStartLoss",
    "WeightedDepthLoss",
    "WeightedLoss",
]
