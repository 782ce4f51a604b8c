"""One predicted image: what the model says of it, and, beside a ground truth, how right that is."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.app.limits import RefusedError
from perpixel.errors import DataError
from perpixel.evaluation.evaluate import finite
from perpixel.evaluation.tables import by_class
from perpixel.inference.base import ImagePredictor
from perpixel.tasks import Task
from perpixel.tasks.view import ClassView, View

__all__ = ["Prediction", "predict_image"]


@dataclass(frozen=True)
class Prediction:
    """What came of one image.

    Attributes:
        image_hwc: the input, upright.
        prediction_hw: as `Task.finalize` gives it; an image where predictions are images.
        confidence_hw: 0 to 1.
        target_hw, valid_hw: the truth and where there is some, if a truth was given.
        figures: the task's figures of this image alone, if a truth was given; as `perpixel evaluate` has them.
        seconds: ``network`` (the model alone, all views), ``all`` (reading, fitting, network, decision, figures).
        notes: what had to be done to the files.
        focal_px: focal length in pixels of the image, where its EXIF data tell it.
    """

    run: str
    stem: str
    task: Task
    image_hwc: NDArray[Any]
    scores_khw: NDArray[np.float32]
    prediction_hw: NDArray[Any]
    confidence_hw: NDArray[np.float32]
    target_hw: NDArray[Any] | None
    valid_hw: NDArray[np.bool_] | None
    figures: dict[str, float]
    seconds: dict[str, float]
    device: str
    notes: list[str] = field(default_factory=list)
    focal_px: float | None = None

    @property
    def view(self) -> View:
        """How a person looks at it."""
        return self.task.view()

    @property
    def sure(self) -> bool:
        """Whether the confidence says something: some tasks have none, and it is 1 everywhere."""
        return bool((self.confidence_hw != 1).any())

    @property
    def mean_confidence(self) -> float | None:
        """Over all pixels; None where the model says nothing of it."""
        return float(self.confidence_hw.mean(dtype=np.float64)) if self.sure else None

    def shares(self) -> dict[str, float]:
        """Share of the area by class; empty where there are no classes."""
        if not isinstance(self.view, ClassView):
            return {}
        counts = np.bincount(self.prediction_hw.reshape(-1), minlength=len(self.view.names))
        return {name: float(counts[index] / self.prediction_hw.size) for index, name in enumerate(self.view.names)}

    def class_rows(self) -> list[dict[str, Any]]:
        """A row a class: share, mean confidence where it is predicted, and its figures beside a truth."""
        figures = by_class(self.figures)
        rows = []
        for index, (name, share) in enumerate(self.shares().items()):
            found_hw = self.prediction_hw == index
            sure = float(self.confidence_hw[found_hw].mean(dtype=np.float64)) if found_hw.any() else None
            rows.append({"class": name, "share": share, "mean_confidence": sure} | finite(figures.get(name, {})))
        return rows

    def ignored(self) -> float | None:
        """Share of the pixels without truth, which no figure counts; None without a truth."""
        return None if self.valid_hw is None else float(1 - self.valid_hw.mean())

    def as_dict(self) -> dict[str, Any]:
        """For JSON: all but the maps."""
        infos = self.task.metrics().infos()
        return {
            "run": self.run,
            "image": self.stem,
            "height": int(self.prediction_hw.shape[0]),
            "width": int(self.prediction_hw.shape[1]),
            "figures": finite(self.figures),
            "meaning": {key: vars(infos[key]) for key in self.figures if key in infos},
            "classes": self.class_rows(),
            "mean_confidence": self.mean_confidence,
            "ignored_share": self.ignored(),
            "seconds": self.seconds,
            "device": self.device,
            "notes": self.notes,
        }


def predict_image(
    predictor: ImagePredictor,
    image_hwc: NDArray[Any],
    *,
    run: str,
    stem: str,
    truth: Path | None = None,
    began: float | None = None,
    largest: int | None = None,
    notes: list[str] | None = None,
    focal_px: float | None = None,
) -> Prediction:
    """Predict an image and hold it against its truth.

    Args:
        truth: a target file of the run's data set's kind.
        began: `time.perf_counter` when the work on this image began; default: now.
        largest: how many numbers the scores may hold.
        focal_px: focal length in pixels of the image, where it is known.

    Raises:
        RefusedError: the scores would hold too many numbers.
        DataError: the truth cannot be read, or has another size than the prediction.
    """
    began = time.perf_counter() if began is None else began
    task = predictor.task
    count = image_hwc.shape[0] * image_hwc.shape[1] * task.out_channels * (task.image_scale or 1) ** 2
    if largest is not None and count > largest:
        raise RefusedError(
            f"the picture has {image_hwc.shape[0] * image_hwc.shape[1] / 1e6:.1f} million pixels, which is too much for"
            f" the {task.out_channels} channels of this model",
            cure="Make it smaller, or use `perpixel predict`.",
        )
    notes = list(notes or ())
    with predictor.clock() as clock:
        scores_khw = predictor.scores([image_hwc])[0]
    prediction_hw = predictor.finalize(scores_khw)
    scores_khw = predictor.calibrated(scores_khw)
    confidence_hw = task.confidence(scores_khw, prediction_hw)
    target_hw = valid_hw = None
    figures: dict[str, float] = {}
    if truth is not None:
        target_hw = task.decode_target(truth, notes)
        if target_hw.shape != prediction_hw.shape:
            raise _other_size(truth, target_hw, prediction_hw)
        valid_hw = task.valid(target_hw)
        figures = task.metrics().update(prediction_hw, target_hw, valid_hw, confidence_hw)
    return Prediction(
        run=run,
        stem=stem,
        task=task,
        image_hwc=image_hwc,
        scores_khw=scores_khw,
        prediction_hw=prediction_hw,
        confidence_hw=confidence_hw,
        target_hw=target_hw,
        valid_hw=valid_hw,
        figures=figures,
        seconds={"network": round(clock.seconds, 5), "all": round(time.perf_counter() - began, 5)},
        device=predictor.device_name,
        notes=notes,
        focal_px=focal_px,
    )


def _other_size(truth: Path, target_hw: NDArray[Any], prediction_hw: NDArray[Any]) -> DataError:
    (height, width), (own_height, own_width) = target_hw.shape[:2], prediction_hw.shape[:2]
    return DataError(
        f"the ground truth is {width} x {height} pixels, the prediction {own_width} x {own_height}",
        where=truth.name,
        rule="a truth has a value for each pixel of the prediction.",
        cure="Give the truth that belongs to this image, at its original size.",
    )
