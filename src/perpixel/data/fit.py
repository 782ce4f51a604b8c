"""The one mapping between an image's own size and the size a network sees, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.recipe import AugmentationSection, InputSection


@dataclass(frozen=True)
class Fit:
    """An image of ``original`` size is scaled to ``scaled`` and stands at (top, left) in ``size``; all (h, w).

    ``zoom``: how much larger things are than they would be in a prediction.
    """

    original: tuple[int, int]
    scaled: tuple[int, int]
    size: tuple[int, int]
    top: int
    left: int
    zoom: float = 1.0


def plan_fit(original_hw: tuple[int, int], spec: InputSection) -> Fit:
    """How an image of this size is brought to the network's size."""
    height, width = spec.size
    if spec.fit == "resize":
        return Fit(original_hw, (height, width), (height, width), 0, 0)
    if spec.fit == "crop":
        scaled = _scaled(original_hw, _own_scale(original_hw, spec))
        return Fit(original_hw, scaled, scaled, 0, 0)
    factor = min(1.0, height / original_hw[0], width / original_hw[1])
    scaled = _scaled(original_hw, factor)
    return Fit(original_hw, scaled, (height, width), (height - scaled[0]) // 2, (width - scaled[1]) // 2)


def plan_crop(
    target_hw: NDArray[Any],
    spec: InputSection,
    augmentation: AugmentationSection,
    fill: float,
    rng: np.random.Generator,
) -> tuple[slice, slice, Fit]:
    """A random crop for training: which (rows, columns) of the original to cut out, and how they are fitted.

    The part is cut before it is scaled, so that nothing outside it is touched. An image smaller than the
    crop stands in it somewhere, with padding around.
    """
    draws = rng.random(6)
    low, high = augmentation.crop_scale
    zoom = low * (high / low) ** float(draws[0])
    factor = _own_scale(target_hw.shape[:2], spec) * zoom
    centre = None
    if draws[1] < augmentation.rare_class_crops:
        centre = _pixel_of_a_class(target_hw, fill, draws[2:4])
    rows, height, top = _cut(target_hw.shape[0], spec.size[0], factor, draws[4], centre and centre[0])
    columns, width, left = _cut(target_hw.shape[1], spec.size[1], factor, draws[5], centre and centre[1])
    part = (rows.stop - rows.start, columns.stop - columns.start)
    return rows, columns, Fit(part, (height, width), spec.size, top, left, zoom)


def paired_crop(
    image_hwc: NDArray[Any], target_hwc: NDArray[Any], size: tuple[int, int], scale: int, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same random part of two images: ``size`` of the one, ``scale`` times as much of the other; nothing resized.

    A smaller pair is mirrored about its lower and right edge, the outermost pixel included, so that both stay aligned.
    """
    draws = rng.random(2)
    whole = image_hwc.shape[:2]
    top, left = (int(draw * (max(0, side - part) + 1)) for draw, side, part in zip(draws, whole, size, strict=True))
    return _cut_mirrored(image_hwc, top, left, size), _cut_mirrored(
        target_hwc, scale * top, scale * left, (scale * size[0], scale * size[1])
    )


def _cut_mirrored(image_hwc: NDArray[Any], top: int, left: int, size: tuple[int, int]) -> NDArray[Any]:
    part_hwc = image_hwc[top : top + size[0], left : left + size[1]]
    missing = size[0] - part_hwc.shape[0], size[1] - part_hwc.shape[1]
    return np.pad(part_hwc, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric") if any(missing) else part_hwc


def _own_scale(original_hw: tuple[int, int], spec: InputSection) -> float:
    return 1.0 if spec.long_side is None else spec.long_side / max(original_hw)


def _scaled(size_hw: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size_hw[0] * factor)), max(1, round(size_hw[1] * factor))


def _cut(whole: int, size: int, factor: float, draw: float, centre: int | None) -> tuple[slice, int, int]:
    """Along one axis: what is cut out of ``whole`` pixels, how long it becomes, where it stands in ``size`` pixels."""
    length = max(1, round(size / factor))
    if length > whole:
        scaled = min(size, max(1, round(whole * factor)))
        return slice(0, whole), scaled, int(draw * (size - scaled + 1))
    start = int(draw * (whole - length + 1))
    if centre is not None:  # it comes to lie in the middle half of the crop, where the image allows that
        start = min(max(0, round(centre - length * (0.25 + 0.5 * draw))), whole - length)
    return slice(start, start + length), size, 0


def _pixel_of_a_class(target_hw: NDArray[Any], fill: float, draws: NDArray[np.float64]) -> tuple[int, int] | None:
    """(row, column) of a random pixel of a class drawn evenly from those present; None where none is."""
    present = np.flatnonzero(np.bincount(target_hw.reshape(-1)))
    present = present[present != fill]
    if len(present) == 0:
        return None
    places = np.flatnonzero(target_hw == present[int(draws[0] * len(present))])
    row, column = divmod(int(places[int(draws[1] * len(places))]), target_hw.shape[1])
    return row, column


def fit_image(image_hwc: NDArray[np.uint8], fit: Fit) -> NDArray[np.uint8]:
    """Scale (area average along what shrinks, bilinear along what grows), then mirror the border into the padding."""
    height, width = image_hwc.shape[:2]
    smaller = (min(height, fit.scaled[0]), min(width, fit.scaled[1]))
    if smaller != (height, width):
        image_hwc = _resize(image_hwc, smaller, cv2.INTER_AREA)
    if smaller != fit.scaled:
        image_hwc = _resize(image_hwc, fit.scaled, cv2.INTER_LINEAR)
    if fit.scaled != fit.size:
        image_hwc = cv2.copyMakeBorder(image_hwc, *_borders(fit), cv2.BORDER_REFLECT_101)
    return image_hwc


def fit_target(target_hw: NDArray[Any], fit: Fit, fill: float) -> NDArray[Any]:
    """Scale by nearest neighbour; the padding is ``fill``, which the valid mask leaves out."""
    if target_hw.shape[:2] != fit.scaled:
        target_hw = _resize(target_hw, fit.scaled, cv2.INTER_NEAREST_EXACT)
    if fit.scaled != fit.size:
        target_hw = cv2.copyMakeBorder(target_hw, *_borders(fit), cv2.BORDER_CONSTANT, value=[fill])
    return target_hw


def unfit_scores(scores_khw: NDArray[np.float32], fit: Fit) -> NDArray[np.float32]:
    """Scores of the network's size brought back to the image's own size: crop, then bilinear.

    Scores may stand at a multiple of the network's size; they then come back at that multiple of the image's.
    """
    scale = scores_khw.shape[1] // fit.size[0]
    rows = slice(scale * fit.top, scale * (fit.top + fit.scaled[0]))
    cropped = scores_khw[:, rows, scale * fit.left : scale * (fit.left + fit.scaled[1])]
    if fit.scaled == fit.original:
        return np.ascontiguousarray(cropped)
    original = (scale * fit.original[0], scale * fit.original[1])
    return np.stack([_resize(np.ascontiguousarray(plane), original, cv2.INTER_LINEAR) for plane in cropped])


def _resize(array: NDArray[Any], size_hw: tuple[int, int], interpolation: int) -> NDArray[Any]:
    resized: NDArray[Any] = cv2.resize(array, (size_hw[1], size_hw[0]), interpolation=interpolation)
    return resized


def _borders(fit: Fit) -> tuple[int, int, int, int]:
    bottom = fit.size[0] - fit.scaled[0] - fit.top
    right = fit.size[1] - fit.scaled[1] - fit.left
    return fit.top, bottom, fit.left, right
