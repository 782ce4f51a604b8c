"""Bicubic resizing as MATLAB's ``imresize`` does it, which the figures of super-resolution are published against.

Keys's kernel with a = -0.5; pixel centres at half; mirrored borders; and where the image shrinks, the kernel is widened
by the factor, so that nothing aliases. OpenCV and torch have a = -0.75, and do not widen the kernel unless asked.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["imresize"]

Floats = NDArray[np.float32]


def imresize(image_hwc: NDArray[Any], size: tuple[int, int]) -> Floats:
    """``image_hwc`` at ``size`` (height, width) as float32; values beyond the range of the image are not clipped.

    The factor is the quotient of the sizes. In MATLAB it is the one that was asked for, which is the same wherever
    ``factor * side`` is whole.

    Raises:
        ValueError: no three-dimensional image, or a size below 1.
    """
    if image_hwc.ndim != 3 or min(image_hwc.shape) < 1 or min(size) < 1:
        raise ValueError(f"an image (H, W, C) and a size of at least 1 x 1; they are {image_hwc.shape} and {size}")
    resized = image_hwc.astype(np.float32)
    for axis in (0, 1):
        resized = _resize_axis(resized, size[axis], axis)
    return resized


def _resize_axis(values: Floats, length: int, axis: int) -> Floats:
    if values.shape[axis] == length:
        return values
    index_nt, weight_nt = _taps(values.shape[axis], length)
    shape = [-1 if number == axis else 1 for number in range(values.ndim)]
    resized = np.float32(0)
    for index_n, weight_n in zip(index_nt.T, weight_nt.T, strict=True):
        resized = resized + values.take(index_n, axis=axis) * weight_n.reshape(shape)
    return np.asarray(resized, dtype=np.float32)


def _taps(before: int, after: int) -> tuple[NDArray[np.int64], Floats]:
    """Of each of ``after`` pixels: which of the ``before`` pixels it is made of, and how much of each."""
    shrink = max(before / after, 1.0)
    centre_n1 = ((np.arange(after) + 0.5) * (before / after) - 0.5)[:, None]
    count = math.ceil(4 * shrink) + 1
    place_nt = np.floor(centre_n1 - 2 * shrink).astype(np.int64) + 1 + np.arange(count)
    weight_nt = _keys((centre_n1 - place_nt) / shrink)
    weight_nt /= weight_nt.sum(axis=1, keepdims=True)
    mirrored_nt = place_nt % (2 * before)  # ... 1 0 | 0 1 2 | 2 1 ...
    mirrored_nt = np.where(mirrored_nt < before, mirrored_nt, 2 * before - 1 - mirrored_nt)
    return mirrored_nt, weight_nt.astype(np.float32)


def _keys(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic convolution kernel (Keys 1981), a = -0.5."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
