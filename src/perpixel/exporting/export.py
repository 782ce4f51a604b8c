"""`perpixel export`: a run as one file, left behind only when it gives what the run gives."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.data.cache import DecodedSamples, decode_samples
from perpixel.errors import RequestError, RunError
from perpixel.evaluation.pairs import open_pairs
from perpixel.exporting.card import model_card
from perpixel.exporting.metadata import describe
from perpixel.exporting.onnx_file import quantize, write_onnx, write_openvino
from perpixel.exporting.parity import (
    FIGURE_CHANGE,
    FIGURE_CHANGE_INT8,
    LARGEST_DIFFERENCE,
    MEAN_DIFFERENCE,
    Check,
    as_rows,
    check_scores,
    compare_figures,
    seconds_per_image,
    tolerated,
)
from perpixel.inference.exported import SUFFIXES, ExportedPredictor
from perpixel.inference.predictor import Predictor
from perpixel.recipe import Recipe
from perpixel.run import Run, write_atomic, write_json

FORMATS = {extra: suffix for suffix, extra in SUFFIXES.items()}
_FIGURE_IMAGES = 64
_CALIBRATION_IMAGES = 64


def export_run(
    run: Run,
    out: Path,
    *,
    form: str,
    int8: bool = False,
    calibrate: Path | None = None,
    data: Path | None = None,
    console: Console,
) -> dict[str, Any]:
    """Write ``out``, ``<out>.json`` (metadata and parity) and ``<out>.md`` (model card).

    Args:
        form: ``onnx`` (``.onnx``) or ``openvino`` (``.xml``, beside it ``.bin``).
        calibrate: of ``int8`` a folder of images that look like those it will see.
        data: where the run's data lie now.

    Returns:
        What the JSON holds.

    Raises:
        RequestError: a request that cannot be followed, or an extra is not installed.
        RunError: the file would not give what the run gives; none is left.
    """
    _check_request(out, form, int8, calibrate)
    exporter = _Exporter(run, form, console, data)
    calibration = exporter.read_folder(calibrate) if calibrate is not None else []
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        written = exporter.write(Path(folder), calibration)
        sidecar = {"metadata": written.predictor.session.metadata, "parity": exporter.parity(written)}
        for path in sorted(Path(folder).glob(f"model{out.suffix}")) + sorted(Path(folder).glob("model.bin")):
            os.replace(path, out.with_suffix(path.suffix))
    write_json(out.with_name(f"{out.name}.json"), sidecar)
    write_atomic(out.with_name(f"{out.name}.md"), model_card(run, out, sidecar))
    return sidecar


def _check_request(out: Path, form: str, int8: bool, calibrate: Path | None) -> None:
    if form not in FORMATS:
        raise RequestError(f"there is no format {form!r}", rule=f"formats: {', '.join(FORMATS)}.")
    if out.suffix != FORMATS[form]:
        raise RequestError(f"a file of {form} ends in {FORMATS[form]}", where=f"--out {out}")
    if out.is_dir():
        raise RequestError("this is a folder, and an export is a file", where=f"--out {out}")
    if int8 and calibrate is None:
        raise RequestError(
            "int8 needs images to learn its ranges from", cure="name a folder of training images: --calibrate DIR."
        )
    if calibrate is not None and not int8:
        raise RequestError("--calibrate is of --int8", cure="add --int8, or leave it out.")


@dataclass
class _Written:
    """A file that was checked: its predictor, and the float file's where it is int8."""

    predictor: ExportedPredictor
    checks: list[Check]
    figures: list[dict[str, float | None]]
    float_predictor: ExportedPredictor | None = None


class _Exporter:
    """A run, its validation images, and the way to a file of one format."""

    def __init__(self, run: Run, form: str, console: Console, data: Path | None) -> None:
        self.run, self.form, self.console, self.recipe = run, form, console, run.recipe
        if run.manifest.get("ensemble"):
            raise RequestError("an ensemble is no one network", where=run.path, cure="export one of its runs.")
        self.reference = Predictor.from_run(run)
        self.reference.device = torch.device("cpu")
        self.reference.model.to("cpu")
        _require_tiles_outside(self.recipe)
        task = self.reference.task
        pairs = open_pairs(run, task, subset="val", data=data, console=console)
        count = len(pairs.samples)
        self.positions = sorted({round(place) for place in np.linspace(0, count - 1, min(count, _FIGURE_IMAGES))})
        self.ids = [sample.id for sample in pairs.samples]
        self.decoded: DecodedSamples = decode_samples(
            pairs.samples, task.decode_target, key=None, image_scale=task.image_scale
        )
        self.image_hwc: NDArray[Any] = self.decoded.image(0)
        if self.image_hwc.dtype != np.uint8:
            raise RequestError("images of 16 bits cannot be exported for: a graph takes 8 bits", where=run.path)

    def read_folder(self, folder: Path) -> list[NDArray[np.uint8]]:
        """Images to calibrate on, evenly taken from a folder."""
        if not folder.is_dir():
            raise RequestError("this is no folder of images", where=f"--calibrate {folder}")
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
        if not files:
            raise RequestError("no image is found here", where=f"--calibrate {folder}")
        chosen = sorted(
            {round(place) for place in np.linspace(0, len(files) - 1, min(len(files), _CALIBRATION_IMAGES))}
        )
        return [self.reference.read(files[index]) for index in chosen]

    def write(self, folder: Path, calibration: Sequence[NDArray[np.uint8]]) -> _Written:
        """A float file for any size, else for one; of it the int8 file where that is wanted."""
        try:
            written = self._float_file(folder, None)
        except RunError as error:
            if self.recipe.input.fit != "crop":  # the network sees one size whatever the image's is
                raise
            size = self.image_hwc.shape[0], self.image_hwc.shape[1]
            why = f" ({error.details[0]})" if error.details else ""
            self.console.say(f"{error.what}{why}; the file is fixed to {size[1]}x{size[0]} pixels")
            written = self._float_file(folder, size)
        return self._int8_file(folder, written, calibration) if calibration else written

    def _float_file(self, folder: Path, fixed: tuple[int, int] | None) -> _Written:
        self.console.say(f"writing {self.form}" + (f" for {fixed[1]}x{fixed[0]} pixels" if fixed else ", any size"))
        metadata = describe(self.reference, self.recipe, fixed, "float32")
        example = fixed or (int(self.image_hwc.shape[0]), int(self.image_hwc.shape[1]))
        source = folder / "float.onnx"
        own = self.reference.precision
        self.reference.precision = "fp32"
        try:
            write_onnx(self.reference, source, metadata, size=example, any_size=fixed is None)
            predictor = self._opened(source, folder, metadata)
            checks = check_scores(self.reference, predictor, self.image_hwc, two_sizes=fixed is None)
        finally:
            self.reference.precision = own
        _require_good(checks, predictor)
        return _Written(predictor, checks, self._figures(predictor, int8=False))

    def _int8_file(self, folder: Path, written: _Written, calibration: Sequence[NDArray[np.uint8]]) -> _Written:
        """All but the last layer in int8; where that costs too much, all but the first and the last."""
        metadata = describe(self.reference, self.recipe, written.predictor.size, "int8")
        size = written.predictor.size
        fitting = [image_hwc for image_hwc in calibration if size is None or image_hwc.shape[:2] == size]
        if not fitting:
            raise RequestError("no image of --calibrate has the size that the file is fixed to", rule=f"size: {size}.")
        predictor = self._quantized(folder, fitting, metadata, keep_first=False)
        try:
            figures = self._figures(predictor, int8=True)
        except RunError:
            self.console.say("int8 costs too much: the first layer is kept in float too")
            predictor = self._quantized(folder, fitting, metadata, keep_first=True)
            figures = self._figures(predictor, int8=True)
        checks = check_scores(self.reference, predictor, self.image_hwc, two_sizes=size is None)
        return _Written(predictor, checks, figures, float_predictor=written.predictor)

    def _quantized(
        self, folder: Path, images: Sequence[NDArray[np.uint8]], metadata: dict[str, Any], *, keep_first: bool
    ) -> ExportedPredictor:
        source = folder / "int8.onnx"
        quantize(folder / "float.onnx", source, images, metadata, keep_first=keep_first)
        return self._opened(source, folder, metadata)

    def _opened(self, source: Path, folder: Path, metadata: dict[str, Any]) -> ExportedPredictor:
        """The file in its format, named ``model``, made ready to run."""
        path = folder / f"model{FORMATS[self.form]}"
        for old in folder.glob("model.*"):  # a runtime may still have it mapped into memory: a new file, not new bytes
            old.unlink()
        if self.form == "openvino":
            write_openvino(source, path, metadata)
        else:
            path.write_bytes(source.read_bytes())
        return ExportedPredictor.from_file(path, threads=torch.get_num_threads())

    def _figures(self, predictor: ExportedPredictor, *, int8: bool) -> list[dict[str, float | None]]:
        """Of the run and of the file; raises RunError where the monitored one changes too much."""
        fitting = [place for place in self.positions if predictor.takes(self.decoded.image(place))]
        figures = compare_figures([self.reference, predictor], self.decoded, self.ids, fitting)
        before, after = (values[self.recipe.training.monitor] for values in figures)
        if not tolerated(before, after, int8=int8):
            raise RunError(
                f"the exported file changes {self.recipe.training.monitor} from {before} to {after}",
                where=self.run.path,
                rule="a file is left behind only when it gives what the run gives.",
                cure="use the run itself"
                + (", export without --int8, or give more --calibrate images." if int8 else "."),
            )
        return figures

    def parity(self, written: _Written) -> dict[str, Any]:
        """What was checked, for the JSON; printed too."""
        before, after = written.figures
        compared = {"run": self.reference, "float file": written.float_predictor, "file": written.predictor}
        present = {name: item for name, item in compared.items() if item is not None}
        seconds = dict(zip(present, seconds_per_image(list(present.values()), self.image_hwc), strict=True))
        monitor = self.recipe.training.monitor
        say = self.console.say
        say(f"largest difference of scores: {max(check.largest for check in written.checks):.2e} of the largest score")
        say(f"{monitor} on {len(self.positions)} validation images: run {before[monitor]}, file {after[monitor]}")
        say("one image: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items()))
        return {
            "checks": as_rows(written.checks),
            "tolerance": {"float32": {"largest": LARGEST_DIFFERENCE, "mean": MEAN_DIFFERENCE, monitor: FIGURE_CHANGE}}
            | {"int8": {monitor: FIGURE_CHANGE_INT8}},
            "images": len(self.positions),
            "monitor": monitor,
            "figures": {
                key: {"run": before[key], "file": after[key], "change": _change(before[key], after[key])}
                for key in before
            },
            "seconds_per_image": seconds,
            "machine": f"{written.predictor.device_name}, threads: {written.predictor.threads}",
        }


def _require_tiles_outside(recipe: Recipe) -> None:
    scaled = recipe.input.fit != "crop" or recipe.input.long_side is not None
    if recipe.inference.tile and scaled:
        raise RequestError(
            "tiles of a scaled image cannot be exported",
            where="inference.tile",
            cure="train or use the run with inference.tile=null.",
        )


def _require_good(checks: Sequence[Check], predictor: ExportedPredictor) -> None:
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


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
