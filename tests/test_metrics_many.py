"""Figures of many classes against brute force: contours, components, confidence, share of good classes."""

from __future__ import annotations

import math
import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

from perpixel.metrics import SegmentationMetrics
from perpixel.metrics.boundary import contour_tolerance
from perpixel.metrics.components import MINIMUM_AREA, Components, average_precision, find_components

Image = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32]]
CLASSES = 4


def blobs(rng: np.random.Generator, shape: tuple[int, int], classes: int = CLASSES) -> NDArray[np.uint8]:
    noise = ndimage.gaussian_filter(rng.normal(size=(classes, *shape)), (0, 3, 3))
    return noise.argmax(axis=0).astype(np.uint8)


def image(seed: int, shape: tuple[int, int] = (70, 90)) -> Image:
    """Predicted, target, valid, confidence; half the picture is nearly right, the rest is another scene."""
    rng = np.random.default_rng(seed)
    target = blobs(rng, shape)
    predicted = np.where(np.arange(shape[1]) < 0.6 * shape[1], np.roll(target, 1, axis=0), blobs(rng, shape))
    valid = rng.random(shape) < (1.0 if seed % 3 == 0 else 0.97)
    sure = rng.integers(1, 9, shape) / 8 if seed % 2 else np.full(shape, 0.5)
    return predicted, np.where(valid, target, np.uint8(255)), valid, sure.astype(np.float32)


def scored(cases: list[Image]) -> tuple[SegmentationMetrics, list[dict[str, float]]]:
    metrics = SegmentationMetrics([str(index) for index in range(CLASSES)])
    return metrics, [metrics.update(*case) for case in cases]


# ---------------------------------------------------------------- boundary F1


def contour_loop(labels: NDArray[np.uint8], valid: NDArray[np.bool_], index: int) -> NDArray[np.int64]:
    """(row, column) of every valid pixel of a class that has a valid neighbour of another one."""
    found = []
    for row, column in zip(*np.nonzero(valid & (labels == index)), strict=True):
        for down, right in product((-1, 0, 1), repeat=2):
            y, x = row + down, column + right
            inside = 0 <= y < labels.shape[0] and 0 <= x < labels.shape[1]
            if inside and valid[y, x] and labels[y, x] != index:
                found.append((row, column))
                break
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def counts_loop(cases: list[Image], index: int) -> list[int]:
    """True contour pixels, those found, predicted contour pixels, those right: from all distances."""
    counts = np.zeros(4, dtype=int)
    for predicted, target, valid, _ in cases:
        limit = max(1, 0.0075 * math.hypot(*target.shape))
        true, own = (contour_loop(labels, valid, index) for labels in (target, predicted))
        far = cdist(true, own) if len(true) and len(own) else np.full((len(true), len(own)), math.inf)
        found, right = ((far <= limit).any(axis=axis).sum() for axis in (1, 0))
        counts += [len(true), found, len(own), right]
    return counts.tolist()


@pytest.mark.parametrize("shape", [(70, 90), (60, 400), (5, 4)])
def test_boundary_f1_is_the_loop(shape: tuple[int, int]) -> None:
    cases = [image(seed, shape) for seed in range(1 if shape[1] > 100 else 3)]
    figures = scored(cases)[0].compute()
    expected = []
    for index in range(CLASSES):
        true, found, predicted, right = counts_loop(cases, index)
        precision, recall = right / predicted, found / true
        expected.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
        assert figures[f"boundary_f1/{index}"] == pytest.approx(expected[-1], rel=1e-12)
    assert figures["boundary_f1"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert shape[0] < 10 or 0.4 < figures["boundary_f1"] < 0.95


def test_boundary_f1_by_hand() -> None:
    assert [round(contour_tolerance(*size), 2) for size in ((50, 50), (360, 480), (540, 960))] == [1, 4.5, 8.26]
    target = np.zeros((40, 40), dtype=np.uint8)
    target[:, 20:] = 1
    valid, sure = np.ones((40, 40), dtype=bool), np.ones((40, 40), dtype=np.float32)
    # An upright edge may be moved by one pixel, and not by two; the other classes have no edge.
    for moved, expected in ((1, 1.0), (2, 0.0)):
        predicted = (np.arange(40) >= 20 + moved).astype(np.uint8)[None].repeat(40, axis=0)
        row = scored([(predicted, target, valid, sure)])[1][0]
        assert row["boundary_f1"] == row["boundary_f1/0"] == row["boundary_f1/1"] == expected
        assert math.isnan(row["boundary_f1/2"])
    # Nobody has an edge, and the image border is none.
    flat = np.zeros_like(target)
    assert math.isnan(scored([(flat, flat, valid, sure)])[1][0]["boundary_f1"])
    # One has an edge, the other has none: wrong in both classes.
    assert scored([(flat, target, valid, sure)])[1][0]["boundary_f1"] == 0
    # Ignored pixels make no edge: two classes on either side of an ignored strip.
    strip = valid.copy()
    strip[:, 19:21] = False
    assert math.isnan(scored([(target, target, strip, sure)])[1][0]["boundary_f1"])


# ---------------------------------------------------------------- components

Found = tuple[float, bool]


def regions(labels: NDArray[np.uint8], valid: NDArray[np.bool_], index: int) -> list[NDArray[np.bool_]]:
    numbered, count = ndimage.label((labels == index) & valid, np.ones((3, 3)))
    masks = [numbered == number for number in range(1, count + 1)]
    return [mask for mask in masks if mask.sum() >= MINIMUM_AREA]


def found_loop(case: Image, index: int) -> tuple[int, list[Found]]:
    """Number of true components, and (score, right) of the predicted ones: COCO's loop, mask against mask."""
    predicted, target, valid, sure = case
    truths = regions(target, valid, index)
    own = sorted(((float(sure[mask].astype(float).mean()), mask) for mask in regions(predicted, valid, index)),
                 key=lambda item: -item[0])  # fmt: skip
    taken: set[int] = set()
    found = []
    for score, mask in own:
        ious = [(mask & truth).sum() / (mask | truth).sum() for truth in truths]
        free = [number for number, iou in enumerate(ious) if iou >= 0.5 and number not in taken]
        if free:
            taken.add(max(free, key=lambda number: ious[number]))
        found.append((score, bool(free)))
    return len(truths), found


def average_precision_loop(found: list[Found], truths: int) -> float:
    """Mean over the truths i of the best precision at any threshold that finds at least i of them."""
    points = []
    for threshold in {score for score, _ in found}:
        kept = [right for score, right in found if score >= threshold]
        points.append((sum(kept), sum(kept) / len(kept)))
    best = [max((precision for right, precision in points if right >= i), default=0) for i in range(1, truths + 1)]
    return sum(best) / truths


def test_average_precision_over_components_is_the_loop() -> None:
    cases = [image(seed) for seed in range(6)]
    metrics, rows = scored(cases)
    for subset, figures in [(cases, metrics.compute())] + [
        ([case], row) for case, row in zip(cases, rows, strict=True)
    ]:
        expected = []
        for index in range(CLASSES):
            counted = [found_loop(case, index) for case in subset]
            truths, found = sum(count for count, _ in counted), [item for _, items in counted for item in items]
            if truths:
                expected.append(average_precision_loop(found, truths))
        assert figures["map_50_components"] == pytest.approx(np.mean(expected), rel=1e-12)
    assert 0.2 < metrics.compute()["map_50_components"] < 0.8


@given(
    found=st.lists(st.tuples(st.integers(0, 4).map(lambda step: step / 4), st.booleans()), max_size=12),
    missed=st.integers(0, 3),
)
@settings(max_examples=200)
def test_average_precision_is_the_loop_with_ties(found: list[Found], missed: int) -> None:
    truths = sum(right for _, right in found) + missed
    if truths:
        scores, right = np.array([score for score, _ in found]), np.array([good for _, good in found], dtype=bool)
        expected = average_precision_loop(found, truths)
        assert average_precision(scores, right, truths) == pytest.approx(expected, rel=1e-12)
        assert average_precision(scores[::-1], right[::-1], truths) == pytest.approx(expected, rel=1e-12)


def components(target: NDArray[np.uint8], predicted: NDArray[np.uint8], sure: float = 1.0) -> Components:
    confidence = np.full(target.shape, sure, dtype=np.float32)
    return find_components(target, predicted, None, confidence, 3)


def test_components_by_hand() -> None:
    target = np.zeros((30, 40), dtype=np.uint8)
    target[5:15, 5:15] = 1  # 100 px
    target[15:25, 15:25] = 1  # touches at a corner: one component of 200
    target[0, 35:40] = 2  # a speck
    assert components(target, target, 0.25).truths_k.tolist() == [1, 1, 0]
    assert sorted(components(target, target, 0.25).found) == [(0, 0.25, True), (1, 0.25, True)]
    half = target.copy()
    half[15:25, 15:25] = 0  # IoU of the square: 100 / 200, just enough
    assert sorted(components(target, half).found)[1] == (1, 1.0, True)
    half[5, 5] = 0  # 99 / 200
    assert sorted(components(target, half).found)[1] == (1, 1.0, False)
    touching = target.copy()
    touching[15:25, 15:25] = 2  # the other half as another class: found once, and a wrong one
    assert sorted(components(target, touching).found) == [(0, 1.0, True), (1, 1.0, True), (2, 1.0, False)]


def test_an_ignored_strip_cuts_components() -> None:
    target = np.zeros((20, 40), dtype=np.uint8)
    target[5:15, 5:25] = 1
    valid = np.ones(target.shape, dtype=bool)
    valid[:, 14] = False
    confidence = np.ones(target.shape, dtype=np.float32)
    cut = find_components(target, target, valid, confidence, 3)
    assert cut.truths_k.tolist() == [2, 2, 0]
    assert len(cut.found) == 4 and all(right for _, _, right in cut.found)


def test_no_component_at_all() -> None:
    assert math.isnan(Components(np.zeros(3, dtype=np.int64)).mean_average_precision())
    assert Components(np.array([0, 2, 0])).mean_average_precision() == 0
    only_wrong = Components(np.array([1, 0, 0]), [(1, 0.9, False)])
    assert only_wrong.mean_average_precision() == 0


# ---------------------------------------------------------------- confidence and share


def test_mean_confidence_is_the_loop() -> None:
    cases = [image(seed) for seed in range(4)]
    figures = scored(cases)[0].compute()
    for index in range(CLASSES):
        values = np.concatenate([sure[valid & (predicted == index)] for predicted, _, valid, sure in cases])
        assert figures[f"mean_confidence/{index}"] == pytest.approx(values.astype(float).mean(), abs=1e-6)
    predicted, target, valid, sure = cases[0]
    row = scored([(np.where(predicted == 2, np.uint8(1), predicted), target, valid, sure)])[1][0]
    assert math.isnan(row["mean_confidence/2"]) and row["precision/2"] == 0


def test_shares_of_the_true_pixels_by_hand() -> None:
    target, predicted = np.array([[0, 0, 0, 1, 2]], dtype=np.uint8), np.array([[0, 1, 1, 1, 3]], dtype=np.uint8)
    valid, sure = np.array([[True, True, True, True, False]]), np.ones((1, 5), dtype=np.float32)
    figures = scored([(predicted, target, valid, sure)])[0].compute()
    assert [figures[f"true_share/{index}"] for index in range(CLASSES)] == [0.75, 0.25, *[0.0] * (CLASSES - 2)]


def test_share_of_classes_by_hand() -> None:
    target = np.array([[0, 0, 0, 0, 1, 1]], dtype=np.uint8)
    predicted = np.array([[0, 0, 0, 0, 1, 2]], dtype=np.uint8)
    valid, sure = np.ones((1, 6), dtype=bool), np.ones((1, 6), dtype=np.float32)
    # IoU 1, 0.5 and 0; the fourth class is nowhere.
    assert scored([(predicted, target, valid, sure)])[1][0]["share_of_classes_iou_50"] == pytest.approx(2 / 3)


def test_two_classes_keep_their_figures() -> None:
    keys = list(SegmentationMetrics(["rock", "salt"]).compute())
    assert keys == [
        *("mean_iou", "mean_iou_all_classes", "frequency_weighted_iou", "pixel_accuracy"),
        *(f"{figure}/{name}" for figure in ("iou", "dice", "precision", "recall") for name in ("rock", "salt")),
        *("mean_confidence/rock", "mean_confidence/salt"),
        *("true_share/rock", "true_share/salt"),
        *("iou_per_image", "competition_score", "boundary_iou"),
    ]


def test_eleven_classes_at_480x360_are_scored_in_time() -> None:
    """Usually 30 ms an image; 100 images may take 30 s."""
    rng = np.random.default_rng(0)
    target = blobs(rng, (360, 480), 11)
    noise = rng.integers(0, 11, target.shape, dtype=np.uint8)
    predicted = np.where(rng.random(target.shape) < 0.1, noise, np.roll(target, 3, axis=1))
    metrics = SegmentationMetrics([str(index) for index in range(11)])
    start = time.process_time()
    for _ in range(3):
        metrics.update(predicted, target, np.ones(target.shape, dtype=bool), np.ones(target.shape, dtype=np.float32))
    assert (time.process_time() - start) / 3 < 0.3
