"""The service: runs, predictions of strangers' images, results. It knows neither HTTP nor Gradio."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpixel.app.decoder import Decoder
from perpixel.app.files import INBOX, Results, write_clouds, write_files
from perpixel.app.library import Library
from perpixel.app.limits import Limits, RefusedError
from perpixel.app.models import Models
from perpixel.app.prediction import Prediction, predict_image
from perpixel.app.scene import write_comparison, write_scene
from perpixel.app.uploads import PICTURES, safe_stem, take_upload
from perpixel.console import Console
from perpixel.errors import DataError
from perpixel.inference.base import ImagePredictor
from perpixel.inspection.finding import Inspection
from perpixel.inspection.inspect import inspect_folder
from perpixel.inspection.report import report_html
from perpixel.pointcloud import Camera, camera_from_fov
from perpixel.reporting.html import to_html
from perpixel.reports.grid_report import grid_document
from perpixel.reports.many import comparison_document
from perpixel.reports.run_report import run_document
from perpixel.run import Run
from perpixel.tasks.view import DistanceView

__all__ = ["Comparison", "Published", "Service", "common_subset"]

_SUFFIXES = {".jpeg", ".tiff"} | PICTURES


@dataclass(frozen=True)
class Published:
    """A prediction with its folder of results: the viewer's scene, files to take away, and, where the camera is known,
    a point cloud and a sentence on that camera."""

    prediction: Prediction
    folder: Path
    files: list[Path]
    cloud: Path | None = None
    camera: str = ""

    @property
    def token(self) -> str:
        """The folder's random name."""
        return self.folder.name


@dataclass(frozen=True)
class Comparison:
    """Two predictions of one image; ``difference`` as `write_comparison` returns it."""

    first: Prediction
    second: Prediction
    folder: Path
    difference: float


class Service:
    """Everything that the page and the HTTP service do."""

    def __init__(self, runs: Path, *, images: Path | None = None, limits: Limits | None = None) -> None:
        """``runs``: below it lie the runs that may be used; ``images``: below it folders of images may be named."""
        self.limits = limits or Limits()
        self.library = Library(runs)
        self.images = images.resolve() if images else None
        self.models = Models(self.limits, self.library)
        self.results = Results(self.limits)
        self._inbox = self.results.root / INBOX
        self._inbox.mkdir()
        self.decoder = Decoder(self._inbox, pixels=self.limits.pixels, seconds=self.limits.seconds)

    def close(self) -> None:
        """End the decoding process and remove all results."""
        self.models.close()
        self.decoder.close()
        self.results.close()

    def predict(self, name: str, image: Path, truth: Path | None = None, *, called: str | None = None) -> Prediction:
        """Predict an uploaded image with the run of this name.

        Args:
            truth: an uploaded target file for it.
            called: what the visitor calls the image; default: the name of ``image``.

        Raises:
            RefusedError: no such run, or a file that is not read.
            DataError: a picture that is damaged or too large, or a truth that does not belong to it.
            BusyError: too many requests wait.
            SlowError: it takes too long.
        """
        self.library.open(name)
        folder = self.results.new()
        try:
            limit = self.limits.upload_bytes
            taken = take_upload(image, folder, limit=limit, name=f"{safe_stem(called or image.name)}.x")
            held = take_upload(truth, folder / "truth", limit=limit, arrays=True) if truth else None
            return self.models.call(name, lambda predictor: self._predict(predictor, name, taken, held))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, prediction: Prediction, *, horizontal_deg: float | None = None) -> Published:
        """Write what the viewer shows and what can be taken away.

        Args:
            horizontal_deg: field of view, for a point cloud where the model tells metres; default: what the image's
                EXIF data say, else the run's data; where nobody knows there is none.
        """
        folder = self.results.new()
        write_scene(folder, prediction)
        files = write_files(folder, prediction)
        view = prediction.view
        if not (isinstance(view, DistanceView) and view.unit):
            return Published(prediction, folder, files)
        camera, source = _camera(prediction, view, horizontal_deg)
        if camera is None:
            return Published(prediction, folder, files)
        *clouds, shown = write_clouds(folder, prediction, camera)
        angle = math.degrees(2 * math.atan(prediction.prediction_hw.shape[1] / 2 / camera.fx))
        told = f"Point cloud through a camera with a horizontal field of view of {angle:.1f} degrees, {source}."
        return Published(prediction, folder, files + clouds, shown, told)

    def compare(self, first: str, second: str, image: Path, truth: Path | None = None) -> Comparison:
        """Predict an image with two runs, and show where they differ.

        Raises:
            RefusedError: the predictions of the two are not of one kind. And what `predict` raises.
        """
        one, two = self.predict(first, image, truth), self.predict(second, image, truth)
        if one.view != two.view or one.prediction_hw.shape != two.prediction_hw.shape:
            raise RefusedError(
                "these two runs predict different things",
                where=f"{first} and {second}",
                rule="models are compared that have the same classes, unit or size.",
                cure="Choose two runs of one task on one kind of data.",
            )
        folder = self.results.new()
        return Comparison(one, two, folder, write_comparison(folder, one, two))

    def report(self, names: Sequence[str]) -> str:
        """The HTML report of a run or a grid, or of several runs beside each other.

        Of one run it is the ``report.html`` that `perpixel report` left in its folder, which has pictures too, else one
        without: the run's data need not be open to visitors.

        Raises:
            RefusedError: a name that is not listed.
            RequestError: runs that were not scored on the same images.
        """
        if len(names) == 1 and names[0] in self.library.grids():
            return to_html(grid_document(self.library.root / names[0]))
        runs = [self.library.run(name) for name in names]
        if len(runs) != 1:
            return to_html(comparison_document(runs, common_subset(runs)))
        written = runs[0].path / "report.html"
        if written.is_file() and written.resolve().is_relative_to(self.library.root):
            return written.read_text(encoding="utf-8")
        return to_html(run_document(runs[0], Console(), pictures=False))

    def inspect(self, text: str, console: Console) -> tuple[Inspection, Path]:
        """The inspection of a data set below the allowed folder, and its page with pictures.

        Raises:
            RefusedError: no folder is allowed, or it lies elsewhere.
            DataError: no pairs.
        """
        found, view = inspect_folder(self._folder(text), console)
        page = self.results.new() / "inspection.html"
        page.write_text(report_html(found, view), encoding="utf-8")
        return found, page

    def folder_images(self, text: str) -> list[Path]:
        """The images of a folder below the allowed one.

        Raises:
            RefusedError: no folder is allowed, it lies elsewhere, or it holds no image.
        """
        folder = self._folder(text)
        files = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.is_symlink()
        )
        if not files:
            raise RefusedError("this folder holds no image", where=text)
        return files

    def _folder(self, text: str) -> Path:
        if self.images is None:
            raise RefusedError("no folder of images is opened to visitors", cure="Start the page with --images FOLDER.")
        folder = (self.images / text.strip()).resolve()
        if not folder.is_relative_to(self.images):
            raise RefusedError("this folder is not opened to visitors", rule=f"folders lie below {self.images.name}/.")
        if not folder.is_dir():
            raise RefusedError("there is no such folder", where=text, cure="Correct the path.")
        return folder

    def predict_many(
        self, name: str, images: Sequence[Path], truths: Sequence[Path] = ()
    ) -> Iterator[tuple[Path, Prediction | DataError | RefusedError]]:
        """Predict images one by one; a truth belongs to the image of its stem. What cannot be read is told, and the
        others go on.

        Raises:
            RefusedError: more images than one call may have, or two of one name.
        """
        if len(images) > self.limits.files:
            raise RefusedError(
                f"{len(images)} images are too many for one call",
                rule=f"one call takes {self.limits.files}.",
                cure="Use `perpixel predict`, or several calls.",
            )
        by_stem = {safe_stem(path.name): path for path in truths}
        if len({safe_stem(path.name) for path in images}) < len(images):
            raise RefusedError("two images have one name", cure="Rename one: their results would overwrite each other.")
        for image in images:
            try:
                yield image, self.predict(name, image, by_stem.get(safe_stem(image.name)))
            except (DataError, RefusedError) as error:
                yield image, error

    def _predict(self, predictor: ImagePredictor, name: str, image: Path, truth: Path | None) -> Prediction:
        began = time.perf_counter()
        deep = predictor.task.image_scale is not None
        decoded = self.decoder.read(image, keep_16_bits=deep)
        if truth is not None and truth.suffix in PICTURES:
            self.decoder.read(truth)  # within its bounds; the codec then reads a file that is known to be harmless
        return predict_image(
            predictor,
            decoded.image_hwc,
            run=name,
            stem=image.stem,
            truth=truth,
            began=began,
            largest=self.limits.scores,
            notes=decoded.notes,
            focal_px=decoded.focal_px,
        )

    def health(self) -> dict[str, Any]:
        """Whether predictions are possible."""
        ready = self.library.ready()
        return {"status": "ok" if ready else "no trained run", "runs": len(ready)}


def common_subset(runs: Sequence[Run]) -> str:
    """The subset that runs are compared on: test where all were scored on it."""
    return "test" if all(run.evaluation_dir("test").is_dir() for run in runs) else "val"


def _camera(prediction: Prediction, view: DistanceView, horizontal_deg: float | None) -> tuple[Camera | None, str]:
    """The camera of an image, and who says so."""
    height, width = prediction.prediction_hw.shape
    if horizontal_deg is not None:
        return camera_from_fov(height, width, horizontal_deg=horizontal_deg), "as you say"
    if prediction.focal_px is not None:
        focal = prediction.focal_px
        return Camera(focal, focal, (width - 1) / 2, (height - 1) / 2), "as the photograph's EXIF data say"
    angles = {"vertical_deg": view.vertical_fov_deg, "horizontal_deg": view.horizontal_fov_deg}
    if any(angles.values()):
        return camera_from_fov(height, width, **angles), "that of the training data"
    return None, ""
