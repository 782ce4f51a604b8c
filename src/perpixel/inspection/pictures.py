"""Small pictures of pairs for the page: the image, the target, and how the two go together."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.depth_files import read_numbers
from perpixel.errors import DataError, RequestError
from perpixel.images import read_image, read_label_map
from perpixel.inspection.agreement import REACH
from perpixel.inspection.look import MOST_PIXELS, depth_edges, label_edges, label_keys, shrink, to_8_bits
from perpixel.inspection.record import Record

__all__ = ["data_uri", "panel", "shift_map"]

_SIDE = 200  # pixels of a picture's longer side on the page
_OUTLINE = (255, 0, 200)  # a colour that photographs seldom have
_EDGE = 0.3  # of the strongest step of a depth map
_CELL = 9  # pixels of a shift on its map


def panel(record: Record, colors: dict[int, Sequence[int]], key: str | None = None) -> NDArray[np.uint8] | None:
    """Image, target and both, side by side; None where neither can be shown.

    Both together are the outlines of a label or depth map over the image, or the difference of two pictures at equal
    brightness: in either a shift is seen at once. What cannot be shown is a grey field.

    Args:
        record: of the pair.
        colors: of stored label values; others get a colour by their number.
        key: name of the array in depth files that hold several.
    """
    image_hwc = _image(record.sample.image) if not record.image_file.trouble else None
    target_hwc, edges_hw = None, None
    if record.sample.target is not None and record.target_file is not None and not record.target_file.trouble:
        target_hwc, edges_hw = _target(record, colors, key)
    shown = [_scaled(picture) for picture in (image_hwc, target_hwc) if picture is not None]
    if len(shown) == 2:
        height, width = shown[0].shape[:2]
        if edges_hw is None:
            other_hwc = cv2.resize(shown[1], (width, height), interpolation=cv2.INTER_AREA)
            shown.append(_difference(shown[0], other_hwc))
        else:
            shown.append(_outlined(shown[0], edges_hw))
    elif shown:
        field_hwc = np.full_like(shown[0], 128)
        shown = [shown[0], field_hwc, field_hwc] if image_hwc is not None else [field_hwc, shown[0], field_hwc]
    return _side_by_side(shown) if shown else None


def shift_map(records: Sequence[Record]) -> NDArray[np.uint8] | None:
    """How well edges of image and target agree, on the average, for every shift of the target; the brightest is best.

    Crossed lines mark no shift. None of pairs without edges.
    """
    pairs = [record.pair for record in records if record.pair is not None and record.pair.surface_hw.any()]
    if not pairs:
        return None
    mean_hw = np.mean([pair.surface_hw for pair in pairs], axis=0)
    grey_hw = np.rint(255 * (mean_hw - mean_hw.min()) / max(1e-9, float(np.ptp(mean_hw)))).astype(np.uint8)
    map_hwc = cv2.cvtColor(cv2.applyColorMap(grey_hw, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    map_hwc = np.repeat(np.repeat(map_hwc, _CELL, axis=0), _CELL, axis=1)
    middle = REACH * _CELL + _CELL // 2
    map_hwc[middle] = map_hwc[:, middle] = (255, 255, 255)
    return np.asarray(map_hwc, dtype=np.uint8)


def data_uri(picture_hwc: NDArray[np.uint8]) -> str:
    """The picture as JPEG inside an address."""
    file = io.BytesIO()
    Image.fromarray(picture_hwc).save(file, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _image(path: Path) -> NDArray[np.uint8] | None:
    try:
        return read_image(path).pixels_hwc
    except DataError:
        return None


def _target(
    record: Record, colors: dict[int, Sequence[int]], key: str | None
) -> tuple[NDArray[np.uint8] | None, NDArray[np.float32] | None]:
    """The target as a picture, and its outlines where it is no picture itself."""
    path, file = record.sample.target, record.target_file
    assert path is not None and file is not None  # the caller looked
    if file.height * file.width > MOST_PIXELS:
        return None, None
    try:
        if record.label is not None:
            label = read_label_map(path)
            keys_hw = label_keys(label)
            painted_hwc = label.colors_hwc if label.values_hw is None else _painted(keys_hw, colors)
            return painted_hwc, label_edges(keys_hw)
        if record.depth is not None:
            raw_hw = read_numbers(path, key)
            return _by_rank(raw_hw), (depth_edges(raw_hw) > _EDGE).astype(np.float32)
        return to_8_bits(read_image(path).pixels_hwc), None
    except (DataError, RequestError):
        return None, None


def _outlined(picture_hwc: NDArray[np.uint8], edges_hw: NDArray[np.float32]) -> NDArray[np.uint8]:
    height, width = picture_hwc.shape[:2]
    strength_hw = cv2.resize(edges_hw, (width, height), interpolation=cv2.INTER_AREA)
    strength_hw = (strength_hw / max(0.25, float(strength_hw.max()))).clip(0, 1)
    mixed_hwc = picture_hwc + (np.array(_OUTLINE) - picture_hwc) * strength_hw[..., None]
    return np.asarray(np.rint(mixed_hwc), dtype=np.uint8)


def _painted(keys_hw: NDArray[np.int64], colors: dict[int, Sequence[int]]) -> NDArray[np.uint8]:
    values, inverse = np.unique(keys_hw, return_inverse=True)
    table = [
        colors.get(int(value), ((value * 89 + 40) % 256, (value * 151) % 256, (value * 53 + 90) % 256))
        for value in values
    ]
    painted_hwc: NDArray[np.uint8] = np.array(table, dtype=np.uint8)[inverse.reshape(keys_hw.shape)]
    return painted_hwc


def _by_rank(raw_hw: NDArray[Any]) -> NDArray[np.uint8]:
    """Low numbers in warm colours, high ones in cold; without a reading grey."""
    valid_hw = np.isfinite(raw_hw) & (raw_hw != 0)
    low, high = np.quantile(raw_hw[valid_hw], (0.02, 0.98)) if valid_hw.any() else (0.0, 1.0)
    share_hw = (np.where(valid_hw, raw_hw, low).astype(np.float64) - low) / max(1e-9, high - low)
    grey_hw = np.rint(255 * (1 - share_hw.clip(0, 1))).astype(np.uint8)
    painted_hwc = cv2.cvtColor(cv2.applyColorMap(grey_hw, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return np.where(valid_hw[..., None], painted_hwc, np.uint8(128))


def _scaled(picture_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """To at most `_SIDE` pixels; small pictures are enlarged, with their pixels visible."""
    height, width = picture_hwc.shape[:2]
    times = _SIDE // max(height, width)
    if times > 1:
        return np.repeat(np.repeat(picture_hwc, times, axis=0), times, axis=1)
    return np.asarray(shrink(picture_hwc, _SIDE), dtype=np.uint8)


def _difference(image_hwc: NDArray[np.uint8], other_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Twice the difference of two pictures of one size, the first one made as bright as the second."""
    gain_3 = other_hwc.mean(axis=(0, 1)) / np.maximum(1, image_hwc.mean(axis=(0, 1)))
    return np.asarray(np.clip(2 * np.abs(image_hwc * gain_3 - other_hwc), 0, 255), dtype=np.uint8)


def _side_by_side(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    height = max(picture.shape[0] for picture in pictures)
    padded = [
        cv2.copyMakeBorder(picture, 0, height - picture.shape[0], 0, 3, cv2.BORDER_CONSTANT, value=(128, 128, 128))
        for picture in pictures
    ]
    return np.hstack(padded)[:, :-3]
