"""Figures of segmentation, from class indices at the images' original sizes.

Rules for 0/0, the same for every figure:

- A class that neither truth nor prediction has is nan in its own figures, and left out of the means. A class
  that either of them has counts 0 where a figure of it divides 0 by 0.
- An image without a valid pixel counts nowhere; every figure of its row is nan.
- In the per-image figures of two classes, no foreground in truth and prediction alike scores 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.metrics.boundary import boundary_band
from perpixel.metrics.info import MetricInfo

__all__ = ["SegmentationMetrics"]

_PIXELS = "sum over all valid pixels of the subset"
_CLASSES = "mean over classes, each from the sum over all valid pixels of the subset"
_IMAGES = "mean over images"

_OVERALL = {
    "mean_iou": MetricInfo("mean IoU", "", "higher", _CLASSES, "IoU over the classes that truth or prediction has."),
    "mean_iou_all_classes": MetricInfo(
        "mean IoU, all classes", "", "higher", _CLASSES, "IoU over all classes; one that is nowhere counts 0."
    ),
    "frequency_weighted_iou": MetricInfo(
        "frequency-weighted IoU", "", "higher", _PIXELS, "IoU of each class, weighted by its share of the true pixels."
    ),
    "pixel_accuracy": MetricInfo("pixel accuracy", "", "higher", _PIXELS, "Share of the pixels that are right."),
}
_PER_CLASS = {
    "iou": "TP / (TP + FP + FN)",
    "dice": "2 TP / (2 TP + FP + FN)",
    "precision": "TP / (TP + FP)",
    "recall": "TP / (TP + FN)",
}
_MULTI = "Mean over the classes that the image's truth or prediction has."
_BOUNDARY = "IoU of the bands along the edges, 2 % of the image diagonal wide (Cheng et al. 2021). "
_COMPETITION = (
    "Share of the thresholds 0.50, 0.55, ..., 0.95 that the foreground's IoU exceeds; without true foreground "
    "1 if none is predicted, else 0 (TGS Salt Identification Challenge)."
)


class SegmentationMetrics:
    """Accumulates images; every figure comes from sums over the data set, or is a mean over its images.

    Args:
        class_names: names of classes 0..K-1; with two, class 1 is the foreground.
        boundary: score boundary IoU too, which takes most of the time.

    Raises:
        ValueError: fewer than 2 or more than 255 names, or a name twice.
    """

    def __init__(self, class_names: Sequence[str], *, boundary: bool = True) -> None:
        names = list(class_names)
        if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
            raise ValueError(f"segmentation needs 2 to 255 different class names; given: {names}")
        self.class_names = names
        self.boundary = boundary
        self._confusion_kk = np.zeros((len(names), len(names)), dtype=np.int64)
        # Every image's own value, not their sum: math.fsum then gives the same digits in any order.
        self._per_image: dict[str, list[float]] = {key: [] for key in self._image_infos()}
        self._class_keys = {figure: [f"{figure}/{name}" for name in names] for figure in _PER_CLASS}

    @property
    def confusion_kk(self) -> NDArray[np.int64]:
        """Counts of valid pixels: rows truth, columns prediction."""
        return self._confusion_kk.copy()

    def update(
        self, predicted_hw: NDArray[Any], target_hw: NDArray[Any], valid_hw: NDArray[np.bool_]
    ) -> dict[str, float]:
        """Add one image.

        Args:
            predicted_hw: class indices (any whole-number type); anything where ``valid_hw`` is False.
            target_hw: the same of the truth.
            valid_hw: where there is truth; other pixels count nowhere, not even in a union.

        Returns:
            This image's own figures: the keys of `compute`.

        Raises:
            ValueError: the shapes differ, or a valid pixel holds something that is no class index.
        """
        if not predicted_hw.shape == target_hw.shape == valid_hw.shape or predicted_hw.ndim != 2:
            shapes = f"{predicted_hw.shape}, {target_hw.shape} and {valid_hw.shape}"
            raise ValueError(f"prediction, target and valid must be (H, W) of one size; they are {shapes}")
        if valid_hw.dtype != np.bool_:
            raise ValueError(f"valid must be bool; it is {valid_hw.dtype}")
        void = None if valid_hw.all() else valid_hw
        predicted_n = self._indices("prediction", predicted_hw, void)
        target_n = self._indices("target", target_hw, void)
        confusion_kk = _confusion(target_n, predicted_n, len(self.class_names))
        row = self._pixel_figures(confusion_kk)
        if not target_n.size:
            return row | dict.fromkeys(self._per_image, math.nan)
        own = self._image_figures(confusion_kk)
        if self.boundary:
            own["boundary_iou"] = self._boundary_iou(predicted_hw, target_hw, void)
        self._confusion_kk += confusion_kk
        for key, values in self._per_image.items():
            values.append(own[key])
        return row | own

    def merge(self, other: SegmentationMetrics) -> None:
        """Add what another accumulator of the same classes has seen, as if its images had been added here.

        Raises:
            ValueError: the other one has other classes or other figures.
        """
        if (other.class_names, other.boundary) != (self.class_names, self.boundary):
            raise ValueError("only figures of the same classes can be merged")
        self._confusion_kk += other._confusion_kk
        for key, values in self._per_image.items():
            values.extend(other._per_image[key])

    def compute(self) -> dict[str, float]:
        """All figures so far, 0 to 1; the module says what 0/0 is. Before the first image all are nan."""
        per_image = {key: _mean(values) for key, values in self._per_image.items()}
        return self._pixel_figures(self._confusion_kk) | per_image

    def infos(self) -> dict[str, MetricInfo]:
        """What each figure of `compute` is, in the same order."""
        per_class = {
            f"{figure}/{name}": MetricInfo(
                f"{figure if figure != 'iou' else 'IoU'} of {name}",
                "",
                "higher",
                _PIXELS,
                f"{formula}; nan where neither truth nor prediction has the class.",
            )
            for figure, formula in _PER_CLASS.items()
            for name in self.class_names
        }
        return _OVERALL | per_class | self._image_infos()

    def _image_infos(self) -> dict[str, MetricInfo]:
        binary = len(self.class_names) == 2
        which = f"Of {self.class_names[1]}; none in truth and prediction alike scores 1." if binary else _MULTI
        infos = {"iou_per_image": MetricInfo("IoU an image", "", "higher", _IMAGES, which)}
        if binary:
            infos["competition_score"] = MetricInfo("competition score", "", "higher", _IMAGES, _COMPETITION)
        if self.boundary:
            infos["boundary_iou"] = MetricInfo("boundary IoU", "", "higher", _IMAGES, _BOUNDARY + which)
        return infos

    def _indices(self, what: str, labels_hw: NDArray[Any], valid_hw: NDArray[np.bool_] | None) -> NDArray[Any]:
        """The valid pixels, flat, after a check: an index out of range would land in another class's cell."""
        labels_n = labels_hw.reshape(-1) if valid_hw is None else labels_hw[valid_hw]
        count = len(self.class_names)
        if labels_n.dtype.kind not in "bui":
            raise ValueError(f"{what} must hold class indices; it is {labels_n.dtype}")
        if labels_n.size and (labels_n.max() >= count or labels_n.min() < 0):
            worst = labels_n.max() if labels_n.max() >= count else labels_n.min()
            raise ValueError(f"{what} holds {worst} at a valid pixel; classes are 0 to {count - 1}")
        return labels_n

    def _pixel_figures(self, confusion_kk: NDArray[np.int64]) -> dict[str, float]:
        correct_k = confusion_kk.diagonal()
        true_k, predicted_k = confusion_kk.sum(axis=1), confusion_kk.sum(axis=0)
        union_k = true_k + predicted_k - correct_k
        pixels, classes = int(true_k.sum()), int(np.count_nonzero(union_k))
        # A numerator is 0 wherever its denominator is, so any other divisor will do there.
        iou_k = correct_k / np.maximum(union_k, 1)
        figures = {
            "mean_iou": _ratio(iou_k.sum(), classes),
            "mean_iou_all_classes": _ratio(iou_k.sum(), len(iou_k) if pixels else 0),
            "frequency_weighted_iou": _ratio((true_k * iou_k).sum(), pixels),
            "pixel_accuracy": _ratio(correct_k.sum(), pixels),
        }
        values = {
            "iou": iou_k,
            "dice": 2 * correct_k / np.maximum(true_k + predicted_k, 1),
            "precision": correct_k / np.maximum(predicted_k, 1),
            "recall": correct_k / np.maximum(true_k, 1),
        }
        for figure, keys in self._class_keys.items():
            figures |= zip(keys, np.where(union_k > 0, values[figure], math.nan).tolist(), strict=True)
        return figures

    def _image_figures(self, confusion_kk: NDArray[np.int64]) -> dict[str, float]:
        if len(self.class_names) > 2:
            return {"iou_per_image": _mean_iou(confusion_kk)}
        (_, false_positive), (false_negative, correct) = confusion_kk.tolist()
        union = correct + false_positive + false_negative
        return {
            "iou_per_image": correct / union if union else 1.0,
            "competition_score": _competition_score(correct, union),
        }

    def _boundary_iou(
        self, predicted_hw: NDArray[Any], target_hw: NDArray[Any], valid_hw: NDArray[np.bool_] | None
    ) -> float:
        """IoU of the bands; 1 where neither has an edge."""
        outside = len(self.class_names)  # a class of its own for pixels in no band
        target_n, predicted_n = (
            np.where(boundary_band(labels_hw, valid_hw), labels_hw, outside).reshape(-1)
            for labels_hw in (target_hw, predicted_hw)
        )
        bands = _confusion(target_n, predicted_n, outside + 1)
        first = 1 if outside == 2 else 0  # with two classes, the foreground's band alone
        correct_k = bands.diagonal()[first:outside]
        union_k = (bands.sum(axis=0) + bands.sum(axis=1))[first:outside] - correct_k
        classes = np.count_nonzero(union_k)
        return float((correct_k / np.maximum(union_k, 1)).sum() / classes) if classes else 1.0


def _confusion(target_n: NDArray[Any], predicted_n: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Pixel counts, rows truth and columns prediction. 256 * 256 cells fit uint16, which is fast to make."""
    cells_n = target_n.astype(np.uint16)
    cells_n *= np.uint16(classes)
    cells_n += predicted_n.astype(np.uint16)
    return np.bincount(cells_n, minlength=classes * classes).reshape(classes, classes)


def _mean_iou(confusion_kk: NDArray[np.int64]) -> float:
    """Mean IoU over the classes that truth or prediction has, of an image with valid pixels."""
    correct_k = confusion_kk.diagonal()
    union_k = confusion_kk.sum(axis=0) + confusion_kk.sum(axis=1) - correct_k
    return float((correct_k / np.maximum(union_k, 1)).sum() / np.count_nonzero(union_k))


def _competition_score(correct: int, union: int) -> float:
    """Share of the thresholds (10 + k) / 20, k = 0..9, below correct / union; in whole numbers, so ties are exact."""
    if union == 0:
        return 1.0
    return min(10, max(0, -(-20 * correct // union) - 10)) / 10


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _ratio(numerator: float, denominator: int) -> float:
    return float(numerator) / denominator if denominator else math.nan
