"""What is done with a finished run: evaluate a data set, predict files, submit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perpixel.console import Console
from perpixel.data.cache import decode_samples, fingerprint
from perpixel.data.samples import data_root, list_samples, list_unlabelled
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import Evaluation, evaluate_samples, read_evaluation, write_evaluation
from perpixel.evaluation.submission import write_submission
from perpixel.images import read_image, write_image
from perpixel.inference.predictor import Predictor
from perpixel.run import Run

_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}


def evaluate_run(run: Run, *, subset: str, data: Path | None, console: Console) -> dict[str, Any]:
    """Score a subset of the run's own data, or every pair of another folder; writes evaluation/<name>/.

    Raises:
        RequestError: the run has no such subset.
    """
    predictor = Predictor.from_run(run)
    recipe = run.recipe
    root = data_root(recipe.data, data)
    samples = list_samples(recipe.data, root)
    own = data is None or root.resolve() == Path(recipe.data.root or "").resolve()
    if own:
        subsets, _ = run.read_split()
        samples = [sample for sample in samples if subsets.get(sample.id) == subset]
        if not samples:
            known = sorted(set(subsets.values()))
            raise RequestError(f"this run has no subset {subset!r}", where=run.split_path, rule=f"it has {known}.")
    name = subset if own else root.resolve().name
    before = read_evaluation(run, name) if own else None
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
        "fingerprint": fingerprint(samples, predictor.task.meaning, contents=True),
        "images": len(samples),
        "size": "original",
        "chosen_on_this_subset": (before or {}).get("protocol", {}).get("chosen_on_this_subset", []),
        "decision": predictor.decision,
        "flip": recipe.inference.flip,
    }
    write_evaluation(run, name, evaluation, protocol)
    return {"figures": evaluation.figures, "table": figures_table(evaluation, protocol), "protocol": protocol}


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
    """Write ``<name>.png`` in the data set's own values and ``<name>_overlay.png`` for each image."""
    files = _image_files(images)
    predictor = Predictor.from_run(run)
    written = []
    size = predictor.inference.batch_size
    for start in range(0, len(files), size):
        chosen = files[start : start + size]
        loaded = [read_image(path) for path in chosen]
        predictions = predictor.predict([image.pixels_hwc for image in loaded])
        for path, image, prediction_hw in zip(chosen, loaded, predictions, strict=True):
            target = out / f"{path.stem}.png"
            predictor.task.write_prediction(target, prediction_hw)
            overlay_hwc = predictor.task.overlay(image.pixels_hwc, prediction_hw)
            write_image(out / f"{path.stem}_overlay.png", overlay_hwc)
            written.append(target)
        console.progress("predicting", start + len(chosen), len(files))
    return written


def _image_files(images: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in images:
        if path.is_dir():
            files += sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES)
        elif path.is_file():
            files.append(path)
        else:
            raise RequestError("this image does not exist", where=path)
    if not files:
        raise RequestError("no image is found here", where=", ".join(str(path) for path in images))
    repeated = sorted({path.stem for path in files if [other.stem for other in files].count(path.stem) > 1})
    if repeated and len({path.stem for path in files}) != len(files):
        raise RequestError("two images have one name, so one prediction would replace the other", details=repeated[:8])
    return files


def submit_run(run: Run, out: Path, *, data: Path | None, console: Console) -> None:
    """Predict the unlabelled images; write the submission, read it back and compare."""
    predictor = Predictor.from_run(run)
    recipe = run.recipe
    samples = list_unlabelled(recipe.data, data_root(recipe.data, data))
    masks: dict[str, np.ndarray[Any, np.dtype[np.bool_]]] = {}
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
