"""A run written as a file in one format and one arithmetic, and held against the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.data.cache import DecodedSamples, decode_samples
from perpixel.errors import RequestError, RunError
from perpixel.evaluation.pairs import open_pairs
from perpixel.exporting.card import figure_text
from perpixel.exporting.int8 import costliest, layers_of, quantize
from perpixel.exporting.metadata import describe, describe_weights
from perpixel.exporting.onnx_file import write_onnx, write_openvino
from perpixel.exporting.parity import Check, allowed_change, check_scores, figures_of, tolerated
from perpixel.exporting.torch_file import write_torch_export, write_weights
from perpixel.inference.base import ImagePredictor
from perpixel.inference.exported import SUFFIXES, WEIGHTS_SUFFIX, ExportedPredictor
from perpixel.inference.predictor import Predictor
from perpixel.recipe import Recipe
from perpixel.run import Run

FORMATS = {name: suffix for suffix, name in SUFFIXES.items()} | {"safetensors": WEIGHTS_SUFFIX}
"""Endings of files by format."""

Figures = dict[str, float | None]
_FIGURE_IMAGES = 64  # at least, where there are as many
_FIGURE_PIXELS = 16e6  # and as many more as have these pixels: of small images a few say little


@dataclass(frozen=True)
class Way:
    """How a run is written: a format, and the arithmetic of its network, ``float32``, ``bf16`` or ``int8``."""

    form: str
    precision: str = "float32"

    @property
    def suffix(self) -> str:
        """Of the file."""
        return FORMATS[self.form]

    def __str__(self) -> str:
        return f"{self.form} {self.precision}"


@dataclass
class Written:
    """A file that was checked; ``path`` of OpenVINO has a ``.bin`` beside it.

    Attributes:
        own: the run's figures, in its own arithmetic.
        before: what the file is held against: the run's figures in float32; of weights, which keep the run's
            arithmetic, ``own``.
        in_float: of int8, how many of how many layers stay in float.
    """

    way: Way
    path: Path
    metadata: dict[str, Any]
    predictor: ImagePredictor
    checks: list[Check]
    own: Figures
    before: Figures
    figures: Figures
    images: int
    float_predictor: ImagePredictor | None = None
    in_float: tuple[int, int] | None = None


class _ChangedError(RunError):
    """A file whose figure is not that of its run."""


_FloatFile = tuple[ExportedPredictor, Path, list[Check]]


class Exporter:
    """A run, its validation images, and the ways to files of it, all made in one folder."""

    def __init__(self, run: Run, folder: Path, console: Console, data: Path | None) -> None:
        self.run, self.folder, self.console, self.recipe = run, folder, console, run.recipe
        if run.manifest.get("ensemble"):
            raise RequestError("an ensemble is no one network", where=run.path, cure="export one of its runs.")
        self.reference = Predictor.from_run(run)
        self.reference.device = torch.device("cpu")
        self.reference.model.to("cpu")
        task = self.reference.task
        pairs = open_pairs(run, task, subset="val", data=data, console=console)
        self.ids = [sample.id for sample in pairs.samples]
        self.decoded: DecodedSamples = decode_samples(
            pairs.samples, task.decode_target, key=None, image_scale=task.image_scale
        )
        self.image_hwc: NDArray[Any] = self.decoded.image(0)
        count = len(pairs.samples)
        pixels = self.image_hwc.shape[0] * self.image_hwc.shape[1]
        compared = min(count, max(_FIGURE_IMAGES, int(_FIGURE_PIXELS / pixels)))
        self.positions = sorted({round(place) for place in np.linspace(0, count - 1, compared)})
        self._of_run: dict[tuple[int, str], Figures] = {}  # by number of images and arithmetic
        self._float_files: dict[str, _FloatFile] = {}  # by format
        self._costly: dict[Path, list[list[str]]] = {}  # by float file: groups of layers

    @property
    def monitor(self) -> str:
        """The figure that decides."""
        return self.recipe.training.monitor

    def write(self, way: Way, calibration: Sequence[NDArray[np.uint8]] = ()) -> Written:
        """A file for any size, else for the size of the first validation image.

        Raises:
            RequestError: the format cannot hold this run, or its packages are not installed.
            RunError: the file would not give what the run gives.
        """
        if way.form == "safetensors":
            return self._weights_file(way)
        _require_graph(self.recipe, self.image_hwc, self.run)
        self.console.say(f"writing {way}")
        if way.form not in self._float_files:
            self._float_files[way.form] = self._float_file_of_any_size(Way(way.form))
        predictor, path, checks = self._float_files[way.form]
        if way.precision == "int8":
            return self._int8_file(way, predictor, calibration)
        if way.precision == "bf16":
            path, size = self._path(way), predictor.size or self._size_in_bf16()
            self._in_format(self._source(".onnx", size), path, describe(self.reference, self.run, size, "bf16"))
            predictor = _opened(path)
            checks = self._checks(predictor)
        return self._written(way, path, predictor.session.metadata, predictor, checks)

    def _size_in_bf16(self) -> tuple[int, int] | None:
        """Where images are scaled, that of the first validation image, for which the places of pixels are constants.

        OpenVINO computes in bf16 what depends on the image's size too: places beyond 256 are rounded to every second
        pixel and worse, so that the image comes out distorted.
        """
        if not _scales(self.recipe):
            return None
        size = int(self.image_hwc.shape[0]), int(self.image_hwc.shape[1])
        self.console.say(f"in bf16 the file is fixed to {size[1]}x{size[0]} pixels: OpenVINO would misplace others")
        return size

    def _weights_file(self, way: Way) -> Written:
        path = self._path(way)
        metadata = describe_weights(self.reference, self.run)
        write_weights(self.reference.model, path, metadata)
        predictor = Predictor.from_file(path)
        predictor.device = torch.device("cpu")
        predictor.model.to("cpu")
        checks = check_scores(self.reference, predictor, self.image_hwc, two_sizes=True)
        _require_good(checks)
        return self._written(way, path, metadata, predictor, checks)

    def _float_file_of_any_size(self, way: Way) -> _FloatFile:
        """Where only one size comes out right: for the size of the first validation image."""
        try:
            return self._float_file(way, None)
        except RunError as error:
            if self.recipe.input.fit != "crop":  # the network sees one size whatever the image's is
                raise
            size = int(self.image_hwc.shape[0]), int(self.image_hwc.shape[1])
            why = f" ({error.details[0]})" if error.details else ""
            self.console.say(f"{error.what}{why}; the file is fixed to {size[1]}x{size[0]} pixels")
            return self._float_file(way, size)

    def _float_file(self, way: Way, fixed: tuple[int, int] | None) -> _FloatFile:
        path = self._path(way)
        with self._in_float32():
            source = self._source(".pt2" if way.suffix == ".pt2" else ".onnx", fixed)
            self._in_format(source, path, describe(self.reference, self.run, fixed, "float32"))
            predictor = _opened(path)
        checks = self._checks(predictor)
        _require_good(checks)
        return predictor, path, checks

    def _checks(self, predictor: ExportedPredictor) -> list[Check]:
        """Beside the run in float32."""
        with self._in_float32():
            return check_scores(self.reference, predictor, self.image_hwc, two_sizes=predictor.size is None)

    def _int8_file(
        self, way: Way, float_predictor: ExportedPredictor, calibration: Sequence[NDArray[np.uint8]]
    ) -> Written:
        """All layers in int8; where that is too much, those that cost the most stay in float, at most half of all."""
        size = float_predictor.size
        fitting = [image_hwc for image_hwc in calibration if size is None or image_hwc.shape[:2] == size]
        if not fitting:
            raise RequestError("no image of --calibrate has the size that the file is fixed to", rule=f"size: {size}.")
        try:
            return self._quantized(way, float_predictor, fitting, [])
        except _ChangedError as error:
            refusal = error
        self.console.say(f"{refusal.what}: looking for the layers whose int8 costs the most")
        source, in_float = self._source(".onnx", size), list[str]()
        if source not in self._costly:
            metadata = describe(self.reference, self.run, size, "int8")
            tell = partial(self.console.progress, "layers")
            self._costly[source] = costliest(source, fitting, metadata, ranges=_ranges(source), progress=tell)
        groups = self._costly[source]
        for group in groups[: len(groups) // 2]:
            in_float += group
            try:
                return self._quantized(way, float_predictor, fitting, in_float)
            except _ChangedError as error:
                refusal = error
        raise refusal

    def _quantized(
        self,
        way: Way,
        float_predictor: ExportedPredictor,
        images: Sequence[NDArray[np.uint8]],
        in_float: Sequence[str],
    ) -> Written:
        size, path = float_predictor.size, self._path(way)
        source = self._source(".onnx", size)
        metadata = describe(self.reference, self.run, size, "int8")
        int8 = self.folder / f"int8-{size}-{len(in_float)}.onnx"
        if not int8.is_file():
            quantize(source, int8, images, metadata, in_float=in_float, ranges=_ranges(source))
        self._in_format(int8, path, metadata)
        predictor = _opened(path)
        written = self._written(way, path, metadata, predictor, self._checks(predictor))
        written.float_predictor, written.in_float = float_predictor, (len(in_float), len(layers_of(source)))
        return written

    def _written(
        self, way: Way, path: Path, metadata: dict[str, Any], predictor: ImagePredictor, checks: list[Check]
    ) -> Written:
        """With the figures of both; raises RunError where the monitored one changes too much."""
        fitting = [place for place in self.positions if predictor.takes(self.decoded.image(place))]
        own = self._figures_of_run(fitting)
        before = own
        if way.form != "safetensors":
            with self._in_float32():
                before = self._figures_of_run(fitting)
        after = figures_of(predictor, self.decoded, self.ids, fitting)
        old, new = before[self.monitor], after[self.monitor]
        if not tolerated(old, new, way.precision):
            raise _ChangedError(
                f"the exported file changes {self.monitor} from {figure_text(old)} to {figure_text(new)}",
                rule=f"in {way.precision} it may change by {allowed_change(way.precision)}"
                " (of figures above 1 by that part).",
                cure="calibrate on more images that look like those it will see, or export without --int8."
                if way.precision == "int8"
                else "use the run itself.",
            )
        return Written(way, path, metadata, predictor, checks, own, before, after, len(fitting))

    def _figures_of_run(self, positions: Sequence[int]) -> Figures:
        """In the arithmetic that the reference has now; a file is for any size, or for the first image's alone."""
        key = len(positions), self.reference.precision
        if key not in self._of_run:
            self._of_run[key] = figures_of(self.reference, self.decoded, self.ids, positions)
        return self._of_run[key]

    def _source(self, suffix: str, fixed: tuple[int, int] | None) -> Path:
        """The graph in float32 as its exporter writes it; made once for all formats that come of it."""
        path = self.folder / f"float{'-fixed' if fixed else ''}{suffix}"
        if path.is_file():
            return path
        metadata = describe(self.reference, self.run, fixed, "float32")
        size = fixed or (int(self.image_hwc.shape[0]), int(self.image_hwc.shape[1]))
        write = write_torch_export if suffix == ".pt2" else write_onnx
        with self._in_float32():
            write(self.reference, path, metadata, size=size, any_size=fixed is None)
        return path

    @staticmethod
    def _in_format(source: Path, path: Path, metadata: dict[str, Any]) -> None:
        path.unlink(missing_ok=True)  # a runtime may still have it mapped into memory: a new file, not new bytes
        if path.suffix == ".xml":
            path.with_suffix(".bin").unlink(missing_ok=True)
            write_openvino(source, path, metadata)
        else:
            path.write_bytes(source.read_bytes())

    def _path(self, way: Way) -> Path:
        folder = self.folder / str(way)
        folder.mkdir(exist_ok=True)
        return folder / f"model{way.suffix}"

    @contextmanager
    def _in_float32(self) -> Iterator[None]:
        """The run may compute in bf16; its graph is written, and compared, in float32."""
        own, self.reference.precision = self.reference.precision, "fp32"
        try:
            yield
        finally:
            self.reference.precision = own


def _ranges(source: Path) -> Path:
    """Where those are kept that the calibration images give in a float file."""
    return source.with_suffix(".ranges.json")


def _opened(path: Path) -> ExportedPredictor:
    return ExportedPredictor.from_file(path, threads=torch.get_num_threads())


def _require_graph(recipe: Recipe, image_hwc: NDArray[Any], run: Run) -> None:
    if image_hwc.dtype != np.uint8:
        raise RequestError(
            "images of 16 bits cannot be exported for: a graph takes 8 bits",
            where=run.path,
            cure="export the weights: --format safetensors.",
        )
    if recipe.inference.tile and _scales(recipe):
        raise RequestError(
            "tiles of a scaled image cannot be exported",
            where="inference.tile",
            cure="train or use the run with inference.tile=null, or export the weights: --format safetensors.",
        )


def _scales(recipe: Recipe) -> bool:
    """Whether the network sees images in another size than their own."""
    return recipe.input.fit != "crop" or recipe.input.long_side is not None


def _require_good(checks: Sequence[Check]) -> None:
    bad = [check for check in checks if not check.good]
    if bad:
        raise RunError(
            "the exported file does not give the scores of the run",
            details=[
                f"{check.width}x{check.height}, batch {check.batch}: largest difference {check.largest:.2e}, mean"
                f" {check.mean:.2e} of the largest score"
                for check in bad
            ],
            rule="a file is left behind only when it gives what the run gives.",
            cure="use the run itself.",
        )
