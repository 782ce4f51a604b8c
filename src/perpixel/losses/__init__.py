"""Loss terms of segmentation; the contract that all of them keep is in `perpixel.losses.base`."""

from __future__ import annotations

from perpixel.losses.base import LossFunction, LossOptions
from perpixel.losses.catalogue import LOSSES, WarmStartLoss, WeightedLoss

__all__ = ["LOSSES", "LossFunction", "LossOptions", "WarmStartLoss", "WeightedLoss"]
