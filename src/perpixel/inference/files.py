"""Prediction of image files: maps, pictures and confidences beside each other in one folder, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.errors import DataError, RequestError, RunError
from perpixel.images import image_size
from perpixel.inference.base import ImagePredictor
from perpixel.inference.timing import Timing, timing_line
from perpixel.memory import using
from perpixel.run import write_json

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
_SHOWN = 8
# Scores stand at the images' own sizes, float32: at most 1 GiB of them at once, however large the photographs are.
_SCORES_AT_ONCE = 2**28

TIMING_FILE = "timing.json"


def predict_files(predictor: ImagePredictor, images: Sequence[Path], out: Path, *, console: Console) -> list[Path]:
    """Predict each image; the task says what is written of it. ``timing.json`` says how long it took.

    Returns:
        Of each image the file that holds its prediction in the data set's own values.

    Raises:
        RequestError: an image does not exist, or a file would replace an image or another's prediction.
        RunError: lists the images that cannot be read; all others are predicted.
    """
    files = _image_files(images)
    for assumption in predictor.task.assumptions:
        console.say(assumption)
    _check_targets(files, out, predictor.task.prediction_files)
    written: list[Path] = []
    problems: list[str] = []
    timing = Timing()
    with using(predictor.inference, out), predictor.clock() as clock:
        for batch in _batches(files, predictor):
            if not timing.end_to_end:  # the first calls of a network allocate and tune; their time says nothing
                predictor.scores(list(_read(predictor, batch, []).values()))
            began, network_before = time.perf_counter(), clock.seconds
            loaded = _read(predictor, batch, problems)
            written += _predict(predictor, loaded, out)
            if loaded:
                pixels = [image_hwc.shape[0] * image_hwc.shape[1] for image_hwc in loaded.values()]
                timing.add(clock.seconds - network_before, time.perf_counter() - began, pixels)
            console.progress("predicting", len(written) + len(problems), len(files))
    if written:
        summary = timing.summary(predictor)
        write_json(out / TIMING_FILE, summary)
        console.say(timing_line(summary))
    if problems:
        raise RunError(
            f"{len(problems)} of {len(files)} images cannot be read; the others are predicted",
            where=out,
            details=problems,
        )
    return written


def _predict(predictor: ImagePredictor, loaded: dict[Path, NDArray[Any]], out: Path) -> list[Path]:
    written = []
    batch_scores = predictor.scores(list(loaded.values()))
    for (path, image_hwc), scores_khw in zip(loaded.items(), batch_scores, strict=True):
        prediction_hw = predictor.finalize(scores_khw)
        calibrated_khw = predictor.calibrated(scores_khw)
        files = predictor.task.write_prediction(out / path.stem, image_hwc, calibrated_khw, prediction_hw, path)
        written.append(files[0])
    return written


def _read(predictor: ImagePredictor, files: Sequence[Path], problems: list[str]) -> dict[Path, NDArray[Any]]:
    """Decoded images; what cannot be read is added to ``problems``."""
    loaded = {}
    for path in files:
        try:
            loaded[path] = predictor.read(path)
        except DataError as error:
            problems.append(f"{path}: {error.what}")
    return loaded


def _batches(files: Sequence[Path], predictor: ImagePredictor) -> Iterator[list[Path]]:
    """As many files at a time as the recipe says, fewer where their scores would take too much memory."""
    batch: list[Path] = []
    values = 0
    for path in files:
        try:
            height, width = image_size(path)
        except DataError:  # it is told when the image is read
            height = width = 0
        own = height * width * (predictor.task.image_scale or 1) ** 2 * predictor.task.out_channels
        if batch and (len(batch) == predictor.inference.batch_size or values + own > _SCORES_AT_ONCE):
            yield batch
            batch, values = [], 0
        batch.append(path)
        values += own
    yield batch


def _image_files(images: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in images:
        if path.is_dir():
            files += sorted(entry for entry in path.iterdir() if _is_image(entry))
        elif path.is_file():
            files.append(path)
        else:
            raise RequestError("this image does not exist", where=path)
    if not files:
        raise RequestError("no image is found here", where=", ".join(str(path) for path in images))
    return list(dict.fromkeys(files))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file()


def _check_targets(files: Sequence[Path], out: Path, endings: Sequence[str]) -> None:
    """No file that is written may replace an image that is read, or one that is written for another image."""
    if out.exists() and not out.is_dir():
        raise RequestError("this is a file, and predictions are written into a folder", where=out)
    images = {path.resolve() for path in files}
    writers: dict[Path, Path] = {}
    problems = []
    for path in files:
        targets = [out.resolve() / f"{path.stem}{ending}" for ending in endings]
        if lost := next((target for target in targets if target in images), None):
            problems.append(f"the prediction of {path} would replace the image {lost}")
        if twice := next((target for target in targets if target in writers), None):
            problems.append(f"{writers[twice]} and {path} would both be written to {twice.name}")
        writers |= dict.fromkeys(targets, path)
    if problems:
        raise RequestError(
            "images would be lost, or one prediction would replace another",
            details=[*problems[:_SHOWN], *([f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])],
            cure="name another --out folder, or predict these images in two calls.",
        )
