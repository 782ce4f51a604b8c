"""Noise that is the same on every machine: gradient noise of the plane, sums of octaves, and tiles without a seam."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def smoothstep(low: float, high: float, x: ArrayLike) -> Floats:
    """0 below ``low``, 1 above ``high``, a cubic with level ends between."""
    t = np.clip((np.asarray(x, dtype=np.float64) - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float64)


def gradient_noise(x: Floats, y: Floats, seed: int) -> Floats:
    """Perlin's gradient noise ("Improving Noise", 2002) with a lattice of 1 and a period of 256; about -0.8 to 0.8."""
    rng = np.random.default_rng(seed)
    table = np.tile(rng.permutation(256), 2)
    angle = rng.uniform(0.0, 2.0 * np.pi, 256)
    gradient_x, gradient_y = np.cos(angle), np.sin(angle)
    x_cell, y_cell = np.floor(x), np.floor(y)
    dx, dy = x - x_cell, y - y_cell
    column, row = x_cell.astype(np.int64) & 255, y_cell.astype(np.int64) & 255
    below, above = table[row], table[(row + 1) & 255]

    def corner(hashed_row: NDArray[np.int64], step_x: int, step_y: int) -> Floats:
        at = table[((column + step_x) & 255) + hashed_row]
        return np.asarray(gradient_x[at] * (dx - step_x) + gradient_y[at] * (dy - step_y), dtype=np.float64)

    u, v = dx * dx * dx * (dx * (dx * 6 - 15) + 10), dy * dy * dy * (dy * (dy * 6 - 15) + 10)
    low, high = corner(below, 0, 0), corner(above, 0, 1)
    low += u * (corner(below, 1, 0) - low)
    high += u * (corner(above, 1, 1) - high)
    return np.asarray(low + v * (high - low), dtype=np.float64)


def fractal(x: Floats, y: Floats, seed: int, *, wavelength: float, octaves: int = 4, ridged: bool = False) -> Floats:
    """Sum of octaves of halved wavelength and amplitude, the first ``wavelength`` metres long. About -0.8 to 0.8;
    ``ridged`` (sharp crests, 1 - 2 |noise| an octave): about -0.4 to 1."""
    total = np.zeros(np.broadcast(x, y).shape)
    amplitude = 1.0
    for octave in range(octaves):
        scale = 2.0**octave / wavelength
        noise = gradient_noise(x * scale + 17.3 * octave, y * scale - 9.1 * octave, seed + 101 * octave)
        total += amplitude * (1.0 - 3.0 * np.abs(noise) if ridged else noise)
        amplitude *= 0.5
    return total / (2.0 - 2.0 * amplitude) if ridged else total


def tile_noise(
    rng: np.random.Generator,
    size: int,
    *,
    slope: float,
    low_cut: float = 2.0,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> Floats:
    """A seamless square of noise, mean 0 and standard deviation 1, whose amplitude falls as frequency^-slope;
    frequencies under ``low_cut`` periods a tile are left out, so that the repetition is not seen. ``stretch``: so many
    times longer down the rows and along them."""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size)))
    down, along = np.fft.fftfreq(size)[:, None] * stretch[0], np.fft.rfftfreq(size)[None] * stretch[1]
    frequency = np.hypot(down, along) * size
    weight = np.where(frequency < low_cut, 0.0, np.maximum(frequency, 1.0) ** -slope)
    noise = np.fft.irfft2(spectrum * weight, s=(size, size))
    return np.asarray((noise - noise.mean()) / noise.std(), dtype=np.float64)
