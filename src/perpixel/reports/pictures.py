"""What a run makes of its worst, middle and best images, to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.data.cache import decode_samples
from perpixel.data.samples import Sample
from perpixel.errors import PerpixelError
from perpixel.evaluation.gallery import extremes
from perpixel.evaluation.pairs import open_pairs
from perpixel.inference.base import ImagePredictor
from perpixel.inference.opening import run_predictor
from perpixel.reporting.document import Block, Figure, Section, Strip, Text
from perpixel.run import Run

__all__ = ["picture_sections", "samples_of"]


def picture_sections(
    run: Run, name: str, stored: Mapping[str, Any], values: Mapping[str, float], console: Console
) -> list[Section]:
    """Input, truth, prediction and error of images of an evaluation; a sentence where its data are out of reach.

    Args:
        name: of the evaluation.
        stored: its metrics.json.
        values: the monitored figure by sample id.
    """
    monitor = run.recipe.training.monitor
    finite = {id_: value for id_, value in values.items() if np.isfinite(value)}
    if not finite:
        return []
    sign = 1 if stored["meaning"][monitor]["direction"] == "higher" else -1
    ranked = sorted(finite, key=lambda id_: sign * finite[id_])
    title = f"Worst, middle and best images of {name}"
    try:
        predictor = run_predictor(run)
        by_id = samples_of(run, predictor, name, stored, console)
        blocks: list[Block] = [Text(f"By {monitor}. The error picture shows: {predictor.task.error_legend}.")]
        for group, places in _chosen(ranked, finite).items():
            for id_ in places:
                console.progress("pictures", len(blocks), 1 + min(12, len(ranked)))
                blocks.append(Strip(f"{group}: {id_}, {monitor} {finite[id_]:.4f}", panels(predictor, by_id[id_])))
    except (PerpixelError, KeyError) as error:
        told = error.what if isinstance(error, PerpixelError) else f"{error} is not among them any more"
        return [Section(title, [Text(f"No pictures: the data are not where this run was scored on them ({told}).")])]
    return [Section(title, [*_close_ups(run, name), *blocks])]


def _close_ups(run: Run, name: str) -> list[Block]:
    """The picture that a training left of what it makes of its darkest, worst and middle images."""
    path = run.evaluation_dir(name) / "close_ups.png"
    if not path.is_file():
        return []
    alt = "parts of the darkest, the worst and the middle images: as they came, as predicted, as they should be"
    return [Figure(path.read_bytes(), alt, "Before and after, where the error is largest; all equally exposed.")]


def _chosen(ranked: Sequence[str], values: Mapping[str, float]) -> dict[str, list[str]]:
    """`extremes`, but the middle is that of the images which are neither the best nor the worst by their value."""
    chosen = extremes(ranked)
    ends = {values[ranked[0]], values[ranked[-1]]}
    between = [id_ for id_ in ranked if values[id_] not in ends]
    if len(between) >= 3:
        chosen["median"] = extremes(between)["median"]
    return {"worst": chosen["worst"], "middle": chosen["median"], "best": chosen["best"]}


def samples_of(
    run: Run, predictor: ImagePredictor, name: str, stored: Mapping[str, Any], console: Console
) -> dict[str, Sample]:
    """The samples that an evaluation scored, by id; raises PerpixelError where they are out of reach."""
    protocol = stored["protocol"]
    own = protocol.get("recipe") is None and protocol.get("pairs") == name
    data = None if own else Path(protocol.get("recipe") or protocol["data"])
    pairs = open_pairs(run, predictor.task, subset=name if own else "test", data=data, console=console)
    return {sample.id: sample for sample in pairs.samples}


def panels(predictor: ImagePredictor, sample: Sample) -> dict[str, NDArray[np.uint8]]:
    """Input, truth, prediction and error of one sample."""
    task = predictor.task
    decoded = decode_samples([sample], task.decode_target, key=None, image_scale=task.image_scale)
    image_hwc, target_hw = decoded.image(0), decoded.target(0)
    found = task.panels(image_hwc, predictor.predict([image_hwc])[0], target_hw)
    return {column: found[column] for column in ("input", "truth", "prediction", "error")}
