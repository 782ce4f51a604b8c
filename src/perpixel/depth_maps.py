"""What is done to a finished depth map: colours for people, smoothing. Needs no torch."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["guided_smooth", "linear_to_srgb", "paint_depth", "smooth_depth", "srgb_to_linear"]

_INVALID_GREY = 128


def srgb_to_linear(srgb: NDArray[Any]) -> NDArray[np.float64]:
    """Linear light of sRGB values, both 0 to 1 (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, dtype=np.float64)
    curved = ((np.maximum(srgb, 0) + 0.055) / 1.055) ** 2.4
    return np.where(srgb <= 0.04045, srgb / 12.92, curved)


def linear_to_srgb(linear: NDArray[Any]) -> NDArray[np.float64]:
    """The inverse of `srgb_to_linear`: cut where that is cut, so that the two agree at every value."""
    linear = np.asarray(linear, dtype=np.float64)
    curved = 1.055 * np.maximum(linear, 0) ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.04045 / 12.92, 12.92 * linear, curved)


def paint_depth(depth_hw: NDArray[Any], valid_hw: NDArray[np.bool_], near: float, far: float) -> NDArray[np.uint8]:
    """A picture of a depth map: the Turbo colours (Mikhailov 2019) from red at ``near`` to blue at ``far``.

    Args:
        depth_hw: metres.
        valid_hw: other pixels become grey.
        near: metres; what is nearer is painted like it.
        far: metres, above ``near``; what is farther is painted like it.

    Returns:
        image_hwc, uint8 RGB.

    Raises:
        ValueError: the shapes differ, a valid depth is NaN, or ``near`` is not below ``far``.
    """
    _check(depth_hw, valid_hw)
    if not near < far:
        raise ValueError(f"near must be below far; they are {near} and {far}")
    far_share_hw = (np.where(valid_hw, depth_hw, far).astype(np.float64) - near) / (far - near)
    index_hw = np.rint(255 * (1 - far_share_hw.clip(0, 1))).astype(np.uint8)
    image_hwc = cv2.applyColorMap(index_hw, cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(valid_hw[..., None], image_hwc, np.uint8(_INVALID_GREY))


def smooth_depth(depth_hw: NDArray[Any], valid_hw: NDArray[np.bool_], sigma: float) -> NDArray[np.float32]:
    """Gaussian smoothing over the valid pixels alone: normalised convolution (Knutsson and Westin 1993).

    Args:
        depth_hw: metres; anything where ``valid_hw`` is False.
        valid_hw: which pixels count; the others neither give nor get a value.
        sigma: of the Gaussian in pixels, above 0.

    Returns:
        depth_hw in metres; 0 where ``valid_hw`` is False.

    Raises:
        ValueError: the shapes differ, a valid depth is NaN, or ``sigma`` is not above 0.
    """
    _check(depth_hw, valid_hw)
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0; it is {sigma}")
    radius = int(np.ceil(4 * sigma))

    def blur(values_hw: NDArray[np.float64]) -> NDArray[np.float64]:
        size = (2 * radius + 1, 2 * radius + 1)
        return np.asarray(cv2.GaussianBlur(values_hw, size, sigma, borderType=cv2.BORDER_CONSTANT))

    # A valid pixel lies in its own window, so its weight is never 0.
    weight_hw = np.where(valid_hw, blur(valid_hw.astype(np.float64)), 1)
    return np.where(valid_hw, blur(_filled(depth_hw, valid_hw)) / weight_hw, 0).astype(np.float32)


def guided_smooth(
    depth_hw: NDArray[Any],
    valid_hw: NDArray[np.bool_],
    image_hwc: NDArray[np.uint8],
    radius: int = 4,
    eps: float = 1e-3,
) -> NDArray[np.float32]:
    """Smoothing that keeps the edges of the image: the guided filter (He et al. 2013) over the valid pixels alone.

    In each square window the depth is fitted as a line in the image's grey value; a pixel gets the mean of the
    lines of the windows that hold it.

    Args:
        depth_hw: metres; anything where ``valid_hw`` is False.
        valid_hw: which pixels count; the others neither give nor get a value.
        image_hwc: uint8 RGB of the same size.
        radius: of the windows in pixels, 1 or more.
        eps: variance of the grey value (0 to 1) below which a window counts as flat and is smoothed.

    Returns:
        depth_hw in metres; 0 where ``valid_hw`` is False.

    Raises:
        ValueError: the shapes differ, a valid depth is NaN, or ``radius`` or ``eps`` is too small.
    """
    _check(depth_hw, valid_hw)
    if image_hwc.shape != (*depth_hw.shape, 3) or image_hwc.dtype != np.uint8:
        raise ValueError(f"depth {depth_hw.shape} needs an RGB image of uint8 and its size, not {image_hwc.shape}")
    if radius < 1 or not eps > 0:
        raise ValueError(f"radius must be 1 or more and eps above 0; they are {radius} and {eps}")
    size = (2 * radius + 1, 2 * radius + 1)

    def window_sum(values_hw: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.boxFilter(values_hw, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT))

    weight_hw = valid_hw.astype(np.float64)
    count_hw = np.maximum(window_sum(weight_hw), 1)
    # Subtracting a constant keeps the digits that the difference of two large squares would lose.
    shift = float(depth_hw[valid_hw].mean()) if valid_hw.any() else 0.0
    depth_64_hw = _filled(depth_hw, valid_hw) - shift * weight_hw
    guide_hw = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY).astype(np.float64) / 255

    guide_mean_hw = window_sum(guide_hw * weight_hw) / count_hw
    depth_mean_hw = window_sum(depth_64_hw) / count_hw
    variance_hw = np.maximum(window_sum(guide_hw**2 * weight_hw) / count_hw - guide_mean_hw**2, 0)
    covariance_hw = window_sum(guide_hw * depth_64_hw) / count_hw - guide_mean_hw * depth_mean_hw
    slope_hw = covariance_hw / (variance_hw + eps)
    offset_hw = depth_mean_hw - slope_hw * guide_mean_hw
    # Lines of windows around valid pixels alone: others may stand on nothing.
    lines_hw = window_sum(slope_hw * weight_hw) / count_hw * guide_hw + window_sum(offset_hw * weight_hw) / count_hw
    return np.where(valid_hw, lines_hw + shift, 0).astype(np.float32)


def _check(depth_hw: NDArray[Any], valid_hw: NDArray[np.bool_]) -> None:
    if depth_hw.ndim != 2 or depth_hw.shape != valid_hw.shape or valid_hw.dtype != np.bool_:
        raise ValueError(f"depth and bool valid must be (H, W) of one size; {depth_hw.shape} and {valid_hw.shape}")
    if np.isnan(depth_hw[valid_hw]).any():
        raise ValueError("a valid depth is NaN")


def _filled(depth_hw: NDArray[Any], valid_hw: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.where(valid_hw, depth_hw, 0).astype(np.float64)
