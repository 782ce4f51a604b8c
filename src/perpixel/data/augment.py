"""Augmentation as a function of (seed, epoch, sample id): workers and interruptions change nothing."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.recipe import AugmentationSection

# RGB to luma and two axes of chroma (NTSC, FCC 1953): about these a hue turns and a saturation shrinks.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_DRAWS = 22  # random numbers of a sample


def sample_generator(seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """The random numbers of one sample in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{sample_id}".encode(errors="surrogateescape"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


class Orientation(NamedTuple):
    """One of the eight ways to lay down a picture: mirrored left to right or not, then so many quarter turns."""

    mirrored: bool
    turns: int


def draw_orientation(spec: AugmentationSection, rng: np.random.Generator) -> Orientation:
    """The orientation that `augment` chooses with these random numbers."""
    return _orientation(spec, rng.random(_DRAWS))


def orientations(spec: AugmentationSection) -> list[Orientation]:
    """All orientations that `augment` may choose."""
    choices = ([0.0] if p == 1 else [1.0] if p == 0 else [0.0, 1.0] for p in _orienting(spec))
    drawn = itertools.product(*choices, [0.0, 0.4, 0.8])
    return sorted({_orientation(spec, np.array(draws)) for draws in drawn})


def random_changes(spec: AugmentationSection) -> list[str]:
    """Names of the changes of `augment` that hardly ever come out the same twice: all but orientations."""
    names = ("affine", "photometric", "grayscale", "degrade")
    return [name for name in names if getattr(spec, name) > 0]


def _orienting(spec: AugmentationSection) -> tuple[float, float, float]:
    return spec.horizontal_flip, spec.vertical_flip, spec.quarter_turns


def _orientation(spec: AugmentationSection, draws: NDArray[np.float64]) -> Orientation:
    mirrored, upside_down, turned = (
        bool(draw < probability) for draw, probability in zip(draws[:3], _orienting(spec), strict=True)
    )
    turns = 1 + int(draws[3] * 3) if turned else 0
    # Upside down is mirrored and turned by half.
    return Orientation(mirrored != upside_down, (turns + 2 * upside_down) % 4)


def orient(array_hw: NDArray[Any], orientation: Orientation) -> NDArray[Any]:
    """array_hw or array_hwc laid down so, contiguous."""
    mirrored = array_hw[:, ::-1] if orientation.mirrored else array_hw
    return np.ascontiguousarray(np.rot90(mirrored, orientation.turns))


def augment(
    image_hwc: NDArray[np.uint8],
    target_hw: NDArray[Any],
    spec: AugmentationSection,
    rng: np.random.Generator,
    *,
    zoom_divides: bool = False,
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Flip, turn, move, relight and degrade one sample; image and target move together.

    ``zoom_divides``: what is enlarged by s comes nearer by s, so its target is divided by s.

    All random numbers are drawn whatever the probabilities are, so that changing one of them leaves the
    draws of the others as they were. A new kind of change takes its draws from the end.
    """
    draws = rng.random(_DRAWS)
    orientation = _orientation(spec, draws)
    image_hwc, target_hw = orient(image_hwc, orientation), orient(target_hw, orientation)
    if draws[4] < spec.affine:
        signed = 2 * draws[5:9] - 1
        image_hwc, target_hw = _move(image_hwc, target_hw, spec, signed)
        if zoom_divides:
            target_hw = target_hw / target_hw.dtype.type(1 + signed[1] * spec.scale)
    if draws[9] < spec.photometric:
        image_hwc = _relight(image_hwc, spec, 2 * draws[10:13] - 1)
        image_hwc = _recolor(image_hwc, spec, 2 * draws[13:16] - 1)
    if draws[16] < spec.grayscale:
        image_hwc = cv2.cvtColor(cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if draws[17] < spec.degrade:
        image_hwc = _degrade(image_hwc, spec, draws[18:22])
    return image_hwc, target_hw


def _move(
    image_hwc: NDArray[np.uint8], target_hw: NDArray[Any], spec: AugmentationSection, signed: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Shift, scale and rotate about the centre; what comes in from outside is mirrored, in both alike."""
    height, width = target_hw.shape[:2]
    # OpenCV's pixel centres lie on whole numbers.
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, float(signed[0] * spec.rotate), float(1 + signed[1] * spec.scale))
    matrix[:, 2] += signed[2] * spec.shift * width, signed[3] * spec.shift * height
    border = {"borderMode": cv2.BORDER_REFLECT_101}
    moved_image = cv2.warpAffine(image_hwc, matrix, (width, height), flags=cv2.INTER_LINEAR, **border)
    moved_target = cv2.warpAffine(target_hw, matrix, (width, height), flags=cv2.INTER_NEAREST, **border)
    return moved_image, moved_target


def _relight(image_hwc: NDArray[np.uint8], spec: AugmentationSection, signed: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Contrast about the image's own mean, then brightness, then gamma."""
    mean = float(image_hwc.mean())
    levels = (np.arange(256) - mean) * (1 + spec.contrast * signed[1]) + mean + 255 * spec.brightness * signed[0]
    levels = np.clip(levels, 0, 255)
    if spec.gamma > 0:
        levels = 255 * (levels / 255) ** _about_one(spec.gamma, signed[2])
    relit: NDArray[np.uint8] = cv2.LUT(image_hwc, np.rint(levels).astype(np.uint8))
    return relit


def _recolor(image_hwc: NDArray[np.uint8], spec: AugmentationSection, signed: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Turn the hue about the grey axis at equal luma, scale the saturation, and warm or cool the light."""
    if not (spec.hue or spec.saturation or spec.temperature):
        return image_hwc
    angle, saturation = 2 * np.pi * spec.hue * signed[0], 1 + spec.saturation * signed[1]
    along, across = saturation * np.cos(angle), saturation * np.sin(angle)
    warmth = _about_one(spec.temperature, signed[2])
    turn = np.array([[1, 0, 0], [0, along, -across], [0, across, along]])
    matrix = np.diag([warmth, 1, 1 / warmth]) @ _FROM_YIQ @ turn @ _TO_YIQ
    recolored: NDArray[np.uint8] = cv2.transform(image_hwc, matrix)
    return recolored


def _about_one(limit: float, signed: float) -> float:
    """A factor between 1 / (1 + limit) and 1 + limit: up as often and as far as down."""
    return float((1 + limit) ** signed)


def _degrade(image_hwc: NDArray[np.uint8], spec: AugmentationSection, draws: NDArray[np.float64]) -> NDArray[np.uint8]:
    """What a camera does, in its order: blur of the lens, noise of the sensor, compression of the file."""
    sigma, noise, quality = spec.blur * draws[0], 255 * spec.noise * draws[1], 100 - round(100 * spec.jpeg * draws[2])
    if sigma > 0.1:  # less is no blur at all on whole pixels
        image_hwc = cv2.GaussianBlur(image_hwc, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    if noise > 0:
        # OpenCV's generator takes a third of NumPy's time; it is seeded here, so nothing before it matters.
        cv2.setRNGSeed(int(draws[3] * 2**31))
        # One plane: of several channels a single sigma would reach the first alone.
        noise_hw = cv2.randn(np.empty((len(image_hwc), image_hwc[0].size), np.int16), 0, noise)
        image_hwc = cv2.add(image_hwc, noise_hw.reshape(image_hwc.shape), dtype=cv2.CV_8U)
    if spec.jpeg > 0:
        settings = [cv2.IMWRITE_JPEG_QUALITY, max(1, quality)]
        _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image_hwc, cv2.COLOR_RGB2BGR), settings)
        image_hwc = cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return image_hwc
