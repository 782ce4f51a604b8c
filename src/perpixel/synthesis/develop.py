"""From radiance to a picture, as a camera does it: exposure, air, a soft shoulder for the highlights, sRGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perpixel.synthesis.scene import Haze

__all__ = ["develop", "expose"]

_REC709 = np.array([0.2126, 0.7152, 0.0722], np.float32)  # luminance of linear sRGB, ITU-R BT.709
_MIDDLE, _BRIGHT = 0.28, 1.1  # exposed luminance of a scene's middle tones, and at most of its bright ones
_SHOULDER = 0.6  # where highlights begin to be compressed


def develop(
    radiance_hwc: NDArray[np.float32],
    distance_hw: NDArray[np.float32],
    coverage_hw: NDArray[np.float32],
    *,
    haze: Haze | None = None,
    exposure: float | None = None,
) -> NDArray[np.uint8]:
    """Turn linear radiance into uint8 sRGB.

    Args:
        radiance_hwc: at least 0.
        distance_hw: metres to what is met, the mean over those parts of a pixel that meet anything.
        coverage_hw: the share of these parts, 0 to 1. Air lies before them alone: a sky has its own.
        haze: the air; None is clear.
        exposure: factor on radiance; None: chosen by `expose`.
    """
    image_hwc = radiance_hwc * np.float32(expose(radiance_hwc) if exposure is None else exposure)
    if haze is not None:
        # Beer-Lambert attenuation; what is lost is replaced by light that the air scatters towards the camera.
        air_hw1 = (coverage_hw * -np.expm1(-haze.extinction * distance_hw))[..., None]
        image_hwc = image_hwc * (1 - air_hw1) + np.array(haze.color, np.float32) * air_hw1
    above_hwc = np.maximum(image_hwc - _SHOULDER, 0) / (1 - _SHOULDER)
    image_hwc = np.minimum(image_hwc, _SHOULDER) + (1 - _SHOULDER) * -np.expm1(-above_hwc)
    return np.round(_srgb(image_hwc.clip(0, 1)) * 255).astype(np.uint8)


def expose(radiance_hwc: NDArray[np.float32]) -> float:
    """The factor that brings the geometric mean of the luminance to middle grey, unless that burns the brightest
    twentieth of the pixels out."""
    luminance_hw = radiance_hwc @ _REC709
    if luminance_hw.max() <= 0:
        return 1.0
    middle = float(np.exp(np.log(np.maximum(luminance_hw, 1e-4 * luminance_hw.max())).mean()))
    return min(_MIDDLE / middle, _BRIGHT / float(np.percentile(luminance_hw, 95)))


def _srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
