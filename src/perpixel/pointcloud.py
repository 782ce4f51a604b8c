"""Cameras, and the point clouds that depth maps become through them. Needs no torch.

Axes are OpenCV's: x to the right, y down, z forward, in metres. Pixel centres are whole numbers: the middle of the
upper left pixel is (0, 0).
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from perpixel.depth_maps import srgb_to_linear
from perpixel.errors import DataError
from perpixel.images import write_atomically

__all__ = [
    "Camera",
    "camera_from_fov",
    "depth_to_points",
    "focal_length",
    "planar_to_radial",
    "radial_to_planar",
    "write_glb",
    "write_ply",
]

_DIAGONAL_35MM = math.hypot(36, 24)  # millimetres of the film frame that EXIF's equivalent focal length is of


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion: focal lengths and principal point in pixels of one image size.

    Raises:
        ValueError: a focal length that is not above 0, or a number that is not finite.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy)
        if not all(map(math.isfinite, numbers)) or self.fx <= 0 or self.fy <= 0:
            raise ValueError(f"a camera needs finite numbers and focal lengths above 0; fx, fy, cx, cy are {numbers}")


def camera_from_fov(
    height: int, width: int, *, vertical_deg: float | None = None, horizontal_deg: float | None = None
) -> Camera:
    """The camera of an image of that size that looks through its middle.

    f = (side / 2) / tan(angle / 2). With one angle alone the pixels are square.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        vertical_deg: angle from the upper to the lower edge, in degrees.
        horizontal_deg: angle from the left to the right edge, in degrees.

    Raises:
        ValueError: no angle, or one that is not between 0 and 180 degrees.
    """
    if vertical_deg is None and horizontal_deg is None:
        raise ValueError("a camera needs a vertical or a horizontal field of view")
    for angle in (vertical_deg, horizontal_deg):
        if angle is not None and not 0 < angle < 180:
            raise ValueError(f"a field of view lies between 0 and 180 degrees; it is {angle}")
    fy = None if vertical_deg is None else height / 2 / math.tan(math.radians(vertical_deg) / 2)
    fx = fy if horizontal_deg is None else width / 2 / math.tan(math.radians(horizontal_deg) / 2)
    fy = fx if fy is None else fy
    assert fx is not None and fy is not None
    return Camera(fx, fy, (width - 1) / 2, (height - 1) / 2)


def radial_to_planar(radial_hw: NDArray[Any], camera: Camera) -> NDArray[np.float64]:
    """Distance from the camera's centre to distance along its axis: z = r / sqrt(1 + X^2 + Y^2).

    X = (x - cx) / fx and Y = (y - cy) / fy are the normalised coordinates of the pixel.
    """
    height, width = radial_hw.shape
    return np.asarray(radial_hw / _ray_lengths(height, width, camera), dtype=np.float64)


def planar_to_radial(planar_hw: NDArray[Any], camera: Camera) -> NDArray[np.float64]:
    """Distance along the camera's axis to distance from its centre, the inverse of `radial_to_planar`."""
    height, width = planar_hw.shape
    return np.asarray(planar_hw * _ray_lengths(height, width, camera), dtype=np.float64)


def focal_length(path: Path, size: tuple[int, int]) -> float | None:
    """The focal length in pixels of an image of ``size`` (height, width), from its EXIF data; None: they do not tell.

    Of the equivalent focal length (EXIF 2.32, tag 0xA405), by the diagonals of image and film: cropped images are
    taken for whole ones.
    """
    try:
        with Image.open(path) as image:
            millimetres = Image.Image.getexif(image).get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if not isinstance(millimetres, int | float) or not 1 <= millimetres <= 10_000:
        return None
    return millimetres * math.hypot(*size) / _DIAGONAL_35MM


def depth_to_points(depth_hw: NDArray[Any], valid_hw: NDArray[np.bool_], camera: Camera) -> NDArray[np.float32]:
    """The valid pixels as points_n3 in metres, row by row; the same mask picks their colours from an image.

    Args:
        depth_hw: planar depth in metres.
        valid_hw: which pixels become points.
        camera: of an image of this size.

    Raises:
        ValueError: the shapes differ, or a valid depth is not finite.
    """
    if depth_hw.shape != valid_hw.shape or depth_hw.ndim != 2 or valid_hw.dtype != np.bool_:
        raise ValueError(f"depth and bool valid must be (H, W) of one size; {depth_hw.shape} and {valid_hw.shape}")
    y_n, x_n = np.nonzero(valid_hw)
    z_n = depth_hw[valid_hw].astype(np.float64)
    if not np.isfinite(z_n).all():
        raise ValueError("a valid depth is not finite")
    points_n3 = np.stack([(x_n - camera.cx) / camera.fx * z_n, (y_n - camera.cy) / camera.fy * z_n, z_n], axis=1)
    return points_n3.astype(np.float32)


def write_ply(path: Path | str, points_n3: NDArray[Any], colors_n3: NDArray[np.uint8] | None = None) -> None:
    """Write points in metres, OpenCV's axes, as binary little-endian PLY (Turk 1994), with uint8 RGB if given.

    The file appears whole or not at all; missing folders are made.

    Raises:
        DataError: no point, a coordinate that is not finite, or colours that are not one uint8 RGB a point.
    """
    path = Path(path)
    _check_cloud(path, points_n3, colors_n3)
    columns: list[tuple[str, str, str]] = [(axis, "<f4", "float") for axis in "xyz"]
    columns += [(color, "u1", "uchar") for color in ("red", "green", "blue")] if colors_n3 is not None else []
    rows_n = np.empty(len(points_n3), dtype=[(name, code) for name, code, _ in columns])
    for index, (name, _, _) in enumerate(columns):
        rows_n[name] = points_n3[:, index] if index < 3 or colors_n3 is None else colors_n3[:, index - 3]
    properties = "".join(f"property {kind} {name}\n" for name, _, kind in columns)
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows_n)}\n{properties}end_header\n"
    content = head.encode("ascii") + rows_n.tobytes()
    write_atomically(path, lambda file: file.write(content))


def write_glb(path: Path | str, points_n3: NDArray[Any], colors_n3: NDArray[np.uint8] | None = None) -> None:
    """Write points in metres as a binary glTF 2.0 file with one mesh of POINTS, with uint8 RGB if given.

    Points come in OpenCV's axes; glTF's y goes up and its z toward the viewer, so both are turned round. Colours
    are sRGB, and glTF wants them linear: they are written as linear 16-bit values.

    Raises:
        DataError: no point, a coordinate that is not finite, or colours that are not one uint8 RGB a point.
    """
    path = Path(path)
    _check_cloud(path, points_n3, colors_n3)
    positions_n3 = (points_n3 * np.array([1, -1, -1])).astype("<f4")
    content = positions_n3.tobytes()
    attributes = {"POSITION": 0}
    # glTF 2.0, 5.1: bufferView.target 34962 is ARRAY_BUFFER; 3.6.2.1: 5126 is float, 5123 unsigned short.
    views: list[dict[str, int]] = [{"buffer": 0, "byteOffset": 0, "byteLength": len(content), "target": 34962}]
    bounds = {"min": positions_n3.min(axis=0).tolist(), "max": positions_n3.max(axis=0).tolist()}
    accessors: list[dict[str, Any]] = [
        {"bufferView": 0, "componentType": 5126, "count": len(positions_n3), "type": "VEC3", **bounds}
    ]
    if colors_n3 is not None:
        colors = _linear_rgba(colors_n3).tobytes()
        attributes["COLOR_0"] = 1
        view = {"buffer": 0, "byteOffset": len(content), "byteLength": len(colors), "target": 34962}
        views.append(view)
        accessors.append(
            {"bufferView": 1, "componentType": 5123, "normalized": True, "count": len(colors_n3), "type": "VEC4"}
        )
        content += colors
    scene = {
        "asset": {"version": "2.0", "generator": "perpixel"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "mode": 0}]}],
        "buffers": [{"byteLength": len(content)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    packed = _glb(scene, content)
    write_atomically(path, lambda file: file.write(packed))


@lru_cache(maxsize=8)
def _ray_lengths(height: int, width: int, camera: Camera) -> NDArray[np.float64]:
    """sqrt(1 + X^2 + Y^2) of every pixel; the images of a data set share it."""
    x_w = (np.arange(width) - camera.cx) / camera.fx
    y_h = (np.arange(height) - camera.cy) / camera.fy
    lengths_hw: NDArray[np.float64] = np.sqrt(1 + x_w[None] ** 2 + y_h[:, None] ** 2)
    lengths_hw.flags.writeable = False
    return lengths_hw


def _check_cloud(path: Path, points_n3: NDArray[Any], colors_n3: NDArray[Any] | None) -> None:
    if points_n3.ndim != 2 or points_n3.shape[1] != 3 or not len(points_n3) or not np.isfinite(points_n3).all():
        raise DataError(
            f"points of shape {points_n3.shape} are no cloud",
            where=path,
            rule="A point cloud has at least one point, each of three finite numbers.",
            cure="Look whether the depth map has a valid pixel.",
        )
    if colors_n3 is not None and (colors_n3.shape != points_n3.shape or colors_n3.dtype != np.uint8):
        raise DataError(
            f"colours of shape {colors_n3.shape} and {colors_n3.dtype} do not belong to {len(points_n3)} points",
            where=path,
            rule="Each point has one colour of three uint8 values.",
            cure="Pick the colours from the image with the mask that picked the points.",
        )


def _linear_rgba(colors_n3: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Opaque linear colours; the fourth channel keeps each vertex on a multiple of four bytes, as glTF demands."""
    table = np.rint(65535 * srgb_to_linear(np.arange(256) / 255)).astype("<u2")
    rgba_n4 = np.full((len(colors_n3), 4), 65535, dtype="<u2")
    rgba_n4[:, :3] = table[colors_n3]
    return rgba_n4


def _glb(scene: dict[str, Any], content: bytes) -> bytes:
    """glTF 2.0, 4.4: a head of 12 bytes, a JSON chunk padded with spaces, a binary chunk; sizes are multiples of 4."""
    text = json.dumps(scene, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + len(content)
    head = struct.pack("<4sII", b"glTF", 2, size)
    return head + struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(content), b"BIN\0") + content
