"""Figures of restoration against scikit-image, and against MATLAB's conventions written out here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import convolve2d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from perpixel.metrics.restoration import PSNR_CAP_DB, RestorationMetrics

WANG: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}


def pair(seed: int = 0, size: tuple[int, int] = (24, 31), dtype: str = "uint8") -> tuple[NDArray[Any], NDArray[Any]]:
    """A truth with structure and a noisy prediction of it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    target = 0.5 + 0.35 * np.stack([np.sin(rows / 3 + k) * np.cos(columns / 4 - k) for k in range(3)], axis=2)
    predicted = (target + rng.normal(0.03, 0.05 + 0.02 * seed, target.shape)).clip(0, 1)
    top = np.iinfo(dtype).max
    return np.round(predicted * top).astype(dtype), np.round(target * top).astype(dtype)


def matlab_y(image: NDArray[Any]) -> NDArray[np.float64]:
    """rgb2ycbcr of a double image, times 255: its documented matrix and offset, pixel by pixel."""
    red, green, blue = (image[..., c] / np.iinfo(image.dtype).max for c in range(3))
    return 65.481 * red + 128.553 * green + 24.966 * blue + 16


def matlab_ssim(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """ssim_index.m: fspecial('gaussian', 11, 1.5), filter2(..., 'valid'), L 255."""
    offset = np.arange(-5, 6)
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return convolve2d(values, window, mode="valid")

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mu_x, mu_y = mean(x), mean(y)
    s_x, s_y, s_xy = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(x * y) - mu_x * mu_y
    top = (2 * mu_x * mu_y + c1) * (2 * s_xy + c2)
    return float((top / ((mu_x**2 + mu_y**2 + c1) * (s_x + s_y + c2))).mean())


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("border", [0, 3])
def test_rgb_is_scikit_images(dtype: str, border: int) -> None:
    predicted, target = pair(1, dtype=dtype)
    row = RestorationMetrics(border=border).update(predicted, target)
    inner = (slice(border, 24 - border), slice(border, 31 - border))
    a, b = (image[inner] / np.iinfo(dtype).max for image in (predicted, target))
    assert row["psnr"] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-9)
    assert row["ssim"] == pytest.approx(structural_similarity(b, a, channel_axis=2, **WANG), abs=1e-9)
    assert row["mae"] == pytest.approx(np.abs(a - b).mean(), abs=1e-12)
    assert row["psnr_per_image"] == row["psnr"] and row["ssim_per_image"] == row["ssim"]


@pytest.mark.parametrize("border", [0, 4])
def test_y_is_matlabs(border: int) -> None:
    predicted, target = pair(2)
    row = RestorationMetrics(border=border).update(predicted, target)
    x, y = (matlab_y(image)[border : 24 - border, border : 31 - border] for image in (predicted, target))
    assert row["psnr_y"] == pytest.approx(20 * math.log10(255 / math.sqrt(((x - y) ** 2).mean())), abs=1e-9)
    assert row["ssim_y"] == pytest.approx(matlab_ssim(x, y), abs=1e-9)


def test_studio_range_makes_psnr_of_y_larger_than_that_of_grey() -> None:
    target = np.full((12, 12, 3), 100, np.uint8)
    row = RestorationMetrics().update(target + 10, target)
    assert row["psnr"] == pytest.approx(20 * math.log10(255 / 10))
    assert row["psnr_y"] == pytest.approx(20 * math.log10(255 / 10 * 255 / 219))


def test_pooled_and_per_image() -> None:
    metrics, rows, squares, count = RestorationMetrics(), [], 0.0, 0
    for seed, size in enumerate([(20, 20), (30, 40), (12, 15)]):
        predicted, target = pair(seed, size)
        rows.append(metrics.update(predicted, target))
        squares += float(((predicted / 255 - target / 255) ** 2).sum())
        count += target.size
    figures = metrics.compute()
    assert figures["psnr"] == pytest.approx(10 * math.log10(count / squares))
    for key in ("psnr", "psnr_y", "ssim", "mae", "brightness_matched/psnr"):
        assert figures[f"{key}_per_image"] == pytest.approx(np.mean([row[key] for row in rows]))
    windows = [10 * 10, 20 * 30, 2 * 5]
    assert figures["ssim"] == pytest.approx(np.average([row["ssim"] for row in rows], weights=windows))
    assert figures["psnr"] != pytest.approx(figures["psnr_per_image"])


def test_brightness_matching_forgives_a_factor_and_nothing_else() -> None:
    target = pair(0)[1] // 2 + 40
    row = RestorationMetrics().update(target / 255 * 0.5, target)
    assert row["psnr"] < 15
    assert row["brightness_matched/psnr"] > 150
    assert row["brightness_ratio"] == pytest.approx(0.5)
    shifted = RestorationMetrics().update(np.roll(target, 2, axis=0), target)
    assert shifted["brightness_matched/psnr"] == pytest.approx(shifted["psnr"], abs=0.2)


def test_brightness_matching_is_by_bt601_and_clips() -> None:
    predicted, target = pair(3)
    row = RestorationMetrics().update(predicted // 3, target)
    weights = np.array([0.299, 0.587, 0.114])
    dark, wanted = predicted // 3 / 255, target / 255
    matched = np.clip(dark * ((wanted @ weights).mean() / (dark @ weights).mean()), 0, 1)
    assert row["brightness_matched/psnr"] == pytest.approx(peak_signal_noise_ratio(wanted, matched, data_range=1))
    assert row["brightness_matched/ssim"] == pytest.approx(
        structural_similarity(wanted, matched, channel_axis=2, **WANG)
    )


def test_identical_images_are_counted_and_capped_in_the_mean_alone() -> None:
    predicted, target = pair()
    metrics = RestorationMetrics()
    same, other = metrics.update(target, target), metrics.update(predicted, target)
    assert math.isinf(same["psnr"]) and math.isinf(same["psnr_per_image"])
    assert same["ssim"] == 1 and same["mae"] == 0 and same["identical_images"] == 1
    figures = metrics.compute()
    assert figures["psnr_per_image"] == pytest.approx((PSNR_CAP_DB + other["psnr"]) / 2)
    assert figures["psnr"] == pytest.approx(other["psnr"] + 10 * math.log10(2))
    assert figures["identical_images"] == 1


def test_a_black_prediction_is_scored() -> None:
    target = pair()[1]
    row = RestorationMetrics().update(np.zeros_like(target), target)
    assert row["brightness_ratio"] == 0 and row["brightness_matched/psnr"] == row["psnr"]
    assert math.isnan(RestorationMetrics().update(target, np.zeros_like(target))["brightness_ratio"])


def test_pixels_without_truth_count_nowhere() -> None:
    predicted, target = (image / 255 for image in pair(4))
    valid = np.ones((24, 31), dtype=bool)
    valid[:, 20:] = False
    spoiled = np.where(valid[..., None], predicted, np.nan)
    row = RestorationMetrics().update(spoiled, np.where(valid[..., None], target, 7.0), valid)
    assert row == pytest.approx(RestorationMetrics().update(predicted[:, :20], target[:, :20]))


def test_images_that_count_nowhere() -> None:
    predicted, target = pair()
    metrics = RestorationMetrics()
    nothing = metrics.update(predicted, target, np.zeros((24, 31), dtype=bool))
    swallowed = RestorationMetrics(border=12).update(predicted, target)
    for row in (nothing, swallowed, RestorationMetrics().compute()):
        assert row.pop("identical_images") == 0
        assert all(map(math.isnan, row.values()))
    row = metrics.update(predicted, target)
    assert metrics.compute() == row  # nothing was added before
    small = metrics.update(predicted[:10], target[:10])
    assert math.isnan(small["ssim"]) and small["psnr"] > 0
    assert metrics.compute()["ssim_per_image"] == row["ssim"]


def test_order_and_merging_change_no_digit() -> None:
    pairs = [pair(seed, (11 + 3 * seed, 15)) for seed in range(5)]
    forward, backward, left, right = (RestorationMetrics(border=1) for _ in range(4))
    for number, (predicted, target) in enumerate(pairs):
        forward.update(predicted, target)
        (left if number % 2 else right).update(predicted, target)
    for predicted, target in reversed(pairs):
        backward.update(predicted, target)
    left.merge(right)
    assert forward.compute() == backward.compute() == left.compute()
    with pytest.raises(ValueError, match="protocol"):
        left.merge(RestorationMetrics())


def test_every_figure_is_explained() -> None:
    metrics = RestorationMetrics(border=2)
    row, infos = metrics.update(*pair()), metrics.infos()
    assert list(row) == list(infos) == list(metrics.compute())
    assert "never the only figure" in infos["brightness_matched/psnr"].description
    assert "100 dB" in infos["psnr_per_image"].description and "2 pixels" in infos["psnr"].description
    assert metrics.protocol["border"] == 2


@pytest.mark.parametrize(
    ("predicted", "target", "says"),
    [
        (np.zeros((4, 5, 3)), np.zeros((5, 4, 3)), "one size"),
        (np.zeros((4, 5)), np.zeros((4, 5)), "RGB"),
        (np.zeros((4, 5, 3), np.int32), np.zeros((4, 5, 3)), "int32"),
        (np.full((4, 5, 3), 1.5), np.zeros((4, 5, 3)), "within 0 and 1"),
        (np.full((4, 5, 3), np.nan), np.zeros((4, 5, 3)), "within 0 and 1"),
    ],
)
def test_wrong_images_are_refused(predicted: NDArray[Any], target: NDArray[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RestorationMetrics().update(predicted, target)
    with pytest.raises(ValueError, match="border"):
        RestorationMetrics(border=-1)


def test_lpips_is_the_mean_over_images_that_are_large_enough() -> None:
    def distance(first_hwc: NDArray[Any], second_hwc: NDArray[Any]) -> float:
        return float(np.abs(first_hwc - second_hwc).max())

    plain, metrics = RestorationMetrics(), RestorationMetrics(distance=distance)
    assert "lpips" not in plain.compute() and "lpips" not in plain.infos()
    with pytest.raises(ValueError, match="same protocol"):
        metrics.merge(plain)
    for size, error in ((32, 0.25), (40, 0.75), (31, 0.5)):
        truth = np.zeros((size, size, 3))
        row = metrics.update(truth + error, truth)
        assert row["lpips"] == pytest.approx(error) if size >= 32 else np.isnan(row["lpips"])
    assert metrics.compute()["lpips"] == pytest.approx(0.5)
    assert list(metrics.infos()) == list(metrics.compute())
