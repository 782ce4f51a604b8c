"""Depth figures: formulas written out and torchmetrics, alignment, caps and crops, guards with planted defects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import spearmanr

from perpixel._torchvision import ensure_torchvision
from perpixel.metrics.alignment import affine_alignment, median_alignment
from perpixel.metrics.depth import CROPS, DepthMetrics, crop_mask
from perpixel.metrics.depth_edges import THRESHOLDS, depth_edge_counts, depth_edge_f1
from perpixel.metrics.depth_guards import (
    inverted,
    predictions_on_a_clamp,
    predictions_that_do_not_vary,
    wrong_unit,
)

ensure_torchvision()
from torchmetrics import functional  # noqa: E402

Image = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]
FAMILIES = ("", "median_aligned/", "affine_aligned/", "disparity_aligned/")
KEYS = ("d1", "d2", "d3", "abs_rel", "sq_rel", "rmse", "mae", "rmse_log", "log10", "silog")


def image(seed: int, scale: float = 1.0) -> Image:
    """Blocky truth, a noisy prediction of it, a fifth of the pixels without truth; nan there."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(5, 24, size=2)
    target = np.kron(rng.uniform(0.5, 9, (3, 3)), np.ones((8, 8)))[:height, :width]
    predicted = scale * target * np.exp(rng.normal(0.1, 0.25, target.shape))
    valid = rng.random(target.shape) < 0.8
    return predicted.astype(np.float32), np.where(valid, target, np.nan).astype(np.float32), valid


def scored(cases: list[Image], **options: Any) -> DepthMetrics:
    metrics = DepthMetrics(maximum_m=10.0, **options)
    for case in cases:
        metrics.update(*case)
    return metrics


def same(first: dict[str, float], second: dict[str, float]) -> None:
    """Equal to the last digit, nan beside nan, in the same order."""
    assert list(first) == list(second)
    np.testing.assert_array_equal(list(first.values()), list(second.values()))


# ---------------------------------------------------------------- formulas, written out


def reference_figures(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Of (prediction, truth) of each pixel."""
    n = len(pairs)
    ratios = [max(p / t, t / p) for p, t in pairs]
    g = [math.log(p) - math.log(t) for p, t in pairs]
    return {
        "d1": sum(ratio < 1.25 for ratio in ratios) / n,
        "d2": sum(ratio < 1.25**2 for ratio in ratios) / n,
        "d3": sum(ratio < 1.25**3 for ratio in ratios) / n,
        "abs_rel": sum(abs(p - t) / t for p, t in pairs) / n,
        "sq_rel": sum((p - t) ** 2 / t for p, t in pairs) / n,
        "rmse": math.sqrt(sum((p - t) ** 2 for p, t in pairs) / n),
        "mae": sum(abs(p - t) for p, t in pairs) / n,
        "rmse_log": math.sqrt(sum(x * x for x in g) / n),
        "log10": sum(abs(math.log10(p) - math.log10(t)) for p, t in pairs) / n,
        "silog": 100 * math.sqrt(sum(x * x for x in g) / n - (sum(g) / n) ** 2),
    }


def reference_aligned(family: str, case: Image) -> list[tuple[float, float]]:
    predicted, target = (part[case[2]].astype(np.float64) for part in case[:2])
    if family == "median_aligned/":
        predicted = predicted * np.median(target) / np.median(predicted)
    if family == "affine_aligned/":
        predicted = np.polyval(np.polyfit(predicted, target, 1), predicted)
    if family == "disparity_aligned/":
        inverse = 1 / predicted.clip(1e-3, 10)
        fitted = np.polyval(np.polyfit(inverse, 1 / target, 1), inverse)
        predicted = np.array([1 / value if value > 0.1 else 10.0 for value in fitted])
    return list(zip(predicted.clip(1e-3, 10).tolist(), target.tolist(), strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_figure_written_out(family: str) -> None:
    cases = [image(seed, scale=1.4) for seed in range(4)]
    figures = scored(cases).compute()
    each = [reference_aligned(family, case) for case in cases]
    pooled = reference_figures([pair for pairs in each for pair in pairs])
    rows = [reference_figures(pairs) for pairs in each]
    for key in KEYS:
        assert figures[f"{family}{key}"] == pytest.approx(pooled[key], rel=1e-9), key
        mean = sum(row[key] for row in rows) / len(rows)
        assert figures[f"{family}{key}_per_image"] == pytest.approx(mean, rel=1e-9), key
        assert key == "d3" or abs(pooled[key] - mean) > 1e-6  # they are two figures


def test_torchmetrics_agrees() -> None:
    cases = [image(seed) for seed in range(5)]
    figures = scored(cases).compute()
    predicted, target = (
        torch.from_numpy(np.concatenate([case[index][case[2]] for case in cases]).astype(np.float64).clip(None, top))
        for index, top in ((0, 10.0), (1, None))
    )
    pairs = {
        "abs_rel": functional.mean_absolute_percentage_error(predicted, target),
        "rmse": functional.mean_squared_error(predicted, target, squared=False),
        "mae": functional.mean_absolute_error(predicted, target),
        "rmse_log": functional.mean_squared_error(predicted.log(), target.log(), squared=False),
        "log10": functional.mean_absolute_error(predicted.log10(), target.log10()),
    }
    for key, value in pairs.items():
        assert figures[key] == pytest.approx(float(value), rel=1e-6), key


def test_by_hand() -> None:
    target = np.array([[1.0, 2.0, 4.0, 0.0]])
    predicted = np.array([[1.0, 4.0, 2.0, 9.0]])
    row = DepthMetrics(maximum_m=10.0).update(predicted, target, target > 0)
    expected = {"d1": 1 / 3, "d3": 1 / 3, "abs_rel": 0.5, "sq_rel": 1.0, "mae": 4 / 3, "rmse": math.sqrt(8 / 3)}
    for key, value in expected.items():
        assert row[key] == pytest.approx(value), key
    assert row["silog"] == pytest.approx(100 * math.log(2) * math.sqrt(2 / 3))
    assert row["median_ratio"] == 1 and row["share_at_clamp"] == 0


# ---------------------------------------------------------------- bookkeeping


@pytest.mark.parametrize("predicts", ["metres", "disparity"])
def test_every_figure_says_what_it_is(predicts: Any) -> None:
    metrics = DepthMetrics(maximum_m=10.0, predicts=predicts)
    empty, infos = metrics.compute(), metrics.infos()
    row = metrics.update(*image(0))
    assert list(infos) == list(empty) == list(row) == list(metrics.compute())
    assert all(math.isnan(value) for value in empty.values())
    for key, info in infos.items():
        assert info.name and info.description and info.averaging
        if key.split("/")[-1].removesuffix("_per_image") in KEYS:
            assert info.averaging.startswith("mean over images" if key.endswith("_per_image") else "sum over all")
            assert "Truth between 0.001 and 10 m" in info.description
            assert info.direction == ("higher" if "/d" in f"/{key.split('/')[-1]}" else "lower")
    assert ("abs_rel" in infos) == (predicts == "metres")


@given(st.integers(0, 10**6), st.randoms(use_true_random=False), st.sampled_from(["metres", "disparity"]))
@settings(max_examples=15)
def test_neither_order_nor_splitting_changes_a_digit(seed: int, random: Any, predicts: str) -> None:
    cases = [image(seed + index) for index in range(5)]
    whole = scored(cases, predicts=predicts)
    random.shuffle(cases)
    cut = random.randint(0, len(cases))
    merged = scored(cases[:cut], predicts=predicts)
    merged.merge(scored(cases[cut:], predicts=predicts))
    same(merged.compute(), whole.compute())


@given(st.integers(0, 10**6), st.sampled_from([math.nan, math.inf, -5.0, 0.0, 1e9]))
@settings(max_examples=15)
def test_pixels_without_truth_change_nothing(seed: int, filler: float) -> None:
    predicted, target, valid = image(seed)
    row = scored([]).update(predicted, target, valid)
    same(scored([]).update(np.where(valid, predicted, filler), np.where(valid, target, filler), valid), row)
    confidence = np.ones(valid.shape, dtype=np.float32)
    same(scored([]).update(predicted, target, valid, confidence), row)


def test_the_row_of_an_image_is_the_figures_of_it_alone() -> None:
    metrics = DepthMetrics(maximum_m=10.0)
    for seed in range(3):
        same(metrics.update(*image(seed)), scored([image(seed)]).compute())


def test_an_image_without_counted_pixel_changes_nothing() -> None:
    metrics = scored([image(0)])
    before = metrics.compute()
    predicted, target, valid = image(1)
    for case in ((predicted, target, np.zeros_like(valid)), (predicted, np.full_like(target, 50.0), valid)):
        row = metrics.update(*case)
        assert list(row) == list(before) and all(math.isnan(value) for value in row.values())
    same(metrics.compute(), before)


def test_inputs_are_left_as_they_were() -> None:
    case = image(3)
    copies = [part.copy() for part in case]
    scored([case])
    for part, copy in zip(case, copies, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_predictions_that_are_not_finite_are_refused(wrong: float) -> None:
    predicted, target, valid = image(0)
    valid[2, 3], target[2, 3], predicted[2, 3] = True, 1.0, wrong
    metrics = DepthMetrics(maximum_m=10.0)
    with pytest.raises(ValueError, match=r"prediction holds .* in row 2, column 3, and at 1 valid pixels in all"):
        metrics.update(predicted, target, valid)
    assert math.isnan(metrics.compute()["d1"])
    with pytest.raises(ValueError, match="target holds"):
        metrics.update(np.ones_like(target), np.full_like(target, wrong), valid)


def test_bad_requests_are_refused() -> None:
    predicted, target, valid = image(0)
    for caps in ((0.0, 10.0), (5.0, 5.0), (1.0, math.inf)):
        with pytest.raises(ValueError, match="caps must be finite"):
            DepthMetrics(minimum_m=caps[0], maximum_m=caps[1])
    with pytest.raises(ValueError, match="no crop is named 'half'; there are none, garg, eigen, eigen_nyu"):
        DepthMetrics(maximum_m=10.0, crop="half")
    metrics = DepthMetrics(maximum_m=10.0)
    with pytest.raises(ValueError, match="of one size"):
        metrics.update(predicted[1:], target, valid)
    with pytest.raises(ValueError, match="valid must be bool"):
        metrics.update(predicted, target, valid.astype(np.uint8))
    for other in (
        DepthMetrics(maximum_m=80.0),
        DepthMetrics(maximum_m=10.0, crop="garg"),
        DepthMetrics(maximum_m=10.0, predicts="disparity"),
        DepthMetrics(maximum_m=10.0, clamp_m=(0.1, 5.0)),
    ):
        with pytest.raises(ValueError, match="same protocol"):
            metrics.merge(other)


# ---------------------------------------------------------------- caps, crops, clamps


def test_caps_leave_truth_out_and_clamp_predictions() -> None:
    target = np.array([[0.5, 1.0, 2.0, 8.0, 10.0, 12.0]])
    predicted = np.array([[9.0, 9.0, -3.0, 50.0, 0.1, 0.1]])
    metrics = DepthMetrics(minimum_m=1.0, maximum_m=10.0)
    row = metrics.update(predicted, target, np.ones_like(target, dtype=bool))
    assert row["mae"] == pytest.approx((abs(1.0 - 2.0) + abs(10.0 - 8.0)) / 2)  # of 2 m and 8 m alone
    assert row["share_at_clamp"] == 1


def test_share_at_the_clamp_of_the_model() -> None:
    target = np.full((4, 5), 3.0)
    predicted = np.full((4, 5), 4.0, dtype=np.float32)
    predicted[0], predicted[1, :2] = np.float32(9.9), np.float32(0.3)
    valid = np.ones(target.shape, dtype=bool)
    metrics = DepthMetrics(maximum_m=80.0, clamp_m=(0.3, 9.9))
    assert metrics.update(predicted, target, valid)["share_at_clamp"] == pytest.approx(7 / 20)
    metrics.update(np.full((40, 5), 4.0), np.full((40, 5), 3.0), np.ones((40, 5), dtype=bool))
    assert metrics.compute()["share_at_clamp"] == pytest.approx(7 / 220)  # of all pixels, not a mean of images
    assert scored([(predicted, target.astype(np.float32), valid)]).compute()["share_at_clamp"] == 0


@pytest.mark.parametrize(
    ("crop", "shape", "bounds"),
    [
        ("none", (7, 9), (0, 7, 0, 9)),
        ("garg", (375, 1242), (153, 371, 44, 1197)),
        ("garg", (352, 1216), (143, 349, 43, 1172)),
        ("eigen", (375, 1242), (124, 342, 44, 1197)),
        ("eigen_nyu", (480, 640), (45, 471, 41, 601)),
    ],
)
def test_crops_are_those_that_were_published(
    crop: str, shape: tuple[int, int], bounds: tuple[int, int, int, int]
) -> None:
    mask = crop_mask(shape, crop)
    rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == bounds
    assert mask.sum() == (bounds[1] - bounds[0]) * (bounds[3] - bounds[2])


@pytest.mark.parametrize("crop", CROPS)
def test_pixels_outside_the_crop_change_nothing(crop: str) -> None:
    rng = np.random.default_rng(0)
    target, predicted = rng.uniform(1, 9, (60, 80)), rng.uniform(1, 9, (60, 80))
    valid, inside = np.ones(target.shape, dtype=bool), crop_mask(target.shape, crop)
    row = DepthMetrics(maximum_m=10.0, crop=crop).update(predicted, target, valid)
    same(DepthMetrics(maximum_m=10.0, crop=crop).update(predicted, target, inside), row)
    same(DepthMetrics(maximum_m=10.0).update(predicted, target, inside), row)


# ---------------------------------------------------------------- alignment


def test_alignment_finds_what_was_done_to_the_truth() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 9, (20, 30))
    valid = np.ones(target.shape, dtype=bool)
    for predicted, family, scale, shift, sign in [
        (target / 4, "median_aligned/", 4.0, None, None),
        ((target - 3) / -2, "affine_aligned/", -2.0, 3.0, -1.0),
        (1 / ((1 / target + 0.5) / 2), "disparity_aligned/", 2.0, -0.5, 1.0),
    ]:
        row = DepthMetrics(maximum_m=10.0).update(predicted, target, valid)
        assert row[f"{family}abs_rel"] < 1e-9 < 0.1 < row["abs_rel"]
        assert row[f"{family}scale"] == pytest.approx(scale)
        if shift is not None:
            assert row[f"{family}shift"] == pytest.approx(shift) and row[f"{family}sign"] == sign


def test_relative_models_are_judged_in_disparity() -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 9, (20, 30))
    valid = np.ones(target.shape, dtype=bool)
    right = DepthMetrics(maximum_m=10.0, predicts="disparity").update(500 / target - 70, target, valid)
    assert right["disparity_aligned/abs_rel"] < 1e-9 and right["disparity_aligned/sign"] == 1
    assert right["rank_correlation"] == pytest.approx(1) and right["disparity_aligned/boundary_f1"] == 1
    wrong = DepthMetrics(maximum_m=10.0, predicts="disparity").update(target, target, valid)
    assert wrong["disparity_aligned/sign"] == -1 and wrong["rank_correlation"] == pytest.approx(-1)


def test_the_fits_are_means_of_the_images() -> None:
    target = np.random.default_rng(0).uniform(1, 9, (20, 30))
    valid = np.ones(target.shape, dtype=bool)
    metrics = DepthMetrics(maximum_m=10.0)
    for factor in (1.0, 2.0, 6.0):
        metrics.update(target / factor, target, valid)
    figures = metrics.compute()
    assert figures["median_aligned/scale"] == pytest.approx(3) == figures["affine_aligned/scale"]
    assert figures["median_ratio"] == pytest.approx(1 / 2)


def test_what_cannot_be_aligned() -> None:
    flat, target = np.full(9, 4.0), np.linspace(1, 9, 9)
    fit = affine_alignment(flat, target)
    assert (fit.scale, fit.shift, fit.sign) == (0, 5, 0)
    assert affine_alignment(flat * (1 + 1e-15 * np.arange(9)), target).scale == 0
    assert median_alignment(-flat, target).scale == 1
    row = DepthMetrics(maximum_m=10.0).update(-flat[None], target[None], np.ones((1, 9), dtype=bool))
    assert row["d3"] == row["median_aligned/d3"] == 0 and row["affine_aligned/sign"] == 0
    assert math.isnan(row["rank_correlation"])


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_is_scipys(ties: bool) -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 9, (30, 40))
    predicted = (target + rng.normal(0, 2, target.shape)).clip(0.1, 9.9)
    if ties:
        predicted = np.rint(predicted)
    row = DepthMetrics(maximum_m=10.0).update(predicted, target, np.ones(target.shape, dtype=bool))
    assert row["rank_correlation"] == pytest.approx(spearmanr(predicted.ravel(), target.ravel()).statistic)


# ---------------------------------------------------------------- edges


def reference_edges(
    predicted: NDArray[np.float64], target: NDArray[np.float64], valid: NDArray[np.bool_]
) -> list[list[int]]:
    counts = [[0] * len(THRESHOLDS) for _ in range(3)]
    height, width = valid.shape
    for index, threshold in enumerate(THRESHOLDS):
        for row in range(height):
            for column in range(width):
                for y, x in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                    if not (0 <= y < height and 0 <= x < width and valid[row, column] and valid[y, x]):
                        continue
                    edges = [depth[y, x] / depth[row, column] > threshold for depth in (predicted, target)]
                    counts[0][index] += all(edges)
                    counts[1][index] += edges[0]
                    counts[2][index] += edges[1]
    return counts


def test_edges_against_loops() -> None:
    predicted, target, valid = image(5)
    predicted, target = predicted.astype(np.float64), np.where(valid, target, 1).astype(np.float64)
    found = depth_edge_counts(np.log(predicted), np.log(target), valid)
    np.testing.assert_array_equal(found, reference_edges(predicted, target, valid))


def test_edge_figures_by_hand() -> None:
    step = np.where(np.arange(10) < 5, 1.0, 2.0) * np.ones((10, 1))
    valid = np.ones(step.shape, dtype=bool)
    flat = np.full(step.shape, 1.5)
    metrics = DepthMetrics(maximum_m=10.0)
    for predicted, expected in [(step, 1.0), (3 * step, 1.0), (flat, 0.0), (3 - step, 0.0), (np.roll(step, 1, 1), 0.0)]:
        assert metrics.update(predicted, step, valid)["boundary_f1"] == expected, predicted
    assert metrics.compute()["boundary_f1_per_image"] == pytest.approx(2 / 5)
    # 10 edges in each of 5 truths; found 10 + 10, predicted 10 + 10 + 0 + 10 + 20
    assert metrics.compute()["boundary_f1"] == pytest.approx(2 * 20 / (50 + 50))
    row = metrics.update(flat, flat, valid)
    assert math.isnan(row["boundary_f1"])
    assert metrics.compute()["boundary_f1_per_image"] == pytest.approx(2 / 5)  # left out
    weak = np.where(np.arange(10) < 5, 1.0, 1.1) * np.ones((10, 1))
    assert metrics.update(weak, weak, valid)["boundary_f1"] == 1  # though no edge passes the upper thresholds
    assert math.isnan(depth_edge_f1(np.zeros((3, 10), dtype=np.int64)))


# ---------------------------------------------------------------- guards, with planted defects


def judged(predictions: list[NDArray[Any]], targets: list[NDArray[Any]], **options: Any) -> list[str]:
    metrics = DepthMetrics(maximum_m=options.pop("maximum_m", 10.0), **options)
    for predicted, target in zip(predictions, targets, strict=True):
        metrics.update(predicted, target, np.ones(target.shape, dtype=bool))
    figures = metrics.compute()
    sentences = [
        predictions_on_a_clamp(figures["share_at_clamp"]),
        inverted(figures["rank_correlation"]),
        wrong_unit(figures["median_ratio"]),
        predictions_that_do_not_vary(figures["variation_inside"], figures["variation_between"]),
    ]
    return [sentence for sentence in sentences if sentence]


@pytest.fixture
def scenes() -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Good predictions of four scenes, and the truth."""
    rng = np.random.default_rng(0)
    targets = [np.kron(rng.uniform(1, 5, (4, 4)), np.ones((8, 8))) for _ in range(4)]
    return [target * np.exp(rng.normal(0, 0.1, target.shape)) for target in targets], targets


Scenes = tuple[list[NDArray[Any]], list[NDArray[Any]]]


def test_good_predictions_raise_no_alarm(scenes: Scenes) -> None:
    assert judged(*scenes) == []


def test_ten_times_too_large_and_clipped(scenes: Scenes) -> None:
    """The defect of system 5: metres times 10, clipped at 10 m."""
    predictions, targets = scenes
    sentences = judged([np.minimum(10 * predicted, 10) for predicted in predictions], targets)
    assert any("sit on a clamp" in sentence for sentence in sentences)


def test_the_clamp_is_noticed_from_five_per_cent_on() -> None:
    assert predictions_on_a_clamp(0.05) is None and predictions_on_a_clamp(math.nan) is None
    assert "5.1% of the predictions sit on a clamp" in (predictions_on_a_clamp(0.051) or "")


def test_disparity_read_as_depth(scenes: Scenes) -> None:
    predictions, targets = scenes
    sentences = judged([1 / predicted for predicted in predictions], targets)
    assert any("far is predicted near" in sentence for sentence in sentences)
    assert inverted(0.0) is None and inverted(math.nan) is None


@pytest.mark.parametrize("factor", [10, 100, 256, 1000])
@pytest.mark.parametrize("inverse", [False, True])
def test_wrong_units_are_named(factor: int, inverse: bool, scenes: Scenes) -> None:
    predictions, targets = scenes
    wrong = 1 / factor if inverse else factor
    sentences = judged([wrong * predicted for predicted in predictions], targets, minimum_m=1e-6, maximum_m=1e5)
    name = f"which is near 1/{factor}:" if inverse else f"which is near {factor}:"
    assert len(sentences) == 1 and name in sentences[0]


@pytest.mark.parametrize("ratio", [1.0, 2.0, 5.0, 0.3, 30.0, 500.0, 0.0, -10.0, math.nan, math.inf])
def test_other_ratios_are_no_unit(ratio: float) -> None:
    assert wrong_unit(ratio) is None


def test_predictions_that_do_not_see_the_input(scenes: Scenes) -> None:
    predictions, targets = scenes
    rng = np.random.default_rng(1)
    same_map = [predictions[0] * (1 + rng.normal(0, 1e-5, predictions[0].shape)) for _ in targets]
    assert any("the same: the model does not look" in sentence for sentence in judged(same_map, targets))
    flat = [np.full(target.shape, 2.0 + index) for index, target in enumerate(targets)]
    assert any("Every predicted map is flat" in sentence for sentence in judged(flat, targets))
    assert judged(predictions[:1], targets[:1]) == []  # a single image has no others to differ from
    assert predictions_that_do_not_vary(math.nan, math.nan) is None


def test_variation_by_hand() -> None:
    """At each place 2 and 4 m: their range over their middle is 2/3; places without truth do not count."""
    metrics = DepthMetrics(maximum_m=10.0)
    truth_hw = np.full((20, 30), 3.0)
    valid_hw = np.ones((20, 30), dtype=bool)
    valid_hw[:, :6] = False
    for value in (2.0, 4.0):
        predicted_hw = np.full((20, 30), value)
        predicted_hw[:, :6] = 9.0 - value
        metrics.update(predicted_hw, truth_hw, valid_hw)
    figures = metrics.compute()
    assert math.isclose(figures["variation_between"], 2 / 3) and figures["variation_inside"] == 0
