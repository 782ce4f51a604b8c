"""Synthetic migrated seismic sections with salt: the physics.

A section is a layered reflectivity model (folds, dips, unconformities, faults), pulled up against a salt body, blurred
by a Ricker wavelet across the layers, and spoilt by what real sections suffer from: coloured noise, dipping coherent
noise, migration swings, lost signal in and under the salt, gain. All lengths are pixels, z points down, amplitudes are
relative to the sediments'. Ranges without a source were tuned by eye and by grey values, spectra and autocorrelation
against the competition's tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray

__all__ = ["NO_SALT_SHARE", "Mosaic", "make_mosaic"]

NO_SALT_SHARE = 0.14
"""Share of mosaics without any salt."""

_MARGIN = 16  # cut off all around: Fourier filters join opposite edges
_HEIGHT, _WIDTH = 384, 544

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Mosaic:
    """A section: ``section_hw``, float amplitudes (exactly 0 in water, away from the seabed), and ``salt_hw``."""

    section_hw: Array
    salt_hw: Mask


def make_mosaic(rng: Generator) -> Mosaic:
    """A section of 352x512 pixels; with equal generators come equal sections."""
    z_hw, x_hw = np.meshgrid(np.arange(_HEIGHT, dtype=np.float32), np.arange(_WIDTH, dtype=np.float32), indexing="ij")
    wavelength = float(np.exp(rng.normal(np.log(10.5), 0.5)).clip(4.2, 24.0))
    scale = wavelength / 9.5  # a picture taken from near shows longer waves and broader bodies alike
    salt_hw = _salt_body(rng, z_hw, x_hw, scale) if rng.random() > NO_SALT_SHARE else np.zeros(z_hw.shape, bool)
    outside_hw, inside_hw = _distance(~salt_hw), _distance(salt_hw)
    water_hw = _water(rng, z_hw) if not salt_hw.any() or rng.random() < 0.15 else np.full(z_hw.shape, -1e3, np.float32)
    layers_hw = _layers(rng, z_hw, x_hw, outside_hw, water_hw, scale)
    signal_hw = _wavelet(rng, layers_hw, wavelength, z_hw)
    signal_hw = _unit(signal_hw, ~salt_hw) * np.exp(0.35 * _field(rng, 25 * scale, 60 * scale))
    section_hw = _record(rng, signal_hw, salt_hw, inside_hw, wavelength)
    if salt_hw.any():
        section_hw += _salt_reflection(rng, inside_hw - outside_hw, wavelength)
    section_hw = _gain(rng, section_hw)
    section_hw = _seabed(rng, section_hw, water_hw, wavelength)
    kept = np.s_[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    return Mosaic(section_hw[kept], (salt_hw & (water_hw < 0))[kept])


# ---------------------------------------------------------------- random curves and fields


def _curve(rng: Generator, length: int, smoothness: float) -> Array:
    """Gaussian noise of unit variance along ``length`` pixels, correlated over about ``smoothness`` of them."""
    padded = 2 * length  # periodic: use one half
    k = scipy.fft.rfftfreq(padded)
    spectrum = np.exp(-2 * (np.pi * k * smoothness) ** 2) * (k > 0)
    values = scipy.fft.irfft(scipy.fft.rfft(rng.standard_normal(padded)) * spectrum, n=padded)
    return np.asarray(values[:length] / values.std(), np.float32)


def _frequencies() -> tuple[Array, Array]:
    """Cycles a pixel, down and across, of the real Fourier transform of a section."""
    kz, kx = scipy.fft.fftfreq(_HEIGHT).astype(np.float32), scipy.fft.rfftfreq(_WIDTH).astype(np.float32)
    return kz[:, None], kx[None, :]


def _shaped_noise(rng: Generator, response: Array) -> Array:
    """White noise through a filter of the given frequency response, with unit variance."""
    white = rng.standard_normal((_HEIGHT, _WIDTH), dtype=np.float32)
    values_hw = scipy.fft.irfft2(scipy.fft.rfft2(white) * response, s=white.shape)
    return np.asarray(values_hw / values_hw.std(), np.float32)


def _field(rng: Generator, down: float, across: float) -> Array:
    """A smooth random field of unit variance, correlated over ``down`` and ``across`` pixels."""
    kz, kx = _frequencies()
    return _shaped_noise(rng, np.exp(-2 * np.pi**2 * ((kz * down) ** 2 + (kx * across) ** 2)))


def _unit(values_hw: Array, where_hw: Mask) -> Array:
    """``values_hw`` scaled to a root mean square of 1 over ``where_hw``, or everywhere if that is too little."""
    chosen = values_hw[where_hw] if where_hw.mean() > 0.05 else values_hw
    return np.asarray(values_hw / (np.sqrt(np.mean(chosen**2)) + 1e-6), np.float32)


def _distance(mask_hw: Mask) -> Array:
    """Distance in pixels of each pixel of the mask to its outside; 0 outside; 1000 if there is no outside."""
    if mask_hw.all():
        return np.full(mask_hw.shape, 1e3, np.float32)
    return np.asarray(cv2.distanceTransform(mask_hw.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


# ---------------------------------------------------------------- layers


def _layers(rng: Generator, z_hw: Array, x_hw: Array, outside_hw: Array, water_hw: Array, scale: float) -> Array:
    """Reflectivity of the sediments: sequences of layers, each with its own dip and folds, cut by unconformities."""
    pull = rng.uniform(10, 150) * min(scale, 1.5)
    reach = rng.uniform(15, 70) * scale
    base_hw = _faulted(rng, z_hw, x_hw, scale) + pull * np.exp(-outside_hw / reach)
    base_hw += rng.choice([0.5, 1.2, 2.2]) * scale * _field(rng, 6 * scale, 9 * scale)
    follows_water = float(water_hw.max()) > 0
    reflectivity_hw = np.zeros_like(z_hw)
    boundary_hw = np.full(z_hw.shape, -1e6, np.float32)
    steepness = rng.choice([0.1, 0.4, 0.8, 1.6], p=[0.2, 0.25, 0.3, 0.25])
    for sequence in range(int(rng.integers(1, 5))):
        fold = (
            rng.choice([1.0, 1.0, 2.2]) * rng.uniform(5, 32) * scale * _curve(rng, _WIDTH, rng.uniform(25, 110) * scale)
        )
        growth_hw = 0.5 + z_hw / _HEIGHT * rng.uniform(0, 1.5)
        local_hw = base_hw + rng.normal(0, steepness) * (x_hw - _WIDTH / 2) + fold[None] * growth_hw
        if follows_water and sequence == 0:
            local_hw = -water_hw + 0.3 * fold[None]
        below_hw = base_hw > boundary_hw
        reflectivity_hw = np.where(below_hw, _reflectivity(rng, local_hw, scale), reflectivity_hw)
        start = rng.uniform(0.15, 0.5) * _HEIGHT + max(float(boundary_hw.mean()), 0.0)
        boundary_hw = (start + rng.uniform(3, 25) * scale * _curve(rng, _WIDTH, 60 * scale))[None] + 0 * z_hw
    lateral_hw = np.exp(0.45 * _field(rng, 6 * scale, 40 * scale))
    return np.asarray(reflectivity_hw * lateral_hw, np.float32)


def _reflectivity(rng: Generator, time_hw: Array, scale: float) -> Array:
    """Reflection coefficients at the layer coordinate: many weak interfaces, some strong, in packets."""
    step, span = 0.5, 2000.0
    size = int(span / step)
    thickness = rng.uniform(2.5, 6.0) * scale
    series = rng.laplace(size=size) * (rng.random(size) < step / thickness * 1.5)
    series *= np.exp(rng.uniform(0.2, 0.8) * _curve(rng, size, 40 * scale / step))
    series += 2.5 * rng.standard_normal(size) * (rng.random(size) < step / (12 * thickness))
    smooth = np.exp(-0.5 * (np.arange(-6, 7) * step / 0.8) ** 2)
    series = np.convolve(series, smooth, mode="same").astype(np.float32)
    # A table with equal steps: the index is arithmetic, ten times faster than searching.
    index = np.mod((time_hw + span / 2) / step, size - 1)
    whole = np.minimum(index.astype(np.int32), size - 2)  # the remainder of a tiny negative rounds to the divisor
    part = index - whole
    return np.asarray(series[whole] * (1 - part) + series[whole + 1] * part, np.float32)


def _faulted(rng: Generator, z_hw: Array, x_hw: Array, scale: float) -> Array:
    """z before faulting. Hanging walls slid down (normal faults) or up (reverse ones), less so away from the fault."""
    source_hw = z_hw.copy()
    for _ in range(rng.choice([0, 1, 2, 4, 7], p=[0.35, 0.2, 0.2, 0.15, 0.1])):
        slope = rng.choice([-1.0, 1.0]) * rng.uniform(0.15, 0.8)  # horizontal pixels a pixel down
        across_hw = x_hw - rng.uniform(0, _WIDTH) - slope * (z_hw - _HEIGHT / 2)
        throw = rng.uniform(3, 16) * scale * (1.0 if rng.random() < 0.75 else -1.0) * np.sign(slope)
        decay = np.exp(-np.abs(across_hw) / (rng.uniform(60, 300) * scale))
        source_hw -= throw * decay / (1 + np.exp(-across_hw.clip(-20, 20)))
    return source_hw


def _water(rng: Generator, z_hw: Array) -> Array:
    """Height in pixels above a gently undulating seabed: positive in the water."""
    bed = rng.uniform(0.05, 0.4) * _HEIGHT + rng.uniform(2, 20) * _curve(rng, _WIDTH, 90)
    bed = bed + rng.normal(0, 0.08) * (np.arange(_WIDTH, dtype=np.float32) - _WIDTH / 2)
    return (bed[None] - z_hw).astype(np.float32)


# ---------------------------------------------------------------- salt


def _salt_body(rng: Generator, z_hw: Array, x_hw: Array, scale: float) -> Mask:
    """Salt of one or two bodies, with boundaries between smooth and rugged."""
    kinds: list[Callable[..., Mask]] = [_diapir, _massif, _sheet, _tongue, _wall, _lump]
    salt_hw = np.zeros(z_hw.shape, bool)
    for _ in range(rng.choice([1, 2], p=[0.65, 0.35])):
        body = kinds[rng.choice(len(kinds), p=[0.32, 0.22, 0.13, 0.13, 0.13, 0.07])]
        bend = rng.uniform(1, 7) * scale
        ruggedness = rng.choice([0.0, 0.6, 1.6], p=[0.45, 0.35, 0.2])
        warped_z = z_hw + bend * _field(rng, 22 * scale, 22 * scale) + 1.5 * ruggedness * _field(rng, 4, 4)
        warped_x = x_hw + bend * _field(rng, 22 * scale, 22 * scale) + ruggedness * _field(rng, 4, 4)
        salt_hw |= body(rng, warped_z, warped_x)
    # No crumbs: a body of a few pixels is neither picked by an interpreter nor imaged.
    rounded = cv2.morphologyEx(salt_hw.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return np.asarray(rounded > 0)


def _diapir(rng: Generator, z_hw: Array, x_hw: Array) -> Mask:
    """A stem with a bulb that overhangs it, or a plain dome where the stem is the wider one."""
    top, bulb_height = rng.uniform(-0.1, 0.5) * _HEIGHT, rng.uniform(50, 160)
    bulb, stem = rng.uniform(40, 150), rng.uniform(15, 140)
    centre_hw = rng.uniform(0.1, 0.9) * _WIDTH + rng.normal(0, 0.2) * (z_hw - _HEIGHT / 2)
    below_hw = z_hw - top
    round_hw = bulb * np.sqrt(np.clip(1 - (below_hw / bulb_height - 1) ** 2, 0, None))
    flare_hw = 1 + rng.uniform(0, 1.5) * np.clip(below_hw - bulb_height, 0, None) / _HEIGHT
    stem_hw = stem * flare_hw * np.sqrt(np.clip(1.5 * below_hw / bulb_height - 0.5, 0, 1))  # round shoulders
    return np.asarray(np.abs(x_hw - centre_hw) < np.maximum(round_hw, stem_hw))


def _massif(rng: Generator, z_hw: Array, x_hw: Array) -> Mask:
    """Everything below an undulating top."""
    top = rng.uniform(0.25, 0.65) * _HEIGHT + rng.uniform(5, 70) * _curve(rng, _WIDTH, rng.uniform(25, 110))
    return np.asarray(z_hw > top[None])


def _sheet(rng: Generator, z_hw: Array, x_hw: Array) -> Mask:
    """A layer of varying thickness that pinches out here and there."""
    top = rng.uniform(0.15, 0.6) * _HEIGHT + rng.uniform(5, 45) * _curve(rng, _WIDTH, rng.uniform(35, 110))
    thickness = rng.uniform(15, 90) + rng.uniform(5, 60) * _curve(rng, _WIDTH, rng.uniform(40, 100))
    return np.asarray((z_hw > top[None]) & (z_hw < (top + thickness)[None]))


def _tongue(rng: Generator, z_hw: Array, x_hw: Array) -> Mask:
    """A wedge from one side that thins to a tip, over sediments."""
    along_hw = x_hw if rng.random() < 0.5 else _WIDTH - x_hw
    reach = rng.uniform(0.4, 0.9) * _WIDTH
    axis_hw = rng.uniform(0.25, 0.75) * _HEIGHT + rng.normal(0, 0.3) * along_hw
    half_hw = rng.uniform(30, 110) * np.clip(1 - along_hw / reach, 0, None) ** rng.uniform(0.4, 1.0)
    return np.asarray(np.abs(z_hw - axis_hw) < half_hw)


def _wall(rng: Generator, z_hw: Array, x_hw: Array) -> Mask:
    """Everything on one side of a steep, nearly straight flank, or between two such flanks."""
    flank_hw = x_hw - rng.uniform(0.2, 0.5) * _WIDTH + rng.normal(0, 0.25) * (z_hw - _HEIGHT / 2)
    width_hw = rng.uniform(40, 330) + rng.normal(0, 0.25) * (z_hw - _HEIGHT / 2)
    return np.asarray((flank_hw > 0) & (flank_hw < width_hw))


def _lump(rng: Generator, z_hw: Array, x_hw: Array) -> Mask:
    """Some detached bodies with straight sides, as an interpreter draws them."""
    salt_hw = np.zeros(z_hw.shape, bool)
    for _ in range(rng.integers(2, 7)):
        dz_hw, dx_hw = z_hw - rng.uniform(0, _HEIGHT), x_hw - rng.uniform(0, _WIDTH)
        size, body_hw = rng.uniform(15, 60), np.ones(z_hw.shape, bool)
        for angle in np.sort(rng.uniform(0, 2 * np.pi, 5)):
            body_hw &= np.cos(angle) * dx_hw + 1.4 * np.sin(angle) * dz_hw < size * rng.uniform(0.5, 1.2)
        salt_hw |= body_hw & (np.hypot(dz_hw, dx_hw) < 2.5 * size)
    return salt_hw


def _salt_reflection(rng: Generator, depth_hw: Array, wavelength: float) -> Array:
    """The bright reflection of the salt's top, the weaker reversed one of its base, the flanks as far as imaged."""
    smooth_hw = cv2.GaussianBlur(depth_hw, (0, 0), 2.0)
    gz_hw, gx_hw = np.gradient(smooth_hw)
    down_hw = gz_hw / (np.hypot(gz_hw, gx_hw) + 1e-3)  # 1 at a top, 0 at a vertical flank, -1 at a base
    base, flank = rng.uniform(0.2, 0.9), rng.uniform(0, 0.8)
    strength_hw = np.where(down_hw > 0, down_hw, base * down_hw) + flank * (1 - np.abs(down_hw))
    strength_hw *= np.exp(0.5 * _field(rng, 30, 30))
    offset = rng.normal(0, 0.12) * wavelength  # the picked boundary seldom sits on the very peak
    peak = np.exp(rng.normal(np.log(3.2), 0.6)) * rng.choice([1.0, -1.0], p=[0.7, 0.3])
    return np.asarray(peak * strength_hw * _pulse(depth_hw - offset, wavelength), np.float32)


# ---------------------------------------------------------------- recording


def _ricker(wavelength: float) -> Array:
    """Frequency response of a Ricker wavelet across the layers, whatever their dip; 1 at its peak.

    Ricker, N. (1953), The form and laws of propagation of seismic wavelets: ``(k/p)^2 exp(1 - (k/p)^2)``, peak ``p``.
    """
    kz, kx = _frequencies()
    relative = (kz**2 + kx**2) * np.float32(wavelength**2)
    return np.asarray(relative * np.exp(1 - relative), np.float32)


def _pulse(distance_hw: Array, wavelength: float) -> Array:
    """The same wavelet at a distance from its reflector; 1 on it."""
    squared_hw = (np.pi * np.clip(distance_hw, -4 * wavelength, 4 * wavelength) / wavelength) ** 2
    return np.asarray((1 - 2 * squared_hw) * np.exp(-squared_hw), np.float32)


def _wavelet(rng: Generator, reflectivity_hw: Array, wavelength: float, z_hw: Array) -> Array:
    """Reflectivity through a wavelet whose high frequencies are lost on the way down, smeared sideways."""
    _, kx = _frequencies()
    smear = np.exp(-2 * (np.pi * kx * rng.uniform(0, 0.15) * wavelength) ** 2)
    spectrum = scipy.fft.rfft2(reflectivity_hw) * smear
    shallow_hw = scipy.fft.irfft2(spectrum * _ricker(wavelength), s=z_hw.shape)
    deep_hw = scipy.fft.irfft2(spectrum * _ricker(wavelength * rng.uniform(1.2, 1.7)), s=z_hw.shape)
    down_hw = z_hw / _HEIGHT
    return np.asarray(shallow_hw * (1 - down_hw) + deep_hw * down_hw, np.float32)


def _record(rng: Generator, signal_hw: Array, salt_hw: Mask, inside_hw: Array, wavelength: float) -> Array:
    """Signal, lost in the salt and dimmed under it, with the noise of acquisition and migration."""
    above_hw = np.cumsum(salt_hw, axis=0, dtype=np.float32)
    shadow_hw = np.where(salt_hw, 0, np.exp(-above_hw / rng.uniform(40, 300)))
    edge_hw = np.exp(-inside_hw / (0.12 * wavelength))  # the signal ends within a part of the wavelet
    left = rng.choice([0.0, 0.04, 0.1])
    signal_hw = signal_hw * (left + (1 - left) * np.where(salt_hw, edge_hw, 0.35 + 0.65 * shadow_hw))
    level = np.exp(rng.normal(np.log(0.35), 0.7))
    noise_hw = _noise(rng, wavelength)
    patches_hw = np.exp(0.5 * _field(rng, 40, 60)) * (1 + 0.7 * np.where(salt_hw, 0, 1 - shadow_hw))
    section_hw = signal_hw + level * noise_hw * patches_hw * np.where(salt_hw, 0, 1)
    quiet = min(np.exp(rng.normal(np.log(0.38), 0.5)), 0.7)
    section_hw += quiet * _interior(rng, wavelength) * (1 - edge_hw) * salt_hw
    return np.asarray(section_hw, np.float32)


def _interior(rng: Generator, wavelength: float) -> Array:
    """What a migrated section shows inside of salt: no layers, but blurred and often steep streaks, or fine grain."""
    kz, kx = _frequencies()
    wave = wavelength * rng.uniform(1.0, 2.2)
    along = rng.choice([0.1, 0.4, 0.9], p=[0.3, 0.4, 0.3]) * wave  # length of the streaks
    dip = rng.normal(0, 0.4)
    steep = np.exp(-2 * (np.pi * (kz + dip * kx) * along) ** 2)
    response = _broad(rng, wave) * (steep + rng.choice([0.02, 0.1, 0.3], p=[0.5, 0.3, 0.2]))
    streaks_hw = _shaped_noise(rng, np.asarray(response, np.float32))
    return np.asarray(streaks_hw * np.exp(0.5 * _field(rng, 40, 40)), np.float32)


def _broad(rng: Generator, wavelength: float) -> Array:
    """Frequency response of blurred noise: like the wavelet's, with longer tails to both sides."""
    kz, kx = _frequencies()
    k = np.hypot(kz, kx) * np.float32(wavelength * rng.uniform(0.8, 1.4))
    return np.asarray(k / (0.25 + k**2.5) * np.exp(-((k / rng.uniform(2.2, 6.0)) ** 2)), np.float32)


def _noise(rng: Generator, wavelength: float) -> Array:
    """Noise within the band of the signal: coloured, dipping coherent, and the smiles that migration swings about."""
    kz, kx = _frequencies()
    band = _broad(rng, wavelength)
    lying = np.exp(-((kx * wavelength * rng.uniform(0.0, 1.5)) ** 2))
    coloured_hw = _shaped_noise(rng, band * lying)
    steep = kx / (np.hypot(kz, kx) + 1e-6)  # sine of the dip
    fan = np.exp(-(((steep - rng.uniform(0.3, 0.95)) / rng.uniform(0.12, 0.35)) ** 2))
    if rng.random() < 0.5:  # one direction only
        fan = fan * (0.1 + (kz * rng.choice([-1.0, 1.0]) > 0))
    fan_hw = _shaped_noise(rng, np.asarray(band * fan, np.float32)) * np.exp(0.5 * _field(rng, 50, 50))
    weights = rng.dirichlet([1.5, 1.0, 0.8]) ** 0.5
    return np.asarray(weights[0] * coloured_hw + weights[1] * fan_hw + weights[2] * _smiles(rng, band), np.float32)


def _smiles(rng: Generator, band: Array) -> Array:
    """Arcs that open upwards: what migration makes of a spike that is no part of an event."""
    radius, aperture = rng.uniform(40, 160), rng.uniform(0.5, 1.2)
    angle = np.linspace(-aperture, aperture, 1200)
    arc_hw = np.zeros((_HEIGHT, _WIDTH), np.float32)
    z, x = np.round(radius * np.cos(angle)).astype(int), np.round(radius * np.sin(angle)).astype(int)
    np.add.at(arc_hw, (z % _HEIGHT, x % _WIDTH), np.cos(np.pi / 2 * angle / aperture).astype(np.float32))
    spikes_hw = np.where(rng.random(arc_hw.shape) < 0.004, rng.standard_normal(arc_hw.shape), 0).astype(np.float32)
    spectrum = scipy.fft.rfft2(spikes_hw) * scipy.fft.rfft2(arc_hw) * band
    values_hw = scipy.fft.irfft2(spectrum, s=arc_hw.shape)
    return np.asarray(values_hw / values_hw.std(), np.float32)


def _gain(rng: Generator, section_hw: Array) -> Array:
    """Automatic gain control, applied in part: amplitudes over a power of their local root mean square."""
    window = int(rng.uniform(50, 150))
    local_hw = np.sqrt(cv2.blur(section_hw**2, (window, window), borderType=cv2.BORDER_REFLECT)) + 0.05
    return np.asarray(section_hw / local_hw ** rng.uniform(0.1, 0.9), np.float32)


def _seabed(rng: Generator, section_hw: Array, water_hw: Array, wavelength: float) -> Array:
    """Silent water over a bright seabed, if there is any water."""
    if water_hw.max() <= 0:
        return section_hw
    under_hw = np.where(water_hw < 20, 1 / (1 + np.exp(np.clip(water_hw, -30, 30))), 0)
    bed_hw = rng.uniform(3, 8) * _pulse(water_hw, min(wavelength, 14.0))
    return np.asarray(section_hw * under_hw + bed_hw, np.float32)
