"""Bicubic resizing against Pillow, luma against OpenCV, and the baselines' own promises."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from skimage.exposure import match_histograms

from perpixel.imresize import imresize
from perpixel.luma import luma_full, luma_studio
from perpixel.metrics.restoration_baselines import bicubic, clahe, gamma_corrected, histogram_matched


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return np.round(255 * rng.beta(2, 4, (height, width, 3))).astype(np.uint8)


def pillow(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.float32]:
    """Pillow's bicubic (a = -0.5, widened where it shrinks) of the image in mirrored surroundings, its middle."""
    height, width = image.shape[:2]
    wide = np.pad(image.astype(np.float32), ((height, height), (width, width), (0, 0)), mode="symmetric")
    planes = [
        np.asarray(Image.fromarray(wide[..., c]).resize((3 * size[1], 3 * size[0]), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    return np.stack(planes, axis=2)[size[0] : 2 * size[0], size[1] : 2 * size[1]]


@pytest.mark.parametrize("size", [(48, 64), (36, 32), (24, 17), (6, 8), (3, 2), (12, 16), (13, 15)])
def test_imresize_is_pillows_with_mirrored_borders(size: tuple[int, int]) -> None:
    image = picture(12, 16)
    np.testing.assert_allclose(imresize(image, size), pillow(image, size), atol=2e-3)


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 30), st.integers(1, 30), st.floats(0, 1))
def test_imresize_keeps_a_flat_image_flat(
    height: int, width: int, new_height: int, new_width: int, level: float
) -> None:
    image = np.full((height, width, 2), level)
    resized = imresize(image, (new_height, new_width))
    assert resized.shape == (new_height, new_width, 2) and resized.dtype == np.float32
    np.testing.assert_allclose(resized, level, atol=2e-6)


def test_imresize_keeps_the_place_of_a_ramp() -> None:
    ramp = np.broadcast_to(np.arange(40.0)[:, None, None], (40, 3, 1))
    large = imresize(ramp, (160, 3))[:, 1, 0]
    np.testing.assert_allclose(large[16:-16], (np.arange(160)[16:-16] + 0.5) / 4 - 0.5, atol=1e-5)
    with pytest.raises(ValueError, match="H, W, C"):
        imresize(ramp[..., 0], (2, 2))


def test_luma_full_is_opencvs_grey() -> None:
    image = picture(9, 11)
    grey = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2GRAY)
    np.testing.assert_allclose(luma_full(image) / 255, grey, atol=1e-6)


def test_luma_studio_has_the_range_of_bt601() -> None:
    ends = np.array([[[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    np.testing.assert_allclose(luma_studio(ends)[0] * 255, [16, 235, 81.481, 144.553, 40.966])


def test_bicubic_is_imresize_in_the_images_own_type() -> None:
    image = picture(7, 9)
    large = bicubic(image, 3)
    assert large.dtype == np.uint8 and large.shape == (21, 27, 3)
    np.testing.assert_array_equal(large, np.round(imresize(image, (21, 27)).clip(0, 255)))
    assert bicubic(image, 1) is image
    deep = bicubic(image.astype(np.uint16) * 257, 2)
    assert deep.dtype == np.uint16 and abs(deep / 65535 - bicubic(image / 255, 2)).max() < 1e-4


@pytest.mark.parametrize("mean", [0.1, 0.4, 0.7])
def test_gamma_brings_the_mean_brightness(mean: float) -> None:
    image = picture(40, 50)
    corrected = gamma_corrected(image, mean)
    assert corrected.dtype == np.uint8
    assert luma_full(corrected).mean() / 255 == pytest.approx(mean, abs=0.004)
    order = np.argsort(image[..., 0], axis=None)
    assert (np.diff(corrected[..., 0].reshape(-1)[order].astype(int)) >= 0).all()
    assert (gamma_corrected(np.zeros((3, 3, 3), np.uint8), mean) == 0).all()


def test_histogram_matching_is_scikit_images() -> None:
    dark, bright = picture(60, 50) // 3, picture(60, 50, 1)
    quantiles = np.quantile(bright.reshape(-1, 3) / 255, np.linspace(0, 1, 1001), axis=0)
    matched = histogram_matched(dark, quantiles)
    reference = match_histograms(dark, bright, channel_axis=2)
    # Where many pixels share a value, the reference takes the top of their ranks, this one the middle.
    assert np.abs(matched.astype(float) - reference).mean() < 3
    assert matched.mean() == pytest.approx(bright.mean(), abs=1)


def test_clahe_spreads_lightness_and_keeps_hue() -> None:
    image = picture(64, 64) // 4
    brighter = clahe(image)
    assert brighter.dtype == np.uint8 and brighter.shape == image.shape
    assert luma_full(brighter).std() > 1.3 * luma_full(image).std()
