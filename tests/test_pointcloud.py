"""Cameras and point clouds: geometry by hand, and files parsed by readers that know the specifications alone."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perpixel.depth_maps import srgb_to_linear
from perpixel.errors import DataError
from perpixel.pointcloud import (
    Camera,
    camera_from_fov,
    depth_to_points,
    planar_to_radial,
    radial_to_planar,
    write_glb,
    write_ply,
)

CAMERA = Camera(fx=527.0, fy=525.0, cx=323.5, cy=238.5)


def cloud(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 3, (count, 3)).astype(np.float32)
    return points, rng.integers(0, 256, (count, 3), dtype=np.uint8)


def test_points_are_seen_where_they_came_from() -> None:
    rng = np.random.default_rng(0)
    depth, valid = rng.uniform(0.5, 8, (480, 640)), rng.random((480, 640)) < 0.3
    points = depth_to_points(np.where(valid, depth, np.nan), valid, CAMERA)
    assert points.dtype == np.float32 and points.shape == (valid.sum(), 3)
    x, y, z = points.T.astype(np.float64)
    rows, columns = valid.nonzero()
    np.testing.assert_allclose(CAMERA.fx * x / z + CAMERA.cx, columns, atol=1e-3)
    np.testing.assert_allclose(CAMERA.fy * y / z + CAMERA.cy, rows, atol=1e-3)
    np.testing.assert_array_equal(z.astype(np.float32), depth[valid].astype(np.float32))


def test_points_by_hand() -> None:
    valid = np.array([[True, False], [True, True]])
    points = depth_to_points(np.full((2, 2), 4.0), valid, Camera(2.0, 1.0, 0.0, 1.0))
    np.testing.assert_array_equal(points, [[0, -4, 4], [0, 0, 4], [2, 0, 4]])


@given(st.floats(1, 179), st.integers(1, 4000), st.integers(1, 4000))
def test_the_field_of_view_reaches_the_edges(angle: float, height: int, width: int) -> None:
    camera = camera_from_fov(height, width, vertical_deg=angle)
    assert camera.fx == camera.fy
    # The edges lie half a pixel beyond the centres of the outermost pixels.
    upper, lower = ((edge - camera.cy) / camera.fy for edge in (-0.5, height - 0.5))
    assert math.degrees(math.atan(lower) - math.atan(upper)) == pytest.approx(angle)
    turned = camera_from_fov(width, height, horizontal_deg=angle)
    assert (turned.fy, turned.cx, turned.cy) == (camera.fy, camera.cy, camera.cx)
    both = camera_from_fov(height, width, vertical_deg=angle, horizontal_deg=90.0)
    assert both.fy == camera.fy and both.fx == pytest.approx(width / 2)


@given(st.integers(0, 10**6))
def test_radial_and_planar_are_each_others_inverse(seed: int) -> None:
    planar = np.random.default_rng(seed).uniform(0.5, 8, (7, 9))
    camera = camera_from_fov(7, 9, vertical_deg=60)
    radial = planar_to_radial(planar, camera)
    np.testing.assert_allclose(radial_to_planar(radial, camera), planar, rtol=1e-12)
    # The radial distance is the length of the point's vector.
    points = depth_to_points(planar, np.ones(planar.shape, dtype=bool), camera)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), radial.ravel(), rtol=1e-6)


def test_bad_cameras_and_maps_are_refused() -> None:
    for numbers in ((0.0, 1.0, 1.0, 1.0), (1.0, -1.0, 1.0, 1.0), (1.0, 1.0, math.nan, 1.0)):
        with pytest.raises(ValueError, match="focal lengths above 0"):
            Camera(*numbers)
    with pytest.raises(ValueError, match="needs a vertical or a horizontal"):
        camera_from_fov(4, 4)
    for angle in (0.0, 180.0, -5.0):
        with pytest.raises(ValueError, match="between 0 and 180"):
            camera_from_fov(4, 4, horizontal_deg=angle)
    with pytest.raises(ValueError, match="of one size"):
        depth_to_points(np.ones((2, 3)), np.ones((3, 2), dtype=bool), CAMERA)
    with pytest.raises(ValueError, match="not finite"):
        depth_to_points(np.full((2, 2), np.nan), np.ones((2, 2), dtype=bool), CAMERA)


# ---------------------------------------------------------------- files


def read_ply(path: Path) -> dict[str, NDArray[Any]]:
    """Columns of the vertices of a binary little-endian PLY file."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    element = [line.split() for line in lines if line.startswith("element")]
    assert [words[1] for words in element] == ["vertex"]
    properties = [line.split()[1:] for line in lines if line.startswith("property")]
    codes = {"float": ("f", 4), "uchar": ("B", 1)}
    layout = "<" + "".join(codes[kind][0] for kind, _ in properties)
    assert len(body) == int(element[0][2]) * sum(codes[kind][1] for kind, _ in properties)
    rows = list(struct.iter_unpack(layout, body))
    return {name: np.array([row[index] for row in rows]) for index, (_, name) in enumerate(properties)}


@pytest.mark.parametrize("count", [1, 2, 5, 100])
@pytest.mark.parametrize("colored", [True, False])
def test_ply_files_hold_the_points(count: int, colored: bool, tmp_path: Path) -> None:
    points, colors = cloud(count)
    path = tmp_path / "new" / "a.ply"
    write_ply(path, points, colors if colored else None)
    columns = read_ply(path)
    assert list(columns) == ["x", "y", "z", *(["red", "green", "blue"] if colored else [])]
    np.testing.assert_array_equal(np.stack([columns[axis] for axis in "xyz"], axis=1), points)
    if colored:
        np.testing.assert_array_equal(np.stack([columns[name] for name in ("red", "green", "blue")], axis=1), colors)


def read_glb(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """JSON and attributes of the only primitive, with the demands of glTF 2.0 checked on the way."""
    content = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    sizes, kinds, chunks, place = [], [], [], 12
    while place < length:
        size, kind = struct.unpack_from("<I4s", content, place)
        sizes.append(size)
        kinds.append(kind)
        chunks.append(content[place + 8 : place + 8 + size])
        place += 8 + size
    assert place == length and kinds == [b"JSON", b"BIN\0"] and not any(size % 4 for size in sizes)
    scene = json.loads(chunks[0])
    (buffer,) = scene["buffers"]
    assert "uri" not in buffer and 0 <= sizes[1] - buffer["byteLength"] <= 3
    (primitive,) = scene["meshes"][0]["primitives"]
    assert scene["asset"]["version"] == "2.0" and primitive["mode"] == 0
    types = {5126: np.dtype("<f4"), 5123: np.dtype("<u2")}
    lengths = {"VEC3": 3, "VEC4": 4}
    arrays = {}
    for name, number in primitive["attributes"].items():
        accessor = scene["accessors"][number]
        view = scene["bufferViews"][accessor["bufferView"]]
        kind, width = types[accessor["componentType"]], lengths[accessor["type"]]
        assert view["buffer"] == 0 and view["target"] == 34962
        assert view["byteOffset"] % 4 == 0 and (kind.itemsize * width) % 4 == 0  # 3.6.2.4: aligned vertex attributes
        assert view["byteLength"] == accessor["count"] * width * kind.itemsize
        part = chunks[1][view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        arrays[name] = np.frombuffer(part, dtype=kind).reshape(-1, width)
    return scene, arrays


@pytest.mark.parametrize("count", [1, 2, 5, 100])
@pytest.mark.parametrize("colored", [True, False])
def test_glb_files_hold_the_points(count: int, colored: bool, tmp_path: Path) -> None:
    points, colors = cloud(count)
    write_glb(tmp_path / "a.glb", points, colors if colored else None)
    scene, arrays = read_glb(tmp_path / "a.glb")
    np.testing.assert_array_equal(arrays["POSITION"], points * np.float32([1, -1, -1]))
    (position, *_) = scene["accessors"]
    np.testing.assert_array_equal(np.float32(position["min"]), arrays["POSITION"].min(axis=0))
    np.testing.assert_array_equal(np.float32(position["max"]), arrays["POSITION"].max(axis=0))
    assert ("COLOR_0" in arrays) == colored
    if colored:
        assert scene["accessors"][1]["normalized"] is True
        np.testing.assert_allclose(arrays["COLOR_0"][:, :3] / 65535, srgb_to_linear(colors / 255), atol=1e-5)
        assert (arrays["COLOR_0"][:, 3] == 65535).all()


@pytest.mark.parametrize("write", [write_ply, write_glb])
def test_what_is_no_cloud_is_refused(write: Any, tmp_path: Path) -> None:
    points, colors = cloud(4)
    for bad in (points[:0], points[:, :2], points * np.float32(np.nan)):
        with pytest.raises(DataError, match="are no cloud"):
            write(tmp_path / "a", bad)
    for bad_colors in (colors[:3], colors.astype(np.float32)):
        with pytest.raises(DataError, match="do not belong to 4 points"):
            write(tmp_path / "a", points, bad_colors)
    assert not list(tmp_path.iterdir())
