"""Results on disk: a folder of a random name for each, removed after an hour."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from perpixel.app.limits import Limits
from perpixel.app.prediction import Prediction
from perpixel.pointcloud import Camera, depth_to_points, write_glb, write_ply
from perpixel.run import write_json

__all__ = ["Results", "write_clouds", "write_files", "write_zip"]

INBOX = "inbox"  # stays, whatever its age
_SHOWN_POINTS, _KEPT_POINTS = 200_000, 2_000_000


class Results:
    """Folders of results; whoever knows a folder's random name may read it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.root = Path(tempfile.mkdtemp(prefix="perpixel-page-"))
        self._stop = threading.Event()
        self._janitor = threading.Thread(target=self._clean, daemon=True, name="perpixel-results")
        self._janitor.start()

    def new(self) -> Path:
        """A fresh folder; the oldest go when there are too many."""
        self.remove_old()
        folder = self.root / secrets.token_urlsafe(16)
        folder.mkdir()
        return folder

    def find(self, token: str, name: str) -> Path | None:
        """A file of a result, or None. Names are compared with what lies there: no path can be smuggled in."""
        for folder in self.root.iterdir():
            if folder.name == INBOX:
                continue
            if secrets.compare_digest(folder.name.encode(), token.encode()) and folder.is_dir():
                return next((path for path in folder.iterdir() if path.name == name and path.is_file()), None)
        return None

    def remove_old(self, now: float | None = None) -> None:
        """Remove what is older than it may be, and what is too much."""
        now = time.time() if now is None else now
        for path in (self.root / INBOX).rglob("*"):  # uploads, as the page takes them
            if path.is_file() and now - _written(path) > self.limits.kept_seconds:
                path.unlink(missing_ok=True)
        by_age = sorted((path for path in self.root.iterdir() if path.name != INBOX), key=_written)
        surplus = max(0, len(by_age) - self.limits.results)
        for position, path in enumerate(by_age):
            if position < surplus or now - _written(path) > self.limits.kept_seconds:
                shutil.rmtree(path, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        self._stop.set()
        shutil.rmtree(self.root, ignore_errors=True)

    def _clean(self) -> None:
        while not self._stop.wait(60):
            self.remove_old()


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another thread removed it
        return 0.0


def write_files(folder: Path, prediction: Prediction) -> list[Path]:
    """What can be taken away: the files that `perpixel predict` writes, the raw map as NPY, the figures as JSON."""
    stem = folder / prediction.stem
    files = prediction.task.write_prediction(
        stem, prediction.image_hwc, prediction.scores_khw, prediction.prediction_hw
    )
    array = stem.with_name(stem.name + ".npy")
    if array not in files:
        np.save(array, prediction.prediction_hw, allow_pickle=False)
        files.append(array)
    figures = stem.with_name(stem.name + ".json")
    write_json(figures, prediction.as_dict())
    return [*files, figures]


def write_clouds(folder: Path, prediction: Prediction, camera: Camera) -> list[Path]:
    """PLY and GLB of at most two million points each, and last a PLY of at most 200,000 of them for looking at.

    Raises:
        DataError: no point.
    """
    depth_hw = prediction.prediction_hw
    valid_hw = np.isfinite(depth_hw)
    image_hwc = prediction.image_hwc
    colors_hwc = image_hwc if image_hwc.dtype == np.uint8 else (image_hwc // 257).astype(np.uint8)
    points_n3, colors_n3 = depth_to_points(depth_hw, valid_hw, camera), colors_hwc[valid_hw]
    written = []
    for name, most, write in (
        (f"{prediction.stem}.ply", _KEPT_POINTS, write_ply),
        (f"{prediction.stem}.glb", _KEPT_POINTS, write_glb),
        ("cloud.ply", _SHOWN_POINTS, write_ply),
    ):
        step = max(1, -(-len(points_n3) // most))
        write(folder / name, points_n3[::step], colors_n3[::step])
        written.append(folder / name)
    return written


def write_zip(path: Path, files: Iterable[Path]) -> Path:
    """A ZIP of files, without folders; pictures are compressed already."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.name)
    return path
