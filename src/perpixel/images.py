"""Reading and writing of images and label maps. Nothing is changed without being said, nothing is guessed.

Files are read with Pillow, and with OpenCV where Pillow would throw bits away (16 bits a channel in colour).
What a file is, its content says, not its name.
"""

from __future__ import annotations

import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from perpixel.errors import DataError

__all__ = [
    "LabelFile",
    "LoadedImage",
    "image_size",
    "opened",
    "read_image",
    "read_label_map",
    "stored_bits",
    "upright_turn",
    "write_atomically",
    "write_image",
    "write_label_map",
]

_DEEP = ("RGB", "RGBA", "LA")  # modes in which Pillow keeps only 8 of 16 bits
_READABLE = "Images are whole, readable files of one picture: PNG, JPEG, TIFF, WebP, BMP and the like."


@dataclass(frozen=True)
class LoadedImage:
    """``pixels_hwc``: RGB, uint8, or uint16 where 16 bits are kept. ``notes``: what had to be done to get there."""

    pixels_hwc: NDArray[Any]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LabelFile:
    """A label map as it is stored.

    Attributes:
        kind: ``1-bit``, ``2-bit``, ``4-bit``, ``8-bit``, ``16-bit``, ``32-bit``, ``palette``, ``rgb``, ``16-bit rgb``.
        values_hw: the stored numbers (uint8, uint16, or int64 for 32 bits); of a palette file the indices; of a colour
            file the grey value if it is grey all over, else None.
        colors_hwc: uint8 RGB of palette and 8-bit colour files, else None.
        notes: in plain words, what had to be done, and what is doubtful.
        lossy: saved as JPEG, so that the values are not those that were drawn.
    """

    kind: str
    values_hw: NDArray[Any] | None = None
    colors_hwc: NDArray[np.uint8] | None = None
    notes: list[str] = field(default_factory=list)
    lossy: bool = False


def read_image(path: Path | str, *, keep_16_bits: bool = False) -> LoadedImage:
    """The picture in ``path`` as a person sees it: upright, uint8 RGB; uint16 where 16 bits are stored and kept.

    Else 16-bit values are divided by 257 and rounded, so that 65535 becomes 255. Transparency is dropped and the
    stored colours are kept: there is no background to put behind them.

    Raises:
        DataError: no such file, not a picture, damaged, too large, several pictures, or numbers without a known white.
    """
    path = Path(path)
    notes: list[str] = []
    with opened(path) as image:
        turn, bits = upright_turn(image, notes), stored_bits(path, image)
        deep_color = bits == 16 and image.mode in _DEEP
        if deep_color or image.mode.startswith("I;16"):
            deep = _decode_deep(path) if deep_color else _array(image).astype(np.uint16)
            pixels: NDArray[Any] = deep if keep_16_bits else _to_8_bits(deep, notes)
        elif image.mode in ("I", "F"):
            raise DataError(
                f"the pixels are {'32-bit integers' if image.mode == 'I' else 'fractions'}",
                where=path,
                rule="An image has 8 or 16 bits a channel; in other numbers nobody can tell what is white.",
                cure="Save it with 8 or 16 bits a channel.",
            )
        else:
            pixels = _array(_without_palette(image, notes))
        pixels = turn(pixels)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        opaque = (pixels[..., -1] == np.iinfo(pixels.dtype).max).all()
        notes.append("opaque alpha channel dropped" if opaque else "transparency dropped, stored colours kept")
        pixels = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
    if pixels.ndim == 2:
        notes.append("grey repeated into red, green and blue")
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return LoadedImage(np.ascontiguousarray(pixels), notes)


def read_label_map(path: Path | str) -> LabelFile:
    """The label map in ``path`` as it is stored, without loss; upright if EXIF data say that it is turned.

    Raises:
        DataError: no such file, not a picture, damaged, several pictures, or pixels that are no labels (fractions,
            CMYK, 16-bit colours, transparency).
    """
    path = Path(path)
    notes: list[str] = []
    with opened(path) as image:
        lossy = image.format in ("JPEG", "MPO")
        if lossy:
            notes.append("saved as JPEG: values are smeared, and wrong along every edge")
        turn, bits = upright_turn(image, notes), stored_bits(path, image)
        if image.mode == "P":
            return LabelFile("palette", turn(_array(image)), turn(_array(image.convert("RGB"))), notes)
        kind, pixels = _stored_values(image, bits, path, notes)
        pixels = turn(pixels)
    if pixels.ndim == 2:
        return LabelFile(kind, pixels, None, notes, lossy)
    grey = bool((pixels == pixels[..., :1]).all())
    values = np.ascontiguousarray(pixels[..., 0]) if grey else None
    if pixels.dtype == np.uint8:
        return LabelFile(kind, values, pixels, notes, lossy)
    if values is None:
        raise _not_a_label_map(path, "16-bit colours", "Save the labels as numbers, or as 8-bit colours.")
    return LabelFile(kind, values, None, notes)


def image_size(path: Path | str) -> tuple[int, int]:
    """``(height, width)`` in pixels as `read_image` would return it, without decoding the pixels.

    Raises:
        DataError: as `read_image`, as far as the head of the file tells.
    """
    with opened(Path(path)) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 and image.format != "TIFF" else (height, width)


def write_label_map(path: Path | str, values_hw: NDArray[Any]) -> None:
    """Write ``values_hw`` (integers or booleans, 0 to 65535) as grey PNG, with 8 bits if they suffice, else 16.

    The file appears whole or not at all; missing folders are made.

    Raises:
        DataError: not two-dimensional, no integers, out of range, or not named ``.png``.
    """
    path, values_hw = Path(path), np.asarray(values_hw)
    if path.suffix.lower() != ".png":
        raise DataError("label maps are written as PNG", where=path, cure="Give the file a name that ends in .png.")
    if values_hw.ndim != 2 or not values_hw.size or values_hw.dtype.kind not in "biu":
        raise DataError(
            f"shape {values_hw.shape} of {values_hw.dtype} is no label map",
            where=path,
            rule="A label map is a two-dimensional array of integers.",
            cure="Round the values and remove further dimensions.",
        )
    lowest, highest = int(values_hw.min()), int(values_hw.max())
    if lowest < 0 or highest > 65535:
        raise DataError(
            f"the values {lowest} to {highest} do not fit into a PNG file",
            where=path,
            rule="A grey PNG holds 0 to 65535.",
            cure="Number the classes within this range.",
        )
    stored_hw = np.ascontiguousarray(values_hw, dtype=np.uint8 if highest <= 255 else np.uint16)
    write_atomically(path, lambda file: Image.fromarray(stored_hw).save(file, format="PNG"))


def write_image(path: Path | str, pixels_hwc: NDArray[Any]) -> None:
    """Write uint8 RGB ``pixels_hwc`` in the format that the name's ending says (JPEG and WebP at quality 95).

    uint16 is written as PNG of 16 bits a channel. The file appears whole or not at all; missing folders are made.

    Raises:
        DataError: not an RGB image of uint8, nor of uint16 for PNG, or an ending that stands for no format.
    """
    path = Path(path)
    deep = pixels_hwc.dtype == np.uint16 and path.suffix.lower() == ".png"
    known = deep or pixels_hwc.dtype == np.uint8
    if pixels_hwc.ndim != 3 or pixels_hwc.shape[2] != 3 or not known or not pixels_hwc.size:
        raise DataError(
            f"shape {pixels_hwc.shape} of {pixels_hwc.dtype} is no image",
            where=path,
            rule="An image is an array of height x width x 3 of uint8; of uint16 too where it is written as PNG.",
            cure="Scale to 0 to 255 and convert to uint8 RGB.",
        )
    if deep:
        import cv2

        encoded = cv2.imencode(".png", np.ascontiguousarray(pixels_hwc[..., ::-1]))[1]
        write_atomically(path, lambda file: file.write(encoded.tobytes()))
        return
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format not in Image.SAVE:
        raise DataError("no image format has this ending", where=path, cure="Name the file .png, .jpg, .tif or .webp.")
    options = {"quality": 95} if image_format in ("JPEG", "WEBP") else {}
    image = Image.fromarray(np.ascontiguousarray(pixels_hwc))
    write_atomically(path, lambda file: image.save(file, format=image_format, **options))


# ---------------------------------------------------------------- reading


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The one picture of a file, open; whatever goes wrong inside is a DataError that names the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # below twice the limit all is well
            unread = Image.open(path)
        with unread as image:
            # A phone's MPO holds the photograph first and helpers after it: one picture, as a person sees it.
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                raise DataError(
                    f"the file holds {getattr(image, 'n_frames', 0)} pictures",
                    where=path,
                    rule="A file is one picture.",
                    cure="Save the picture that is meant as a file of its own.",
                )
            yield image
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError("no such file", where=path, cure="Correct the path.") from error
    except Image.DecompressionBombError as error:
        raise DataError(
            "the picture unpacks to more pixels than are safe to hold",
            where=path,
            rule=f"A picture has at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels.",
            cure="Cut it into tiles.",
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            "this is not an image, whatever its name says",
            where=path,
            rule=_READABLE,
            cure="Remove or replace the file.",
        ) from error
    except Exception as error:  # damaged files make Pillow's readers raise nearly anything
        raise DataError(
            f"the file is damaged or cut short: {error}",
            where=path,
            rule=_READABLE,
            cure="Fetch or save the file again.",
        ) from error


def _array(image: Image.Image) -> NDArray[Any]:
    pixels: NDArray[Any] = np.array(image)  # a copy: what asarray gives cannot be written to
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def stored_bits(path: Path, image: Image.Image) -> int:
    """Bits a channel as stored. Pillow tells its own mode only, in which 2, 4 and 16 bits have become 8."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]  # PNG specification: signature 8, chunk head 8, width 4, height 4, bit depth
    if image.format == "TIFF":
        return int(max(image.tag_v2.get(258, (1,))))  # type: ignore[attr-defined]  # BitsPerSample
    return 8


def _decode_deep(path: Path) -> NDArray[np.uint16]:
    """Pixels of a 16-bit colour file, RGB or RGBA, as stored: EXIF orientation is left to the caller."""
    import cv2

    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise ValueError("16-bit colours that cannot be decoded")
    order = [2, 1, 0, 3] if pixels.shape[2] == 4 else [2, 1, 0]
    return np.asarray(pixels[..., order], dtype=np.uint16)


def _to_8_bits(pixels: NDArray[Any], notes: list[str]) -> NDArray[np.uint8]:
    notes.append("16-bit values scaled to 8 bits (divided by 257)")
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _without_palette(image: Image.Image, notes: list[str]) -> Image.Image:
    """``image`` in grey or RGB, with alpha if it has any."""
    if image.mode in ("RGB", "RGBA", "L", "LA"):
        return image
    if image.mode == "1":
        return image.convert("L")
    notes.append("palette replaced by its colours" if image.mode in ("P", "PA") else f"{image.mode} converted to RGB")
    return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")


def _stored_values(image: Image.Image, bits: int, path: Path, notes: list[str]) -> tuple[str, NDArray[Any]]:
    """Kind and stored numbers or colours of a label map that has no palette."""
    if image.mode == "1":
        return "1-bit", _array(image).astype(np.uint8)
    if image.mode == "L":
        # Pillow stretches 2 and 4 bits to 0..255; the quotient is exact.
        return (f"{bits}-bit", _array(image) // (255 // (2**bits - 1))) if bits < 8 else ("8-bit", _array(image))
    if image.mode.startswith("I;16"):
        return "16-bit", _array(image).astype(np.uint16)
    if image.mode == "I":
        return "32-bit", _integers_32(image)
    if image.mode in _DEEP:
        pixels = _opaque(_decode_deep(path) if bits == 16 else _array(image), path, notes)
        if image.mode == "LA":
            return f"{bits}-bit", pixels
        return "16-bit rgb" if bits == 16 else "rgb", pixels
    what = "fractions" if image.mode == "F" else f"{image.mode} colours"
    raise _not_a_label_map(path, what, "Save the labels as whole numbers in a grey PNG.")


def _integers_32(image: Image.Image) -> NDArray[np.int64]:
    values = _array(image)
    tags: Any = getattr(image, "tag_v2", None)
    if tags is not None and tags.get(339, (1,))[0] == 1:  # SampleFormat: unsigned, which Pillow reads as signed
        values = values.view(np.uint32)
    return values.astype(np.int64)


def _opaque(pixels: NDArray[Any], path: Path, notes: list[str]) -> NDArray[Any]:
    """``pixels`` without their alpha channel, which must say nothing; grey with alpha becomes two-dimensional."""
    if pixels.shape[2] == 3:
        return pixels
    if (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
        raise _not_a_label_map(
            path, "partly transparent", "Save it without transparency; give 'no label' a value or a colour of its own."
        )
    notes.append("opaque alpha channel dropped")
    return pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :-1]


def _not_a_label_map(path: Path, what: str, cure: str) -> DataError:
    return DataError(
        f"the pixels are {what}",
        where=path,
        rule="A label map is whole numbers of 1 to 32 bits, a palette, or opaque 8-bit RGB colours.",
        cure=cure,
    )


# ---------------------------------------------------------------- orientation

# EXIF 2.32, tag 0x0112: what to do with the stored rows and columns to see the picture upright.
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8."""
    # Not image.getexif(): of a PNG it would decode all pixels, to look for data behind them.
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if value in _UPRIGHT else 1


def upright_turn(image: Image.Image, notes: list[str]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """What makes the decoded pixels upright. TIFF files come upright out of Pillow and OpenCV alike."""
    orientation = _orientation(image)
    if orientation == 1:
        return lambda pixels: pixels
    notes.append(f"turned upright as its EXIF data say (orientation {orientation})")
    if image.format == "TIFF":
        return lambda pixels: pixels
    return lambda pixels: np.ascontiguousarray(_UPRIGHT[orientation](pixels))


# ---------------------------------------------------------------- writing


def write_atomically(path: Path, save: Callable[[Any], None]) -> None:
    """A kill at any instant leaves the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            save(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
