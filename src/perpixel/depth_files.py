"""The numbers of a depth file as they are stored, without loss: PNG, TIFF, EXR, NPY, NPZ, HDF5. Needs no torch.

What the numbers mean, `perpixel.depth_codec` knows.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.errors import DataError, RequestError
from perpixel.images import opened, stored_bits, upright_turn, write_atomically

__all__ = ["read_numbers", "write_numbers"]

_ENDINGS = ".png, .tif, .tiff, .exr, .npy, .npz, .h5 or .hdf5"
_WHOLE = "A depth file is a whole, readable file."


def read_numbers(path: Path | str, key: str | None = None) -> NDArray[Any]:
    """The stored numbers of a depth file as values_hw, of the type they are stored in.

    PNG and TIFF are told by their content, the others by their ending. Three equal colour channels count as one, and
    an opaque alpha channel is dropped.

    Args:
        path: the file.
        key: name of the array in an NPZ or HDF5 file, or of the channel in an EXR file; None: the only one there is,
            of several EXR channels ``Z``.

    Raises:
        DataError: no such file, damaged, empty, no two-dimensional array of numbers, colours, or no array of that name.
        RequestError: a package that reads this kind of file is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such file", where=path, cure="Correct the path.")
    if not path.stat().st_size:
        raise DataError("the file is empty", where=path, rule=_WHOLE, cure="Fetch or save the file again.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        values = _read_picture(path)
    else:
        try:
            values = reader(path, key)
        except (DataError, RequestError):
            raise
        except Exception as error:  # damaged files make these readers raise nearly anything
            raise DataError(
                f"the file is damaged or cut short: {error}", where=path, rule=_WHOLE, cure="Fetch or save it again."
            ) from error
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or not values.size or values.dtype.kind not in "uif":
        raise DataError(
            f"shape {values.shape} of {values.dtype} is no depth map",
            where=path,
            rule="A depth map is a two-dimensional array of numbers.",
            cure="Save one map a file, without further dimensions.",
        )
    return np.ascontiguousarray(values)


def write_numbers(path: Path | str, values_hw: NDArray[Any], key: str | None = None) -> None:
    """Write stored numbers (uint8, uint16 or float32) in the format that the name's ending says.

    The file appears whole or not at all; missing folders are made.

    Args:
        path: the file.
        values_hw: the numbers; of fractions, float32 alone.
        key: name of the array or channel; None: ``depth``, and ``Z`` in an EXR file.

    Raises:
        DataError: an ending that stands for no depth format, or one that cannot hold these numbers.
        RequestError: a package that writes this kind of file is not installed.
    """
    path = Path(path)
    ending = path.suffix.lower()
    writer = _WRITERS.get(ending)
    if writer is None:
        raise DataError("no depth format has this ending", where=path, cure=f"Name the file {_ENDINGS}.")
    integers = values_hw.dtype.kind == "u"
    if (ending == ".png" and not integers) or (ending == ".exr" and integers):
        raise DataError(
            f"{ending} does not hold {values_hw.dtype}",
            where=path,
            rule="PNG holds whole numbers of 8 or 16 bits, EXR holds fractions.",
            cure="Declare other stored numbers, or name the file otherwise.",
        )
    content = writer(np.ascontiguousarray(values_hw), key)
    write_atomically(path, lambda file: file.write(content))


# ---------------------------------------------------------------- reading


def _read_picture(path: Path) -> NDArray[Any]:
    notes: list[str] = []
    with opened(path) as image:
        if image.format not in ("PNG", "TIFF"):
            raise DataError(
                f"{image.format} is no format for depth",
                where=path,
                rule="Depth is stored without loss.",
                cure=f"Use {_ENDINGS}.",
            )
        if image.mode in ("1", "P", "PA", "CMYK", "YCbCr", "LAB"):
            raise DataError(
                f"the pixels are of mode {image.mode}",
                where=path,
                rule="Depth in PNG and TIFF has one channel of 8 or 16 bits, or of 32-bit fractions.",
                cure="Save it so.",
            )
        bits = stored_bits(path, image)
        if bits < 8:
            raise DataError(
                f"the file has {bits} bits a pixel",
                where=path,
                rule="Depth in PNG and TIFF has 8 bits or more.",
                cure="Save it with 16 bits.",
            )
        if image.mode in ("RGB", "RGBA", "LA") and bits == 16:
            pixels = _deep_colors(path)
        else:
            pixels = np.array(image)
            pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        pixels = upright_turn(image, notes)(pixels)
    return _one_channel(path, pixels) if pixels.ndim == 3 else pixels


def _one_channel(path: Path, values_hwc: NDArray[Any]) -> NDArray[Any]:
    if values_hwc.shape[2] in (2, 4):
        if (values_hwc[..., -1] != np.iinfo(values_hwc.dtype).max).any():
            raise DataError(
                "the pixels are partly transparent",
                where=path,
                rule="A depth file has one channel.",
                cure="Save it without transparency; give 'no reading' a value of its own.",
            )
        values_hwc = values_hwc[..., :-1]
    if (values_hwc != values_hwc[..., :1]).any():
        raise DataError(
            "three channels that differ: this is a picture, or a depth map painted in colours",
            where=path,
            rule="A depth file has one channel.",
            cure="Use the files that hold the numbers.",
        )
    return values_hwc[..., 0]


def _deep_colors(path: Path) -> NDArray[Any]:
    """Pillow keeps 8 of the 16 bits of a colour file; OpenCV keeps all, in another order of channels."""
    import cv2

    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("16-bit colours that cannot be decoded")
    return np.asarray(pixels)


def _read_npy(path: Path, key: str | None) -> NDArray[Any]:
    with path.open("rb") as file:
        return cast("NDArray[Any]", np.load(file, allow_pickle=False))


def _read_npz(path: Path, key: str | None) -> NDArray[Any]:
    # Given the name alone, numpy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return np.asarray(arrays[_named(path, list(arrays.files), key)])


def _read_hdf5(path: Path, key: str | None) -> NDArray[Any]:
    h5py = _package("h5py", path)
    with h5py.File(path, "r") as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        return np.asarray(file[_named(path, names, key)])


def _read_exr(path: Path, key: str | None) -> NDArray[Any]:
    channels = _package("OpenEXR", path).File(str(path), separate_channels=True).channels()
    if key is None and len(channels) > 1 and "Z" in channels:
        key = "Z"
    return np.asarray(channels[_named(path, list(channels), key)].pixels)


_READERS: Mapping[str, Callable[[Path, str | None], NDArray[Any]]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".h5": _read_hdf5,
    ".hdf5": _read_hdf5,
    ".exr": _read_exr,
}


def _named(path: Path, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key is None or key not in names:
        raise DataError(
            "several arrays, and none is chosen" if key is None else f"no array is named {key!r}",
            where=path,
            details=[f"there is {name!r}" for name in names] or ["there is no array at all"],
            cure="Set the key to the name of the array that holds the depth.",
        )
    return key


def _package(name: str, path: Path) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise RequestError(
            f"{path.suffix} files need the package {name}, which is not installed",
            where=path,
            cure=f"Install {name}, or convert the files to NPY.",
        ) from error


# ---------------------------------------------------------------- writing


def _picture_bytes(name: str) -> Callable[[NDArray[Any], str | None], bytes]:
    def encode(values_hw: NDArray[Any], key: str | None) -> bytes:
        file = io.BytesIO()
        Image.fromarray(values_hw).save(file, format=name)
        return file.getvalue()

    return encode


def _npy_bytes(values_hw: NDArray[Any], key: str | None) -> bytes:
    file = io.BytesIO()
    np.save(file, values_hw, allow_pickle=False)
    return file.getvalue()


def _npz_bytes(values_hw: NDArray[Any], key: str | None) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **{key or "depth": values_hw})  # type: ignore[arg-type]  # only a name "file" is special
    return file.getvalue()


def _hdf5_bytes(values_hw: NDArray[Any], key: str | None) -> bytes:
    buffer = io.BytesIO()
    with _package("h5py", Path("depth.h5")).File(buffer, "w") as file:
        file.create_dataset(key or "depth", data=values_hw, compression="gzip")
    return buffer.getvalue()


def _exr_bytes(values_hw: NDArray[Any], key: str | None) -> bytes:
    import tempfile

    openexr = _package("OpenEXR", Path("depth.exr"))
    head = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:  # the package writes to names alone
        path = Path(folder) / "depth.exr"
        openexr.File(head, {key or "Z": values_hw}).write(str(path))
        return path.read_bytes()


_WRITERS: Mapping[str, Callable[[NDArray[Any], str | None], bytes]] = {
    ".png": _picture_bytes("PNG"),
    ".tif": _picture_bytes("TIFF"),
    ".tiff": _picture_bytes("TIFF"),
    ".npy": _npy_bytes,
    ".npz": _npz_bytes,
    ".h5": _hdf5_bytes,
    ".hdf5": _hdf5_bytes,
    ".exr": _exr_bytes,
}
