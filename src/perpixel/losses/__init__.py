"""Loss terms of segmentation, whose contract is in `perpixel.losses.base`, of depth, and of restoration."""

from __future__ import annotations

from perpixel.losses.base import LossFunction, LossOptions
from perpixel.losses.catalogue import LOSSES, WarmStartLoss, WeightedLoss
from perpixel.losses.depth import DEPTH_LOSSES, DepthLossOptions, WeightedDepthLoss
from perpixel.losses.restoration import RESTORATION_LOSSES, PerceptualLoss, WeightedRestorationLoss

__all__ = [
    "DEPTH_LOSSES",
    "LOSSES",
    "RESTORATION_LOSSES",
    "DepthLossOptions",
    "LossFunction",
    "LossOptions",
    "PerceptualLoss",
    "WarmStartLoss",
    "WeightedDepthLoss",
    "WeightedLoss",
    "WeightedRestorationLoss",
]
