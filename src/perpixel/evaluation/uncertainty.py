"""Whether the pixels at which a model's answers to views of one image differ are those that are wrong."""

from __future__ import annotations

from pathlib import Path

from perpixel.console import Console
from perpixel.data.cache import decode_samples
from perpixel.errors import RequestError
from perpixel.evaluation.pairs import Pairs
from perpixel.inference.base import ImagePredictor
from perpixel.inference.spread import view_spread
from perpixel.metrics.uncertainty import Uncertainty
from perpixel.reporting.plots import sparsification_png
from perpixel.run import write_atomic, write_json


def score_uncertainty(predictor: ImagePredictor, pairs: Pairs, folder: Path, console: Console) -> list[str]:
    """Write uncertainty.json and sparsification.png into ``folder``; returns lines for a person.

    Raises:
        RequestError: the task's predictions have no error that is a number.
    """
    task = predictor.task
    decoded = decode_samples(pairs.samples, pairs.task.decode_target, key=None, image_scale=pairs.task.image_scale)
    found = Uncertainty()
    for position in range(len(pairs.samples)):
        image_hwc, target_hw = decoded.image(position), decoded.target(position)
        error_hw = task.pixel_error(predictor.predict([image_hwc])[0], target_hw)
        if error_hw is None:
            raise RequestError(
                "the predictions of this run have no error in numbers",
                rule="--uncertainty asks how far numbers are off; of classes, the calibration says how sure to be.",
                cure="leave out --uncertainty.",
            )
        found.update(view_spread(predictor, image_hwc), error_hw, task.valid(target_hw))
        console.progress("uncertainty", position + 1, len(pairs.samples))
    figures = found.compute()
    write_json(folder / "uncertainty.json", figures)
    if not figures["images"]:
        return ["uncertainty: views never differ, or nothing is wrong"]
    picture = sparsification_png(figures["removed"], figures["remaining_error"], figures["least_possible"])
    write_atomic(folder / "sparsification.png", picture)
    half = figures["removed"].index(0.5)
    return [
        f"uncertainty by spread over views: rank correlation with the error {figures['rank_correlation']:.3f}; without"
        f" the half of the pixels that is least sure, the error is {figures['remaining_error'][half]:.2f} of all"
        f" ({figures['least_possible'][half]:.2f} at best, 1 by chance; {figures['images']} images)"
    ]
