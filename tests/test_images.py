"""Images as a person sees them, label maps as they are stored."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image, ImageOps

from perpixel.errors import DataError
from perpixel.images import image_size, read_image, read_label_map, write_image, write_label_map

random = np.random.default_rng(0)
RGB_HWC = random.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY_HW = random.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP_HW = random.integers(0, 65536, (5, 7), dtype=np.uint16)
DEEP_HWC = random.integers(0, 65536, (5, 7, 3), dtype=np.uint16)


def png(rows: list[bytes], width: int, bits: int, color_type: int, extra: bytes = b"") -> bytes:
    """A PNG file written by hand, after the specification: what Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, len(rows), bits, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def exif_chunk(orientation: int) -> bytes:
    data = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 274, 3, 1, orientation, 0, 0)
    return struct.pack(">I", len(data)) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))


def deep_tiff(pixels_hwc: NDArray[np.uint16], orientation: int = 1) -> bytes:
    """A 16-bit RGB TIFF file written by hand, after TIFF 6.0."""
    height, width, channels = pixels_hwc.shape
    end = 8 + 2 + 12 * 9 + 4
    short, long = 3, 4
    tags = [
        (256, short, 1, width), (257, short, 1, height), (258, short, channels, end), (259, short, 1, 1),
        (262, short, 1, 2), (273, long, 1, end + 2 * channels), (274, short, 1, orientation),
        (277, short, 1, channels), (279, long, 1, pixels_hwc.nbytes),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    bits = struct.pack(f"<{channels}H", *[16] * channels)
    return b"II*\0" + struct.pack("<IH", 8, 9) + entries + b"\0" * 4 + bits + pixels_hwc.astype("<u2").tobytes()


def unsigned_tiff(values_hw: NDArray[np.uint32]) -> bytes:
    """A 32-bit unsigned grey TIFF file, written by hand."""
    height, width = values_hw.shape
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 32), (259, 3, 1, 1), (262, 3, 1, 1),
            (273, 4, 1, 8 + 2 + 12 * 9 + 4), (277, 3, 1, 1), (279, 4, 1, values_hw.nbytes), (339, 3, 1, 1)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, 9) + entries + b"\0" * 4 + values_hw.astype("<u4").tobytes()


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The reference: Pillow's own transposition."""
    image = Image.fromarray(pixels)
    image.getexif()[274] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


# ---------------------------------------------------------------- images


def test_plain_rgb_needs_no_note(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", RGB_HWC)
    loaded = read_image(tmp_path / "a.png")
    assert np.array_equal(loaded.pixels_hwc, RGB_HWC) and loaded.notes == []
    assert loaded.pixels_hwc.flags.writeable and loaded.pixels_hwc.flags.c_contiguous


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "P", "CMYK"])
def test_other_modes_become_rgb_and_say_so(tmp_path: Path, mode: str) -> None:
    alpha_hw = np.full((5, 7), 255, np.uint8)
    alpha_hw[0, 0] = 0
    grey_hwc = np.repeat(GREY_HW[..., None], 3, axis=2)
    palette = Image.fromarray(GREY_HW % 4)
    palette = Image.frombytes("P", (7, 5), palette.tobytes())
    colors = np.array([[10, 20, 30], [250, 0, 0], [0, 250, 0], [9, 9, 9]], np.uint8)
    palette.putpalette(colors.tobytes())
    cases = {
        "1": (Image.fromarray(GREY_HW > 99), np.where(grey_hwc > 99, 255, 0), ["grey repeated"]),
        "L": (Image.fromarray(GREY_HW), grey_hwc, ["grey repeated"]),
        "LA": (Image.fromarray(np.dstack([GREY_HW, alpha_hw])), grey_hwc, ["transparency dropped", "grey repeated"]),
        "RGBA": (Image.fromarray(np.dstack([RGB_HWC, alpha_hw])), RGB_HWC, ["transparency dropped"]),
        "P": (palette, colors[GREY_HW % 4], ["palette replaced"]),
        "CMYK": (Image.fromarray(255 - RGB_HWC).convert("CMYK"), 255 - RGB_HWC, ["CMYK converted"]),
    }
    image, expected_hwc, notes = cases[mode]
    assert image.mode == mode
    path = tmp_path / "image.tif" if mode == "CMYK" else tmp_path / "image.png"
    image.save(path)
    loaded = read_image(path)
    assert loaded.pixels_hwc.dtype == np.uint8 and np.array_equal(loaded.pixels_hwc, expected_hwc)
    assert len(loaded.notes) == len(notes)
    assert all(said.startswith(expected) for said, expected in zip(loaded.notes, notes, strict=True))


def test_opaque_alpha_and_palette_transparency(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([RGB_HWC, np.full((5, 7), 255, np.uint8)])).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").notes == ["opaque alpha channel dropped"]
    palette = Image.fromarray(RGB_HWC).quantize(8)
    palette.save(tmp_path / "p.png", transparency=0)
    loaded = read_image(tmp_path / "p.png")
    assert np.array_equal(loaded.pixels_hwc, np.asarray(palette.convert("RGB")))
    assert loaded.notes == ["palette replaced by its colours", "transparency dropped, stored colours kept"]


@pytest.mark.parametrize("name", ["grey.png", "grey.tif", "rgb.png", "rgba.png", "rgb.tif"])
def test_16_bits_are_divided_by_257(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    deep: NDArray[np.uint16] = DEEP_HW if name.startswith("grey") else DEEP_HWC
    if name == "rgb.tif":
        put(path, deep_tiff(deep))
    elif name == "rgba.png":
        assert cv2.imwrite(str(path), np.dstack([deep[..., ::-1], np.full((5, 7), 65535, np.uint16)]))
    else:
        assert cv2.imwrite(str(path), deep if deep.ndim == 2 else deep[..., ::-1])
    expected = np.rint(deep / 257).astype(np.uint8)
    loaded = read_image(path)
    assert np.array_equal(loaded.pixels_hwc, expected[..., None].repeat(3, 2) if deep.ndim == 2 else expected)
    assert loaded.notes[0].startswith("16-bit values scaled to 8 bits")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "16-bit png", "16-bit tif"])
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"image.{kind.split()[-1]}"
    exif = Image.Exif()
    exif[274] = orientation
    stored_hwc = (DEEP_HWC >> 8).astype(np.uint8)
    if kind == "16-bit png":
        rows = [row.astype(">u2").tobytes() for row in stored_hwc.astype(np.uint16) * 257]
        put(path, png(rows, 7, 16, 2, exif_chunk(orientation)))
    elif kind == "16-bit tif":
        put(path, deep_tiff(stored_hwc.astype(np.uint16) * 257, orientation))
    else:
        options: dict[str, Any] = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(kind, {})
        Image.fromarray(stored_hwc).save(path, exif=exif, **options)
        if kind == "jpg":
            with Image.open(path) as image:
                stored_hwc = np.array(image)
    loaded = read_image(path)
    assert np.array_equal(loaded.pixels_hwc, upright(stored_hwc, orientation))
    assert any("EXIF" in note for note in loaded.notes) == (orientation != 1)
    assert image_size(path) == loaded.pixels_hwc.shape[:2] == ((7, 5) if orientation > 4 else (5, 7))


def test_size_is_read_without_decoding(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", RGB_HWC)
    content = (tmp_path / "a.png").read_bytes()
    path = put(tmp_path / "head.png", content[: content.index(b"IDAT") + 6])
    assert image_size(path) == (5, 7)
    with pytest.raises(DataError):
        read_image(path)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_white_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (3, 3)).save(tmp_path / "image.tif")
    with pytest.raises(DataError, match=r"image\.tif.*\n.*what is white"):
        read_image(tmp_path / "image.tif")


# ---------------------------------------------------------------- label maps


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.bool_, np.uint8, np.uint16]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=2, max_dims=2, max_side=9))
    )
)
def test_label_maps_come_back_as_they_were(values_hw: NDArray[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.png"
        write_label_map(path, values_hw)
        label = read_label_map(path)
        assert label.values_hw is not None and np.array_equal(label.values_hw, values_hw)
        assert label.kind == ("8-bit" if values_hw.max() <= 255 else "16-bit")
        assert label.notes == [] and image_size(path) == values_hw.shape
        assert [file.name for file in Path(folder).iterdir()] == ["labels.png"]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_every_bit_depth_of_png_gives_the_stored_numbers(bits: int, seed: int, height: int, width: int) -> None:
    values_hw = np.random.default_rng(seed).integers(0, 2**bits, (height, width))
    rows = []
    for row in values_hw:
        digits = "".join(f"{value:0{bits}b}" for value in row)
        digits += "0" * (-len(digits) % 8)
        rows.append(int(digits, 2).to_bytes(len(digits) // 8, "big"))
    with tempfile.TemporaryDirectory() as folder:
        label = read_label_map(put(Path(folder) / "labels.png", png(rows, width, bits, 0)))
    assert label.kind == f"{bits}-bit" and label.colors_hwc is None
    assert label.values_hw is not None and np.array_equal(label.values_hw, values_hw)
    assert label.values_hw.dtype == (np.uint16 if bits == 16 else np.uint8)


def test_32_bit_label_maps(tmp_path: Path) -> None:
    signed_hw = np.array([[0, 70_000], [-1, 2**31 - 1]], np.int32)
    Image.fromarray(signed_hw).save(tmp_path / "signed.tif")
    unsigned_hw = np.array([[0, 70_000], [7, 2**32 - 1]], np.uint32)
    put(tmp_path / "unsigned.tif", unsigned_tiff(unsigned_hw))
    for name, expected_hw in (("signed.tif", signed_hw), ("unsigned.tif", unsigned_hw)):
        label = read_label_map(tmp_path / name)
        assert label.kind == "32-bit" and label.values_hw is not None
        assert label.values_hw.dtype == np.int64 and np.array_equal(label.values_hw, expected_hw)


def test_palette_offers_indices_and_colours(tmp_path: Path) -> None:
    colors = np.array([[0, 0, 0], [200, 10, 10], [10, 10, 200]], np.uint8)
    indices_hw = GREY_HW % 3
    image = Image.frombytes("P", (7, 5), indices_hw.tobytes())
    image.putpalette(colors.tobytes())
    image.save(tmp_path / "labels.png")
    label = read_label_map(tmp_path / "labels.png")
    assert label.kind == "palette" and label.values_hw is not None and label.colors_hwc is not None
    assert np.array_equal(label.values_hw, indices_hw) and np.array_equal(label.colors_hwc, colors[indices_hw])


def test_colours_and_colours_that_are_grey(tmp_path: Path) -> None:
    write_image(tmp_path / "rgb.png", RGB_HWC)
    label = read_label_map(tmp_path / "rgb.png")
    assert label.kind == "rgb" and label.values_hw is None and label.colors_hwc is not None
    assert np.array_equal(label.colors_hwc, RGB_HWC)
    write_image(tmp_path / "grey.png", np.repeat(GREY_HW[..., None], 3, axis=2))
    label = read_label_map(tmp_path / "grey.png")
    assert label.kind == "rgb" and label.values_hw is not None and np.array_equal(label.values_hw, GREY_HW)


def test_16_bit_colours_are_labels_only_if_they_are_grey(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "grey.png"), np.repeat(DEEP_HW[..., None], 3, axis=2))
    label = read_label_map(tmp_path / "grey.png")
    assert label.kind == "16-bit rgb" and label.values_hw is not None and np.array_equal(label.values_hw, DEEP_HW)
    assert cv2.imwrite(str(tmp_path / "rgb.png"), DEEP_HWC)
    with pytest.raises(DataError, match="16-bit colours"):
        read_label_map(tmp_path / "rgb.png")


@pytest.mark.parametrize("channels", [2, 4])
def test_opaque_alpha_is_dropped_and_other_alpha_refused(tmp_path: Path, channels: int) -> None:
    base = GREY_HW if channels == 2 else RGB_HWC
    alpha_hw = np.full((5, 7), 255, np.uint8)
    Image.fromarray(np.dstack([base, alpha_hw])).save(tmp_path / "opaque.png")
    label = read_label_map(tmp_path / "opaque.png")
    stored = label.values_hw if channels == 2 else label.colors_hwc
    assert stored is not None and np.array_equal(stored, base) and label.notes == ["opaque alpha channel dropped"]
    alpha_hw[2, 2] = 254
    Image.fromarray(np.dstack([base, alpha_hw])).save(tmp_path / "glass.png")
    with pytest.raises(DataError, match="partly transparent"):
        read_label_map(tmp_path / "glass.png")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_label_maps_are_turned_with_their_images(tmp_path: Path, orientation: int) -> None:
    rows = [row.astype(">u2").tobytes() for row in DEEP_HW]
    label = read_label_map(put(tmp_path / "deep.png", png(rows, 7, 16, 0, exif_chunk(orientation))))
    assert label.values_hw is not None and np.array_equal(label.values_hw, upright(DEEP_HW, orientation))
    assert len(label.notes) == (orientation != 1)
    palette = Image.frombytes("P", (7, 5), (GREY_HW % 3).tobytes())
    palette.putpalette([0, 0, 0, 200, 10, 10, 10, 10, 200])
    exif = Image.Exif()
    exif[274] = orientation
    palette.save(tmp_path / "palette.png", exif=exif)
    label = read_label_map(tmp_path / "palette.png")
    assert label.values_hw is not None and np.array_equal(label.values_hw, upright(GREY_HW % 3, orientation))
    assert label.colors_hwc is not None and label.colors_hwc.shape[:2] == label.values_hw.shape


def test_jpeg_is_noticed_whatever_its_name(tmp_path: Path) -> None:
    Image.fromarray(GREY_HW).save(tmp_path / "labels.png", format="JPEG")
    label = read_label_map(tmp_path / "labels.png")
    assert label.kind == "8-bit" and "JPEG" in label.notes[0]


@pytest.mark.parametrize(("mode", "message"), [("F", "fractions"), ("CMYK", "CMYK colours")])
def test_pixels_that_are_no_labels_are_refused(tmp_path: Path, mode: str, message: str) -> None:
    Image.new(mode, (3, 3)).save(tmp_path / "labels.tif")
    with pytest.raises(DataError, match=message):
        read_label_map(tmp_path / "labels.tif")


# ---------------------------------------------------------------- files that are not right


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_files_cut_short_are_errors(tmp_path: Path, suffix: str, share: float) -> None:
    buffer = io.BytesIO()
    noise_hwc = np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise_hwc).save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix))
    content = buffer.getvalue()
    path = put(tmp_path / f"image.{suffix}", content[: int(len(content) * share)])
    for read in (read_image, read_label_map):
        with pytest.raises(DataError, match=str(path)) as caught:
            read(path)
        assert caught.value.rule and caught.value.cure


def test_truncated_16_bit_colour_is_an_error(tmp_path: Path) -> None:
    deep_hwc = np.random.default_rng(2).integers(0, 65536, (40, 40, 3), dtype=np.uint16)
    content = png([row.astype(">u2").tobytes() for row in deep_hwc], 40, 16, 2)
    with pytest.raises(DataError, match="damaged or cut short"):
        read_image(put(tmp_path / "a.png", content[: len(content) // 2]))
    with pytest.raises(DataError, match="damaged or cut short"):
        read_image(put(tmp_path / "a.tif", deep_tiff(deep_hwc)[:5000]))


def test_text_and_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an image, whatever its name says"):
        read_image(put(tmp_path / "image.png", b"<html>not found</html>"))
    for read in (read_image, read_label_map, image_size):
        with pytest.raises(DataError, match="no such file"):
            read(tmp_path / "absent.png")
    with pytest.raises(DataError):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["gif", "tif", "png", "webp"])
def test_several_pictures_in_a_file_are_an_error(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(RGB_HWC), Image.fromarray(255 - RGB_HWC)]
    frames[0].save(tmp_path / f"film.{suffix}", save_all=True, append_images=frames[1:])
    for read in (read_image, read_label_map, image_size):
        with pytest.raises(DataError, match="2 pictures"):
            read(tmp_path / f"film.{suffix}")


def test_a_phones_mpo_is_one_picture(tmp_path: Path) -> None:
    frames = [Image.fromarray(RGB_HWC), Image.fromarray(255 - RGB_HWC)]
    frames[0].save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=frames[1:], quality=100)
    assert np.abs(read_image(tmp_path / "photo.jpg").pixels_hwc.mean() - RGB_HWC.mean()) < 5


def test_decompression_bomb_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path / "bomb.png", png([b"\0"] * 2, 2_000_000_000, 1, 0))
    with pytest.raises(DataError, match="more pixels than are safe"):
        read_image(path)


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize(
    "values_hw",
    [np.zeros((2, 2)), np.zeros(3, int), np.zeros((0, 3), int), np.array([[-1]]), np.array([[65536]])],
    ids=["fractions", "one dimension", "empty", "negative", "too large"],
)
def test_what_is_no_label_map_is_not_written(tmp_path: Path, values_hw: NDArray[Any]) -> None:
    with pytest.raises(DataError):
        write_label_map(tmp_path / "labels.png", values_hw)
    assert not list(tmp_path.iterdir())


def test_wrong_names_and_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ends in \.png"):
        write_label_map(tmp_path / "labels.jpg", np.zeros((2, 2), int))
    with pytest.raises(DataError, match="no image format"):
        write_image(tmp_path / "image.xyz", RGB_HWC)
    with pytest.raises(DataError, match="is no image"):
        write_image(tmp_path / "image.png", GREY_HW)


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "image.png"
    write_image(path, RGB_HWC)

    def fail(_: Image.Image, file: Any, **__: object) -> None:
        file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    for write, value in ((write_image, 255 - RGB_HWC), (write_label_map, GREY_HW)):
        with pytest.raises(OSError, match="disk full"):
            write(path, value)
    assert np.array_equal(read_image(path).pixels_hwc, RGB_HWC)
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]


def test_16_bits_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    deep_hwc = np.random.default_rng(0).integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    write_image(tmp_path / "a.png", deep_hwc)
    kept = read_image(tmp_path / "a.png", keep_16_bits=True)
    assert (kept.pixels_hwc.dtype, kept.notes) == (np.uint16, [])
    assert np.array_equal(kept.pixels_hwc, deep_hwc)
    assert np.abs(read_image(tmp_path / "a.png").pixels_hwc - deep_hwc / 257).max() <= 0.5
    write_label_map(tmp_path / "grey.png", deep_hwc[..., 0])
    grey = read_image(tmp_path / "grey.png", keep_16_bits=True).pixels_hwc
    assert np.array_equal(grey, np.repeat(deep_hwc[..., :1], 3, axis=2))
    write_image(tmp_path / "b.png", RGB_HWC)
    assert read_image(tmp_path / "b.png", keep_16_bits=True).pixels_hwc.dtype == np.uint8
    with pytest.raises(DataError, match="uint16 is no image"):
        write_image(tmp_path / "a.jpg", deep_hwc)


def test_a_very_large_picture_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "a.png", RGB_HWC)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB_HWC[..., 0].size - 1)
    assert np.array_equal(read_image(tmp_path / "a.png").pixels_hwc, RGB_HWC)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB_HWC[..., 0].size // 3)
    with pytest.raises(DataError, match="more pixels than are safe"):
        read_image(tmp_path / "a.png")
