"""Average precision over connected components: each connected region of a class is taken for an object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MINIMUM_AREA", "Components", "find_components"]

MINIMUM_AREA = 50
"""Components of fewer pixels are specks: they count neither as truth nor as prediction."""


@dataclass
class Components:
    """True components, counted, and predicted ones with their scores; of one image or of many.

    Attributes:
        truths_k: true components of each class.
        found: a predicted component each: (class, score, whether it matches a true one).
    """

    truths_k: NDArray[np.int64]
    found: list[tuple[int, float, bool]] = field(default_factory=list)

    def add(self, other: Components) -> None:
        """Add those of other images."""
        self.truths_k = self.truths_k + other.truths_k
        self.found += other.found

    def mean_average_precision(self) -> float:
        """Mean of `average_precision` over the classes that have true components; nan where none has."""
        classes = np.flatnonzero(self.truths_k).tolist()
        if not classes:
            return float("nan")
        found = np.array(self.found, dtype=np.float64).reshape(-1, 3)
        of_class = [found[found[:, 0] == index] for index in classes]
        values = [
            average_precision(rows[:, 1], rows[:, 2] > 0, int(self.truths_k[index]))
            for index, rows in zip(classes, of_class, strict=True)
        ]
        return float(np.mean(values))


def average_precision(score_n: NDArray[np.float64], matched_n: NDArray[np.bool_], truths: int) -> float:
    """Area under the precision-recall curve, precision made non-increasing (all points, PASCAL VOC 2010 on).

    Predictions of equal score enter together, so that their order changes nothing.
    """
    if not len(score_n):
        return 0.0
    order = np.argsort(-score_n, kind="stable")
    score_n, matched_n = score_n[order], matched_n[order]
    last_of_score_n = np.append(score_n[1:] != score_n[:-1], True)
    correct_n = np.cumsum(matched_n)[last_of_score_n]
    precision_n = correct_n / (np.flatnonzero(last_of_score_n) + 1)
    precision_n = np.maximum.accumulate(precision_n[::-1])[::-1]
    gained_n = np.diff(correct_n, prepend=0)
    return float((gained_n * precision_n).sum() / truths)


def find_components(
    target_hw: NDArray[Any],
    predicted_hw: NDArray[Any],
    valid_hw: NDArray[np.bool_] | None,
    confidence_hw: NDArray[np.float32],
    classes: int,
) -> Components:
    """Components (8 neighbours) of one image, the predicted ones matched to the true ones of their class.

    Pixels without truth belong to no component; a region that they cut through is several. The score of a
    predicted component is the mean confidence of its pixels; it matches a true one when their IoU is at least 0.5.

    COCO lets the surest prediction choose first and each truth be chosen once. Here there is nothing to choose: two
    predictions with an IoU of 0.5 or more with one truth would be its two halves, and touching halves of one class
    are one component.

    Args:
        target_hw: class indices; anything where ``valid_hw`` is False.
        predicted_hw: the same of the prediction.
        valid_hw: where there is truth; None: everywhere.
        confidence_hw: confidence in the predicted class, 0..1.
        classes: how many there are.
    """
    true_hw, true_area_t, true_class_t = _label(target_hw, valid_hw, classes)
    own_hw, own_area_p, own_class_p = _label(predicted_hw, valid_hw, classes)
    weights = confidence_hw.reshape(-1).astype(np.float64)
    score_p = np.bincount(own_hw.reshape(-1), weights=weights, minlength=len(own_area_p)) / np.maximum(own_area_p, 1)
    matched = _match(true_hw, true_area_t, true_class_t, own_hw, own_area_p, own_class_p)
    counted_p = np.flatnonzero(own_area_p >= MINIMUM_AREA).tolist()
    truths_k = np.bincount(true_class_t[true_area_t >= MINIMUM_AREA], minlength=classes)
    found = [(int(own_class_p[index]), float(score_p[index]), index in matched) for index in counted_p]
    return Components(truths_k, found)


def _label(
    labels_hw: NDArray[Any], valid_hw: NDArray[np.bool_] | None, classes: int
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Component number of every pixel (0: none), and area and class of every number; number 0 has area 0."""
    number_hw = np.zeros(labels_hw.shape, dtype=np.int32)
    present = np.unique(labels_hw if valid_hw is None else labels_hw[valid_hw]).tolist()
    class_of = [0]
    for index in present:
        mask_hw = labels_hw == index
        if valid_hw is not None:
            mask_hw &= valid_hw
        count, own_hw = cv2.connectedComponents(mask_hw.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
        np.add(own_hw, len(class_of) - 1, out=number_hw, where=mask_hw)
        class_of += [index] * (count - 1)
    area = np.bincount(number_hw.reshape(-1), minlength=len(class_of))
    area[0] = 0
    return number_hw, area, np.array(class_of)


def _match(
    true_hw: NDArray[np.int32],
    true_area_t: NDArray[np.int64],
    true_class_t: NDArray[np.int64],
    own_hw: NDArray[np.int32],
    own_area_p: NDArray[np.int64],
    own_class_p: NDArray[np.int64],
) -> set[int]:
    """Numbers of the predicted components that are matched."""
    counted_t, counted_p = true_area_t >= MINIMUM_AREA, own_area_p >= MINIMUM_AREA
    together_hw = counted_t[true_hw] & counted_p[own_hw]
    own_n, true_n = own_hw[together_hw].astype(np.int64), true_hw[together_hw]
    pairs, shared_m = np.unique(own_n * len(true_area_t) + true_n, return_counts=True)
    own_m, true_m = np.divmod(pairs, len(true_area_t))
    union_m = own_area_p[own_m] + true_area_t[true_m] - shared_m
    good_m = (own_class_p[own_m] == true_class_t[true_m]) & (2 * shared_m >= union_m)
    return set(own_m[good_m].tolist())
