"""Segmentation: each pixel is one of K classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from perpixel.errors import RecipeError, RequestError
from perpixel.losses import LossOptions, WarmStartLoss, WeightedLoss
from perpixel.metrics import SegmentationMetrics
from perpixel.recipe import InferenceSection, LossSection, SegmentationTarget, parse_loss
from perpixel.tasks.base import Decision, Scored, Task, TaskLoss
from perpixel.tasks.classmap import IGNORED, ClassMap

_THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(13))
_AREAS = (0, 20, 50, 100, 200)


class SegmentationTask(Task):
    """With two classes the network puts out one logit, that of the second class (the foreground)."""

    fill = IGNORED

    def __init__(self, target: SegmentationTarget, loss: LossSection, inference: InferenceSection) -> None:
        self.target, self.loss_section, self.inference = target, loss, inference
        self.class_map = ClassMap(target)
        self.class_names = [spec.name for spec in target.classes]
        self.binary = len(self.class_names) == 2
        self.out_channels = 1 if self.binary else len(self.class_names)

    @property
    def meaning(self) -> str:
        return self.target.model_dump_json(exclude={"classes": {"__all__": {"color"}}})

    def decode_target(self, path: Path) -> NDArray[np.uint8]:
        return self.class_map.read(path)

    def valid(self, target_hw: NDArray[Any]) -> NDArray[np.bool_]:
        valid_hw: NDArray[np.bool_] = target_hw != IGNORED
        return valid_hw

    def stratum_value(self, target_hw: NDArray[Any]) -> float:
        """Share of the pixels that are not of the first class."""
        valid = self.valid(target_hw)
        return float(np.count_nonzero(target_hw[valid])) / max(1, int(valid.sum()))

    def describe(self, targets: Iterable[NDArray[Any]]) -> dict[str, Any]:
        pixels = np.zeros(256, dtype=np.int64)
        images = np.zeros(256, dtype=np.int64)
        for target_hw in targets:
            counts = np.bincount(target_hw.reshape(-1), minlength=256)
            pixels += counts
            images += counts > 0
        names = self.class_names
        return {
            "class_pixels": {name: int(pixels[index]) for index, name in enumerate(names)},
            "images_with_class": {name: int(images[index]) for index, name in enumerate(names)},
            "ignored_pixels": int(pixels[IGNORED]),
        }

    def class_weights(self, facts: Mapping[str, Any]) -> torch.Tensor | None:
        """``balanced``: total / (K * pixels of the class), over the classes present; a tuple: as it stands."""
        chosen = self.loss_section.class_weights
        if chosen == "none":
            return None
        if isinstance(chosen, tuple):
            return torch.tensor(chosen, dtype=torch.float32)
        counts = np.array(list(facts["class_pixels"].values()), dtype=float)
        present = counts > 0
        weights = np.ones(len(counts))
        weights[present] = counts.sum() / (present.sum() * counts[present])
        return torch.tensor(weights, dtype=torch.float32)

    def loss(self, facts: Mapping[str, Any]) -> TaskLoss:
        section = self.loss_section
        options = LossOptions(
            per_image=section.per_image,
            class_weights=self.class_weights(facts),
            focal_gamma=section.focal_gamma,
            tversky_alpha=section.tversky_alpha,
            tversky_beta=section.tversky_beta,
        )
        main = WeightedLoss(parse_loss(section.name), options)
        warm = WeightedLoss(parse_loss(section.warm_start or section.name), options)
        schedule = WarmStartLoss(warm, main, section.warm_start_epochs)

        def compute(epoch: int, output_bkhw: torch.Tensor, target_bhw: torch.Tensor) -> torch.Tensor:
            return schedule(epoch, output_bkhw, target_bhw.long(), target_bhw != IGNORED)

        return compute

    def scores(self, output_bkhw: torch.Tensor) -> torch.Tensor:
        """Probabilities."""
        output_bkhw = output_bkhw.float()
        return output_bkhw.sigmoid() if self.binary else output_bkhw.softmax(dim=1)

    def finalize(self, scores_khw: NDArray[np.float32], decision: Decision) -> NDArray[np.uint8]:
        if not self.binary:
            index_hw: NDArray[np.uint8] = np.argmax(scores_khw, axis=0).astype(np.uint8)
            return index_hw
        mask_hw = (scores_khw[0] > decision["threshold"]).astype(np.uint8)
        return _drop_small(mask_hw, int(decision["minimum_area"]))

    def first_decision(self) -> Decision:
        threshold, area = self.inference.threshold, self.inference.minimum_area
        return {
            "threshold": 0.5 if isinstance(threshold, str) else threshold,
            "minimum_area": 0 if isinstance(area, str) else area,
        }

    @property
    def decides_on_validation(self) -> bool:
        return "validation" in (self.inference.threshold, self.inference.minimum_area)

    def choose(self, scored: Iterable[Scored], monitor: str) -> Decision:
        first = self.first_decision()
        thresholds: tuple[float, ...] = (
            _THRESHOLDS if self.inference.threshold == "validation" else (first["threshold"],)
        )
        areas: tuple[float, ...] = _AREAS if self.inference.minimum_area == "validation" else (first["minimum_area"],)
        # Of equal figures the first wins: the plainest decision leads.
        thresholds = tuple(sorted(thresholds, key=lambda threshold: abs(threshold - 0.5)))
        candidates = [{"threshold": t, "minimum_area": a} for a in areas for t in thresholds]
        totals = [SegmentationMetrics(self.class_names, boundary=monitor == "boundary_iou") for _ in candidates]
        for scores_khw, target_hw in scored:
            valid_hw = self.valid(target_hw)
            for candidate, total in zip(candidates, totals, strict=True):
                total.update(self.finalize(scores_khw, candidate), target_hw, valid_hw)
        sign = 1 if totals[0].infos()[monitor].direction == "higher" else -1
        figures = [sign * total.compute()[monitor] for total in totals]
        # nan: the class is nowhere, and not predicted either; no other decision is better than that.
        return candidates[int(np.argmax(np.nan_to_num(figures, nan=np.inf)))]

    def metrics(self) -> SegmentationMetrics:
        return SegmentationMetrics(self.class_names)

    def baselines(self, facts: Mapping[str, Any]) -> dict[str, Callable[[tuple[int, int]], NDArray[Any]]]:
        """The commonest class of the training data everywhere; with two classes, each of them everywhere."""
        pixels = list(facts["class_pixels"].values())
        shown = range(2) if self.binary else [int(np.argmax(pixels))]
        return {f"all {self.class_names[index]}": _constant(index) for index in shown}

    def paint(self, prediction_hw: NDArray[Any]) -> NDArray[np.uint8]:
        color_hwc: NDArray[np.uint8] = self.class_map.palette_k3[prediction_hw]
        return color_hwc

    def overlay(self, image_hwc: NDArray[np.uint8], prediction_hw: NDArray[Any]) -> NDArray[np.uint8]:
        """Every class over the picture; with two classes, the foreground alone."""
        mixed = np.rint(0.55 * image_hwc + 0.45 * self.paint(prediction_hw)).astype(np.uint8)
        covered = prediction_hw == 1 if self.binary else prediction_hw != IGNORED
        return np.where(covered[..., None], mixed, image_hwc)

    def write_prediction(self, path: Path, prediction_hw: NDArray[Any]) -> None:
        self.class_map.write(path, prediction_hw)

    def submission_mask(self, prediction_hw: NDArray[Any]) -> NDArray[np.bool_]:
        if not self.binary:
            raise RequestError(
                f"a run-length submission holds one mask an image, and this run has {len(self.class_names)} classes"
            )
        mask_hw: NDArray[np.bool_] = prediction_hw == 1
        return mask_hw


def check_monitor(task: Task, monitor: str) -> None:
    """Raise RecipeError when the monitored figure is not one of the task's."""
    infos = task.metrics().infos()
    if monitor not in infos or infos[monitor].direction not in ("higher", "lower"):
        raise RecipeError(
            f"no figure to monitor is named {monitor!r}",
            where="training.monitor",
            rule=f"figures: {', '.join(sorted(infos))}.",
        )


def _constant(index: int) -> Callable[[tuple[int, int]], NDArray[Any]]:
    return lambda size_hw: np.full(size_hw, index, dtype=np.uint8)


def _drop_small(mask_hw: NDArray[np.uint8], minimum_area: int) -> NDArray[np.uint8]:
    """Remove the connected parts (8 neighbours) of fewer pixels than ``minimum_area``."""
    if minimum_area <= 0 or not mask_hw.any():
        return mask_hw
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask_hw, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= minimum_area
    keep[0] = False
    return keep[labels].astype(np.uint8) if count > 1 else mask_hw
