"""What numbers in depth files mean: round trips of every codec and format, known files, and refusals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from perpixel.depth_codec import DepthCodec
from perpixel.depth_files import read_numbers, write_numbers
from perpixel.depth_maps import guided_smooth, linear_to_srgb, paint_depth, smooth_depth, srgb_to_linear
from perpixel.errors import DataError, RequestError

KITCHEN = DepthCodec("uint16", scale=0.001)
UNITY = DepthCodec(
    "uint8",
    metres_at_zero=0.0,
    metres_at_full=10.0,
    encoding="srgb",
    geometry="radial",
    vertical_fov_deg=60.0,
    invalid=(),
    beyond=(255,),
)
CODECS = {
    "millimetres": KITCHEN,
    "kitti": DepthCodec("uint16", scale=1 / 256),
    "range 8": DepthCodec("uint8", metres_at_zero=0.5, metres_at_full=20.0),
    "range 16": DepthCodec("uint16", metres_at_zero=0.5, metres_at_full=20.0, invalid=(0,), beyond=(65535,)),
    "near is white": DepthCodec("uint8", metres_at_zero=20.0, metres_at_full=0.5),
    "unity": UNITY,
    "srgb 16": DepthCodec("uint16", metres_at_zero=0.0, metres_at_full=10.0, encoding="srgb"),
    "radial": DepthCodec("uint16", scale=0.001, geometry="radial", fx=5.0, fy=6.0, cx=2.5, cy=1.5),
    "inverse": DepthCodec("uint16", scale=1 / 4096, quantity="inverse"),
    "inverse range": DepthCodec("uint16", metres_at_zero=math.inf, metres_at_full=0.5, quantity="inverse"),
    "disparity": DepthCodec("uint16", scale=1 / 64, quantity="disparity", baseline_m=0.54, focal_px=721.0),
    "float metres": DepthCodec("float32", scale=1.0, invalid=(0.0, math.nan), beyond=(math.inf,)),
    "float millimetres": DepthCodec("float32", scale=0.001, geometry="radial", horizontal_fov_deg=90.0),
    "float share": DepthCodec("float32", metres_at_zero=0.5, metres_at_full=20.0, invalid=(0.0,), beyond=(1.0,)),
    "float disparity": DepthCodec("float32", scale=1.0, quantity="disparity", baseline_m=0.1, focal_px=500.0),
}
every_codec = pytest.mark.parametrize("name", CODECS)
SHAPE = (4, 6)


def radial_factor(codec: DepthCodec) -> NDArray[np.float64]:
    """Written out: length of the ray through each pixel that advances one metre along the axis."""
    height, width = SHAPE
    fx, fy, cx, cy = codec.fx, codec.fy, codec.cx, codec.cy
    if codec.vertical_fov_deg:
        fx = fy = height / 2 / math.tan(math.radians(codec.vertical_fov_deg / 2))
    if codec.horizontal_fov_deg:
        fx = fy = width / 2 / math.tan(math.radians(codec.horizontal_fov_deg / 2))
    if fx is not None and fy is not None and cx is None:
        cx, cy = (width - 1) / 2, (height - 1) / 2
    if codec.geometry == "planar" or fx is None or fy is None or cx is None or cy is None:
        return np.ones(SHAPE)
    return np.array([[math.hypot(1, (x - cx) / fx, (y - cy) / fy) for x in range(width)] for y in range(height)])


def reference_metres(codec: DepthCodec, value: float) -> float:
    """The meaning of one stored number along the stored geometry, written out."""
    full = {"uint8": 255, "uint16": 65535, "float32": 1}[codec.stored]
    if codec.scale is not None:
        quantity = codec.scale * value
    else:
        share = value / full
        if codec.encoding == "srgb":
            share = share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        assert codec.metres_at_zero is not None and codec.metres_at_full is not None
        ends = [codec.metres_at_zero, codec.metres_at_full]
        if codec.quantity != "depth":
            ends = [1 / end for end in ends]
        quantity = ends[0] + (ends[1] - ends[0]) * share
        return quantity if codec.quantity == "depth" else 1 / quantity
    if codec.quantity == "inverse":
        return 1 / quantity
    if codec.quantity == "disparity":
        assert codec.baseline_m is not None and codec.focal_px is not None
        return codec.baseline_m * codec.focal_px / quantity
    return quantity


@every_codec
@given(seed=st.integers(0, 10**6))
def test_stored_numbers_mean_what_is_declared(name: str, seed: int) -> None:
    codec, rng = CODECS[name], np.random.default_rng(seed)
    if codec.stored == "float32":
        raw = rng.uniform(0.01, 0.99, SHAPE).astype(np.float32)
    else:
        raw = rng.integers(1, 255 if codec.stored == "uint8" else 65535, SHAPE).astype(codec.stored)
    depth, valid = codec.decode(raw)
    expected = np.vectorize(lambda value: reference_metres(codec, float(value)))(raw) / radial_factor(codec)
    assert depth.dtype == np.float32 and valid.all()
    np.testing.assert_allclose(depth, expected, rtol=3e-7)


@every_codec
@given(seed=st.integers(0, 10**6), nearest=st.sampled_from([0.6, 2.0, 9.0]))
@example(seed=0, nearest=9.9)
def test_a_round_trip_is_off_by_half_a_step_at_most(name: str, seed: int, nearest: float) -> None:
    codec, rng = CODECS[name], np.random.default_rng(seed)
    factor = radial_factor(codec)
    radial = rng.uniform(nearest, 9.95, SHAPE)
    depth = (radial / factor).astype(np.float32)
    valid = rng.random(SHAPE) < 0.8
    raw = codec.encode(np.where(valid, depth, np.nan), valid)
    assert raw.dtype == codec.stored
    again, valid_again = codec.decode(raw)
    np.testing.assert_array_equal(valid_again, valid)
    assert not again[~valid].any()
    if codec.stored == "float32":
        np.testing.assert_allclose(again[valid], depth[valid], rtol=1e-6, atol=3e-6)
        return
    # The numbers half a step to either side, through the written-out formula, bound what rounding can do;
    # a depth that falls on a code is moved by one step.
    codes = set(codec.invalid) | set(codec.beyond)
    for row, column in np.argwhere(valid):
        value = int(raw[row, column])
        reach = 1.51 if {value - 1, value + 1} & codes else 0.51
        ends = [reference_metres(codec, max(value + side, 0.01)) / factor[row, column] for side in (-reach, reach)]
        assert min(ends) * (1 - 1e-6) <= depth[row, column] <= max(ends) * (1 + 1e-6)


@every_codec
def test_decoding_and_encoding_gives_the_same_numbers(name: str) -> None:
    codec = CODECS[name]
    if codec.stored == "float32":
        raw = np.linspace(0.01, 0.99, 24, dtype=np.float32).reshape(SHAPE)
        np.testing.assert_allclose(codec.encode(*codec.decode(raw)), raw, rtol=1e-6, atol=1e-6)
        return
    full = np.iinfo(codec.stored).max
    raw = np.linspace(1, full - 1, 24).astype(codec.stored).reshape(SHAPE)
    if name == "disparity":
        raw = np.minimum(raw, 20000)  # further numbers differ by less than float32 metres
    np.testing.assert_array_equal(codec.encode(*codec.decode(raw)), raw)


@given(st.floats(0, 1))
def test_srgb_and_back(value: float) -> None:
    assert float(linear_to_srgb(srgb_to_linear(np.array(value)))) == pytest.approx(value, abs=1e-12)


def test_the_unity_files_by_hand() -> None:
    # 10 * ((128 / 255 + 0.055) / 1.055) ** 2.4 = 2.1586 m along the ray; 255 is background; 0 m is no depth.
    raw = np.full((480, 640), 128, dtype=np.uint8)
    raw[0, 0], raw[0, 1] = 255, 0
    depth, valid = UNITY.decode(raw)
    assert depth[239, 319] == pytest.approx(2.1586, abs=1e-4)
    focal = 240 / math.tan(math.radians(30))
    assert depth[479, 639] == pytest.approx(2.15861 / math.sqrt(1 + (319.5**2 + 239.5**2) / focal**2), abs=1e-4)
    assert not valid[0, :2].any() and valid.sum() == valid.size - 2
    beyond = UNITY.beyond_range(raw)
    assert beyond[0, 0] and beyond.sum() == 1
    # Decoded linearly, the same number is 2.3 times as far.
    linear = DepthCodec("uint8", metres_at_zero=0, metres_at_full=10, invalid=())
    assert linear.decode(raw)[0][239, 319] == pytest.approx(5.0196, abs=1e-4)


def test_what_is_valid() -> None:
    codec = DepthCodec("uint16", scale=0.001, invalid=(0, 7), beyond=(65535,), minimum_m=0.5, maximum_m=10.0)
    raw = np.array([[0, 7, 499, 500, 10000, 10001, 65535]], dtype=np.uint16)
    depth, valid = codec.decode(raw)
    np.testing.assert_array_equal(valid, [[False, False, False, True, True, False, False]])
    np.testing.assert_array_equal(depth, np.array([[0, 0, 0, 0.5, 10, 0, 0]], dtype=np.float32))
    np.testing.assert_array_equal(codec.beyond_range(raw), [[False, False, False, False, False, True, True]])
    disparity = CODECS["disparity"]
    assert not disparity.decode(np.zeros((1, 1), np.uint16))[1].any()
    open_ended = DepthCodec("uint16", scale=1.0, quantity="inverse", invalid=())
    raw = np.array([[0, 1]], dtype=np.uint16)
    np.testing.assert_array_equal(open_ended.decode(raw)[1], [[False, True]])
    np.testing.assert_array_equal(open_ended.beyond_range(raw), [[True, False]])


def test_codes_are_written_and_never_hit_by_accident() -> None:
    depth = np.array([[9.999, 0.0001, 5.0, 5.0]], dtype=np.float32)
    valid = np.array([[True, True, False, False]])
    beyond = np.array([[True, False, False, True]])
    codec = DepthCodec("uint8", metres_at_zero=0, metres_at_full=10, invalid=(0,), beyond=(255,))
    np.testing.assert_array_equal(codec.encode(depth, valid, beyond), [[254, 1, 0, 255]])
    only_beyond = DepthCodec("uint8", metres_at_zero=0, metres_at_full=10, invalid=(), beyond=(255,))
    np.testing.assert_array_equal(only_beyond.encode(depth, valid), [[254, 1, 255, 255]])
    share = CODECS["float share"].encode(np.array([[0.5, 20.0]]), np.ones((1, 2), dtype=bool))
    assert CODECS["float share"].decode(share)[1].all()
    none = DepthCodec("uint8", metres_at_zero=0, metres_at_full=10, invalid=())
    with pytest.raises(DataError, match="no number stands for them"):
        none.encode(depth, valid)


@pytest.mark.parametrize("depth", [70.0, math.nan, math.inf, 0.0, -1.0])
def test_what_cannot_be_stored_is_refused(depth: float) -> None:
    with pytest.raises(DataError, match=r"do not fit into uint16|not finite or not above 0"):
        KITCHEN.encode(np.full((2, 2), depth), np.ones((2, 2), dtype=bool))


FORMATS = [
    ("millimetres", ".png"),
    ("millimetres", ".tif"),
    ("millimetres", ".npy"),
    ("millimetres", ".npz"),
    ("millimetres", ".h5"),
    ("unity", ".png"),
    ("unity", ".tiff"),
    ("float metres", ".tiff"),
    ("float metres", ".npy"),
    ("float metres", ".npz"),
    ("float metres", ".hdf5"),
    ("float metres", ".exr"),
    ("float millimetres", ".tif"),
]


@pytest.mark.parametrize(("name", "ending"), FORMATS)
def test_files_are_read_back_as_they_were_written(name: str, ending: str, tmp_path: Path) -> None:
    if ending in (".h5", ".hdf5", ".exr"):
        pytest.importorskip("OpenEXR" if ending == ".exr" else "h5py")
    codec = CODECS[name]
    rng = np.random.default_rng(0)
    depth, valid = rng.uniform(0.3, 7, (31, 17)), rng.random((31, 17)) < 0.7
    path = tmp_path / "new" / f"depth{ending}"
    codec.write(path, depth, valid)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    np.testing.assert_array_equal(read_numbers(path), codec.encode(depth, valid))
    again, valid_again = codec.read(path)
    np.testing.assert_array_equal(valid_again, valid)
    for expected, found in zip(codec.decode(codec.encode(depth, valid)), (again, valid_again), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_other_programs_files(tmp_path: Path) -> None:
    """Files that OpenCV and Pillow wrote, and channels and keys that are not ours."""
    raw = np.arange(24, dtype=np.uint16).reshape(SHAPE) * 2500
    cv2.imwrite(str(tmp_path / "a.png"), raw)
    cv2.imwrite(str(tmp_path / "a.tiff"), raw.astype(np.float32))
    cv2.imwrite(str(tmp_path / "three.png"), np.repeat(raw[..., None], 3, axis=2))
    grey = raw.astype(np.uint8)
    Image.fromarray(np.dstack([grey, grey, grey, np.full_like(grey, 255)])).save(tmp_path / "rgba.png")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.savez(tmp_path / "two.npz", depth=raw, other=raw + 1)
    np.save(tmp_path / "wide.npy", raw.astype(np.int64))
    np.save(tmp_path / "half.npy", np.full(SHAPE, 2.5, dtype=np.float16))
    np.save(tmp_path / "one.npy", raw[..., None])
    for name in ("a.png", "three.png", "wide.npy", "one.npy"):
        np.testing.assert_array_equal(read_numbers(tmp_path / name), raw)
        np.testing.assert_array_equal(KITCHEN.read(tmp_path / name)[0], (raw / 1000).astype(np.float32))
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.tiff"), raw.astype(np.float32))
    np.testing.assert_array_equal(read_numbers(tmp_path / "rgba.png"), grey)
    np.testing.assert_array_equal(read_numbers(tmp_path / "two.npz", "other"), raw + 1)
    assert CODECS["float metres"].read(tmp_path / "half.npy")[0].max() == 2.5


def test_exr_and_hdf5_keys(tmp_path: Path) -> None:
    openexr, h5py = pytest.importorskip("OpenEXR"), pytest.importorskip("h5py")
    depth = np.linspace(1, 5, 24, dtype=np.float32).reshape(SHAPE)
    channels = {"R": depth + 1, "G": depth + 2, "B": depth + 3, "Z": depth, "A": depth + 4}
    openexr.File({}, channels).write(str(tmp_path / "a.exr"))
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.exr"), depth)
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.exr", "G"), depth + 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["frames/depth"], file["frames/mask"] = depth, depth > 2
    np.testing.assert_array_equal(read_numbers(tmp_path / "a.h5", "frames/depth"), depth)
    with pytest.raises(DataError, match="several arrays") as refused:
        read_numbers(tmp_path / "a.h5")
    assert "'frames/mask'" in refused.value.text()


def write_bad(folder: Path, name: str) -> Path:
    rng = np.random.default_rng(0)
    grey, path = rng.integers(0, 256, SHAPE, dtype=np.uint8), folder / name
    pictures = {
        "colours.png": rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8),
        "glass.png": np.dstack([grey, grey, grey, grey]),
        "shallow.png": grey,
        "photo.jpg": grey,
    }
    arrays: dict[str, Any] = {
        "cube.npy": np.zeros((2, 3, 4), dtype=np.uint16),
        "nothing.npy": np.zeros((0, 4), dtype=np.uint16),
        "words.npy": np.array([["a", "b"]]),
        "negative.npy": np.full(SHAPE, -1, dtype=np.int32),
        "large.npy": np.full(SHAPE, 70000, dtype=np.int32),
        "fraction.npy": np.full(SHAPE, 2.5),
    }
    if name in pictures:
        Image.fromarray(pictures[name]).save(path)
    elif name in arrays:
        np.save(path, arrays[name])
    elif name == "deep colours.png":
        cv2.imwrite(str(path), rng.integers(0, 65536, (*SHAPE, 3), dtype=np.uint16))
    elif name == "palette.png":
        Image.fromarray(grey).convert("P").save(path)
    elif name == "bits.png":
        Image.fromarray(grey > 100).save(path)
    elif name == "pickled.npy":
        np.save(path, np.array([[{}]]), allow_pickle=True)
    elif name == "two.npz":
        np.savez(path, a=grey, b=grey)
    elif name == "cut.npz":
        np.savez(folder / "whole.npz", a=grey)
        path.write_bytes((folder / "whole.npz").read_bytes()[:100])
    elif name == "cut.png":
        Image.fromarray(rng.integers(0, 65536, (50, 50), dtype=np.uint16)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif name != "missing.png":
        path.write_bytes(b"" if name == "empty.png" else b"no such thing")
    return path


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("missing.png", "no such file"),
        ("empty.png", "the file is empty"),
        ("other.png", "not an image"),
        ("other.npy", "damaged or cut short"),
        ("cut.png", "damaged or cut short"),
        ("cut.npz", "damaged or cut short"),
        ("pickled.npy", "damaged or cut short"),
        ("colours.png", "three channels that differ"),
        ("deep colours.png", "three channels that differ"),
        ("glass.png", "partly transparent"),
        ("palette.png", "mode P"),
        ("bits.png", "mode 1"),
        ("photo.jpg", "JPEG is no format for depth"),
        ("shallow.png", "numbers are uint8, from .* declared is uint16"),
        ("cube.npy", r"shape \(2, 3, 4\)"),
        ("nothing.npy", r"shape \(0, 4\)"),
        ("words.npy", "is no depth map"),
        ("negative.npy", "numbers are int32, from -1"),
        ("large.npy", "to 70000"),
        ("fraction.npy", "numbers are float64"),
        ("two.npz", "several arrays, and none is chosen"),
    ],
)
def test_bad_files_are_refused_in_words(name: str, sentence: str, tmp_path: Path) -> None:
    path = write_bad(tmp_path, name)
    with pytest.raises(DataError, match=sentence) as refused:
        KITCHEN.read(path)
    assert refused.value.where == str(path) and refused.value.cure


def test_a_deep_file_is_not_read_as_a_shallow_one(tmp_path: Path) -> None:
    KITCHEN.write(tmp_path / "a.png", np.full(SHAPE, 0.2), np.ones(SHAPE, dtype=bool))
    with pytest.raises(DataError, match="numbers are uint16, from 200 to 200; declared is float32"):
        CODECS["float metres"].read(tmp_path / "a.png")
    deep = DepthCodec("uint8", scale=0.001)
    KITCHEN.write(tmp_path / "b.png", np.full(SHAPE, 2.0), np.ones(SHAPE, dtype=bool))
    with pytest.raises(DataError, match="declared is uint8"):
        deep.read(tmp_path / "b.png")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
def test_undeclared_fractions_are_refused(value: float) -> None:
    raw = np.array([[1.0, value]], dtype=np.float32)
    with pytest.raises(DataError, match=r"1 pixels hold .* which is no depth"):
        DepthCodec("float32", scale=1.0).decode(raw)
    declared = DepthCodec("float32", scale=1.0, invalid=(0.0, value))
    depth, valid = declared.decode(raw)
    np.testing.assert_array_equal(valid, [[True, False]])
    np.testing.assert_array_equal(depth, [[1, 0]])


def test_formats_that_cannot_hold_the_numbers(tmp_path: Path) -> None:
    valid = np.ones(SHAPE, dtype=bool)
    with pytest.raises(DataError, match=r"\.png does not hold float32"):
        CODECS["float metres"].write(tmp_path / "a.png", np.ones(SHAPE), valid)
    with pytest.raises(DataError, match=r"\.exr does not hold uint16"):
        KITCHEN.write(tmp_path / "a.exr", np.ones(SHAPE), valid)
    with pytest.raises(DataError, match="no depth format"):
        KITCHEN.write(tmp_path / "a.jpg", np.ones(SHAPE), valid)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"something")
    with pytest.raises(RequestError, match="need the package h5py"):
        read_numbers(tmp_path / "a.h5")
    with pytest.raises(RequestError, match="need the package h5py"):
        write_numbers(tmp_path / "b.h5", np.ones(SHAPE, dtype=np.float32))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "either a scale, or metres_at_zero"),
        ({"scale": 1.0, "metres_at_full": 2.0}, "either a scale, or metres_at_zero"),
        ({"metres_at_full": 2.0}, "either a scale, or metres_at_zero"),
        ({"scale": 0.0}, "scale must be above 0"),
        ({"scale": 1.0, "encoding": "srgb"}, "an sRGB encoding needs"),
        ({"metres_at_zero": 1.0, "metres_at_full": 1.0}, "must differ"),
        ({"metres_at_zero": -1.0, "metres_at_full": 1.0}, "not be negative"),
        ({"metres_at_zero": 0.0, "metres_at_full": math.inf}, "cannot end at infinity"),
        ({"metres_at_zero": 9.0, "metres_at_full": 0.0, "quantity": "inverse"}, "cannot reach 0 m"),
        ({"scale": 1.0, "geometry": "radial"}, "radial depth needs a camera"),
        ({"scale": 1.0, "fx": 1.0}, "fx, fy, cx and cy together"),
        ({"scale": 1.0, "fx": 0.0, "fy": 1.0, "cx": 1.0, "cy": 1.0}, "focal lengths above 0"),
        ({"scale": 1.0, "fx": 1.0, "fy": 1.0, "cx": 1.0, "cy": 1.0, "vertical_fov_deg": 9.0}, "not by both"),
        ({"scale": 1.0, "vertical_fov_deg": 180.0}, "between 0 and 180"),
        ({"scale": 1.0, "quantity": "disparity"}, "needs baseline_m and focal_px"),
        ({"scale": 1.0, "quantity": "disparity", "baseline_m": -1.0, "focal_px": 5.0}, "above 0"),
        ({"scale": 1.0, "minimum_m": 5.0, "maximum_m": 5.0}, "minimum_m < maximum_m"),
        ({"scale": 1.0, "beyond": (0.0,)}, "both no reading and beyond range"),
        ({"scale": 1.0, "invalid": (70000.0,)}, "cannot be stored as uint16"),
        ({"scale": 1.0, "invalid": (math.nan,)}, "cannot be stored as uint16"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        DepthCodec("uint16", **settings)


def test_a_known_camera_is_told() -> None:
    assert KITCHEN.camera(*SHAPE) is None
    camera = UNITY.camera(480, 640)
    assert camera is not None and (camera.cx, camera.cy) == (319.5, 239.5)
    assert camera.fx == camera.fy == pytest.approx(415.692, abs=1e-3)


# ---------------------------------------------------------------- finished maps


def test_colours_run_from_red_to_blue_and_invalid_is_grey() -> None:
    depth = np.array([[0.5, 1.0, 5.0, 5.5, math.nan]])
    valid = np.array([[True, True, True, True, False]])
    image = paint_depth(depth, valid, 1.0, 5.0)
    assert image.shape == (1, 5, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image[0, 0], image[0, 1])  # nearer than near is near
    np.testing.assert_array_equal(image[0, 2], image[0, 3])
    assert image[0, 1, 0] > 100 and image[0, 1, 2] < 20  # red, the dark end of Turbo
    assert image[0, 2, 2] > image[0, 2, 0]
    np.testing.assert_array_equal(image[0, 4], [128] * 3)
    with pytest.raises(ValueError, match="near must be below far"):
        paint_depth(depth, valid, 5.0, 5.0)
    with pytest.raises(ValueError, match="a valid depth is NaN"):
        paint_depth(depth, ~valid, 1.0, 5.0)


def turbo_of_matplotlib(share: float) -> NDArray[np.float64]:
    import matplotlib

    return 255 * np.array(matplotlib.colormaps["turbo"](share)[:3])


@pytest.mark.parametrize("depth", [1.0, 2.0, 3.5, 4.9])
def test_colours_are_those_of_turbo(depth: float) -> None:
    image = paint_depth(np.full((1, 1), depth), np.ones((1, 1), dtype=bool), 1.0, 5.0)
    assert np.abs(image[0, 0] - turbo_of_matplotlib(1 - (depth - 1) / 4)).max() < 4


def brute_gauss(depth: NDArray[np.float64], valid: NDArray[np.bool_], sigma: float) -> NDArray[np.float64]:
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]]
    result = np.zeros_like(depth)
    for row, column in np.argwhere(valid):
        weight = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * sigma**2)) * valid
        result[row, column] = (weight * np.where(valid, depth, 0)).sum() / weight.sum()
    return result


def test_gaussian_smoothing_against_loops() -> None:
    rng = np.random.default_rng(1)
    depth, valid = rng.uniform(1, 5, (12, 15)), rng.random((12, 15)) < 0.7
    expected = brute_gauss(depth, valid, 1.3)
    np.testing.assert_allclose(smooth_depth(np.where(valid, depth, np.nan), valid, 1.3), expected, rtol=1e-3)
    with pytest.raises(ValueError, match="sigma"):
        smooth_depth(depth, valid, 0.0)


def brute_guided(
    depth: NDArray[np.float64], valid: NDArray[np.bool_], guide: NDArray[np.float64], radius: int, eps: float
) -> NDArray[np.float64]:
    lines = {}
    for row, column in np.argwhere(valid):
        window = np.s_[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]
        inside = valid[window]
        x, y = guide[window][inside], depth[window][inside]
        slope = np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + eps)
        lines[row, column] = slope, y.mean() - slope * x.mean()
    result = np.zeros_like(depth)
    for row, column in np.argwhere(valid):
        near = [line for (y, x), line in lines.items() if max(abs(y - row), abs(x - column)) <= radius]
        slope, offset = np.mean(near, axis=0)
        result[row, column] = slope * guide[row, column] + offset
    return result


def test_guided_smoothing_against_loops() -> None:
    rng = np.random.default_rng(2)
    depth, valid = rng.uniform(1, 5, (12, 15)), rng.random((12, 15)) < 0.7
    grey = rng.integers(0, 256, (12, 15), dtype=np.uint8)
    image = np.repeat(grey[..., None], 3, axis=2)
    expected = brute_guided(depth, valid, grey / 255, 2, 0.01)
    found = guided_smooth(np.where(valid, depth, np.nan), valid, image, radius=2, eps=0.01)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_guided_smoothing_keeps_an_edge_that_the_image_has() -> None:
    rng = np.random.default_rng(3)
    truth = np.where(np.arange(40) < 20, 1.0, 5.0) * np.ones((40, 1))
    noisy = truth + rng.normal(0, 0.1, truth.shape)
    image = np.repeat(np.where(truth < 3, 30, 220).astype(np.uint8)[..., None], 3, axis=2)
    valid = np.ones(truth.shape, dtype=bool)
    errors = [np.abs(found - truth)[:, 18:22].mean() for found in (guided_smooth(noisy, valid, image), noisy)]
    blurred = np.abs(smooth_depth(noisy, valid, 2.0) - truth)[:, 18:22].mean()
    assert errors[0] < 0.5 * errors[1] < blurred
    with pytest.raises(ValueError, match="needs an RGB image"):
        guided_smooth(noisy, valid, image[:5])
    with pytest.raises(ValueError, match="radius"):
        guided_smooth(noisy, valid, image, radius=0)
