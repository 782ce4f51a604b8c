"""Night from day: what a camera would have made of a photographed scene in much less light.

A photograph is taken back to linear sensor values (inverse tone curve, inverse white balance), a shorter exposure is
drawn, the sensor's noise is added behind a Bayer mosaic, and the picture is developed again. After Brooks et al. 2019,
"Unprocessing Images for Learned Raw Denoising", from whom tone curve, white balance and the noise levels are; the row
noise and the quantisation are those of Wei et al. 2020, "A Physics-based Noise Formation Model for Extreme Low-light
Raw Denoising" (ELD). Two things are simpler: the sensor has the primaries of sRGB, and noise is white.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from perpixel.errors import RequestError
from perpixel.imresize import imresize

__all__ = [
    "NightScene",
    "NightSettings",
    "darken",
    "develop_raw",
    "draw_scene",
    "expose_raw",
    "to_linear",
    "to_picture",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class NightSettings:
    """Ranges that `draw_scene` draws from, each as (lowest, highest).

    Attributes:
        stops: how many times the light is halved, evenly.
        shot: variance of shot noise over signal, evenly in its logarithm (Brooks et al. 2019: 0.0001 to 0.012, where
            1 is the sensor's white). The read noise follows from it.
        row_share: standard deviation of a row's offset over that of read noise. ELD has a value a camera; this range
            is a choice.
        bits: of the sensor's quantisation.
        red_gain, blue_gain: of white balance (Brooks et al. 2019).
        jpeg: quality, or None for pictures that are not compressed.
    """

    stops: tuple[float, float] = (1.0, 4.0)
    shot: tuple[float, float] = (0.0001, 0.012)
    row_share: tuple[float, float] = (0.0, 0.3)
    bits: tuple[int, int] = (10, 14)
    red_gain: tuple[float, float] = (1.9, 2.4)
    blue_gain: tuple[float, float] = (1.5, 1.9)
    jpeg: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        lowest: dict[str, tuple[float, float]] = {
            "stops": (0, 20), "shot": (1e-9, 1), "row_share": (0, 100), "bits": (1, 16),
            "red_gain": (1, 100), "blue_gain": (1, 100), "jpeg": (1, 100),
        }  # fmt: skip
        for name, (bottom, top) in lowest.items():
            value = getattr(self, name)
            if value is not None and not bottom <= value[0] <= value[1] <= top:
                raise RequestError(
                    "this is no range that can be drawn from",
                    where=f"{name} = {value[0]}..{value[1]}",
                    rule=f"From {bottom:g} to {top:g}, the lower end first.",
                    cure="Correct the range.",
                )


@dataclass(frozen=True)
class NightScene:
    """What was drawn for one picture.

    Attributes:
        stops: how many times the light was halved.
        shot, read: the variance of the noise of a sensor value x is ``shot * x + read``.
        row: standard deviation of a row's offset.
        bits: of the sensor's quantisation; None: none.
        red_gain, blue_gain: of white balance; green has 1.
        jpeg: quality, or None.
    """

    stops: float = 0.0
    shot: float = 0.0
    read: float = 0.0
    row: float = 0.0
    bits: int | None = None
    red_gain: float = 1.0
    blue_gain: float = 1.0
    jpeg: int | None = None


def draw_scene(rng: Generator, settings: NightSettings) -> NightScene:
    """Draw a scene. ``log read = 2.18 log shot + 1.20 + N(0, 0.26)``, natural logarithms (Brooks et al. 2019)."""
    log_shot = rng.uniform(*np.log(settings.shot))
    read = math.exp(rng.normal(2.18 * log_shot + 1.20, 0.26))
    return NightScene(
        stops=rng.uniform(*settings.stops),
        shot=math.exp(log_shot),
        read=read,
        row=rng.uniform(*settings.row_share) * math.sqrt(read),
        bits=int(rng.integers(*settings.bits, endpoint=True)),
        red_gain=rng.uniform(*settings.red_gain),
        blue_gain=rng.uniform(*settings.blue_gain),
        jpeg=int(rng.integers(*settings.jpeg, endpoint=True)) if settings.jpeg else None,
    )


def darken(
    image_hwc: NDArray[Any],
    rng: Generator,
    scene: NightScene,
    *,
    scale: int = 1,
    truth: Literal["dark", "day"] = "dark",
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A noisy picture of the scene at night, and the clean one that belongs to it.

    Args:
        image_hwc: well-exposed RGB, uint8, uint16, or float in [0, 1].
        rng: draws the noise.
        scene: what was drawn for this picture; see `draw_scene`.
        scale: the noisy picture is developed at full size, then made this much smaller by `imresize`, whose kernel is
            widened so that nothing aliases.
        truth: the clean picture is as dark as the noisy one (denoising), or the photograph itself (enhancement).

    Returns:
        ``(noisy_hwc, clean_hwc)``; the sides of the clean one are those of the image, cut to multiples of ``scale``
        (below and on the right), and also to even ones, as a mosaic has them; the noisy one is ``scale`` times smaller.

    Raises:
        ValueError: the image is not RGB, or smaller than one cell of mosaic and scale.
    """
    step = math.lcm(2, scale)
    height, width = (side - side % step for side in image_hwc.shape[:2])
    if image_hwc.ndim != 3 or image_hwc.shape[2] != 3 or not (height and width):
        raise ValueError(f"an RGB image of at least {step} x {step} pixels; it is {image_hwc.shape}")
    day_hwc = _unit(image_hwc[:height, :width])
    linear_hwc = to_linear(day_hwc) * 2.0**-scene.stops
    noisy_hwc = _bytes(to_picture(develop_raw(expose_raw(linear_hwc, rng, scene), scene)))
    if scene.jpeg is not None:
        noisy_hwc = _through_jpeg(noisy_hwc, scene.jpeg)
    if scale > 1:
        noisy_hwc = _bytes(imresize(noisy_hwc, (height // scale, width // scale)) / 255)
    return noisy_hwc, _bytes(day_hwc if truth == "day" else to_picture(linear_hwc))


def expose_raw(linear_hwc: Floats, rng: Generator, scene: NightScene) -> Floats:
    """Sensor values raw_hw of linear, white-balanced light: RGGB mosaic, noise, quantisation.

    Photons are Poisson, and read and row noise normal. Values are clipped at the sensor's white, 1, but not at 0: a
    sensor's black level lies above the lowest number that it can write.
    """
    gains = np.array([scene.red_gain, 1.0, scene.blue_gain])
    light_hw = _mosaic(linear_hwc / gains)
    if scene.shot:
        light_hw = np.asarray(rng.poisson(light_hw / scene.shot) * scene.shot, dtype=np.float64)
    noise_hw = math.sqrt(scene.read) * rng.standard_normal(light_hw.shape)
    noise_hw += scene.row * rng.standard_normal((len(light_hw), 1))
    raw_hw = np.minimum(light_hw + noise_hw, 1.0)
    if scene.bits is None:
        return raw_hw
    white = 2.0**scene.bits - 1
    rounded_hw: Floats = np.round(raw_hw * white) / white
    return rounded_hw


def develop_raw(raw_hw: Floats, scene: NightScene) -> Floats:
    """linear_hwc of RGGB sensor values: white balance, then the interpolation of Malvar, He and Cutler 2004.

    White balance comes first, as in raw converters: the interpolation takes the detail of one colour from the others,
    which is wrong by the gains where they are not balanced yet.
    """
    gain_hw = np.ones_like(raw_hw)
    gain_hw[0::2, 0::2], gain_hw[1::2, 1::2] = scene.red_gain, scene.blue_gain
    return _demosaic(raw_hw * gain_hw).clip(0, 1)


# ---------------------------------------------------------------- tone curve


def to_linear(picture_hwc: Floats) -> Floats:
    """Light in [0, 1] of a picture in [0, 1]: the inverse of `to_picture`."""
    encoded_hwc = 0.5 - np.sin(np.arcsin(1 - 2 * picture_hwc) / 3)
    above_hwc = ((np.maximum(encoded_hwc, 0.04045) + 0.055) / 1.055) ** 2.4
    return np.where(encoded_hwc <= 0.04045, encoded_hwc / 12.92, above_hwc)


def to_picture(linear_hwc: Floats) -> Floats:
    """The picture in [0, 1] of light in [0, 1]: sRGB (IEC 61966-2-1), then the S-shaped curve 3 x^2 - 2 x^3."""
    above_hwc = 1.055 * np.maximum(linear_hwc, 0.0031308) ** (1 / 2.4) - 0.055
    encoded_hwc = np.where(linear_hwc <= 0.0031308, 12.92 * linear_hwc, above_hwc)
    picture_hwc: Floats = encoded_hwc * encoded_hwc * (3 - 2 * encoded_hwc)
    return picture_hwc


# ---------------------------------------------------------------- mosaic

# Malvar, He and Cutler 2004, figure 2: what is missing, from the sensor values around it; each sums to 8.
_GREEN = np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8
_ROW = np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]) / 8
_DIAGONAL = (
    np.array([[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]) / 8
)


def _mosaic(image_hwc: Floats) -> Floats:
    raw_hw = image_hwc[..., 1].copy()
    raw_hw[0::2, 0::2] = image_hwc[0::2, 0::2, 0]
    raw_hw[1::2, 1::2] = image_hwc[1::2, 1::2, 2]
    return raw_hw


def _demosaic(raw_hw: Floats) -> Floats:
    import cv2

    def filtered(kernel: Floats) -> Floats:
        # The border is mirrored around its own pixels, which keeps the colours of the mosaic in their places.
        found = cv2.filter2D(raw_hw, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
        return np.asarray(found, dtype=np.float64)

    green, diagonal = filtered(_GREEN), filtered(_DIAGONAL)
    row, column = filtered(_ROW), filtered(np.ascontiguousarray(_ROW.T))
    image_hwc = np.repeat(raw_hw[..., None], 3, axis=2)
    image_hwc[0::2, 0::2, 1], image_hwc[1::2, 1::2, 1] = green[0::2, 0::2], green[1::2, 1::2]
    image_hwc[0::2, 1::2, 0], image_hwc[1::2, 0::2, 0] = row[0::2, 1::2], column[1::2, 0::2]
    image_hwc[0::2, 1::2, 2], image_hwc[1::2, 0::2, 2] = column[0::2, 1::2], row[1::2, 0::2]
    image_hwc[1::2, 1::2, 0], image_hwc[0::2, 0::2, 2] = diagonal[1::2, 1::2], diagonal[0::2, 0::2]
    return image_hwc


# ---------------------------------------------------------------- numbers


def _unit(image_hwc: NDArray[Any]) -> Floats:
    if image_hwc.dtype.kind == "f":
        return image_hwc.astype(np.float64)
    return np.asarray(image_hwc / np.iinfo(image_hwc.dtype).max, dtype=np.float64)


def _bytes(unit_hwc: NDArray[Any]) -> NDArray[np.uint8]:
    return np.round(unit_hwc.clip(0, 1) * 255).astype(np.uint8)


def _through_jpeg(image_hwc: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    import cv2

    _, data = cv2.imencode(".jpg", image_hwc[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded_hwc: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded_hwc[..., ::-1], dtype=np.uint8)
