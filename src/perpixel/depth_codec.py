"""What the numbers in the depth files of a data set mean: declared once, read and written by that one declaration.

Needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perpixel.depth_files import read_numbers, write_numbers
from perpixel.depth_maps import linear_to_srgb, srgb_to_linear
from perpixel.errors import DataError
from perpixel.pointcloud import Camera, camera_from_fov, planar_to_radial, radial_to_planar

__all__ = ["DepthCodec"]

_Map = NDArray[np.float32]
_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DepthCodec:
    """How stored numbers stand for depth.

    A stored number v becomes a quantity q in one of two ways: ``q = scale * v``, or along the straight line from
    ``metres_at_zero`` at v = 0 to ``metres_at_full`` at the largest v (255, 65535, or 1 of fractions). The line is
    straight in the quantity: that of an inverse depth runs from 1 / metres_at_zero to 1 / metres_at_full. With the
    encoding ``srgb`` the share v / largest v is first made linear light, as a renderer that wrote depth as a colour
    demands.

    Attributes:
        stored: type of the stored numbers. A file of another width is an error: its scale would be another one.
        scale: what one unit stands for: metres of a depth, 1/metres of an inverse depth, pixels of a disparity.
            0.001 of millimetres, 1/256 of KITTI.
        metres_at_zero: metres that v = 0 stands for; may be infinite where the quantity is no depth.
        metres_at_full: metres that the largest v stands for; below ``metres_at_zero`` in a file whose near is white.
        quantity: ``depth`` in metres; ``inverse``, 1 / depth; ``disparity`` in pixels, baseline * focal / depth.
        encoding: ``linear`` or ``srgb``.
        geometry: ``planar``, distance along the camera's axis; ``radial``, distance from its centre, from which
            planar depth is computed through the camera.
        fx, fy, cx, cy: focal lengths and principal point in pixels of the files' size.
        vertical_fov_deg, horizontal_fov_deg: or the field of view in degrees, seen through the middle.
        baseline_m: metres between the two cameras of a disparity.
        focal_px: focal length in pixels of a disparity.
        invalid: stored numbers that mean no reading; may hold nan.
        beyond: stored numbers that mean farther than can be measured; may hold infinity.
        minimum_m: nearest planar depth that is valid, in metres.
        maximum_m: farthest planar depth that is valid, in metres; what is farther is beyond range.
        key: name of the array in NPZ and HDF5 files, or of the channel in EXR files; None: the only one.

    Raises:
        ValueError: settings that contradict each other or leave the meaning open.
    """

    stored: Literal["uint8", "uint16", "float32"]
    scale: float | None = None
    metres_at_zero: float | None = None
    metres_at_full: float | None = None
    quantity: Literal["depth", "inverse", "disparity"] = "depth"
    encoding: Literal["linear", "srgb"] = "linear"
    geometry: Literal["planar", "radial"] = "planar"
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    vertical_fov_deg: float | None = None
    horizontal_fov_deg: float | None = None
    baseline_m: float | None = None
    focal_px: float | None = None
    invalid: tuple[float, ...] = (0.0,)
    beyond: tuple[float, ...] = ()
    minimum_m: float = 0.0
    maximum_m: float = math.inf
    key: str | None = None

    def __post_init__(self) -> None:
        for problem in _problems(self):
            raise ValueError(problem)

    def camera(self, height: int, width: int) -> Camera | None:
        """The camera of files of that size; None when neither intrinsics nor a field of view are declared."""
        intrinsics = (self.fx, self.fy, self.cx, self.cy)
        if None not in intrinsics:
            return Camera(*intrinsics)  # type: ignore[arg-type]  # none of them is None
        if self.vertical_fov_deg is None and self.horizontal_fov_deg is None:
            return None
        return camera_from_fov(
            height, width, vertical_deg=self.vertical_fov_deg, horizontal_deg=self.horizontal_fov_deg
        )

    def decode(self, raw_hw: NDArray[Any], where: object = None) -> tuple[_Map, _Mask]:
        """Stored numbers to (depth_hw, valid_hw): planar metres, 0 where not valid.

        Valid is what is no code, finite, above 0, and from ``minimum_m`` to ``maximum_m``.

        Args:
            raw_hw: stored numbers; whole numbers of a wider type do if their values fit.
            where: what an error names, the file say.

        Raises:
            DataError: numbers of another type or width, or undeclared ones that are negative or not finite.
        """
        raw_hw = self._checked(raw_hw, where)
        depth_hw = self._planar_metres(raw_hw)
        coded_hw = _is_code(raw_hw, self.invalid + self.beyond)
        lowest, highest = np.float32(self.minimum_m), np.float32(self.maximum_m)
        valid_hw = ~coded_hw & np.isfinite(depth_hw) & (depth_hw > 0) & (depth_hw >= lowest) & (depth_hw <= highest)
        return np.where(valid_hw, depth_hw, np.float32(0)), valid_hw

    def beyond_range(self, raw_hw: NDArray[Any], where: object = None) -> _Mask:
        """Where stored numbers mean farther than can be measured: a code of ``beyond``, above ``maximum_m``, infinite.

        Raises:
            DataError: as `decode`.
        """
        raw_hw = self._checked(raw_hw, where)
        depth_hw = self._planar_metres(raw_hw)
        far_hw = (depth_hw > np.float32(self.maximum_m)) | np.isposinf(depth_hw)  # a disparity of 0 is infinitely far
        return _is_code(raw_hw, self.beyond) | (far_hw & ~_is_code(raw_hw, self.invalid))

    def encode(self, depth_hw: NDArray[Any], valid_hw: _Mask, beyond_hw: _Mask | None = None) -> NDArray[Any]:
        """Planar metres to stored numbers, rounded to the nearest.

        A valid depth that would round to a number that stands for no depth (a code, 0 m, infinity) takes the nearest
        one that does, so that what is valid stays valid. Pixels that are not valid take the first number of
        ``invalid`` (of ``beyond`` where nothing else is declared), those of ``beyond_hw`` the first of ``beyond``.

        Raises:
            DataError: a valid depth that is not finite and above 0 or that does not fit into the stored numbers, or
                pixels without depth where the codec declares no number for them.
            ValueError: the shapes differ.
        """
        if depth_hw.ndim != 2 or depth_hw.shape != valid_hw.shape or valid_hw.dtype != np.bool_:
            raise ValueError(f"depth and bool valid must be (H, W) of one size; {depth_hw.shape} and {valid_hw.shape}")
        depths = depth_hw[valid_hw]
        if not (np.isfinite(depths) & (depths > 0)).all():
            raise DataError(
                "a valid depth is not finite or not above 0 m",
                rule="Only depth in metres above 0 can be stored.",
                cure="Mark such pixels as not valid.",
            )
        metres_hw = np.where(valid_hw, depth_hw, 1).astype(np.float64)
        camera = self.camera(*depth_hw.shape)
        if self.geometry == "radial" and camera is not None:
            metres_hw = planar_to_radial(metres_hw, camera)
        raw_hw = self._stored_numbers(metres_hw, valid_hw)
        beyond_hw = np.zeros_like(valid_hw) if beyond_hw is None else beyond_hw & ~valid_hw
        for mask_hw, codes in ((~valid_hw & ~beyond_hw, self.invalid or self.beyond), (beyond_hw, self.beyond)):
            if mask_hw.any():
                raw_hw[mask_hw] = _first(codes)
        return raw_hw

    def read(self, path: Path | str) -> tuple[_Map, _Mask]:
        """(depth_hw, valid_hw) of a file, as `decode`.

        Raises:
            DataError: as `decode` and `perpixel.depth_files.read_numbers`.
            RequestError: a package that reads this kind of file is not installed.
        """
        return self.decode(read_numbers(path, self.key), where=path)

    def write(self, path: Path | str, depth_hw: NDArray[Any], valid_hw: _Mask, beyond_hw: _Mask | None = None) -> None:
        """Write a file that `read` reads back: `encode`, in the format that the name's ending says.

        Raises:
            DataError: as `encode` and `perpixel.depth_files.write_numbers`.
            RequestError: a package that writes this kind of file is not installed.
        """
        write_numbers(path, self.encode(depth_hw, valid_hw, beyond_hw), self.key)

    # ------------------------------------------------------------ stored numbers and metres along the stored geometry

    @property
    def _full(self) -> float:
        return 1.0 if self.stored == "float32" else float(np.iinfo(self.stored).max)

    def _quantity(self, metres: NDArray[np.float64]) -> NDArray[np.float64]:
        """Metres to the quantity that is stored, and back: each formula is its own inverse."""
        if self.quantity == "inverse":
            return 1 / metres
        if self.quantity == "disparity":
            return np.asarray((self.baseline_m or 1) * (self.focal_px or 1) / metres)
        return metres

    def _line(self) -> tuple[float, float]:
        """Quantity at v = 0 and at the largest v."""
        with np.errstate(divide="ignore"):
            ends = self._quantity(np.array([self.metres_at_zero, self.metres_at_full], dtype=np.float64))
        return float(ends[0]), float(ends[1])

    def _to_metres(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        raw = raw.astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            if self.scale is not None:
                return self._quantity(raw * self.scale)
            share = raw / self._full
            start, end = self._line()
            return self._quantity(start + (end - start) * (srgb_to_linear(share) if self.encoding == "srgb" else share))

    def _to_raw(self, metres: NDArray[np.float64]) -> NDArray[np.float64]:
        quantity = self._quantity(metres)
        if self.scale is not None:
            return quantity / self.scale
        start, end = self._line()
        share = (quantity - start) / (end - start)
        return np.asarray(self._full * (linear_to_srgb(share) if self.encoding == "srgb" else share))

    def _planar_metres(self, raw_hw: NDArray[Any]) -> _Map:
        if raw_hw.dtype.kind == "u":
            metres_hw: NDArray[Any] = _table(self)[raw_hw]
        else:
            metres_hw = self._to_metres(raw_hw)
        camera = self.camera(*raw_hw.shape)
        with np.errstate(over="ignore"):
            if self.geometry == "radial" and camera is not None:
                metres_hw = radial_to_planar(metres_hw, camera)
            return metres_hw.astype(np.float32)

    def _checked(self, raw_hw: NDArray[Any], where: object) -> NDArray[Any]:
        if raw_hw.ndim != 2 or not raw_hw.size:
            raise DataError(
                f"shape {raw_hw.shape} is no depth map", where=where, cure="Save one map a file, as height x width."
            )
        if self.stored == "float32":
            return self._checked_fractions(raw_hw, where)
        wanted = np.dtype(self.stored)
        if raw_hw.dtype.kind not in "ui" or raw_hw.dtype.itemsize < wanted.itemsize:
            raise self._other_type(raw_hw, where)
        if raw_hw.dtype != wanted and not (raw_hw.min() >= 0 and raw_hw.max() <= np.iinfo(wanted).max):
            raise self._other_type(raw_hw, where)
        return raw_hw.astype(wanted, copy=False)

    def _checked_fractions(self, raw_hw: NDArray[Any], where: object) -> NDArray[Any]:
        if raw_hw.dtype.kind != "f":
            raise self._other_type(raw_hw, where)
        with np.errstate(over="ignore"):
            raw_hw = raw_hw.astype(np.float32, copy=False)
        suspect = raw_hw[~_is_code(raw_hw, self.invalid + self.beyond)]
        wrong = suspect[~np.isfinite(suspect) | (suspect < 0)]
        if wrong.size:
            raise DataError(
                f"{wrong.size} pixels hold {wrong[0]}, which is no depth",
                where=where,
                rule="A stored number is finite and not negative, or declared.",
                cure=f"Name {wrong[0]} under 'invalid' if it means no reading, under 'beyond' if it means far away.",
            )
        return raw_hw

    def _other_type(self, raw_hw: NDArray[Any], where: object) -> DataError:
        return DataError(
            f"the numbers are {raw_hw.dtype}, from {raw_hw.min()} to {raw_hw.max()}; declared is {self.stored}",
            where=where,
            rule="The declared scale belongs to the declared type: in another one the same depth has another number, "
            "or was cut off.",
            cure=f"Save the file as {self.stored}, or declare the type that the files have, and its scale.",
        )

    def _stored_numbers(self, metres_hw: NDArray[np.float64], valid_hw: _Mask) -> NDArray[Any]:
        numbers_hw = np.where(valid_hw, self._to_raw(metres_hw), 0)
        if self.stored == "float32":
            raw_hw = numbers_hw.astype(np.float32)
            taken_hw = valid_hw & _is_code(raw_hw, self.invalid + self.beyond)
            return np.where(taken_hw, np.nextafter(raw_hw, np.float32(0.5)), raw_hw)
        rounded_hw = np.rint(numbers_hw)
        outside_hw = (rounded_hw < 0) | (rounded_hw > self._full)
        if outside_hw.any():
            unfit, held = metres_hw[outside_hw], _table(self)[_depth_numbers(self)]
            raise DataError(
                f"{unfit.size} depths from {unfit.min():g} to {unfit.max():g} m do not fit into {self.stored}",
                rule=f"These files hold {held.min():g} to {held.max():g} m.",
                cure="Store such files with a wider type, or mark these pixels as beyond range.",
            )
        raw_hw = rounded_hw.astype(self.stored)
        depths = _depth_numbers(self)
        taken_hw = valid_hw & ~np.isin(raw_hw, depths)
        if taken_hw.any():
            middles = (depths[1:].astype(np.float64) + depths[:-1]) / 2
            raw_hw[taken_hw] = depths[np.searchsorted(middles, numbers_hw[taken_hw])]
        return raw_hw


@lru_cache(maxsize=8)
def _table(codec: DepthCodec) -> NDArray[np.float64]:
    """Metres along the stored geometry of every whole number that can be stored."""
    return codec._to_metres(np.arange(int(codec._full) + 1))


@lru_cache(maxsize=8)
def _depth_numbers(codec: DepthCodec) -> NDArray[Any]:
    """Every whole number that stands for a depth: no code, finite, above 0 m."""
    numbers, metres = np.arange(int(codec._full) + 1, dtype=codec.stored), _table(codec)
    return numbers[~_is_code(numbers, codec.invalid + codec.beyond) & np.isfinite(metres) & (metres > 0)]


def _is_code(raw: NDArray[Any], codes: tuple[float, ...]) -> _Mask:
    """Where one of the codes stands; fractions are compared as float32, in which they are stored."""
    found = np.zeros(raw.shape, dtype=bool)
    for code in codes:
        found |= np.isnan(raw) if math.isnan(code) else raw == (np.float32(code) if raw.dtype.kind == "f" else code)
    return found


def _first(codes: tuple[float, ...]) -> float:
    if not codes:
        raise DataError(
            "there are pixels without depth, and no number stands for them",
            rule="A depth file says which pixels have no depth.",
            cure="Declare a number under 'invalid', or under 'beyond' for pixels that are too far away.",
        )
    return codes[0]


def _problems(codec: DepthCodec) -> list[str]:
    """What is wrong with the settings, in sentences."""
    ends = (codec.metres_at_zero, codec.metres_at_full)
    intrinsics = (codec.fx, codec.fy, codec.cx, codec.cy)
    angles = (codec.vertical_fov_deg, codec.horizontal_fov_deg)
    problems = []
    if (codec.scale is None) == (None in ends) or (codec.scale is not None and ends != (None, None)):
        problems.append("a depth codec needs either a scale, or metres_at_zero and metres_at_full")
    if codec.scale is not None and not (codec.scale > 0 and math.isfinite(codec.scale)):
        problems.append(f"scale must be above 0; it is {codec.scale}")
    if codec.scale is not None and codec.encoding == "srgb":
        problems.append("an sRGB encoding needs metres_at_zero and metres_at_full, not a scale")
    problems += _line_problems(codec)
    if intrinsics != (None,) * 4 and None in intrinsics:
        problems.append("intrinsics are fx, fy, cx and cy together")
    if intrinsics != (None,) * 4 and angles != (None, None):
        problems.append("a camera is declared by fx, fy, cx, cy or by a field of view, not by both")
    if codec.geometry == "radial" and intrinsics == (None,) * 4 and angles == (None, None):
        problems.append("radial depth needs a camera: fx, fy, cx, cy, or a field of view")
    if codec.quantity == "disparity" and codec.scale is not None and not (codec.baseline_m and codec.focal_px):
        problems.append("disparity in pixels needs baseline_m and focal_px")
    if any(number is not None and not number > 0 for number in (codec.baseline_m, codec.focal_px)):
        problems.append("baseline_m and focal_px must be above 0")
    if not 0 <= codec.minimum_m < codec.maximum_m:
        problems.append(f"0 <= minimum_m < maximum_m; they are {codec.minimum_m} and {codec.maximum_m}")
    if set(codec.invalid) & set(codec.beyond):
        problems.append("a stored number cannot mean both no reading and beyond range")
    problems += _code_problems(codec)
    if not problems:
        codec.camera(2, 2)  # its own ValueError says what is wrong with the numbers
    return problems


def _line_problems(codec: DepthCodec) -> list[str]:
    if codec.metres_at_zero is None or codec.metres_at_full is None:
        return []
    ends = (codec.metres_at_zero, codec.metres_at_full)
    linear_in_depth = codec.quantity not in ("inverse", "disparity")
    if any(math.isnan(end) or end < 0 for end in ends) or ends[0] == ends[1]:
        return [f"metres_at_zero and metres_at_full must differ and not be negative; they are {ends}"]
    if linear_in_depth and math.inf in ends:
        return ["a line of depths cannot end at infinity; that of an inverse depth can"]
    if not linear_in_depth and 0 in ends:
        return ["an inverse depth cannot reach 0 m"]
    return []


def _code_problems(codec: DepthCodec) -> list[str]:
    if codec.stored == "float32":
        return []
    full = int(codec._full)
    wrong = [code for code in codec.invalid + codec.beyond if not (0 <= code <= full and float(code).is_integer())]
    return [f"{code} cannot be stored as {codec.stored}, so it cannot mean anything" for code in wrong]
