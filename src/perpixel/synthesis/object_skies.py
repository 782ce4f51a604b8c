"""Light and background of the scenes of objects: six skies, and seven plain colours before a studio's light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from perpixel.synthesis.noise import fractal, smoothstep
from perpixel.synthesis.parts import Floats
from perpixel.synthesis.scene import Color

__all__ = ["PLAIN", "Sky", "skies", "studio"]

_HEIGHT, _WIDTH = 128, 256

PLAIN: dict[str, Color] = {
    "white": (0.90, 0.90, 0.90),
    "grey": (0.22, 0.22, 0.22),
    "black": (0.005, 0.005, 0.005),
    "blue": (0.10, 0.25, 0.55),
    "green": (0.08, 0.30, 0.12),
    "cream": (0.78, 0.68, 0.48),
    "rose": (0.55, 0.20, 0.24),
}
"""Plain backgrounds: linear colours as the picture shows them."""


@dataclass(frozen=True)
class Sky:
    """``radiance_hwc``, row 0 up, its mean near 1 above the horizon; ``sun``: irradiance of the directional light."""

    name: str
    radiance_hwc: NDArray[np.float32]
    sun: Color


@dataclass(frozen=True)
class _Look:
    name: str
    zenith: Color
    horizon: Color
    ground: Color
    sun: Color
    clouds: float  # share of the sky
    cloud: Color
    glow: Color = (0.0, 0.0, 0.0)  # at the horizon, on one side


_LOOKS = (
    _Look("clear", (0.20, 0.42, 0.95), (0.85, 0.95, 1.05), (0.30, 0.26, 0.20), (4.0, 3.8, 3.4), 0.0, (1, 1, 1)),
    _Look("cloudy", (0.22, 0.45, 0.95), (0.80, 0.92, 1.05), (0.22, 0.30, 0.14), (3.2, 3.1, 2.9), 0.5, (1.5, 1.5, 1.5)),
    _Look(
        "overcast", (0.80, 0.85, 0.92), (1.0, 1.02, 1.05), (0.32, 0.31, 0.29), (0.9, 0.9, 0.9), 1.0, (1.0, 1.02, 1.06)
    ),
    _Look(
        "sunset",
        (0.16, 0.20, 0.48),
        (1.3, 0.60, 0.28),
        (0.16, 0.10, 0.08),
        (3.4, 2.0, 1.0),
        0.4,
        (1.0, 0.45, 0.35),
        (3.0, 1.2, 0.2),
    ),
    _Look(
        "dawn",
        (0.35, 0.42, 0.72),
        (1.1, 0.75, 0.78),
        (0.24, 0.22, 0.26),
        (2.4, 2.0, 1.9),
        0.35,
        (1.2, 0.9, 0.95),
        (1.2, 0.6, 0.4),
    ),
    _Look(
        "night",
        (0.10, 0.14, 0.34),
        (0.30, 0.34, 0.60),
        (0.06, 0.07, 0.10),
        (1.3, 1.5, 2.0),
        0.45,
        (0.30, 0.34, 0.50),
        (0.5, 0.35, 0.1),
    ),
)


@cache
def skies() -> tuple[Sky, ...]:
    """All six, always the same in the same order."""
    return tuple(Sky(look.name, _paint(look, seed), look.sun) for seed, look in enumerate(_LOOKS))


@cache
def studio() -> Sky:
    """Grey light, twice as bright from above as from below."""
    _, _, z = _directions()
    radiance = np.repeat((0.75 + 0.3 * z)[..., None], 3, axis=2)
    return Sky("studio", radiance.astype(np.float32), (2.6, 2.5, 2.4))


def _directions() -> tuple[Floats, Floats, Floats]:
    lift = np.pi / 2 - np.pi * (np.arange(_HEIGHT)[:, None] + 0.5) / _HEIGHT
    turn = 2 * np.pi * (np.arange(_WIDTH) + 0.5) / _WIDTH
    return np.cos(lift) * np.cos(turn), np.cos(lift) * np.sin(turn), np.sin(lift) + 0 * turn


def _paint(look: _Look, seed: int) -> NDArray[np.float32]:
    """Horizon to zenith, clouds on a level ceiling, glow of a low sun, ground below."""
    x, y, z = _directions()
    sky = _blend(look.horizon, look.zenith, smoothstep(0.0, 1.0, np.sqrt(np.maximum(z, 0))))
    sky += np.array(look.glow) * (np.exp(-np.abs(z) / 0.15) * np.maximum(x, 0) ** 3)[..., None]
    far = 1 / (np.maximum(z, 0) + 0.12)
    billows = fractal(x * far, y * far, seed + 40, wavelength=1.6, octaves=5)
    level = 0.45 - 0.9 * look.clouds
    cover = smoothstep(level, level + 0.35, billows) * smoothstep(0.0, 0.12, z) * min(1.0, 2 * look.clouds)
    shade = 0.8 + 0.5 * fractal(x * far + 0.1, y * far, seed + 41, wavelength=0.9, octaves=4)
    sky = sky * (1 - cover[..., None]) + np.array(look.cloud) * (cover * shade)[..., None]
    patches = 1 + 0.3 * fractal(x / (0.1 - np.minimum(z, 0)), y / (0.1 - np.minimum(z, 0)), seed + 42, wavelength=1.0)
    ground = np.array(look.ground) * patches[..., None]
    ground += (np.array(look.horizon) * 0.5 - ground) * np.exp(np.minimum(z, 0) / 0.06)[..., None]
    return np.where(z[..., None] > 0, sky, ground).astype(np.float32)


def _blend(low: Color, high: Color, share: Floats) -> Floats:
    return np.asarray(np.array(low) + (np.array(high) - np.array(low)) * share[..., None])
