"""Arrays as bytes, without loss and without pickle: PNG, the photograph's own JPEG, or NumPy's own format, packed."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.errors import DataError

_PNG, _JPEG = b"\x89PNG", b"\xff\xd8\xff"


def encode_image(image_hwc: NDArray[Any], file: Path) -> bytes:
    """An image as bytes: those of its own file where that is a JPEG which decodes to the very same pixels."""
    if file.suffix.lower() in (".jpg", ".jpeg"):
        stored = file.read_bytes()
        if stored.startswith(_JPEG) and np.array_equal(_decode_jpeg(stored), image_hwc):
            return stored
    return encode_array(image_hwc)


def encode_array(array: NDArray[Any]) -> bytes:
    """An array as bytes; of uint8 and uint16 those of a PNG, of others NumPy's, packed."""
    picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if picture and array.size and array.dtype in (np.uint8, np.uint16):
        import cv2

        ordered = array if array.ndim == 2 else array[..., ::-1]  # OpenCV's channels are blue, green, red
        done, png = cv2.imencode(".png", np.ascontiguousarray(ordered))
        if done:
            return bytes(png)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return zlib.compress(file.getvalue(), 1)


def decode_array(stored: bytes) -> NDArray[Any]:
    """The array that `encode_array` or `encode_image` was given, writable; raises DataError where it is damaged."""
    try:
        if stored.startswith(_JPEG):
            return _decode_jpeg(stored)
        if not stored.startswith(_PNG):
            return np.array(np.load(io.BytesIO(zlib.decompress(stored)), allow_pickle=False))
        import cv2

        array = cv2.imdecode(np.frombuffer(stored, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None:
            raise ValueError("no picture")
        return np.ascontiguousarray(array[..., ::-1]) if array.ndim == 3 else np.asarray(array)
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"a sample of these shards cannot be decoded: {error}") from None


def _decode_jpeg(stored: bytes) -> NDArray[Any]:
    with Image.open(io.BytesIO(stored)) as image:
        return np.array(image)
