"""How image and target of a pair go together: shifts, turns, channels. Plain functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.inspection.look import depth_edges, label_edges, picture_edges, shrink, to_8_bits
from perpixel.inspection.record import PairFacts

__all__ = ["REACH", "SIDE", "edge_surface", "pair_facts"]

REACH = 10  # pixels of shift, each way
SIDE = 256  # pixels of the longer side of the pictures that are compared
_Float = NDArray[np.float32]


def pair_facts(image_hwc: NDArray[Any], target: NDArray[Any], edges_of: str) -> PairFacts:
    """Compare an image with its target.

    Args:
        image_hwc: RGB, uint8 or uint16.
        target: label keys or stored depths, (H, W), or a picture, (H, W, 3), of any size.
        edges_of: ``labels``, ``depth`` or ``picture``.
    """
    small_hwc = shrink(to_8_bits(image_hwc), SIDE)
    height, width = small_hwc.shape[:2]
    left_hw = picture_edges(small_hwc)
    channels: list[list[float]] = []
    likeness = 0.0
    if edges_of == "picture":
        clean_hwc = cv2.resize(to_8_bits(target), (width, height), interpolation=cv2.INTER_AREA)
        right_hw = picture_edges(clean_hwc)
        channels = channel_correlations(small_hwc, clean_hwc)
        likeness = peak_ratio(to_8_bits(image_hwc), to_8_bits(target))
    else:
        edges_hw = label_edges(target) if edges_of == "labels" else depth_edges(target)
        right_hw = cv2.resize(edges_hw, (width, height), interpolation=cv2.INTER_AREA)
        right_hw = cv2.GaussianBlur(right_hw, (0, 0), 0.8)
    surface_hw = edge_surface(left_hw, right_hw)
    turned = [
        correlation(left_hw, turn)
        for turn in (right_hw[:, ::-1], right_hw[::-1], np.ascontiguousarray(right_hw[::-1, ::-1]))
    ]
    return PairFacts(
        surface_hw=np.rint(100 * surface_hw).clip(-127, 127).astype(np.int8),
        turned_3=[round(value, 4) for value in turned],
        step=max(image_hwc.shape[:2]) / max(height, width),
        channels_33=channels,
        likeness=likeness,
    )


def edge_surface(left_hw: _Float, right_hw: _Float) -> _Float:
    """Correlation of two pictures for every shift of the second one, row REACH and column REACH being none.

    At row REACH + y and column REACH + x stands how well they agree when what the second one shows lies y pixels
    lower and x farther to the right than in the first one.
    """
    left_hw, right_hw = _centred(left_hw), _centred(right_hw)
    scale = float(np.linalg.norm(left_hw) * np.linalg.norm(right_hw))
    if scale == 0 or min(left_hw.shape) <= 2 * REACH + 2:
        return np.zeros((2 * REACH + 1, 2 * REACH + 1), dtype=np.float32)
    padded = cv2.copyMakeBorder(right_hw, REACH, REACH, REACH, REACH, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(cv2.matchTemplate(padded, left_hw, cv2.TM_CCORR) / scale, dtype=np.float32)


def correlation(left_hw: _Float, right_hw: _Float) -> float:
    """Pearson's; 0 where one of them is flat."""
    left_hw, right_hw = _centred(left_hw), _centred(right_hw)
    scale = float(np.linalg.norm(left_hw) * np.linalg.norm(right_hw))
    return float((left_hw * right_hw).sum()) / scale if scale else 0.0


def _centred(values_hw: _Float) -> _Float:
    return np.ascontiguousarray(values_hw - values_hw.mean(), dtype=np.float32)


def channel_correlations(left_hwc: NDArray[np.uint8], right_hwc: NDArray[np.uint8]) -> list[list[float]]:
    """Pearson's correlation of what each channel has beyond the mean of the three."""
    parts: list[Sequence[_Float]] = []
    for picture_hwc in (left_hwc, right_hwc):
        values_hwc = picture_hwc.astype(np.float32)
        rest_hwc = values_hwc - values_hwc.mean(axis=2, keepdims=True)
        parts.append([rest_hwc[..., channel] for channel in range(3)])
    return [[round(correlation(left, right), 4) for right in parts[1]] for left in parts[0]]


def peak_ratio(image_hwc: NDArray[np.uint8], target_hwc: NDArray[np.uint8]) -> float:
    """PSNR in decibels of the target and the image enlarged (cubic) to its size; 100 where they are equal."""
    height, width = target_hwc.shape[:2]
    enlarged_hwc = cv2.resize(image_hwc, (width, height), interpolation=cv2.INTER_CUBIC)
    error = float(((enlarged_hwc.astype(np.float32) - target_hwc.astype(np.float32)) ** 2).mean())
    return 100.0 if error == 0 else float(min(100.0, 10 * np.log10(255**2 / error)))
