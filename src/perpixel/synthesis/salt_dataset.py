"""The writing of a synthetic data set in the layout of the TGS salt identification competition."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perpixel import rle
from perpixel.errors import RequestError
from perpixel.images import write_label_map
from perpixel.run import write_json, write_rows
from perpixel.synthesis.seismic import Tile, cut_tiles, make_mosaic

__all__ = ["synthesize_salt"]

_TILES_A_MOSAIC = 8
_ID_SPACE = 16**10  # ids are 10 hexadecimal digits
_VERSION = 1  # of the generator: to be raised whenever it draws other pictures from the same seed
_FINISHED, _PARTIAL = "synthesis.json", "synthesis.partial.json"


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

    ``train/images/<id>.png`` and ``test/images/<id>.png`` are 8-bit grey, 101x101; ``train/masks/<id>.png`` 16-bit with 0
    and 65535, or 8-bit where there is no salt, as in the competition; ``train.csv`` (``id,rle_mask``), ``depths.csv``
    (``id,z``) and ``groups.csv`` (``id,mosaic``) are sorted by id. A mosaic gives its tiles to one subset alone.

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
    if _is_finished(out_dir, arguments):
        if progress:
            progress(total, total)
        return
    write_json(out_dir / _PARTIAL, arguments)
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
    os.replace(out_dir / _PARTIAL, out_dir / _FINISHED)  # noqa: PTH105  # the last step: only now the set is whole


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


def _is_finished(out_dir: Path, arguments: dict[str, Any]) -> bool:
    """Whether ``out_dir`` already holds the data set; False if it is to be begun or continued.

    Raises:
        RequestError: the folder holds something else.
    """
    found: str | None = None
    for name in (_FINISHED, _PARTIAL):
        if (out_dir / name).is_file():
            found = (out_dir / name).read_text(encoding="utf-8")
            try:
                if json.loads(found) == arguments:
                    return name == _FINISHED
            except ValueError:
                pass
            break
    if found is None and not (out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir()))):
        return False
    raise RequestError(
        "this is not a folder"
        if out_dir.is_file()
        else "this folder holds other files"
        if found is None
        else f"this folder holds another synthetic data set: {' '.join(found.split())}",
        where=out_dir,
        rule=f"A data set is written to a folder of its own; this one would be {json.dumps(arguments)}.",
        cure="Give another folder, or remove this one.",
    )
