"""Segmentation figures: what holds for all of them whatever the images are."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perpixel.metrics import SegmentationMetrics

Image = tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.float32]]
NAMES = ("none", "salt", "sand", "lime")


def image(rng: np.random.Generator, classes: int, valid_share: float = 0.8) -> Image:
    """Blocky truth and a prediction that shares most of it, at a random size; 255 where there is no truth."""
    height, width = rng.integers(4, 40, size=2)
    blocks = rng.integers(0, classes, size=(5, 5))
    target = np.kron(blocks, np.ones((8, 8), dtype=np.uint8)).astype(np.uint8)[:height, :width]
    predicted = np.where(rng.random((height, width)) < 0.2, rng.integers(0, classes, (height, width)), target)
    valid = rng.random((height, width)) < valid_share
    # Few levels, so that scores of components are tied now and then.
    sure = rng.integers(0, 3, (height, width)).astype(np.float32) / 2
    return predicted.astype(np.uint8), np.where(valid, target, 255).astype(np.uint8), valid, sure


def sure_of(labels: NDArray[Any]) -> NDArray[np.float32]:
    return np.ones(labels.shape, dtype=np.float32)


def images(seed: int, classes: int, count: int = 6) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [image(rng, classes) for _ in range(count)]


def scored(cases: list[Image], classes: int) -> SegmentationMetrics:
    metrics = SegmentationMetrics(NAMES[:classes])
    for case in cases:
        metrics.update(*case)
    return metrics


def same(first: dict[str, float], second: dict[str, float]) -> None:
    """Equal to the last digit, nan beside nan, in the same order."""
    assert list(first) == list(second)
    np.testing.assert_array_equal(list(first.values()), list(second.values()))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("boundary", [True, False])
def test_every_figure_says_what_it_is(classes: int, boundary: bool) -> None:
    metrics = SegmentationMetrics(NAMES[:classes], boundary=boundary)
    infos = metrics.infos()
    empty = metrics.compute()
    row = metrics.update(*images(0, classes)[0])
    assert list(infos) == list(empty) == list(row) == list(metrics.compute())
    assert ("boundary_f1" in infos) == (boundary and classes > 2)
    assert ("map_50_components" in infos) == ("share_of_classes_iou_50" in infos) == (classes > 2)
    assert ("boundary_iou" in infos) == boundary and ("competition_score" in infos) == (classes == 2)
    assert all(math.isnan(value) for value in empty.values())
    for key, info in infos.items():
        assert info.direction == ("neither" if key.startswith(("mean_confidence", "true_share")) else "higher")
        assert info.name and info.averaging and info.description


@given(st.integers(0, 10**6), st.sampled_from([2, 3, 4]), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_neither_order_nor_splitting_changes_a_digit(seed: int, classes: int, random: Any) -> None:
    cases = images(seed, classes)
    whole = scored(cases, classes)
    random.shuffle(cases)
    cut = random.randint(0, len(cases))
    merged = scored(cases[:cut], classes)
    merged.merge(scored(cases[cut:], classes))
    same(merged.compute(), whole.compute())
    np.testing.assert_array_equal(merged.confusion_kk, whole.confusion_kk)


@given(st.integers(0, 10**6), st.sampled_from([2, 4]), st.sampled_from([255, 0, 1, 3]))
@settings(max_examples=25)
def test_ignored_pixels_change_nothing(seed: int, classes: int, other: int) -> None:
    ((predicted, target, valid, sure),) = images(seed, classes, count=1)
    row = SegmentationMetrics(NAMES[:classes]).update(predicted, target, valid, sure)
    changed = [
        np.where(valid, labels.astype(np.int64), filler) for labels, filler in ((predicted, other), (target, -1))
    ]
    sure = np.where(valid, sure, np.float32(np.nan))
    same(SegmentationMetrics(NAMES[:classes]).update(changed[0], changed[1], valid, sure), row)


@pytest.mark.parametrize("classes", [2, 3])
def test_an_image_without_valid_pixel_changes_nothing(classes: int) -> None:
    metrics = scored(images(1, classes), classes)
    before = metrics.compute()
    predicted, target, valid, sure = images(2, classes)[0]
    row = metrics.update(predicted, target, np.zeros_like(valid), sure)
    assert list(row) == list(before) and all(math.isnan(value) for value in row.values())
    same(metrics.compute(), before)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_row_of_an_image_is_the_figures_of_it_alone(classes: int) -> None:
    metrics = SegmentationMetrics(NAMES[:classes])
    for case in images(3, classes):
        same(metrics.update(*case), scored([case], classes).compute())


@pytest.mark.parametrize("classes", [2, 3])
def test_per_image_figures_are_means_of_rows_and_the_others_are_not(classes: int) -> None:
    metrics = SegmentationMetrics(NAMES[:classes])
    rows = [metrics.update(*case) for case in images(4, classes)]
    figures, infos = metrics.compute(), metrics.infos()
    for key, info in infos.items():
        mean = np.mean([row[key] for row in rows])
        assert (abs(figures[key] - mean) < 1e-12) == (info.averaging == "mean over images"), key


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int64, bool])
def test_whole_numbers_of_any_type_do(classes: int, kind: type) -> None:
    predicted, target, valid, sure = images(5, classes)[0]
    target = np.where(valid, target, 0)
    if kind is bool:
        predicted, target = predicted > 0, target > 0
    plain = predicted.astype(np.uint8), target.astype(np.uint8), valid, sure
    expected = SegmentationMetrics(NAMES[:classes]).update(*plain)
    metrics = SegmentationMetrics(NAMES[:classes])
    same(metrics.update(predicted.astype(kind), target.astype(kind), valid, sure), expected)


def test_inputs_are_left_as_they_were() -> None:
    case = images(6, 2)[0]
    copies = [array.copy() for array in case]
    metrics = scored([case], 2)
    for array, copy in zip(case, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    metrics.confusion_kk[:] = 0
    assert metrics.confusion_kk.sum() == case[2].sum()


def test_zero_over_zero_by_hand() -> None:
    target = np.array([[0, 0, 0, 1]])
    predicted = np.array([[0, 0, 2, 0]])
    figures = SegmentationMetrics(NAMES).update(predicted, target, np.ones((1, 4), dtype=bool), sure_of(target))
    assert figures["iou/none"] == 0.5 and figures["dice/none"] == pytest.approx(2 / 3)
    # salt is there and never predicted, sand is predicted and never there: 0, not nan
    for figure in ("iou", "dice", "precision", "recall"):
        assert figures[f"{figure}/salt"] == figures[f"{figure}/sand"] == 0
        assert math.isnan(figures[f"{figure}/lime"])
    assert figures["mean_iou"] == pytest.approx(0.5 / 3)
    assert figures["mean_iou_all_classes"] == pytest.approx(0.5 / 4)
    assert figures["frequency_weighted_iou"] == pytest.approx(0.75 * 0.5)
    assert figures["pixel_accuracy"] == 0.5
    assert figures["iou_per_image"] == figures["mean_iou"]


def test_images_without_foreground_by_hand() -> None:
    valid, sure = np.ones((6, 6), dtype=bool), np.ones((6, 6), dtype=np.float32)
    none = np.zeros((6, 6), dtype=np.uint8)
    some = none.copy()
    some[2, 2] = 1
    metrics = SegmentationMetrics(NAMES[:2])
    keys = ("iou_per_image", "competition_score", "boundary_iou")
    expected = [(none, none, 1.0), (some, none, 0.0), (none, some, 0.0), (some, some, 1.0)]
    for predicted, target, value in expected:
        row = metrics.update(predicted, target, valid, sure)
        assert [row[key] for key in keys] == [value] * 3
    assert [metrics.compute()[key] for key in keys] == [0.5] * 3
    assert metrics.compute()["iou/salt"] == pytest.approx(1 / 3)


def test_bad_input_is_refused() -> None:
    metrics = SegmentationMetrics(NAMES[:2])
    good, valid = np.zeros((2, 3), dtype=np.uint8), np.ones((2, 3), dtype=bool)
    sure = sure_of(good)
    with pytest.raises(ValueError, match="of one size"):
        metrics.update(good, good.T, valid, sure)
    with pytest.raises(ValueError, match="of one size"):
        metrics.update(good[0], good[0], valid[0], sure[0])
    with pytest.raises(ValueError, match="valid must be bool"):
        metrics.update(good, good, valid.astype(np.uint8), sure)
    with pytest.raises(ValueError, match="prediction must hold class indices; it is float"):
        metrics.update(good.astype(float), good, valid, sure)
    with pytest.raises(ValueError, match="target holds 2 at a valid pixel; classes are 0 to 1"):
        metrics.update(good, good + np.uint8(2), valid, sure)
    with pytest.raises(ValueError, match="prediction holds -1 at a valid pixel"):
        metrics.update(good.astype(int) - 1, good, valid, sure)
    with pytest.raises(ValueError, match="of one size"):
        metrics.update(good, good, valid, sure.T)
    for wrong in (2.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="confidence must be 0 to 1; it is "):
            metrics.update(good, good, valid, sure * np.float32(wrong))
    assert metrics.confusion_kk.sum() == 0
    for names in (["one"], ["a", "a"], [str(i) for i in range(256)]):
        with pytest.raises(ValueError, match="2 to 255 different class names"):
            SegmentationMetrics(names)
    for other in (SegmentationMetrics(NAMES[:3]), SegmentationMetrics(NAMES[:2], boundary=False)):
        with pytest.raises(ValueError, match="only figures of the same classes"):
            metrics.merge(other)


def test_most_classes_there_can_be() -> None:
    metrics = SegmentationMetrics([str(index) for index in range(255)])
    target = np.arange(255, dtype=np.uint8).repeat(20).reshape(255, 20)
    valid = np.ones_like(target, dtype=bool)
    valid[:, :2] = False
    row = metrics.update(target, np.where(valid, target, 255).astype(np.uint8), valid, sure_of(target))
    assert row["mean_iou"] == row["boundary_iou"] == row["boundary_f1"] == 1
    assert math.isnan(row["map_50_components"])  # 18 pixels each: specks
    np.testing.assert_array_equal(metrics.confusion_kk, 18 * np.eye(255, dtype=int))
    wrong = metrics.update(np.roll(target, 1, axis=0), target, valid, sure_of(target))
    assert wrong["mean_iou"] == wrong["boundary_iou"] == 0


def test_scoring_is_fast_enough_to_scan_thresholds() -> None:
    """A guard against a slip into Python loops: fifty times the usual time."""
    rng = np.random.default_rng(0)
    predicted, target = rng.integers(0, 2, (2, 101, 101), dtype=np.uint8)
    metrics = SegmentationMetrics(NAMES[:2])
    start = time.process_time()
    for _ in range(20):
        metrics.update(predicted, target, np.ones((101, 101), dtype=bool), sure_of(target))
    assert (time.process_time() - start) / 20 < 10e-3
