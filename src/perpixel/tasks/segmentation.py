"""Segmentation: each pixel is one of K classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.errors import RecipeError, RequestError
from perpixel.images import write_image, write_label_map
from perpixel.metrics import SMALLEST_PROBABILITY, SegmentationMetrics, TemperatureFit, tempered
from perpixel.recipe import InferenceSection, LossSection, SegmentationTarget, parse_loss
from perpixel.tasks.base import Decision, Scored, Task, TaskLoss
from perpixel.tasks.classmap import IGNORED, ClassMap
from perpixel.tasks.view import ClassView

if TYPE_CHECKING:
    import torch

_THRESHOLDS = tuple(round(0.2 + 0.05 * step, 2) for step in range(13))
_AREAS = (0, 20, 50, 100, 200)
_FOREGROUND_ALONE = {"dice", "jaccard", "lovasz", "tversky"}  # set losses, when there are two classes


class SegmentationTask(Task):
    """With two classes the network puts out one logit, that of the second class (the foreground)."""

    fill = IGNORED
    right_or_wrong = True
    error_legend = "wrong pixels white"
    prediction_files = (".png", "_color.png", "_overlay.png", "_confidence.png")

    def __init__(self, target: SegmentationTarget, loss: LossSection, inference: InferenceSection) -> None:
        """Raises RecipeError when ``loss`` weighs classes and no term of it would see that."""
        self.target, self.loss_section, self.inference = target, loss, inference
        self.class_map = ClassMap(target)
        self.class_names = [spec.name for spec in target.classes]
        self.binary = len(self.class_names) == 2
        self.out_channels = 1 if self.binary else len(self.class_names)
        self._check_weights_change_something()

    @property
    def meaning(self) -> str:
        return self.target.model_dump_json(exclude={"classes": {"__all__": {"color"}}})

    def decode_target(self, path: Path, notes: list[str] | None = None) -> NDArray[np.uint8]:
        return self.class_map.read(path, notes)

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
        total = 0
        for target_hw in targets:
            total += 1
            counts = np.bincount(target_hw.reshape(-1), minlength=256)
            pixels += counts
            images += counts > 0
        names = self.class_names
        return {
            "images": total,
            "class_pixels": {name: int(pixels[index]) for index, name in enumerate(names)},
            "images_with_class": {name: int(images[index]) for index, name in enumerate(names)},
            "ignored_pixels": int(pixels[IGNORED]),
        }

    def class_weights(self, facts: Mapping[str, Any]) -> torch.Tensor | None:
        """A weight a class, float32; None when all weigh alike.

        From the share p of the class among the pixels with truth: ``balanced`` is 1 / (K p) over the K classes
        present, 1 for the others; ``log_balanced`` is 1 / ln(1.02 + p) (ENet, Paszke et al. 2016), between 1.4
        and 50.5. A tuple is taken as it stands.
        """
        import torch

        chosen = self.loss_section.class_weights
        if chosen == "none":
            return None
        if isinstance(chosen, tuple):
            return torch.tensor(chosen, dtype=torch.float32)
        counts = np.array(list(facts["class_pixels"].values()), dtype=float)
        if chosen == "log_balanced":
            return torch.tensor(1 / np.log(1.02 + counts / max(1.0, counts.sum())), dtype=torch.float32)
        present = counts > 0
        weights = np.ones(len(counts))
        weights[present] = counts.sum() / (present.sum() * counts[present])
        return torch.tensor(weights, dtype=torch.float32)

    def facts_table(self, facts: Mapping[str, Any]) -> str:
        pixels, images = facts["class_pixels"], facts["images_with_class"]
        known = sum(pixels.values())
        weights = self.class_weights(facts)
        weight_k = [1.0] * len(pixels) if weights is None else weights.tolist()
        width = max(len("class"), *map(len, pixels))
        lines = [f"training targets: {facts['images']} images", f"  {'class':{width}}  pixels     images  loss weight"]
        for name, weight in zip(pixels, weight_k, strict=True):
            share = pixels[name] / known if known else 0.0
            absent = "" if pixels[name] else "  WARNING: no training image has it, so it cannot be learned"
            lines.append(f"  {name:{width}}  {share:8.4%}  {images[name]:7}  {weight:11.3f}{absent}")
        ignored = facts["ignored_pixels"]
        return "\n".join([*lines, f"  ignored: {ignored / max(1, ignored + known):.4%} of all pixels"])

    def _check_weights_change_something(self) -> None:
        section = self.loss_section
        names = {name for loss in (section.name, section.warm_start or section.name) for _, name in parse_loss(loss)}
        if self.binary and section.class_weights != "none" and names <= _FOREGROUND_ALONE:
            raise RecipeError(
                "class weights would change nothing",
                where="loss.class_weights",
                rule=f"with two classes, {', '.join(sorted(_FOREGROUND_ALONE))} know the foreground alone.",
                cure="set loss.class_weights=none, or add bce, cross_entropy or focal to loss.name.",
            )

    def loss(self, facts: Mapping[str, Any]) -> TaskLoss:
        from perpixel.losses import LossOptions, WarmStartLoss, WeightedLoss

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

    def graph_prediction(self, scores_bkhw: torch.Tensor, decision: Decision) -> torch.Tensor:
        """Indices of classes, uint8."""
        if not self.binary:
            return scores_bkhw.argmax(dim=1).byte()
        return (scores_bkhw[:, 0] > decision["threshold"]).byte()

    def graph_confidence(
        self, scores_bkhw: torch.Tensor, prediction_bhw: torch.Tensor, decision: Decision
    ) -> torch.Tensor:
        import torch

        probability_bkhw = torch.cat([1 - scores_bkhw, scores_bkhw], dim=1) if self.binary else scores_bkhw
        temperature = decision.get("temperature", 1.0)
        if temperature != 1:  # as `tempered`; the smallest probability is that of its logits
            power_bkhw = probability_bkhw.clamp(min=SMALLEST_PROBABILITY) ** (1 / temperature)
            probability_bkhw = power_bkhw / power_bkhw.sum(dim=1, keepdim=True)
        confidence_bhw = probability_bkhw.gather(1, prediction_bhw.long()[:, None])[:, 0]
        return confidence_bhw.masked_fill(confidence_bhw.isnan(), 0).clamp(0, 1)

    def graph_output(self, size: str) -> dict[str, str]:
        return {"type": "uint8", "shape": size, "meaning": "index of the class, from 0"}

    def left_out_of_graph(self, decision: Decision) -> list[str]:
        area = int(decision["minimum_area"])
        return [f"connected parts below {area} pixels are dropped (minimum_area)"] if self.binary and area > 1 else []

    def confidence(self, scores_khw: NDArray[np.float32], prediction_hw: NDArray[Any]) -> NDArray[np.float32]:
        """Probability of the predicted class; below 0.5 where the decision overrules it, 0 where there is no number."""
        if self.binary:
            sure_hw = np.where(prediction_hw == 1, scores_khw[0], 1 - scores_khw[0])
        else:
            sure_hw = np.take_along_axis(scores_khw, prediction_hw[None].astype(np.int64), axis=0)[0]
        confidence_hw: NDArray[np.float32] = np.clip(np.nan_to_num(sure_hw, nan=0.0), 0, 1).astype(np.float32)
        return confidence_hw

    def calibrated(self, scores_khw: NDArray[np.float32], decision: Decision) -> NDArray[np.float32]:
        """Probabilities after the temperature. The threshold is one of the network's own probabilities, so that no
        temperature changes a class, whichever of the two was chosen first."""
        return tempered(scores_khw, decision.get("temperature", 1.0))

    def properties(self, target_hw: NDArray[Any]) -> dict[str, float]:
        """The share of each class among the pixels with truth; of two classes, the foreground's."""
        known_n = target_hw[self.valid(target_hw)]
        counts = np.bincount(known_n, minlength=len(self.class_names)) / max(1, known_n.size)
        first = 1 if self.binary else 0
        return {f"share of {name}": float(counts[first + k]) for k, name in enumerate(self.class_names[first:])}

    def first_decision(self) -> Decision:
        threshold, area = self.inference.threshold, self.inference.minimum_area
        return {
            "threshold": 0.5 if isinstance(threshold, str) else threshold,
            "minimum_area": 0 if isinstance(area, str) else area,
        }

    @property
    def chosen_on_validation(self) -> tuple[str, ...]:
        section = self.inference
        asked = {"threshold": section.threshold, "minimum_area": section.minimum_area}
        return (*(key for key, value in asked.items() if value == "validation" and self.binary), "temperature")

    def choose(self, scored: Iterable[Scored], monitor: str) -> Decision:
        first = self.first_decision()
        asked = self.chosen_on_validation
        thresholds: tuple[float, ...] = _THRESHOLDS if "threshold" in asked else (first["threshold"],)
        areas: tuple[float, ...] = _AREAS if "minimum_area" in asked else (first["minimum_area"],)
        # Of equal figures the first wins: the plainest decision leads.
        thresholds = tuple(sorted(thresholds, key=lambda threshold: abs(threshold - 0.5)))
        candidates = [{"threshold": t, "minimum_area": a} for a in areas for t in thresholds]
        fit = TemperatureFit()
        totals = [SegmentationMetrics(self.class_names, boundary=monitor == "boundary_iou") for _ in candidates]
        for scores_khw, target_hw in scored:
            valid_hw = self.valid(target_hw)
            fit.update(scores_khw, target_hw, valid_hw)
            if len(candidates) == 1:
                continue
            for candidate, total in zip(candidates, totals, strict=True):
                predicted_hw = self.finalize(scores_khw, candidate)
                total.update(predicted_hw, target_hw, valid_hw, self.confidence(scores_khw, predicted_hw))
        sign = 1 if totals[0].infos()[monitor].direction == "higher" else -1
        figures = [sign * total.compute()[monitor] for total in totals]
        # nan: the class is nowhere, and not predicted either; no other decision is better than that.
        return candidates[int(np.argmax(np.nan_to_num(figures, nan=np.inf)))] | {"temperature": fit.compute()}

    def metrics(self) -> SegmentationMetrics:
        return SegmentationMetrics(self.class_names)

    def baselines(self, facts: Mapping[str, Any]) -> dict[str, Callable[[NDArray[Any]], NDArray[Any]]]:
        """The commonest class of the training data everywhere; with two classes, each of them everywhere."""
        pixels = list(facts["class_pixels"].values())
        shown = range(2) if self.binary else [int(np.argmax(pixels))]
        return {f"all {self.class_names[index]}": _constant(index) for index in shown}

    def paint(self, prediction_hw: NDArray[Any]) -> NDArray[np.uint8]:
        color_hwc: NDArray[np.uint8] = self.class_map.palette_k3[prediction_hw]
        return color_hwc

    def panels(
        self, image_hwc: NDArray[np.uint8], prediction_hw: NDArray[Any], target_hw: NDArray[Any] | None = None
    ) -> dict[str, NDArray[np.uint8]]:
        """Classes lie over the picture; in the error, wrong pixels are white."""
        prediction_hwc = self.overlay(image_hwc, prediction_hw)
        if target_hw is None:
            return {"input": image_hwc, "prediction": prediction_hwc}
        wrong_hw = (prediction_hw != target_hw) & self.valid(target_hw)
        return {
            "input": image_hwc,
            "truth": self.overlay(image_hwc, target_hw),
            "prediction": prediction_hwc,
            "error": np.where(wrong_hw[..., None], np.uint8(255), (image_hwc * 0.35).astype(np.uint8)),
        }

    def guards(self, figures: Mapping[str, float]) -> list[str]:
        """None of its own: a map of one class is what the baselines are compared with."""
        return []

    def overlay(self, image_hwc: NDArray[np.uint8], prediction_hw: NDArray[Any]) -> NDArray[np.uint8]:
        """Every class over the picture; with two classes, the foreground alone."""
        mixed = np.rint(0.55 * image_hwc + 0.45 * self.paint(prediction_hw)).astype(np.uint8)
        covered = prediction_hw == 1 if self.binary else prediction_hw != IGNORED
        return np.where(covered[..., None], mixed, image_hwc)

    def write_prediction(
        self,
        stem: Path,
        image_hwc: NDArray[np.uint8],
        scores_khw: NDArray[np.float32],
        prediction_hw: NDArray[Any],
        source: Path | None = None,
    ) -> list[Path]:
        """Raw values, the classes' colours, these over the picture, and the confidence: 8 bits, 255 for 1."""
        raw, color, overlay, confidence = files = [stem.with_name(stem.name + end) for end in self.prediction_files]
        self.class_map.write(raw, prediction_hw)
        write_image(color, self.paint(prediction_hw))
        write_image(overlay, self.overlay(image_hwc, prediction_hw))
        write_label_map(confidence, np.rint(255 * self.confidence(scores_khw, prediction_hw)).astype(np.uint8))
        return files

    def require_same_maps(self, other: Task, where: Path) -> None:
        """Classes are told by their names, in their order; the raw values that stand for them may be others."""
        names = other.class_names if isinstance(other, SegmentationTask) else []
        if names == self.class_names:
            return
        lacking = [name for name in self.class_names if name not in names]
        foreign = [name for name in names if name not in self.class_names]
        raise RequestError(
            "the classes of this recipe are not those of the run",
            where=where,
            details=[
                f"the run's: {', '.join(self.class_names)}",
                f"this recipe's: {', '.join(names) or 'it is no segmentation'}",
                *([f"not in this recipe: {', '.join(lacking)}"] if lacking else []),
                *([f"not in the run: {', '.join(foreign)}"] if foreign else []),
            ],
            rule="figures compare class with class, so names and order agree; raw values and colours may differ.",
            cure="write the run's classes into target.classes in the run's order, each with the raw values that it has"
            " in these files (a class that they lack: a value that they do not hold); all other values belong in"
            " target.ignore.",
        )

    def submission_map(self, prediction_hw: NDArray[Any]) -> NDArray[Any]:
        """The foreground's mask; of more classes the raw values that the data set's own targets have."""
        return prediction_hw == 1 if self.binary else self.class_map.raw_values(prediction_hw)

    def view(self) -> ClassView:
        return ClassView(
            names=tuple(self.class_names),
            colors=tuple(spec.color for spec in self.target.classes),
            background=0 if self.binary else None,
        )


def check_monitor(task: Task, monitor: str) -> None:
    """Raise RecipeError when the monitored figure is not one of the task's."""
    figures = [key for key, info in task.metrics().infos().items() if info.direction != "neither"]
    if monitor not in figures:
        raise RecipeError(
            f"no figure to monitor is named {monitor!r}",
            where="training.monitor",
            rule=f"figures: {', '.join(sorted(figures))}.",
        )


def _constant(index: int) -> Callable[[NDArray[Any]], NDArray[Any]]:
    return lambda image_hwc: np.full(image_hwc.shape[:2], index, dtype=np.uint8)


def _drop_small(mask_hw: NDArray[np.uint8], minimum_area: int) -> NDArray[np.uint8]:
    """Remove the connected parts (8 neighbours) of fewer pixels than ``minimum_area``."""
    if minimum_area <= 0 or not mask_hw.any():
        return mask_hw
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask_hw, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= minimum_area
    keep[0] = False
    return keep[labels].astype(np.uint8) if count > 1 else mask_hw
