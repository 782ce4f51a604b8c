"""Figures of segmentation, from class indices at the images' original sizes.

Rules for 0/0, the same for every figure:

- A class that neither truth nor prediction has is nan in its own figures, and left out of the means. A class
  that either of them has counts 0 where a figure of it divides 0 by 0. Two figures ask for less: confidence
  needs a prediction of the class, boundary F1 a contour of it, or they are nan.
- An image without a valid pixel counts nowhere; every figure of its row is nan.
- In the per-image figures of two classes, no foreground in truth and prediction alike scores 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perpixel.metrics.boundary import boundary_band, boundary_f1, contour_matches
from perpixel.metrics.components import MINIMUM_AREA, Components, find_components
from perpixel.metrics.info import Detail, Matrix, MetricInfo

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
_CONFIDENCE = (
    "Mean probability of the pixels that are predicted as the class, right or wrong; nan where none is. Beside the "
    "precision it shows whether the model believes too much of itself."
)
_CONTOUR = (
    "F1 of contour pixels that lie within 0.75 % of the image diagonal (at least 1 pixel) of a contour of the same "
    "class in the other map. Contours and tolerance after Csurka et al. 2013, but summed over the subset, not averaged "
    "over images. Neither the image border nor ignored pixels make a contour"
)
_SHARE = (
    "Share of the classes that truth or prediction has whose IoU is at least 0.5. It is called mAP50 in places; it is "
    "no average precision."
)
_COMPONENTS = (
    "Over connected components (8 neighbours) of a class, not over annotated objects: two touching ones are one. A "
    "component's score is the mean confidence of its pixels; it is right if its IoU with a true component is at least "
    "0.5, which no two can be of one truth. Area under the precision-recall curve, all points. Ignored pixels belong "
    f"to no component and cut what they cross; components below {MINIMUM_AREA} pixels count on neither side."
)
_MANY = {
    "boundary_f1": MetricInfo("boundary F1", "", "higher", _CLASSES, f"{_CONTOUR}."),
    "share_of_classes_iou_50": MetricInfo("share of classes with IoU >= 0.5", "", "higher", _PIXELS, _SHARE),
    "map_50_components": MetricInfo(
        "mean average precision at IoU 0.5 over connected components",
        "",
        "higher",
        "mean over classes that have true components, each over all components of the subset",
        _COMPONENTS,
    ),
}
_CONFIDENCE_STEPS = 2**20  # confidences are summed in whole numbers, so that no order of images changes a digit
_MULTI = "Mean over the classes that the image's truth or prediction has."
_BOUNDARY = "IoU of the bands along the edges, 2 % of the image diagonal wide (Cheng et al. 2021). "
_COMPETITION = (
    "Share of the thresholds 0.50, 0.55, ..., 0.95 that the foreground's IoU exceeds; without true foreground "
    "1 if none is predicted, else 0 (TGS Salt Identification Challenge)."
)


@dataclass
class _Sums:
    """What one image adds, or all so far.

    Attributes:
        confusion_kk: valid pixels, rows truth, columns prediction.
        confidence_k: confidence summed over the pixels predicted as each class, in `_CONFIDENCE_STEPS`.
        contours_4k: see `contour_matches`.
        components: true and predicted components.
    """

    confusion_kk: NDArray[np.int64]
    confidence_k: NDArray[np.int64]
    contours_4k: NDArray[np.int64]
    components: Components

    @classmethod
    def none(cls, classes: int) -> _Sums:
        square, line = np.zeros((classes, classes), dtype=np.int64), np.zeros(classes, dtype=np.int64)
        return cls(square, line, np.zeros((4, classes), dtype=np.int64), Components(line))

    def add(self, other: _Sums) -> None:
        self.confusion_kk = self.confusion_kk + other.confusion_kk
        self.confidence_k = self.confidence_k + other.confidence_k
        self.contours_4k = self.contours_4k + other.contours_4k
        self.components.add(other.components)


class SegmentationMetrics:
    """Accumulates images; every figure comes from sums over the data set, or is a mean over its images.

    Args:
        class_names: names of classes 0..K-1; with two, class 1 is the foreground. Boundary F1, average precision
            over components and the share of good classes are figures of three classes and more.
        boundary: score boundary IoU and boundary F1 too, which takes most of the time.

    Raises:
        ValueError: fewer than 2 or more than 255 names, or a name twice.
    """

    def __init__(self, class_names: Sequence[str], *, boundary: bool = True) -> None:
        names = list(class_names)
        if not 2 <= len(names) <= 255 or len(set(names)) < len(names):
            raise ValueError(f"segmentation needs 2 to 255 different class names; given: {names}")
        self.class_names = names
        self.boundary = boundary
        self._many = len(names) > 2
        self._sums = _Sums.none(len(names))
        # Every image's own value, not their sum: math.fsum then gives the same digits in any order.
        self._per_image: dict[str, list[float]] = {key: [] for key in self._image_infos()}
        self._class_keys = {figure: [f"{figure}/{name}" for name in names] for figure in self._class_figures()}

    @property
    def confusion_kk(self) -> NDArray[np.int64]:
        """Counts of valid pixels: rows truth, columns prediction."""
        return self._sums.confusion_kk.copy()

    def update(
        self,
        predicted_hw: NDArray[Any],
        target_hw: NDArray[Any],
        valid_hw: NDArray[np.bool_],
        confidence_hw: NDArray[np.float32],
    ) -> dict[str, float]:
        """Add one image.

        Args:
            predicted_hw: class indices (any whole-number type); anything where ``valid_hw`` is False.
            target_hw: the same of the truth.
            valid_hw: where there is truth; other pixels count nowhere, not even in a union.
            confidence_hw: confidence in the predicted class, 0..1.

        Returns:
            This image's own figures: the keys of `compute`.

        Raises:
            ValueError: the shapes differ, a valid pixel holds something that is no class index, or its confidence
                is not within 0..1.
        """
        if not predicted_hw.shape == target_hw.shape == valid_hw.shape == confidence_hw.shape or valid_hw.ndim != 2:
            shapes = f"{predicted_hw.shape}, {target_hw.shape}, {valid_hw.shape} and {confidence_hw.shape}"
            raise ValueError(f"prediction, target, valid and confidence must be (H, W) of one size; they are {shapes}")
        if valid_hw.dtype != np.bool_:
            raise ValueError(f"valid must be bool; it is {valid_hw.dtype}")
        void = None if valid_hw.all() else valid_hw
        predicted_n = self._indices("prediction", predicted_hw, void)
        target_n = self._indices("target", target_hw, void)
        sums = _Sums.none(len(self.class_names))
        if not target_n.size:
            return self._figures(sums) | dict.fromkeys(self._per_image, math.nan)
        sums.confusion_kk = _confusion(target_n, predicted_n, len(self.class_names))
        sums.confidence_k = self._confidence(predicted_n, confidence_hw, void)
        if self._many:
            size = len(self.class_names)
            sums.components = find_components(target_hw, predicted_hw, void, confidence_hw, size)
            if self.boundary:
                sums.contours_4k = contour_matches(target_hw, predicted_hw, void, size)
        own = self._image_figures(sums.confusion_kk)
        if self.boundary:
            own["boundary_iou"] = self._boundary_iou(predicted_hw, target_hw, void)
        row = self._figures(sums) | own
        self._sums.add(sums)
        for key, values in self._per_image.items():
            values.append(own[key])
        return row

    def merge(self, other: SegmentationMetrics) -> None:
        """Add what another accumulator of the same classes has seen, as if its images had been added here.

        Raises:
            ValueError: the other one has other classes or other figures.
        """
        if (other.class_names, other.boundary) != (self.class_names, self.boundary):
            raise ValueError("only figures of the same classes can be merged")
        self._sums.add(other._sums)
        for key, values in self._per_image.items():
            values.extend(other._per_image[key])

    def compute(self) -> dict[str, float]:
        """All figures so far, 0 to 1; the module says what 0/0 is. Before the first image all are nan."""
        return self._figures(self._sums) | {key: _mean(values) for key, values in self._per_image.items()}

    def infos(self) -> dict[str, MetricInfo]:
        """What each figure of `compute` is, in the same order."""
        infos = _OVERALL | {key: info for key, info in _MANY.items() if key in self._many_keys()}
        for figure, (title, direction, description) in self._class_figures().items():
            for name, key in zip(self.class_names, self._class_keys[figure], strict=True):
                infos[key] = MetricInfo(f"{title} of {name}", "", direction, _PIXELS, description)
        return infos | self._image_infos()

    def details(self) -> list[Detail]:
        """The confusion matrix."""
        return [Matrix("Confusion matrix", self.class_names, self._sums.confusion_kk.tolist())]

    def _class_figures(self) -> dict[str, tuple[str, Literal["higher", "neither"], str]]:
        """Title, direction and description of the figures that every class has."""
        figures: dict[str, tuple[str, Literal["higher", "neither"], str]] = {
            figure: (
                figure if figure != "iou" else "IoU",
                "higher",
                f"{formula}; nan where neither truth nor prediction has the class.",
            )
            for figure, formula in _PER_CLASS.items()
        }
        if self._many and self.boundary:
            figures["boundary_f1"] = ("boundary F1", "higher", f"{_CONTOUR}; nan where neither map has a contour.")
        return figures | {
            "mean_confidence": ("mean confidence", "neither", _CONFIDENCE),
            "true_share": ("share of the true pixels", "neither", "Share of the valid pixels that are of the class."),
        }

    def _many_keys(self) -> list[str]:
        return [key for key in _MANY if self._many and (self.boundary or key != "boundary_f1")]

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

    def _confidence(
        self, predicted_n: NDArray[Any], confidence_hw: NDArray[np.float32], valid_hw: NDArray[np.bool_] | None
    ) -> NDArray[np.int64]:
        """Confidence summed over the valid pixels of each predicted class, in `_CONFIDENCE_STEPS`."""
        confidence_n = confidence_hw.reshape(-1) if valid_hw is None else confidence_hw[valid_hw]
        if not (confidence_n.min() >= 0 and confidence_n.max() <= 1):
            raise ValueError(f"confidence must be 0 to 1; it is {confidence_n.min()} to {confidence_n.max()}")
        steps_n = np.rint(confidence_n * np.float64(_CONFIDENCE_STEPS))
        # Sums of whole numbers: float64 is exact up to 2^53, that is for 2^33 pixels.
        return np.bincount(predicted_n, weights=steps_n, minlength=len(self.class_names)).astype(np.int64)

    def _figures(self, sums: _Sums) -> dict[str, float]:
        """The figures that come from sums, in the order of `infos`."""
        correct_k = sums.confusion_kk.diagonal()
        true_k, predicted_k = sums.confusion_kk.sum(axis=1), sums.confusion_kk.sum(axis=0)
        union_k = true_k + predicted_k - correct_k
        pixels, classes = int(true_k.sum()), int(np.count_nonzero(union_k))
        # A numerator is 0 wherever its denominator is, so any other divisor will do there.
        iou_k = correct_k / np.maximum(union_k, 1)
        edges_k = boundary_f1(sums.contours_4k)
        figures = {
            "mean_iou": _ratio(iou_k.sum(), classes),
            "mean_iou_all_classes": _ratio(iou_k.sum(), len(iou_k) if pixels else 0),
            "frequency_weighted_iou": _ratio((true_k * iou_k).sum(), pixels),
            "pixel_accuracy": _ratio(correct_k.sum(), pixels),
        }
        many = {
            "boundary_f1": _ratio(np.nansum(edges_k), int(np.count_nonzero(~np.isnan(edges_k)))),
            "share_of_classes_iou_50": _ratio(int(((2 * correct_k >= union_k) & (union_k > 0)).sum()), classes),
            "map_50_components": sums.components.mean_average_precision() if self._many else math.nan,
        }
        figures |= {key: many[key] for key in self._many_keys()}
        there_k = union_k > 0
        values = {
            "iou": np.where(there_k, iou_k, np.nan),
            "dice": np.where(there_k, 2 * correct_k / np.maximum(true_k + predicted_k, 1), np.nan),
            "precision": np.where(there_k, correct_k / np.maximum(predicted_k, 1), np.nan),
            "recall": np.where(there_k, correct_k / np.maximum(true_k, 1), np.nan),
            "boundary_f1": edges_k,
            "mean_confidence": np.where(
                predicted_k > 0, sums.confidence_k / _CONFIDENCE_STEPS / np.maximum(predicted_k, 1), np.nan
            ),
            "true_share": true_k / pixels if pixels else np.full(len(true_k), np.nan),
        }
        for figure, keys in self._class_keys.items():
            figures |= zip(keys, values[figure].tolist(), strict=True)
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
