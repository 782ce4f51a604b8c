"""The writing of a data set of night and day pairs in the layout of the `lowlight` system."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perpixel.errors import DataError, RequestError
from perpixel.images import read_image, write_image
from perpixel.imresize import imresize
from perpixel.run import write_rows
from perpixel.synthesis.folder import begin, finish
from perpixel.synthesis.night import NightScene, NightSettings, darken, draw_scene
from perpixel.synthesis.night_sources import NAMED_SOURCES, draw_days, packaged_photographs, require_source

__all__ = ["synthesize_night"]

SCALES = (1, 2, 3, 4)
_SHARES = {"val": 0.2, "test": 0.1}  # of the pairs, and of the photographs; the rest is for training
_FOLDERS = {"train": ("train/train", "train/gt"), "val": ("val/val", "val/gt"), "test": ("test", "test_gt")}
_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_VERSION = 2  # of the generator: to be raised whenever it draws other pictures from the same seed


@dataclass(frozen=True)
class _Pair:
    number: int
    subset: str
    source: Path

    def files(self, out_dir: Path) -> tuple[Path, Path]:
        """Of the noisy picture and of the clean one."""
        noisy, clean = _FOLDERS[self.subset]
        stem = "test" if self.subset == "test" else "night"
        return out_dir / noisy / f"{stem}_{self.number}.png", out_dir / clean / f"gt_{self.number}.png"


def synthesize_night(
    out_dir: Path,
    *,
    source: str | Path = "skimage",
    count: int,
    seed: int,
    scale: int = 1,
    size: tuple[int, int] = (512, 320),
    truth: Literal["dark", "day"] = "dark",
    settings: NightSettings | None = None,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Write pairs of a noisy picture at night and a clean one. Equal arguments and photographs give equal bytes.

    ``train/train/night_<number>.png`` belongs to ``train/gt/gt_<number>.png``, ``val/val/night_<number>.png`` to
    ``val/gt/gt_<number>.png``, and ``test/test_<number>.png`` to ``test_gt/gt_<number>.png``, which the system does not
    have. A tenth of the pairs is for testing, a fifth for validation. A photograph gives its pairs to one subset alone.
    ``scenes.csv`` has a row a pair, of the test too: ``id``, ``image`` and ``target`` (their files), ``subset``,
    ``photograph``, and what was drawn for it (see `NightScene`). With ``data.pairs_csv: scenes.csv`` a recipe finds
    all pairs by it, and figures are told by darkness and noise. Rendered photographs lie in ``day/``.

    A folder that a killed call left behind is continued; a finished one of the same arguments is left as it is.

    Args:
        out_dir: the folder to write, new, empty, or of an earlier call with the same arguments.
        source: a folder of well-exposed photographs, at least 3, none smaller than ``size``; folders inside it count.
            Or ``desert`` or ``objects``: scenes are rendered, one for about four pairs, half as large again as
            ``size``. Or ``skimage``: those of the photographs that come with scikit-image which are large enough.
        count: number of pairs, at least 3.
        seed: at least 0; pair number i depends on ``(seed, i)`` and its photograph alone.
        scale: how many times smaller the noisy picture is: 1, 2, 3 or 4.
        size: width and height of the clean picture in pixels, cut down to multiples of 2 and of ``scale``.
        truth: the clean picture is as dark as the noisy one, or well exposed; see `darken`.
        settings: ranges that scenes are drawn from.
        processes: so many scenes are rendered at once; the files are the same.
        progress: called with (pairs done, pairs in all) after each pair, and so with scenes that are rendered.
        say: called with sentences on what draws, and how to train on the pairs.

    Raises:
        RequestError: arguments out of range, scikit-image or Mitsuba is missing where they are asked for, or
            ``out_dir`` holds something else.
        DataError: too few photographs, or one that cannot be read or is too small.
    """
    _require(count, seed, scale, size, truth)
    out_dir, settings = Path(out_dir), settings or NightSettings()
    arguments = {"kind": "night", "version": _VERSION, "count": count, "seed": seed, "scale": scale}
    arguments |= {"size": list(size), "truth": truth}
    rendered = str(source) in ("desert", "objects")
    if rendered:
        require_source(str(source))
        arguments |= {"photographs": str(source)}
    else:
        root, photographs = _photographs(source, size)
        arguments |= {"photographs": _digest(root, photographs)}
    arguments |= {key: list(value) if value else None for key, value in asdict(settings).items()}
    if begin(out_dir, arguments):
        if progress:
            progress(count, count)
        return
    if rendered:
        root = out_dir / "day"
        draw_days(root, str(source), pairs=count, seed=seed, size=size, processes=processes, progress=progress, say=say)
        photographs = sorted(root.glob("*.png"))
    rows = []
    for pair in _pairs(photographs, count, seed):
        rng = np.random.default_rng([seed, pair.number])
        scene = draw_scene(rng, settings)
        _write(pair, out_dir, rng, scene, size_hw=size[::-1], scale=scale, truth=truth)
        rows.append(_row(pair, out_dir, root) | asdict(scene))
        if progress:
            progress(len(rows), count)
    write_rows(out_dir / "scenes.csv", rows)
    finish(out_dir)
    if say:
        settings_text = f"--set target.scale={scale} --set data.pairs_csv=scenes.csv"
        say(f"Train on it, with a test subset: perpixel train lowlight-strong --data {out_dir} {settings_text}")


def _require(count: int, seed: int, scale: int, size: tuple[int, int], truth: str) -> None:
    """Raise RequestError unless a data set can have these numbers."""
    if truth not in ("dark", "day"):
        raise RequestError(f"there is no truth {truth!r}", rule="clean pictures are 'dark' or 'day'.")
    if count < 3 or seed < 0 or scale not in SCALES or min(size) < 12:
        raise RequestError(
            f"no data set has {count} pairs, seed {seed}, scale {scale} and size {size}",
            rule="At least 3 pairs, seed 0, a scale of 1, 2, 3 or 4, and sides of 12 pixels.",
            cure="Correct the numbers.",
        )


def _row(pair: _Pair, out_dir: Path, photographs: Path) -> dict[str, str]:
    """The columns by which a recipe finds the pair, with the id that the system's layout gives it."""
    noisy, clean = (path.relative_to(out_dir).as_posix() for path in pair.files(out_dir))
    names = {"id": f"{pair.subset}/{pair.number}", "image": noisy, "target": clean, "subset": pair.subset}
    return names | {"photograph": pair.source.relative_to(photographs).as_posix()}


def _photographs(source: str | Path, size: tuple[int, int]) -> tuple[Path, list[Path]]:
    """The folder and its photographs."""
    if str(source) in NAMED_SOURCES:
        return packaged_photographs(size)
    folder = Path(source)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _ENDINGS and path.is_file())
    if len(found) < 3:
        raise DataError(
            f"there are {len(found)} photographs" if folder.is_dir() else "no such folder",
            where=folder,
            rule="Training, validation and test pictures come from different photographs, so that 3 are needed.",
            cure=f"Give a folder of at least 3 files of {', '.join(sorted(_ENDINGS))}; or one of the words"
            f" {', '.join(NAMED_SOURCES)}.",
        )
    return folder, found


def _digest(source: Path, photographs: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in photographs:
        digest.update(f"{path.relative_to(source).as_posix()}\n{path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _pairs(photographs: list[Path], count: int, seed: int) -> Iterator[_Pair]:
    """Photographs are dealt to the subsets at random; those of a subset take turns."""
    order = np.random.default_rng(seed).permutation(len(photographs))
    shuffled = [photographs[index] for index in order]
    held_out_pairs = {subset: max(1, round(share * count)) for subset, share in _SHARES.items()}
    held_out_photographs = {subset: max(1, round(share * len(shuffled))) for subset, share in _SHARES.items()}
    number = 0
    for subset in ("train", "val", "test"):
        pairs = held_out_pairs.get(subset, count - sum(held_out_pairs.values()))
        own = held_out_photographs.get(subset, len(shuffled) - sum(held_out_photographs.values()))
        mine, shuffled = shuffled[:own], shuffled[own:]
        for index in range(pairs):
            yield _Pair(number, subset, mine[index % own])
            number += 1


def _write(
    pair: _Pair,
    out_dir: Path,
    rng: Generator,
    scene: NightScene,
    *,
    size_hw: tuple[int, int],
    scale: int,
    truth: Literal["dark", "day"],
) -> None:
    """Make a pair, unless both its files are there already: they appear whole or not at all."""
    paths = pair.files(out_dir)
    if all(path.exists() for path in paths):
        return
    view_hwc = _view(pair.source, size_hw, rng)
    for path, image_hwc in zip(paths, darken(view_hwc, rng, scene, scale=scale, truth=truth), strict=True):
        write_image(path, image_hwc)


def _view(path: Path, size_hw: tuple[int, int], rng: Generator) -> NDArray[Any]:
    """A window of the photograph, between ``size_hw`` and the largest of its shape, made ``size_hw`` large; in [0, 1].

    Making it smaller takes the photograph's own noise and compression away.
    """
    image_hwc = read_image(path).pixels_hwc
    height, width = image_hwc.shape[:2]
    largest = min(height / size_hw[0], width / size_hw[1])
    if largest < 1:
        raise DataError(
            f"the photograph is {width}x{height} pixels",
            where=path,
            rule=f"Pictures of {size_hw[1]}x{size_hw[0]} pixels are cut from photographs that are at least as large.",
            cure="Ask for a smaller size, or remove the photograph.",
        )
    zoom = rng.uniform(1, largest)
    window = [min(round(zoom * side), full) for side, full in zip(size_hw, (height, width), strict=True)]
    top, left = (int(rng.integers(full - part + 1)) for part, full in zip(window, (height, width), strict=True))
    view_hwc = image_hwc[top : top + window[0], left : left + window[1]]
    return imresize(view_hwc, size_hw).clip(0, 255) / 255
