"""What a restoration must beat: predictions without a learned parameter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.imresize import imresize
from perpixel.luma import luma_full

__all__ = ["bicubic", "clahe", "gamma_corrected", "histogram_matched"]


def bicubic(image_hwc: NDArray[Any], scale: int) -> NDArray[Any]:
    """``image_hwc`` enlarged by `imresize`, in its own type; with ``scale`` 1 the input itself."""
    if scale == 1:
        return image_hwc
    height, width = image_hwc.shape[:2]
    return _as_type(imresize(_unit(image_hwc), (scale * height, scale * width)), image_hwc.dtype)


def gamma_corrected(image_hwc: NDArray[Any], mean_luma: float) -> NDArray[Any]:
    """``image_hwc`` ** gamma, in its own type, with the gamma that brings its mean luma to ``mean_luma`` (in 0..1).

    Take the mean over the training truths, which is known before an image is seen. Gamma stays within 1/20 and 20; an
    image that is black or white all over cannot be changed by it.
    """
    unit_hwc = _unit(image_hwc)
    low, high = -np.log(20.0), np.log(20.0)
    for _ in range(30):  # a larger gamma is darker
        middle = (low + high) / 2
        brighter = luma_full(unit_hwc ** np.exp(middle)).mean() > mean_luma
        low, high = (middle, high) if brighter else (low, middle)
    return _as_type(unit_hwc ** np.exp((low + high) / 2), image_hwc.dtype)


def histogram_matched(image_hwc: NDArray[Any], quantiles_qc: NDArray[np.float64]) -> NDArray[Any]:
    """Each channel with the distribution of ``quantiles_qc``, in its own type; equal values stay equal.

    Args:
        image_hwc: RGB.
        quantiles_qc: values in [0, 1] at evenly spaced quantiles 0 to 1 of each channel, of the training truths.
    """
    unit_hwc = _unit(image_hwc)
    place_q = np.linspace(0, 1, len(quantiles_qc))
    channels = []
    for channel in range(unit_hwc.shape[2]):
        _, inverse_n, count_n = np.unique(unit_hwc[..., channel], return_inverse=True, return_counts=True)
        rank_n = (count_n.cumsum() - 0.5 * count_n) / count_n.sum()
        matched_n = np.interp(rank_n, place_q, quantiles_qc[:, channel])
        channels.append(matched_n[inverse_n].reshape(unit_hwc.shape[:2]))
    return _as_type(np.stack(channels, axis=2), image_hwc.dtype)


def clahe(image_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Contrast-limited adaptive histogram equalisation of L of Lab: OpenCV's, clip limit 2, 8 x 8 tiles."""
    import cv2

    lab_hwc = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2LAB)
    lab_hwc[..., 0] = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply(lab_hwc[..., 0])
    return np.asarray(cv2.cvtColor(lab_hwc, cv2.COLOR_LAB2RGB), dtype=np.uint8)


def _unit(image_hwc: NDArray[Any]) -> NDArray[np.float32]:
    if image_hwc.dtype.kind == "f":
        return image_hwc.astype(np.float32)
    return image_hwc.astype(np.float32) / np.float32(np.iinfo(image_hwc.dtype).max)


def _as_type(unit_hwc: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values clipped to [0, 1], in ``dtype``, rounded if it is one of whole numbers."""
    unit_hwc = unit_hwc.clip(0, 1)
    if dtype.kind == "f":
        return unit_hwc.astype(dtype)
    return np.round(unit_hwc * float(np.iinfo(dtype).max)).astype(dtype)
