"""The writing of a synthetic data set in the layout of the TGS salt identification competition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perpixel import rle
from perpixel.errors import RequestError
from perpixel.images import write_label_map
from perpixel.run import write_rows
from perpixel.synthesis.folder import begin, finish
from perpixel.synthesis.seismic import NO_SALT_SHARE, Mosaic, make_mosaic

__all__ = ["DEPTH_RANGE", "TILE", "Tile", "cut_tiles", "synthesize_salt"]

TILE = 101
"""Height and width of a tile in pixels."""
DEPTH_RANGE = (51, 959)
"""Lowest and highest depth ``z`` in the competition's table."""

_EMPTY = 0.39  # share of the competition's tiles without salt
# Coverage of its tiles that hold salt, at the quantiles 0, 0.1, ..., 1.
_COVERAGE = (0.001, 0.016, 0.064, 0.136, 0.237, 0.362, 0.480, 0.601, 0.750, 0.910, 0.998)

_TILES_A_MOSAIC = 8
_ID_SPACE = 16**10  # ids are 10 hexadecimal digits
_VERSION = 1  # of the generator: to be raised whenever it draws other pictures from the same seed


@dataclass(frozen=True)
class Tile:
    """``image_hw``: uint8, stretched to 0..255; ``mask_hw``: salt; ``z``: depth, within `DEPTH_RANGE`."""

    image_hw: NDArray[np.uint8]
    mask_hw: NDArray[np.bool_]
    z: int


@dataclass(frozen=True)
class _Group:
    """The tiles that come out of one mosaic. All of them are for training, or all for testing."""

    mosaic: int
    subset: str
    ids: list[str]


def synthesize_salt(
    out_dir: Path,
    *,
    count: int,
    seed: int,
    test_count: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write synthetic seismic tiles with salt masks in the competition's layout. Equal arguments give equal bytes.

    ``train/images/<id>.png`` and ``test/images/<id>.png`` are 8-bit grey, 101x101; ``train/masks/<id>.png`` 16-bit
    with 0 and 65535, or 8-bit where there is no salt, as in the competition. ``train.csv`` (``id,rle_mask``),
    ``depths.csv`` (``id,z``) and ``groups.csv`` (``id,mosaic``) are sorted by id, the latter two over training and
    test tiles. A mosaic gives its tiles to one subset alone.

    A folder that a killed call left behind is continued; a finished one of the same arguments is left as it is.

    Args:
        out_dir: the folder to write, new, empty, or of an earlier call with the same arguments.
        count: number of training tiles, at least 1.
        seed: at least 0; mosaic number i depends on ``(seed, i)`` alone.
        test_count: number of test tiles; a quarter of ``count`` if not given.
        progress: called with (tiles done, tiles in all) after each mosaic.

    Raises:
        RequestError: arguments out of range, or ``out_dir`` holds something else.
    """
    out_dir = Path(out_dir)
    test_count = count // 4 if test_count is None else test_count
    total = count + test_count
    if count < 1 or test_count < 0 or seed < 0 or total >= _ID_SPACE:
        raise RequestError(
            f"no data set has {count} training tiles, {test_count} test tiles and seed {seed}",
            rule="At least 1 training tile, 0 test tiles and seed 0.",
            cure="Correct the numbers.",
        )
    arguments = {"kind": "salt", "version": _VERSION, "count": count, "test_count": test_count, "seed": seed}
    if begin(out_dir, arguments):
        if progress:
            progress(total, total)
        return
    train_rows, depth_rows, group_rows = [], [], []
    for group in _groups(count, test_count, seed):
        for tile_id, tile in zip(group.ids, _write_tiles(out_dir, group, seed), strict=True):
            if group.subset == "train":
                train_rows.append({"id": tile_id, "rle_mask": rle.encode(tile.mask_hw)})
            depth_rows.append({"id": tile_id, "z": tile.z})
            group_rows.append({"id": tile_id, "mosaic": f"mosaic-{group.mosaic:05d}"})
        if progress:
            progress(len(group_rows), total)
    for name, rows in (("train.csv", train_rows), ("depths.csv", depth_rows), ("groups.csv", group_rows)):
        write_rows(out_dir / name, sorted(rows, key=lambda row: str(row["id"])))
    finish(out_dir)


def cut_tiles(rng: Generator, mosaic: Mosaic, count: int) -> list[Tile]:
    """``count`` tiles of 101x101 whose coverage is distributed as in the competition.

    A coverage is drawn for each tile, and the place found that comes nearest to it and overlaps no earlier tile, if
    there is one. Depths are drawn for the mosaic, as wide as in the competition, and grow a little down the mosaic.
    """
    height, width = mosaic.salt_hw.shape
    total = np.pad(mosaic.salt_hw.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    top, left = (axis.ravel() for axis in np.mgrid[0 : height - TILE + 1 : 5, 0 : width - TILE + 1 : 5])
    bottom, right = top + TILE, left + TILE
    coverage = (total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]) / TILE**2
    overlap = np.where(coverage < 1, 0.0, 1.0)  # no tile of the competition is salt all over
    # A little more than the share itself: some mosaics are so full of salt that they have no empty tile to give.
    empty_share = 0.02 + (_EMPTY - NO_SALT_SHARE) / (1 - NO_SALT_SHARE)
    top_z = int(DEPTH_RANGE[0] + (DEPTH_RANGE[1] - DEPTH_RANGE[0]) * rng.beta(2, 2))
    tiles = []
    for _ in range(count):
        wanted = 0.0 if rng.random() < empty_share else np.interp(rng.random(), np.linspace(0, 1, 11), _COVERAGE)
        miss = np.abs(coverage - wanted) + 5.0 * ((coverage > 0) != (wanted > 0)) + 0.01 * rng.random(coverage.shape)
        best = int(np.argmin(miss + overlap))
        y, x = int(top[best]), int(left[best])
        overlap += 4.0 * np.clip(TILE - np.abs(top - y), 0, None) * np.clip(TILE - np.abs(left - x), 0, None) / TILE**2
        z = int(np.clip(top_z + round(40 * y / height) + rng.integers(-3, 4), *DEPTH_RANGE))
        tiles.append(_tile(mosaic, y, x, z))
    return tiles


def _tile(mosaic: Mosaic, y: int, x: int, z: int) -> Tile:
    mask_hw = mosaic.salt_hw[y : y + TILE, x : x + TILE].copy()
    section_hw = mosaic.section_hw[y : y + TILE, x : x + TILE]
    low, high = float(section_hw.min()), float(section_hw.max())
    if high - low < 0.05:  # nothing but water: black, as in the competition
        image_hw = np.zeros(mask_hw.shape, np.uint8)
    else:
        image_hw = np.round((section_hw - low) * (255.0 / (high - low))).astype(np.uint8)
    return Tile(image_hw, mask_hw, z)


def _groups(count: int, test_count: int, seed: int) -> Iterator[_Group]:
    """Which tiles come from which mosaic: about eight each, training first."""
    offset = int(np.random.default_rng(seed).integers(_ID_SPACE))
    tile = mosaic = 0
    for subset, tiles in (("train", count), ("test", test_count)):
        mosaics = max(1, round(tiles / _TILES_A_MOSAIC)) if tiles else 0
        for index in range(mosaics):
            size = tiles // mosaics + (index < tiles % mosaics)
            # An odd factor maps the numbers below 16^10 one to one: ids look random, and no two are equal.
            numbers = (((tile + i) * 0x9E3779B97F + offset) % _ID_SPACE for i in range(size))
            yield _Group(mosaic, subset, [f"{number:010x}" for number in numbers])
            tile, mosaic = tile + size, mosaic + 1


def _write_tiles(out_dir: Path, group: _Group, seed: int) -> list[Tile]:
    """Make the tiles of a mosaic and write those files that are not there yet."""
    rng = np.random.default_rng([seed, group.mosaic])
    tiles = cut_tiles(rng, make_mosaic(rng), len(group.ids))
    for tile_id, tile in zip(group.ids, tiles, strict=True):
        files: dict[str, Any] = {"images": tile.image_hw}
        if group.subset == "train":
            files["masks"] = tile.mask_hw.astype(np.uint16) * 65535
        for kind, pixels_hw in files.items():
            path = out_dir / group.subset / kind / f"{tile_id}.png"
            if not path.exists():  # files appear whole or not at all
                write_label_map(path, pixels_hw)  # numbers as they are: 8 bits if they suffice, else 16
    return tiles
