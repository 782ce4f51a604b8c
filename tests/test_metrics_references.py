"""Segmentation figures against torchmetrics, scikit-learn, scipy and definitions written out as loops."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import sklearn.metrics
import torch
from numpy.typing import NDArray
from scipy import ndimage

from perpixel._torchvision import ensure_torchvision
from perpixel.metrics import SegmentationMetrics
from perpixel.metrics.boundary import band_width, boundary_band

ensure_torchvision()
from torchmetrics.functional import classification  # noqa: E402

Image = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32]]


def subset(seed: int, classes: int, present: int) -> list[Image]:
    """Images of unequal sizes with classes below ``present``, 255 where there is no truth."""
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(4):
        height, width = rng.integers(6, 30, size=2)
        target = rng.integers(0, present, (height, width), dtype=np.uint8)
        noise = rng.integers(0, present, (height, width), dtype=np.uint8)
        predicted = np.where(rng.random((height, width)) < 0.6, target, noise)
        valid = rng.random((height, width)) < 0.8
        sure = rng.random((height, width), dtype=np.float32)
        cases.append((predicted, np.where(valid, target, np.uint8(255)), valid, sure))
    return cases


def score(cases: list[Image], classes: int) -> tuple[SegmentationMetrics, list[dict[str, float]]]:
    metrics = SegmentationMetrics([str(index) for index in range(classes)])
    return metrics, [metrics.update(*case) for case in cases]


def per_class(figures: dict[str, float], figure: str, classes: int) -> list[float]:
    return [figures[f"{figure}/{index}"] for index in range(classes)]


every_case = pytest.mark.parametrize(
    ("seed", "classes", "present"), [(0, 2, 2), (1, 2, 1), (2, 4, 4), (3, 4, 3), (4, 7, 2)]
)


@every_case
def test_sums_agree_with_torchmetrics(seed: int, classes: int, present: int) -> None:
    cases = subset(seed, classes, present)
    figures = score(cases, classes)[0].compute()
    predicted = torch.from_numpy(np.concatenate([case[0].ravel() for case in cases])).long()
    target = torch.from_numpy(np.concatenate([case[1].ravel() for case in cases])).long()
    given = {"num_classes": classes, "ignore_index": 255}
    functions = {
        "iou": classification.multiclass_jaccard_index,
        "dice": classification.multiclass_f1_score,
        "precision": classification.multiclass_precision,
        "recall": classification.multiclass_recall,
    }
    for figure, function in functions.items():
        expected = function(predicted, target, average="none", **given).tolist()
        expected[present:] = [math.nan] * (classes - present)  # torchmetrics has 0 for a class that is nowhere
        np.testing.assert_allclose(per_class(figures, figure, classes), expected, rtol=1e-6)
    iou = classification.multiclass_jaccard_index(predicted, target, average="none", **given)
    assert figures["mean_iou"] == pytest.approx(float(iou[:present].mean()), rel=1e-6)
    assert figures["mean_iou_all_classes"] == pytest.approx(float(iou.sum()) / classes, rel=1e-6)
    weighted = classification.multiclass_jaccard_index(predicted, target, average="weighted", **given)
    assert figures["frequency_weighted_iou"] == pytest.approx(float(weighted), rel=1e-6)
    accuracy = classification.multiclass_accuracy(predicted, target, average="micro", **given)
    assert figures["pixel_accuracy"] == pytest.approx(float(accuracy), rel=1e-6)


@every_case
def test_sums_and_images_agree_with_scikit_learn(seed: int, classes: int, present: int) -> None:
    cases = subset(seed, classes, present)
    metrics, rows = score(cases, classes)
    expected = np.zeros((classes, classes), dtype=int)
    for (predicted, target, valid, _), row in zip(cases, rows, strict=True):
        flat = target[valid], predicted[valid]
        expected += sklearn.metrics.confusion_matrix(*flat, labels=range(classes))
        if classes == 2 and present == 2:
            assert row["iou_per_image"] == pytest.approx(sklearn.metrics.jaccard_score(*flat))
        elif classes > 2:
            labels = np.union1d(*flat)
            assert row["iou_per_image"] == pytest.approx(
                sklearn.metrics.jaccard_score(*flat, labels=labels, average="macro")
            )
        else:
            assert row["iou_per_image"] == 1
    np.testing.assert_array_equal(metrics.confusion_kk, expected)
    assert metrics.confusion_kk.dtype == np.int64
    assert metrics.compute()["iou_per_image"] == pytest.approx(np.mean([row["iou_per_image"] for row in rows]))


SURE = np.ones((1, 60), dtype=np.float32)


def competition_loop(predicted: NDArray[np.uint8], target: NDArray[np.uint8]) -> Fraction:
    """The competition's page, in exact fractions: one object an image, so the precision at t is IoU > t."""
    if not target.any():
        return Fraction(not predicted.any())
    union = int(np.sum((predicted == 1) | (target == 1)))
    iou = Fraction(int(np.sum((predicted == 1) & (target == 1))), union)
    return Fraction(sum(iou > Fraction(50 + 5 * step, 100) for step in range(10)), 10)


def test_competition_score_is_the_loop_at_every_iou_there_is() -> None:
    """All I / U with U up to 40 (ties with a threshold among them), as flat masks, some pixels ignored."""
    metrics = SegmentationMetrics(["rock", "salt"], boundary=False)
    total = []
    for union in range(1, 41):
        for correct in range(union + 1):
            predicted = np.zeros((1, 60), dtype=np.uint8)
            target = predicted.copy()
            missed = (union - correct) // 2
            target[0, : correct + missed] = 1
            predicted[0, :correct] = predicted[0, correct + missed : union] = 1
            expected = competition_loop(predicted, target)
            valid = np.ones((1, 60), dtype=bool)
            valid[0, 50:] = False
            predicted[0, 50:] = 1
            row = metrics.update(predicted, target, valid, SURE)
            assert row["competition_score"] == float(expected), (correct, union)
            total.append(expected)
    assert metrics.compute()["competition_score"] == pytest.approx(float(sum(total) / len(total)), rel=1e-12)


def test_competition_score_is_strict_at_a_threshold() -> None:
    target = np.ones((1, 20), dtype=np.uint8)
    metrics = SegmentationMetrics(["rock", "salt"], boundary=False)
    scores = []
    for pixels in (9, 10, 11, 19, 20):
        predicted = (np.arange(20) < pixels).astype(np.uint8)[None]
        scores.append(
            metrics.update(predicted, target, np.ones_like(target, dtype=bool), SURE[:, :20])["competition_score"]
        )
    assert scores == [0, 0, 0.1, 0.9, 1]


def band_by_erosion(mask: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask without its erosion, by as many 3x3 steps as the band is wide, zeros outside (the paper's own code).

    Ignored pixels make no edge: erosion sees them as part of the mask.
    """
    steps = max(1, round(0.02 * math.hypot(*mask.shape)))
    core = ndimage.binary_erosion(mask | ~valid, np.ones((3, 3)), iterations=steps, border_value=0)
    return mask & valid & ~core


def blobs(seed: int, classes: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(size=(classes, *shape))
    return ndimage.gaussian_filter(noise, (0, 5, 5)).argmax(axis=0).astype(np.uint8)


def boundary_iou_loop(
    predicted: NDArray[np.uint8], target: NDArray[np.uint8], valid: NDArray[np.bool_], k: int
) -> float:
    values = []
    for index in [1] if k == 2 else range(k):
        bands = [band_by_erosion((labels == index) & valid, valid) for labels in (predicted, target)]
        union = np.sum(bands[0] | bands[1])
        if union:
            values.append(np.sum(bands[0] & bands[1]) / union)
    return float(np.mean(values)) if values else 1.0


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("shape", [(101, 101), (30, 170), (3, 5), (1, 1), (240, 200)])
@pytest.mark.parametrize("ignored", ["none", "scattered", "block"])
def test_boundary_iou_is_the_loop(classes: int, shape: tuple[int, int], ignored: str) -> None:
    target = blobs(classes, classes, shape)
    predicted = np.roll(target, (2, 1), axis=(0, 1))
    predicted[: shape[0] // 3] = blobs(9, classes, shape)[: shape[0] // 3]
    valid = np.ones(shape, dtype=bool)
    if ignored == "scattered":
        valid = np.random.default_rng(0).random(shape) < 0.98
        valid[0, 0] = True
    elif ignored == "block":
        valid[shape[0] // 2 + 1 :, : shape[1] // 3] = False
    row = SegmentationMetrics([str(index) for index in range(classes)]).update(
        predicted, target, valid, np.ones(shape, dtype=np.float32)
    )
    expected = boundary_iou_loop(predicted, target, valid, classes)
    assert row["boundary_iou"] == pytest.approx(expected, rel=1e-12)
    if shape[0] > 20:
        assert 0.1 < expected < 0.9


def test_boundary_iou_of_a_shifted_square_by_hand() -> None:
    """Band width 2 (0.02 * 100 * sqrt 2 = 2.83 rounds to 3 at 100x100; 1.70 rounds to 2 at 60x60)."""
    assert [band_width(*size) for size in ((100, 100), (60, 60), (5, 5), (540, 960))] == [3, 2, 1, 22]
    target, predicted = np.zeros((2, 60, 60), dtype=np.uint8)
    target[10:30, 10:30] = 1
    predicted[10:30, 11:31] = 1
    ring = 20 * 20 - 16 * 16
    shared = 2 * 2 * 19 + 2 * 16 * 1  # top and bottom bars overlap in 19 columns, each upright bar in 1
    row = SegmentationMetrics(["rock", "salt"]).update(
        predicted, target, np.ones((60, 60), dtype=bool), np.ones((60, 60), dtype=np.float32)
    )
    assert row["boundary_iou"] == pytest.approx(shared / (2 * ring - shared))
    assert row["iou_per_image"] == pytest.approx(19 / 21)


def test_the_image_border_is_an_edge_and_an_ignored_region_is_none() -> None:
    labels = np.ones((50, 50), dtype=np.uint8)
    band = boundary_band(labels, None)
    assert band_width(50, 50) == 1
    inside = np.zeros_like(band)
    inside[1:-1, 1:-1] = True
    np.testing.assert_array_equal(band, ~inside)
    valid = np.ones_like(band)
    valid[20:30] = False
    np.testing.assert_array_equal(boundary_band(labels, valid), band & valid)
