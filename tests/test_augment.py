"""Augmentation: a function of (seed, epoch, sample id), the same for an image and its target."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from perpixel.data.augment import augment, sample_generator
from perpixel.recipe import AugmentationSection

NOTHING = AugmentationSection(horizontal_flip=0)
EVERYTHING = AugmentationSection(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    quarter_turns=0.5,
    affine=0.7,
    shift=0.1,
    scale=0.2,
    rotate=30,
    photometric=0.5,
    brightness=0.2,
    contrast=0.3,
)
MOVES = EVERYTHING.model_copy(update={"photometric": 0.0})
SIDE = 120


def coordinates() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image whose red is twice x and whose green is twice y; a target that is a coarse board of the same places."""
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.stack([2 * x, 2 * y, np.zeros_like(x)], axis=2).astype(np.uint8)
    return image, board(x, y)


def board(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.uint8]:
    return (np.floor(x / 10) * 12 + np.floor(y / 10)).astype(np.uint8)


def some_image(seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (40, 40, 3), dtype=np.uint8), rng.choice(np.array([0, 1, 7, 255], np.uint8), (40, 40))


def run(spec: AugmentationSection, seed: int, epoch: int, id_: str) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    return augment(*some_image(), spec, sample_generator(seed, epoch, id_))


# Determinism


def test_a_function_of_seed_epoch_and_id() -> None:
    first = run(EVERYTHING, 1, 2, "a")
    run(EVERYTHING, 9, 9, "z")
    np.random.seed(3)
    again = run(EVERYTHING, 1, 2, "a")
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    assert first[0].flags.c_contiguous and first[1].flags.c_contiguous


def test_each_of_the_three_counts() -> None:
    draws = {
        sample_generator(seed, epoch, id_).random() for seed in (1, 2, 11) for epoch in (1, 2, 12) for id_ in "ab1"
    }
    assert len(draws) == 27


def test_the_same_in_another_process() -> None:
    """Python's own hash() of a text differs between processes; this must not."""
    code = "from perpixel.data.augment import sample_generator; print(sample_generator(42, 3, 'ä/1').random())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == sample_generator(42, 3, "ä/1").random() == GOLDEN


GOLDEN = 0.22669181732648536


def test_an_id_that_is_not_utf8() -> None:
    assert sample_generator(1, 1, "caf\udce9").random() != sample_generator(1, 1, "cafe").random()


def test_one_probability_leaves_the_other_draws_alone() -> None:
    """With relighting alone: whether there are flips must not change by how much."""
    lit = AugmentationSection(horizontal_flip=0, photometric=1, brightness=0.2, contrast=0.3)
    both = lit.model_copy(update={"horizontal_flip": 1.0})
    image, target = some_image()
    for id_ in "abc":
        plain, _ = augment(image, target, lit, sample_generator(1, 1, id_))
        flipped, _ = augment(image, target, both, sample_generator(1, 1, id_))
        assert np.array_equal(plain, flipped[:, ::-1])


def test_pictures_of_old_recipes_stay() -> None:
    """Of a recipe without the later kinds of change; written down before those came."""
    spec = EVERYTHING.model_copy(update={"affine": 0.0, "photometric": 1.0})
    digest = hashlib.sha256()
    for epoch in range(8):
        for array in run(spec, 1, epoch, "a"):
            digest.update(array.tobytes())
    assert digest.hexdigest()[:16] == "65c1ff36e72a9246"


# Nothing


@given(st.integers(0, 1000))
def test_probabilities_of_zero_change_nothing(epoch: int) -> None:
    limits = EVERYTHING.model_copy(
        update=dict.fromkeys(("horizontal_flip", "vertical_flip", "quarter_turns", "affine", "photometric"), 0.0)
    )
    image, target = some_image()
    for spec in (NOTHING, limits):
        new_image, new_target = augment(image, target, spec, sample_generator(1, epoch, "a"))
        assert np.array_equal(new_image, image) and np.array_equal(new_target, target)


@given(st.integers(0, 200))
def test_limits_of_zero_change_nothing(epoch: int) -> None:
    image, target = some_image()
    still = AugmentationSection(horizontal_flip=0, affine=1, photometric=1)
    new_image, new_target = augment(image, target, still, sample_generator(1, epoch, "a"))
    assert np.array_equal(new_image, image) and np.array_equal(new_target, target)


def test_the_inputs_stay_as_they_are() -> None:
    image, target = some_image()
    image.setflags(write=False)
    target.setflags(write=False)
    for epoch in range(20):
        augment(image, target, EVERYTHING, sample_generator(1, epoch, "a"))
    assert np.array_equal(image, some_image()[0])


# Image and target together


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"horizontal_flip": 1.0}, {"flip"}),
        ({"vertical_flip": 1.0}, {"flop"}),
        ({"quarter_turns": 1.0}, {"left", "half", "right"}),
        ({"horizontal_flip": 0.5, "vertical_flip": 0.5}, {"none", "flip", "flop", "half"}),
    ],
)
def test_flips_and_turns_are_exact(keys: dict[str, float], expected: set[str]) -> None:
    image, target = some_image()
    moves = {
        "none": lambda array: array,
        "flip": lambda array: array[:, ::-1],
        "flop": lambda array: array[::-1],
        "half": lambda array: array[::-1, ::-1],
        "left": lambda array: array.swapaxes(0, 1)[::-1],
        "right": lambda array: array.swapaxes(0, 1)[:, ::-1],
    }
    seen = set()
    for epoch in range(60):
        spec = NOTHING.model_copy(update=keys)
        new_image, new_target = augment(image, target, spec, sample_generator(1, epoch, "a"))
        (name,) = (name for name, move in moves.items() if np.array_equal(move(image), new_image))
        assert np.array_equal(moves[name](target), new_target)
        seen.add(name)
    assert seen == expected


@given(st.integers(0, 10_000))
def test_the_same_warp_hits_image_and_target(epoch: int) -> None:
    """The moved image says of each pixel where it came from; the moved target must come from there as well."""
    image, target = coordinates()
    new_image, new_target = augment(image, target, MOVES, sample_generator(1, epoch, "a"))
    x, y = new_image[..., 0] / 2, new_image[..., 1] / 2
    # Within a pixel of a line of the board either side is right; at the image's border colours are mirrored.
    off_line = (np.abs((x + 0.5) % 10 - 5) < 4) & (np.abs((y + 0.5) % 10 - 5) < 4)
    assert off_line.mean() > 0.5
    assert np.array_equal(new_target[off_line], board(x, y)[off_line])


def moved(limit: dict[str, float], epoch: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear part and shift of the map from new pixels (x, y) to old ones, about the centre."""
    image, target = coordinates()
    spec = NOTHING.model_copy(update={"affine": 1.0, **limit})
    new_image, _ = augment(image, target, spec, sample_generator(1, epoch, "a"))
    middle = slice(SIDE // 2 - 20, SIDE // 2 + 20)
    old = new_image[middle, middle, :2].reshape(-1, 2) / 2 - (SIDE - 1) / 2
    y, x = np.mgrid[middle, middle]
    new = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)
    new[:, :2] -= (SIDE - 1) / 2
    solution = np.linalg.lstsq(new, old, rcond=None)[0]
    return solution[:2], solution[2]


def test_limits_are_kept_and_reached() -> None:
    identity = np.eye(2)
    angles, scales, shifts = [], [], []
    for epoch in range(150):
        linear, shift = moved({"rotate": 20}, epoch)
        assert np.allclose(linear @ linear.T, identity, atol=0.02) and np.abs(shift).max() < 0.2
        angles.append(np.degrees(np.arctan2(linear[0, 1], linear[0, 0])))
        linear, shift = moved({"scale": 0.25}, epoch)
        assert np.allclose(linear, linear[0, 0] * identity, atol=0.01) and np.abs(shift).max() < 0.2
        scales.append(1 / linear[0, 0])
        linear, shift = moved({"shift": 0.1}, epoch)
        assert np.allclose(linear, identity, atol=0.01)
        shifts.append(-shift / SIDE)
    for values, middle, limit in ((angles, 0, 20), (scales, 1, 0.25), (shifts, 0, 0.1)):
        off = np.asarray(values) - middle
        assert 0.9 * limit < off.max() < 1.03 * limit and 0.9 * limit < -off.min() < 1.03 * limit
        assert abs(off.mean()) < 0.25 * limit


def test_rotation_is_about_the_centre() -> None:
    """Half a pixel off the centre would show as a shift of up to a pixel."""
    assert max(np.abs(moved({"rotate": 180}, epoch)[1]).max() for epoch in range(30)) < 0.2


# Values


@given(st.integers(0, 10_000))
def test_class_values_stay_in_the_set(epoch: int) -> None:
    image, target = some_image()
    _, moved_target = augment(image, target, EVERYTHING, sample_generator(1, epoch, "a"))
    assert set(np.unique(moved_target)) <= {0, 1, 7, 255} and moved_target.dtype == target.dtype
    assert moved_target.shape == target.shape


@pytest.mark.parametrize("value", [0, 255])
def test_a_uniform_target_stays(value: int) -> None:
    """What moves in from outside is mirrored: neither ignored pixels nor a class come from nowhere."""
    image, _ = some_image()
    target = np.full((40, 40), value, np.uint8)
    for epoch in range(50):
        assert np.all(augment(image, target, EVERYTHING, sample_generator(1, epoch, "a"))[1] == value)


@given(st.integers(0, 10_000))
def test_relighting_is_linear_about_the_mean_and_leaves_the_target(epoch: int) -> None:
    image, target = some_image()
    image = 100 + image // 8
    spec = NOTHING.model_copy(update={"photometric": 1.0, "brightness": 0.1, "contrast": 0.4})
    lit, new_target = augment(image, target, spec, sample_generator(1, epoch, "a"))
    assert np.array_equal(new_target, target)
    slope, offset = np.polyfit(image.ravel().astype(float), lit.ravel().astype(float), 1)
    assert abs(slope - 1) <= 0.41
    assert abs(slope * image.mean() + offset - image.mean()) <= 0.1 * 255 + 0.5
    assert np.abs(lit - (slope * image + offset)).max() < 1, "no clipping, so within rounding"


def test_relighting_stays_in_range() -> None:
    image = np.tile(np.array([0, 255], np.uint8), (40, 20))[..., None].repeat(3, axis=2)
    spec = NOTHING.model_copy(update={"photometric": 1.0, "brightness": 0.9, "contrast": 0.9})
    for epoch in range(50):
        lit, _ = augment(image, np.zeros((40, 40), np.uint8), spec, sample_generator(1, epoch, "a"))
        assert lit[0, 0, 0] <= lit[0, 1, 0], "brighter than white is white, and does not wrap around"


def test_probabilities_are_kept() -> None:
    image, target = some_image()
    spec = NOTHING.model_copy(update={"horizontal_flip": 0.3})
    flips = [
        not np.array_equal(augment(image, target, spec, sample_generator(1, epoch, "a"))[0], image)
        for epoch in range(1000)
    ]
    assert 0.25 < np.mean(flips) < 0.35


# Colour


def colored(seed: int = 0) -> NDArray[np.uint8]:
    """Muted colours: no change of light below takes one out of the range."""
    return np.random.default_rng(seed).integers(90, 170, (40, 40, 3), dtype=np.uint8)


def changed(image: NDArray[np.uint8], epoch: int, **keys: float) -> NDArray[np.float64]:
    target = np.zeros(image.shape[:2], np.uint8)
    spec = AugmentationSection.model_validate({"horizontal_flip": 0.0, **keys})
    return augment(image, target, spec, sample_generator(1, epoch, "a"))[0].astype(float)


@given(st.integers(0, 10_000))
def test_gamma_keeps_black_white_and_order(epoch: int) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    levels = changed(image, epoch, photometric=1.0, gamma=0.5)[..., 0].ravel()
    assert levels[0] == 0 and levels[255] == 255 and np.all(np.diff(levels) >= 0)
    exponent = np.log(levels[128] / 255) / np.log(128 / 255)
    assert 1 / 1.52 < exponent < 1.52
    assert np.abs(levels - 255 * (np.arange(256) / 255) ** exponent).max() < 2


def test_gamma_brightens_as_often_as_it_darkens() -> None:
    image = np.full((8, 8, 3), 128, np.uint8)
    signs = [np.sign(changed(image, epoch, photometric=1.0, gamma=0.5).mean() - 128) for epoch in range(200)]
    assert abs(np.mean(signs)) < 0.2


@given(st.integers(0, 10_000))
def test_hue_and_saturation_leave_grey_and_luma(epoch: int) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.array_equal(changed(grey, epoch, photometric=1.0, hue=0.5, saturation=0.9), grey)
    image = colored()
    luma = np.array([0.299, 0.587, 0.114])
    new = changed(image, epoch, photometric=1.0, hue=0.05, saturation=0.3)
    assert np.abs((new - image) @ luma).max() < 1


def test_hue_turns_within_its_limit_and_saturation_scales() -> None:
    image = colored()
    plain = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2YCrCb)[..., 1:].astype(float) - 0.5
    ratios = []
    for epoch in range(100):
        new = changed(image, epoch, photometric=1.0, saturation=0.5)
        chroma = cv2.cvtColor(new.astype(np.float32), cv2.COLOR_RGB2YCrCb)[..., 1:] - 0.5
        ratios.append((plain * chroma).sum() / (plain**2).sum())
    assert 0.49 < min(ratios) < 0.55 and 1.45 < max(ratios) < 1.51
    red = np.tile(np.array([150, 100, 100], np.uint8), (8, 8, 1))
    hues = []
    for epoch in range(100):
        new = changed(red, epoch, photometric=1.0, hue=0.1)[:1, :1]
        hue = float(cv2.cvtColor(new.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)[0, 0, 0])
        hues.append((hue + 180) % 360 - 180)
    # A tenth of the circle is 36 degrees about the grey axis; HSV measures angles along a hexagon.
    assert 25 < max(hues) < 55 and -55 < min(hues) < -25


@given(st.integers(0, 10_000))
def test_temperature_moves_red_against_blue(epoch: int) -> None:
    image = np.full((8, 8, 3), 120, np.uint8)
    red, green, blue = changed(image, epoch, photometric=1.0, temperature=0.2)[0, 0]
    assert green == 120 and abs(red * blue - 120**2) <= 121 and 120 / 1.21 < red < 120 * 1.21


def test_grayscale_is_a_probability_of_its_own() -> None:
    image = colored()
    grey = [bool(np.ptp(changed(image, epoch, grayscale=0.3), axis=2).max() == 0) for epoch in range(500)]
    assert 0.24 < np.mean(grey) < 0.36


# What a camera does


def test_blur_noise_and_compression_stay_within_their_limits() -> None:
    step = np.zeros((64, 64, 3), np.uint8)
    step[:, 32:] = 200
    flat = np.full((64, 64, 3), 128, np.uint8)
    widths, sigmas = [], []
    for epoch in range(60):
        edge = changed(step, epoch, degrade=1.0, blur=2.0)[32, :, 0]
        widths.append(200 / np.diff(edge).max() / np.sqrt(2 * np.pi))  # sigma of a blurred step, from its slope
        noisy = changed(flat, epoch, degrade=1.0, noise=0.05)
        sigmas.append((noisy - 128).std() / 255)
        assert abs((noisy - 128).mean()) < 1 and np.ptp(noisy.std(axis=(0, 1))) < 1, "in every channel"
    assert max(widths) == pytest.approx(2, rel=0.1) and min(widths) < 0.6
    assert max(sigmas) == pytest.approx(0.05, rel=0.1) and min(sigmas) < 0.005
    grey = colored()[..., :1].repeat(3, axis=2)
    errors = [np.abs(changed(grey, epoch, degrade=1.0, jpeg=0.8) - grey).mean() for epoch in range(60)]
    assert min(errors) < 2 and max(errors) > 8, "from nearly none to a strong one"


def test_colours_survive_compression() -> None:
    """Red stays red: the codec's order of channels is not ours."""
    image = np.tile(np.array([200, 60, 20], np.uint8), (32, 32, 1))
    assert np.abs(changed(image, 0, degrade=1.0, jpeg=0.01) - image).max() < 6


def test_noise_is_a_function_of_the_sample_alone() -> None:
    first = changed(colored(), 3, degrade=1.0, noise=0.1)
    cv2.setRNGSeed(99)
    assert np.array_equal(changed(colored(), 3, degrade=1.0, noise=0.1), first)
    assert not np.array_equal(changed(colored(), 4, degrade=1.0, noise=0.1), first)


ALL = EVERYTHING.model_copy(
    update={
        "gamma": 0.4,
        "hue": 0.1,
        "saturation": 0.5,
        "temperature": 0.2,
        "grayscale": 0.2,
        "degrade": 0.7,
        "blur": 1.5,
        "noise": 0.05,
        "jpeg": 0.7,
    }
)


@given(st.integers(0, 10_000))
def test_whatever_happens_the_target_only_moves(epoch: int) -> None:
    image, target = coordinates()
    plain, plain_target = augment(image, target, MOVES, sample_generator(1, epoch, "a"))
    new, new_target = augment(image, target, ALL, sample_generator(1, epoch, "a"))
    assert np.array_equal(new_target, plain_target)
    assert new.shape == plain.shape and new.dtype == np.uint8 and new.flags.c_contiguous
