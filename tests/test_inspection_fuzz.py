"""Files that chance has spoilt: an inspection says what they are, without a traceback, a hang, or much memory."""

from __future__ import annotations

import io
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.recipe import Recipe, load_recipe, recipe_from_dict

MEMORY = 0.5  # GiB: the most that a process holds while it inspects files of which none has many pixels in truth
LARGE_MEMORY = 3.0  # GiB: the same where pictures are as large as an inspection decodes, 50 million pixels
SECONDS = 0.5  # a file, on a machine with other work
BUILTIN = {"labels": "salt", "depth": "depth-regression", "pictures": "lowlight"}


def recipe_of(root: Path) -> Recipe:
    """What the files of a folder of this name are declared to be."""
    values = load_recipe(BUILTIN[root.name]).to_dict()
    data = {"root": str(root), "images": "images/{id}", "targets": "targets/{id}"}
    return recipe_from_dict(values | {"data": data, "split": {"method": "random"}})


# ---------------------------------------------------------------- files, whole


def whole(rng: random.Random, form: str) -> bytes:
    """A small picture in some format, with some pixel type of it."""
    height, width = rng.choice([(1, 1), (24, 32), (48, 40), (7, 90)])
    numbers = np.random.default_rng(rng.randrange(2**32))
    grey_hw = numbers.integers(0, 256, (height, width), dtype=np.uint8)
    colors_hwc = numbers.integers(0, 256, (height, width, 3), dtype=np.uint8)
    few_hw = (grey_hw > 128).astype(np.uint16) * 7100
    pictures: dict[str, list[Image.Image]] = {
        "PNG": [
            *(Image.fromarray(array) for array in (grey_hw, colors_hwc, few_hw)),
            Image.fromarray(grey_hw).convert("1"),
            Image.fromarray(grey_hw).convert("P"),
            Image.fromarray(colors_hwc).convert("RGBA"),
        ],
        "JPEG": [Image.fromarray(grey_hw), Image.fromarray(colors_hwc), Image.fromarray(colors_hwc).convert("CMYK")],
        "TIFF": [Image.fromarray(few_hw), Image.fromarray(colors_hwc), Image.fromarray(grey_hw.astype(np.float32))],
        "GIF": [Image.fromarray(grey_hw)],
        "BMP": [Image.fromarray(colors_hwc)],
        "WEBP": [Image.fromarray(colors_hwc)],
    }
    file = io.BytesIO()
    if form == "NPY":
        np.save(file, rng.choice([few_hw, grey_hw, grey_hw / np.float32(7), colors_hwc]))
    else:
        rng.choice(pictures[form]).save(file, form)
    return file.getvalue()


# ---------------------------------------------------------------- and spoilt


def flipped(content: bytearray, rng: random.Random) -> bytes:
    """Some bytes are others."""
    for _ in range(rng.choice([1, 3, 20])):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def cut(content: bytearray, rng: random.Random) -> bytes:
    """The end is missing."""
    return bytes(content[: rng.randrange(len(content))])


def repeated(content: bytearray, rng: random.Random) -> bytes:
    """A part stands twice."""
    start = rng.randrange(len(content))
    part = content[start : start + rng.randrange(1, 200)]
    return bytes(content[:start] + part + content[start:])


def blanked(content: bytearray, rng: random.Random) -> bytes:
    """A part is zero."""
    start, length = rng.randrange(len(content)), rng.randrange(1, 100)
    content[start : start + length] = bytes(len(content[start : start + length]))
    return bytes(content)


def resized(content: bytearray, rng: random.Random) -> bytes:
    """A PNG whose header, with a right checksum, tells other sizes, types and bit depths than its pixels have."""
    if content[:4] != b"\x89PNG":
        return flipped(content, rng)
    sides = [rng.choice([0, 1, 33, 7000, 40_000, 2**31 - 1]) for _ in range(2)]
    header = b"IHDR" + struct.pack(">II", *sides) + bytes([rng.choice([1, 8, 16]), rng.choice([0, 2, 3, 6]), 0, 0, 0])
    content[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(content)


def replaced(content: bytearray, rng: random.Random) -> bytes:
    """Noise, text, or nothing."""
    return rng.choice([b"", rng.randbytes(500), b"not a picture", content[:8] + rng.randbytes(200)])


SPOIL: tuple[Callable[[bytearray, random.Random], bytes], ...] = (flipped, cut, repeated, blanked, resized, replaced)
FORMS = ("PNG", "PNG", "PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "NPY")
ENDINGS = (".png", ".jpg", ".tif", ".npy", ".exr", ".npz", ".h5")


def write_spoilt(root: Path, pairs: int, seed: int) -> None:
    """Pairs of which both files, or one, are spoilt; a tenth has the ending of another format."""
    rng = random.Random(seed)
    for folder in ("images", "targets"):
        (root / folder).mkdir(parents=True)
    for number in range(pairs):
        form = rng.choice(FORMS)
        usual = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "NPY": ".npy"}.get(form, f".{form.lower()}")
        name = f"{number:04d}{rng.choice(ENDINGS) if rng.random() < 0.1 else usual}"
        for folder in ("images", "targets"):
            content = whole(rng, form)
            spoilt = rng.choice(SPOIL)(bytearray(content), rng) if rng.random() < 0.9 else content
            (root / folder / name).write_bytes(spoilt)


# ---------------------------------------------------------------- looked at


LOOK = """
import contextlib, re, sys
from pathlib import Path
from perpixel.errors import PerpixelError
from perpixel.inspection import inspect_folder, inspect_recipe
from perpixel.inspection.report import report_html
from test_inspection_fuzz import recipe_of
pairs = 0
for root in map(Path, sys.argv[1:]):
    inspection, view = inspect_recipe(recipe_of(root))
    pairs += inspection.figures["pairs"]
    assert inspection.text() and len(report_html(inspection, view)) > 1000
    with contextlib.suppress(PerpixelError):  # what the bare folder holds may be past finding out
        inspect_folder(root)
# The most that was ever held. What getrusage says begins with what the process that started this one held.
peak = re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())
print(pairs, int(peak[1]) / 2**20)
"""


def look(roots: list[Path], tmp_path: Path, seconds: float) -> tuple[int, float]:
    """(pairs, GiB) of an inspection with its page, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PERPIXEL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *map(str, roots)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    pairs, memory = done.stdout.split()[-2:]
    return int(pairs), float(memory)


@pytest.mark.parametrize("pairs", [50, pytest.param(334, marks=pytest.mark.slow)])
def test_spoilt_files(tmp_path: Path, pairs: int) -> None:
    """Two files a pair, three kinds of data: 300 files, or 2,004."""
    roots = [tmp_path / kind for kind in BUILTIN]
    for seed, root in enumerate(roots):
        write_spoilt(root, pairs, seed)
    seen, memory = look(roots, tmp_path, 60 + SECONDS * 6 * pairs)
    assert seen == 3 * pairs
    assert memory < MEMORY


@pytest.mark.slow
def test_the_largest_pictures_and_larger_ones(tmp_path: Path) -> None:
    """Files of some kilobytes that hold as many pixels as an inspection decodes, and more."""
    root = tmp_path / "labels"
    for folder in ("images", "targets"):
        (root / folder).mkdir(parents=True)
        for name, side in (("0.png", 7000), ("1.png", 7001)):
            Image.new("L", (side, 7000)).save(root / folder / name)
        Image.new("1", (30_000, 30_000)).save(root / folder / "2.png")
    seen, memory = look([root], tmp_path, 300)
    assert seen == 3
    assert memory < LARGE_MEMORY
