"""What is done with a finished run: evaluate a data set, predict files, submit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.data.cache import decode_samples, fingerprint
from perpixel.data.samples import data_root, list_samples, list_unlabelled
from perpixel.errors import DataError, RequestError, RunError
from perpixel.evaluation.evaluate import Evaluation, chosen_on_validation, evaluate_samples, write_evaluation
from perpixel.evaluation.guards import no_better_than_baseline
from perpixel.evaluation.submission import write_submission
from perpixel.images import read_image, write_image
from perpixel.inference.predictor import Predictor
from perpixel.run import Run

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
_SHOWN = 8


def evaluate_run(run: Run, *, subset: str, data: Path | None, console: Console) -> dict[str, Any]:
    """Score a subset of the run's own data, or every pair of another folder; writes evaluation/<name>/.

    Raises:
        RequestError: the run has no such subset.
    """
    predictor = Predictor.from_run(run)
    recipe = run.recipe
    root = data_root(recipe.data, data)
    samples = list_samples(recipe.data, root)
    # The run's own data, wherever they lie now: a folder that was moved is still split as in training.
    trained_on = run.manifest.get("data", {}).get("fingerprint")
    key = fingerprint(samples, predictor.task.meaning, contents=recipe.data.cache == "auto")
    if data is None and key != trained_on:
        console.say(f"note: the files in {root} are not those this run was trained on")
    own = data is None or key == trained_on
    if own:
        subsets, _ = run.read_split()
        samples = [sample for sample in samples if subsets.get(sample.id) == subset]
        if not samples:
            known = sorted(set(subsets.values()))
            raise RequestError(f"this run has no subset {subset!r}", where=run.split_path, rule=f"it has {known}.")
    # Another folder may be called "val"; it must not replace the figures of the run's own subset.
    name = subset if own else f"data-{root.resolve().name}"
    decoded = decode_samples(samples, predictor.task.decode_target, key=None)
    facts = run.manifest.get("data", {}).get("training_targets")
    evaluation = evaluate_samples(
        predictor,
        decoded,
        [sample.id for sample in samples],
        range(len(samples)),
        facts=facts,
        progress=lambda done, total: console.progress("evaluating", done, total),
    )
    protocol = {
        "subset": name,
        "data": str(root),
        "fingerprint": key,
        "images": len(samples),
        "size": "original",
        "chosen_on_this_subset": chosen_on_validation(predictor) if name == "val" else [],
        "decision": predictor.decision,
        "flip": recipe.inference.flip,
    }
    write_evaluation(run, name, evaluation, protocol)
    table = figures_table(evaluation, protocol)
    warning = no_better_than_baseline(evaluation, recipe.training.monitor)
    if warning:
        table = f"{table}\n{warning}"
    return {"figures": evaluation.figures, "table": table, "protocol": protocol}


def figures_table(evaluation: Evaluation, protocol: dict[str, Any]) -> str:
    """The figures as text: each with its averaging, beside the trivial baselines."""
    lines = [
        f"{protocol['subset']}: {protocol['images']} images at their original size, decision {protocol['decision']}"
    ]
    if protocol["chosen_on_this_subset"]:
        lines.append(
            f"note: {', '.join(protocol['chosen_on_this_subset'])} chosen on these very images; expect less on others"
        )
    names = list(evaluation.baselines)
    width = max(len(key) for key in evaluation.figures)
    lines.append("  ".join([" " * width, "   model", *(f"{name:>9}" for name in names), "averaging"]))
    for key, value in evaluation.figures.items():
        columns = [f"{evaluation.baselines[name][key]:{max(9, len(name))}.4f}" for name in names]
        lines.append("  ".join([f"{key:{width}}", f"{value:8.4f}", *columns, evaluation.infos[key].averaging]))
    return "\n".join(lines)


def predict_files(run: Run, images: Sequence[Path], out: Path, *, console: Console) -> list[Path]:
    """Write ``<name>.png`` in the data set's own values and ``<name>_overlay.png`` for each image.

    Raises:
        RequestError: an image does not exist, or a file would replace an image or another's prediction.
        RunError: lists the images that cannot be read; all others are predicted.
    """
    files = _image_files(images)
    _check_targets(files, out)
    predictor = Predictor.from_run(run)
    written: list[Path] = []
    problems: list[str] = []
    size = predictor.inference.batch_size
    for start in range(0, len(files), size):
        loaded: dict[Path, NDArray[np.uint8]] = {}
        for path in files[start : start + size]:
            try:
                loaded[path] = read_image(path).pixels_hwc
            except DataError as error:
                problems.append(f"{path}: {error.what}")
        predictions = predictor.predict(list(loaded.values())) if loaded else []
        for (path, image_hwc), prediction_hw in zip(loaded.items(), predictions, strict=True):
            target, overlay = _targets(path, out)
            predictor.task.write_prediction(target, prediction_hw)
            write_image(overlay, predictor.task.overlay(image_hwc, prediction_hw))
            written.append(target)
        console.progress("predicting", min(start + size, len(files)), len(files))
    if problems:
        raise RunError(
            f"{len(problems)} of {len(files)} images cannot be read; the others are predicted",
            where=out,
            details=problems,
        )
    return written


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


def _targets(image: Path, out: Path) -> tuple[Path, Path]:
    """Where the prediction and the overlay of an image are written."""
    return out / f"{image.stem}.png", out / f"{image.stem}_overlay.png"


def _check_targets(files: Sequence[Path], out: Path) -> None:
    """No file that is written may replace an image that is read, or one that is written for another image."""
    if out.exists() and not out.is_dir():
        raise RequestError("this is a file, and predictions are written into a folder", where=out)
    images = {path.resolve() for path in files}
    writers: dict[Path, Path] = {}
    problems = []
    for path in files:
        for target in _targets(path, out.resolve()):
            if target in images:
                problems.append(f"the prediction of {path} would replace the image {target}")
            elif target in writers:
                problems.append(f"{writers[target]} and {path} would both be written to {target.name}")
            writers[target] = path
    if problems:
        raise RequestError(
            "images would be lost, or one prediction would replace another",
            details=[*problems[:_SHOWN], *([f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])],
            cure="name another --out folder, or predict these images in two calls.",
        )


def submit_run(run: Run, out: Path, *, data: Path | None, console: Console) -> None:
    """Predict the unlabelled images; write the submission, read it back and compare."""
    if out.is_dir():
        raise RequestError("this is a folder, and a submission is one file", where=out, cure="name a .csv file.")
    predictor = Predictor.from_run(run)
    recipe = run.recipe
    samples = list_unlabelled(recipe.data, data_root(recipe.data, data))
    masks: dict[str, NDArray[np.bool_]] = {}
    size = predictor.inference.batch_size
    for start in range(0, len(samples), size):
        chosen = samples[start : start + size]
        predictions = predictor.predict([read_image(sample.image).pixels_hwc for sample in chosen])
        for sample, prediction_hw in zip(chosen, predictions, strict=True):
            masks[sample.id] = predictor.task.submission_mask(prediction_hw)
        console.progress("predicting", start + len(chosen), len(samples))
    write_submission(out, masks)
    filled = sum(bool(mask.any()) for mask in masks.values())
    console.say(f"{len(masks)} rows, {filled} with a mask; read back and compared")
