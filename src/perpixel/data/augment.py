"""Augmentation as a function of (seed, epoch, sample id): workers and interruptions change nothing."""

from __future__ import annotations

import hashlib
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.recipe import AugmentationSection


def sample_generator(seed: int, epoch: int, sample_id: str) -> np.random.Generator:
    """The random numbers of one sample in one epoch."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{sample_id}".encode(errors="surrogateescape"), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


def augment(
    image_hwc: NDArray[np.uint8], target_hw: NDArray[Any], spec: AugmentationSection, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Flip, turn, move and relight one sample; image and target move together.

    All random numbers are drawn whatever the probabilities are, so that changing one of them leaves the
    draws of the others as they were.
    """
    draws = rng.random(12)
    if draws[0] < spec.horizontal_flip:
        image_hwc, target_hw = image_hwc[:, ::-1], target_hw[:, ::-1]
    if draws[1] < spec.vertical_flip:
        image_hwc, target_hw = image_hwc[::-1], target_hw[::-1]
    if draws[2] < spec.quarter_turns:
        turns = 1 + int(draws[3] * 3)
        image_hwc, target_hw = np.rot90(image_hwc, turns), np.rot90(target_hw, turns)
    image_hwc, target_hw = np.ascontiguousarray(image_hwc), np.ascontiguousarray(target_hw)
    if draws[4] < spec.affine:
        image_hwc, target_hw = _move(image_hwc, target_hw, spec, 2 * draws[5:9] - 1)
    if draws[9] < spec.photometric:
        image_hwc = _relight(image_hwc, spec.brightness * (2 * draws[10] - 1), spec.contrast * (2 * draws[11] - 1))
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


def _relight(image_hwc: NDArray[np.uint8], brightness: float, contrast: float) -> NDArray[np.uint8]:
    """Contrast about the image's own mean, then brightness as a fraction of the full range."""
    mean = float(image_hwc.mean())
    levels = (np.arange(256) - mean) * (1 + contrast) + mean + 255 * brightness
    relit: NDArray[np.uint8] = cv2.LUT(image_hwc, np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    return relit
