"""Which way of reading the numbers of depth files makes surfaces flat.

The picture of a plane under a perspective camera has an inverse planar depth that is linear in the pixel's position.
Read the wrong way (linearly instead of sRGB, radial instead of planar, depth instead of its inverse), planes bend.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.depth_maps import srgb_to_linear
from perpixel.pointcloud import Camera, camera_from_fov, radial_to_planar

__all__ = ["READINGS", "bends"]

USUAL_FOV = 60.0  # degrees, vertical, where no camera is known
READINGS = ("linear planar", "linear radial", "srgb planar", "srgb radial", "inverse", "reversed")
_PATCHES = 5  # along each side
_SAMPLES = 24  # pixels along each side of a patch that are looked at
_ROUGH = 0.25  # of the spread of a patch may be left by a parabola, else it is no smooth surface
_VALID = 0.9  # of a patch
_FEW = 3  # patches; fewer say nothing


def bends(raw_hw: NDArray[Any], camera: Camera | None = None) -> dict[str, float]:
    """How strongly surfaces bend under each reading: 0 is flat, and the smallest is the likeliest one.

    Args:
        raw_hw: stored numbers of any type; 0, the largest one and what is not finite count as no reading.
        camera: of the file; None: one with a vertical field of view of 60 degrees.

    Returns:
        by name of a reading, the median over patches of the curved part of the inverse depth in relation to its
        linear part; nothing where too few patches are smooth and sloped.
    """
    camera = camera or camera_from_fov(*raw_hw.shape, vertical_deg=USUAL_FOV)
    integers = raw_hw.dtype.kind in "ui"
    full = float(np.iinfo(raw_hw.dtype).max) if integers else float(np.nanmax(raw_hw, initial=1.0)) + 1
    valid_hw = np.isfinite(raw_hw) & (raw_hw > 0) & (raw_hw < full)
    share_hw = np.where(valid_hw, raw_hw, 1) / full
    maps = {
        name: read(share_hw, camera) for name, read in _READ.items() if raw_hw.dtype == np.uint8 or "srgb" not in name
    }
    height, width = (max(12, side // _PATCHES) for side in raw_hw.shape)
    kept: dict[str, list[float]] = {name: [] for name in maps}
    for top in range(0, raw_hw.shape[0] - height + 1, height):
        for left in range(0, raw_hw.shape[1] - width + 1, width):
            part = np.s_[top : top + height : 1 + height // _SAMPLES, left : left + width : 1 + width // _SAMPLES]
            if valid_hw[part].mean() >= _VALID and _is_sloped(raw_hw[part][valid_hw[part]]):
                found = {name: _bend(map_hw[part], valid_hw[part]) for name, map_hw in maps.items()}
                if None not in found.values():
                    for name, bend in found.items():
                        kept[name].append(float(bend or 0.0))
    return {name: float(np.median(values)) for name, values in kept.items() if len(values) >= _FEW}


_READ: dict[str, Callable[[NDArray[Any], Camera], NDArray[Any]]] = {
    "linear planar": lambda share_hw, camera: 1 / share_hw,
    "linear radial": lambda share_hw, camera: 1 / radial_to_planar(share_hw, camera),
    "srgb planar": lambda share_hw, camera: 1 / srgb_to_linear(share_hw),
    "srgb radial": lambda share_hw, camera: 1 / radial_to_planar(srgb_to_linear(share_hw), camera),
    "inverse": lambda share_hw, camera: share_hw,
    "reversed": lambda share_hw, camera: 1 / (1.02 - share_hw),
}


def _is_sloped(raw: NDArray[Any]) -> bool:
    """A patch shows how it bends where it covers several steps of the stored numbers, and a tenth of their size."""
    low, high = np.quantile(raw, (0.02, 0.98))
    return bool(high - low >= (6 if raw.dtype.kind in "ui" else 0) and high > 1.1 * low)


def _bend(inverse_hw: NDArray[Any], valid_hw: NDArray[np.bool_]) -> float | None:
    """Spread of the curved part over that of the linear part; None of a surface that is not smooth."""
    rows, columns = (np.linspace(-1, 1, side) for side in inverse_hw.shape)
    y, x = (part_hw[valid_hw] for part_hw in np.meshgrid(rows, columns, indexing="ij"))
    values = inverse_hw[valid_hw]
    linear = np.stack([np.ones_like(x), x, y], axis=-1)
    curved = np.stack([x * x - 1 / 3, x * y, y * y - 1 / 3], axis=-1)
    factors = np.linalg.lstsq(np.hstack([linear, curved]), values, rcond=None)[0]
    slope, bend = (linear[:, 1:] @ factors[1:3]).std(), (curved @ factors[3:]).std()
    rest = (values - linear @ factors[:3] - curved @ factors[3:]).std()
    if slope == 0 or rest > _ROUGH * slope:
        return None
    return float(bend / slope)
