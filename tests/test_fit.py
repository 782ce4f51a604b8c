"""To the network's size and back: nothing moves, nothing is squashed in pad mode, no padding is labelled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perpixel.data.augment import sample_generator
from perpixel.data.fit import Fit, fit_image, fit_target, plan_crop, plan_fit, unfit_scores
from perpixel.recipe import AugmentationSection, InputSection

RESIZE = InputSection(size=(128, 128), fit="resize")
PAD = InputSection(size=(128, 128), fit="pad")
SIZES = [(101, 101), (128, 128), (97, 131), (131, 97), (1, 1), (1, 300), (77, 1), (540, 960), (17, 250), (129, 128)]


def blob(size_hw: tuple[int, int], centre_yx: tuple[float, float], sigma: float) -> NDArray[np.float64]:
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    return np.exp(-((y - centre_yx[0]) ** 2 + (x - centre_yx[1]) ** 2) / (2 * sigma**2))


def centroid(weights_hw: NDArray[np.generic]) -> NDArray[np.float64]:
    """(y, x) in pixels, from the top left corner of the image: the first pixel's centre lies at 0.5."""
    weights = weights_hw.astype(float)
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]] + 0.5
    return np.array([(weights * y).sum(), (weights * x).sum()]) / weights.sum()


def smooth(size_hw: tuple[int, int]) -> NDArray[np.float64]:
    """A map of values within 0 and 1 that varies once over the image."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    return 0.5 + 0.25 * np.sin(2 * np.pi * (y + 0.5) / size_hw[0]) + 0.25 * np.cos(2 * np.pi * (x + 0.5) / size_hw[1])


def test_plans() -> None:
    assert plan_fit((101, 101), RESIZE) == Fit((101, 101), (128, 128), (128, 128), 0, 0)
    assert plan_fit((101, 101), PAD) == Fit((101, 101), (101, 101), (128, 128), 13, 13)
    assert plan_fit((540, 960), PAD) == Fit((540, 960), (72, 128), (128, 128), 28, 0)
    assert plan_fit((64, 256), InputSection(size=(100, 200), fit="pad")) == Fit((64, 256), (50, 200), (100, 200), 25, 0)


@given(
    original=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    size=st.tuples(st.integers(16, 600), st.integers(16, 600)),
)
def test_padding_never_enlarges_and_keeps_the_aspect(original: tuple[int, int], size: tuple[int, int]) -> None:
    fit = plan_fit(original, InputSection(size=size, fit="pad"))
    assert all(1 <= part <= min(whole, limit) for part, whole, limit in zip(fit.scaled, original, size, strict=True))
    assert fit.scaled == original or any(part == limit for part, limit in zip(fit.scaled, size, strict=True))
    factor = min(1.0, size[0] / original[0], size[1] / original[1])
    for part, whole in zip(fit.scaled, original, strict=True):
        assert abs(part - whole * factor) <= 0.5 or part == 1
    assert abs(size[0] - fit.scaled[0] - 2 * fit.top) <= 1 and abs(size[1] - fit.scaled[1] - 2 * fit.left) <= 1


@pytest.mark.parametrize("spec", [RESIZE, PAD], ids=["resize", "pad"])
@pytest.mark.parametrize("original", SIZES)
def test_sizes_there_and_back(original: tuple[int, int], spec: InputSection) -> None:
    fit = plan_fit(original, spec)
    image = fit_image(np.zeros((*original, 3), np.uint8), fit)
    target = fit_target(np.zeros(original, np.uint8), fit, 255)
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert target.shape == (128, 128) and target.dtype == np.uint8
    scores = unfit_scores(np.zeros((4, 128, 128), np.float32), fit)
    assert scores.shape == (4, *original) and scores.dtype == np.float32


@given(original=st.tuples(st.integers(1, 128), st.integers(1, 128)))
def test_padding_is_undone_to_the_bit(original: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*original, 3), dtype=np.uint8)
    fit = plan_fit(original, PAD)
    back = unfit_scores(fit_image(image, fit).transpose(2, 0, 1).astype(np.float32), fit)
    assert np.array_equal(back.transpose(1, 2, 0), image)


def test_padding_mirrors_the_image_and_not_the_target() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (101, 90, 3), dtype=np.uint8)
    target = rng.integers(0, 5, (101, 90), dtype=np.uint8)
    fit = plan_fit((101, 90), PAD)
    expected = np.pad(image, ((13, 14), (19, 19), (0, 0)), mode="reflect")
    assert np.array_equal(fit_image(image, fit), expected)
    expected = np.pad(target, ((13, 14), (19, 19)), constant_values=255)
    assert np.array_equal(fit_target(target, fit, 255), expected)


def test_a_small_image_is_mirrored_again_and_again() -> None:
    image = np.arange(3, dtype=np.uint8).repeat(3).reshape(1, 3, 3)
    fitted = fit_image(image, plan_fit((1, 3), InputSection(size=(16, 16), fit="pad")))
    assert np.array_equal(fitted[5, :, 0], np.pad(image[0, :, 0], (6, 7), mode="reflect"))


def test_resizing_is_bilinear_as_torch_does_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (101, 101, 3), dtype=np.uint8)
    fitted = fit_image(image, plan_fit((101, 101), RESIZE)).astype(float)
    bchw = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(bchw, (128, 128), mode="bilinear", align_corners=False)
    assert np.abs(fitted - expected[0].permute(1, 2, 0).numpy()).max() <= 1


def test_scores_return_bilinearly_as_torch_does_it() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 128, 128)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(scores)[None], (101, 77), mode="bilinear", align_corners=False
    )
    assert np.abs(unfit_scores(scores, plan_fit((101, 77), RESIZE)) - expected[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("original", [(384, 384), (384, 128), (384, 64), (64, 384)])
def test_shrinking_averages_along_each_side_that_shrinks(original: tuple[int, int]) -> None:
    """A pattern finer than the network's pixels becomes its mean, and no other pattern."""
    y, x = np.mgrid[: original[0], : original[1]]
    stripes = ((y if original[0] > 128 else x) % 3 == 0) * 150
    image = np.repeat(stripes[..., None], 3, axis=2).astype(np.uint8)
    assert np.all(fit_image(image, plan_fit(original, RESIZE)) == 50)


@pytest.mark.parametrize("spec", [RESIZE, PAD], ids=["resize", "pad"])
@pytest.mark.parametrize("original", [(101, 101), (97, 131), (240, 320), (300, 77)])
def test_a_smooth_map_survives(original: tuple[int, int], spec: InputSection) -> None:
    values = smooth(original)
    image = np.repeat(np.rint(255 * values)[..., None], 3, axis=2).astype(np.uint8)
    fit = plan_fit(original, spec)
    back = unfit_scores(fit_image(image, fit).transpose(2, 0, 1).astype(np.float32) / 255, fit)
    assert np.abs(back - values).max() < 0.02


@pytest.mark.parametrize("spec", [RESIZE, PAD], ids=["resize", "pad"])
@pytest.mark.parametrize("original", [(101, 101), (97, 131), (240, 321), (301, 100)])
def test_nothing_is_shifted(original: tuple[int, int], spec: InputSection) -> None:
    """The centroid of a blob lies where the fit says, in image and target, and comes back to where it was."""
    sigma = 0.06 * min(original)
    values = blob(original, (0.4 * original[0], 0.62 * original[1]), sigma)
    fit = plan_fit(original, spec)
    factor = np.array(fit.scaled) / original
    expected = centroid(values) * factor + (fit.top, fit.left)
    image = fit_image(np.repeat(np.rint(255 * values)[..., None], 3, axis=2).astype(np.uint8), fit)[..., 0]
    y, x = np.mgrid[:128, :128] + 0.5
    near = np.maximum(abs(y - expected[0]), abs(x - expected[1])) < 4 * sigma * factor.max()  # no mirror image
    assert np.abs(centroid(image * near) - expected).max() < 0.1
    disc = (values > 0.5).astype(np.uint8)
    target = fit_target(disc, fit, 0)
    assert np.abs(centroid(target) - (centroid(disc) * factor + (fit.top, fit.left))).max() < 0.25
    back = unfit_scores(image[None].astype(np.float32) * near, fit)[0]
    assert np.abs(centroid(back) - centroid(values)).max() < 0.25


@given(st.tuples(st.integers(1, 260), st.integers(1, 260)), st.sampled_from([RESIZE, PAD]))
def test_a_target_holds_its_own_values_and_the_fill(original: tuple[int, int], spec: InputSection) -> None:
    target = np.random.default_rng(0).choice(np.array([0, 3, 7], np.uint8), original)
    fit = plan_fit(original, spec)
    fitted = fit_target(target, fit, 255)
    inside = fitted[fit.top : fit.top + fit.scaled[0], fit.left : fit.left + fit.scaled[1]]
    assert set(np.unique(inside)) <= set(np.unique(target))
    assert np.count_nonzero(fitted == 255) == fitted.size - inside.size


def test_a_target_of_metres_keeps_its_type() -> None:
    depth = np.linspace(0.1, 9.9, 50 * 300, dtype=np.float32).reshape(50, 300)
    fitted = fit_target(depth, plan_fit((50, 300), PAD), 0)
    assert fitted.dtype == np.float32 and set(np.unique(fitted)) - {0.0} <= set(np.unique(depth))


# Crops


def cropping(size: tuple[int, int] = (32, 48), long_side: int | None = None) -> InputSection:
    return InputSection(size=size, fit="crop", long_side=long_side)


def crop(target: NDArray[np.uint8], spec: InputSection, epoch: int = 0, **keys: object) -> tuple[slice, slice, Fit]:
    return plan_crop(target, spec, AugmentationSection.model_validate(keys), 255, sample_generator(1, epoch, "a"))


def test_prediction_sees_the_whole_image_at_its_own_scale() -> None:
    assert plan_fit((540, 960), cropping()) == Fit((540, 960), (540, 960), (540, 960), 0, 0)
    assert plan_fit((540, 960), cropping(long_side=480)) == Fit((540, 960), (270, 480), (270, 480), 0, 0)
    assert plan_fit((30, 20), cropping(long_side=60)) == Fit((30, 20), (60, 40), (60, 40), 0, 0)


@given(
    original=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    long_side=st.none() | st.integers(16, 150),
    low=st.floats(0.3, 1),
    high=st.floats(1, 3),
    rare=st.sampled_from([0.0, 0.5, 1.0]),
    epoch=st.integers(0, 1000),
)
def test_a_crop_has_its_size_and_the_scene_its_shape(
    original: tuple[int, int], long_side: int | None, low: float, high: float, rare: float, epoch: int
) -> None:
    target = np.random.default_rng(0).integers(0, 3, original, dtype=np.uint8)
    spec = cropping(long_side=long_side)
    rows, columns, fit = crop(target, spec, epoch, crop_scale=(low, high), rare_class_crops=rare)
    part = target[rows, columns]
    assert part.shape == fit.original and part.size > 0
    assert fit_image(np.zeros((*fit.original, 3), np.uint8), fit).shape == (32, 48, 3)
    fitted = fit_target(part, fit, 255)
    assert fitted.shape == (32, 48)
    assert np.count_nonzero(fitted == 255) == fitted.size - fit.scaled[0] * fit.scaled[1]
    own = 1.0 if long_side is None else long_side / max(original)
    for scaled, cut, size in zip(fit.scaled, fit.original, fit.size, strict=True):
        # Within the rounding to whole pixels, before and after; less than one pixel cannot be cut.
        least, most = low * own * cut - 0.51 - low * own / 2, high * own * cut + 0.51 + high * own / 2
        assert min(size, least) <= scaled <= max(1, most)
        assert scaled <= size


def test_crops_lie_anywhere_at_any_scale_of_the_range() -> None:
    target = np.zeros((100, 200), np.uint8)
    tops, lefts, scales = [], [], []
    for epoch in range(400):
        rows, columns, _ = crop(target, cropping(), epoch)
        tops.append(rows.start)
        lefts.append(columns.start)
        rows, columns, fit = crop(target, cropping(), epoch, crop_scale=(0.5, 2.0))
        scales.append(fit.scaled[1] / (columns.stop - columns.start))
    assert min(tops) == 0 and max(tops) == 100 - 32 and abs(np.mean(tops) - 34) < 4
    assert min(lefts) <= 2 and max(lefts) >= 150 and abs(np.mean(lefts) - 76) < 8
    assert 0.5 <= min(scales) < 0.53 and 1.9 < max(scales) <= 2.0
    assert 0.43 < np.mean(np.array(scales) < 1) < 0.57, "as often smaller as larger"


def test_a_small_image_stands_anywhere_in_its_crop() -> None:
    target = np.zeros((20, 20), np.uint8)
    places = set()
    for epoch in range(600):
        rows, columns, fit = crop(target, cropping((24, 22)), epoch)
        assert (rows, columns, fit.scaled) == (slice(0, 20), slice(0, 20), (20, 20))
        places.add((fit.top, fit.left))
    assert places == {(top, left) for top in range(5) for left in range(3)}


def test_rare_classes_are_met_as_often_as_common_ones() -> None:
    target = np.zeros((200, 200), np.uint8)
    target[5, 7] = 1  # one pixel, close to the corner
    target[120:125, 150:153] = 2
    target[:, 190:] = 255
    with_class = {probability: np.zeros(3) for probability in (0.0, 1.0)}
    for probability, counts in with_class.items():
        for epoch in range(400):
            rows, columns, _ = crop(target, cropping((32, 32)), epoch, rare_class_crops=probability)
            part = target[rows, columns]
            counts += [(part == value).any() for value in range(3)]
            assert (part != 255).any() or probability == 0
    assert with_class[0.0][1] < 12 and with_class[0.0][2] < 40
    assert 100 < with_class[1.0][1] < 170 and 100 < with_class[1.0][2] < 170


def test_without_any_class_a_crop_lies_anywhere() -> None:
    target = np.full((100, 100), 255, np.uint8)
    assert crop(target, cropping(), rare_class_crops=1.0) == crop(target, cropping())


def test_image_and_target_of_a_crop_show_the_same_place() -> None:
    y, x = np.mgrid[:100, :120]
    image = np.stack([2 * x, 2 * y, 0 * x], axis=2).astype(np.uint8)
    target = (x // 30 + 4 * (y // 25)).astype(np.uint8)
    for epoch in range(50):
        rows, columns, fit = crop(target, cropping(), epoch, crop_scale=(0.5, 2.0))
        new_image, new_target = fit_image(image[rows, columns], fit), fit_target(target[rows, columns], fit, 255)
        old_x, old_y = new_image[..., 0] / 2, new_image[..., 1] / 2
        sure = (new_target != 255) & (np.abs((old_x + 0.5) % 30 - 15) < 12) & (np.abs((old_y + 0.5) % 25 - 12.5) < 10)
        assert sure.any()
        assert np.array_equal(new_target[sure], (old_x // 30 + 4 * (old_y // 25)).astype(np.uint8)[sure])


def test_changing_one_limit_leaves_the_place_alone() -> None:
    target = np.zeros((300, 300), np.uint8)
    target[:150] = 1
    for epoch in range(20):
        plain = crop(target, cropping(), epoch)
        assert crop(target, cropping(), epoch, brightness=0.3, rare_class_crops=0.0) == plain
