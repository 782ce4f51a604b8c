"""ITU-R BT.601 luma of gamma-encoded RGB, in its two ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["luma_full", "luma_studio"]

_WEIGHTS = np.array([0.299, 0.587, 0.114])
# 219 times the weights, to the three digits that MATLAB's rgb2ycbcr has; their sum is 219.
_STUDIO = np.array([65.481, 128.553, 24.966])


def luma_full(image_hwc: NDArray[Any]) -> NDArray[np.float64]:
    """luma_hw of RGB, in the image's own range: 0 is black, and white is white."""
    return np.asarray(image_hwc.astype(np.float64) @ _WEIGHTS, dtype=np.float64)


def luma_studio(image_hwc: NDArray[Any]) -> NDArray[np.float64]:
    """Y of YCbCr of RGB in [0, 1]: luma_hw from 16 / 255 (black) to 235 / 255 (white), not rounded.

    MATLAB's ``rgb2ycbcr`` rounds it to whole numbers where the image is uint8; BasicSR and most others do not.
    """
    return np.asarray((image_hwc.astype(np.float64) @ _STUDIO + 16) / 255, dtype=np.float64)
