"""What lies on the ground of a desert: rocks, logs, and litter of pebbles, twigs and leaves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from perpixel.synthesis.noise import fractal, smoothstep
from perpixel.synthesis.parts import (
    Floats,
    Part,
    across,
    icosphere,
    leaves,
    merge,
    mixed,
    random_directions,
    spikes,
    tubes,
    unit,
    varied,
)
from perpixel.synthesis.plants import Levels

Rng = np.random.Generator


def rock(rng: Rng, colors: Sequence[ArrayLike], *, facets: int = 14, layered: float = 0.3, flat: float = 0.7) -> Levels:
    """A boulder of radius about 1: a sphere cut by ``facets`` planes, roughened, with strata of strength ``layered``
    in its colour; ``flat`` is its height relative to its width."""
    normals = random_directions(rng, facets)
    cuts = rng.uniform(0.5, 0.92, facets)
    stretch = np.array([1.0, rng.uniform(0.6, 1.0), flat * rng.uniform(0.8, 1.2)])
    seed = int(rng.integers(1 << 30))
    first, second = (np.asarray(colors[i], dtype=np.float64) for i in rng.integers(len(colors), size=2))
    tilt = rng.normal(0, 0.2, 2)
    levels = []
    for subdivisions in (4, 3, 2, 1, 0):
        direction, faces = icosphere(subdivisions)
        facing = np.maximum((direction[:, None] * normals).sum(axis=-1), 1e-6)
        radius = np.minimum(1.0, (cuts / facing).min(axis=1))
        x, y, z = direction.T
        bumps = fractal(x * 2 + z * 1.3, y * 2 - z * 1.7, seed, wavelength=1.0, octaves=5)
        layers = fractal((z + tilt[0] * x + tilt[1] * y) * 9, 0 * z, seed + 3, wavelength=1.0, octaves=2)
        radius = radius * (1.0 + 0.16 * bumps + 0.10 * layered * layers)
        mix = smoothstep(-0.25, 0.25, layered * 2.0 * layers + 0.6 * bumps)[:, None]
        shade = 0.92 + 0.35 * bumps[:, None] + 0.1 * z[:, None]
        color = np.clip((first * (1 - mix) + second * mix) * shade, 0.02, 0.9)
        vertices = direction * radius[:, None] * stretch
        uv = np.stack([vertices[:, 0] + 0.6 * vertices[:, 2], vertices[:, 1] - 0.7 * vertices[:, 2]], axis=1)
        levels.append((Part("rock", vertices, faces, color, uv),))
    return tuple(levels)


def log(rng: Rng) -> Levels:
    """A fallen trunk along x, bent and tapered, with jagged ends and broken stubs; about 2.6 m long."""
    length, radius = rng.uniform(1.6, 3.4), rng.uniform(0.09, 0.19)
    bend, seed = rng.normal(0, 0.12, 2), int(rng.integers(1 << 30))
    bark = np.asarray(mixed(rng, [(0.20, 0.155, 0.115), (0.27, 0.235, 0.20), (0.15, 0.11, 0.08)], 1)[0])
    stubs = int(rng.integers(2, 6))
    at, turn = rng.uniform(0.15, 0.9, stubs), rng.uniform(-0.6, np.pi + 0.6, stubs)
    reach = rng.uniform(0.12, 0.55, stubs)
    levels = []
    for rings, sides in ((36, 18), (14, 10), (6, 6), (3, 4)):
        t, angle = np.linspace(0, 1, rings)[:, None], np.arange(sides) * (2 * np.pi / sides)
        around = 1.5 * np.asarray(np.cos(angle), dtype=np.float64) + 0 * t
        knots = fractal(t * 5 * length + 0 * angle, around, seed, wavelength=1.0, octaves=3)
        ridges = fractal(angle * 5 + 0 * t, t * 2 + 0 * angle, seed + 1, wavelength=1.0, octaves=2)
        thick = radius * (1.05 - 0.45 * t) * (1.0 + 0.25 * knots + 0.10 * ridges)
        torn = fractal(angle * 2 + t, 0 * (angle + t), seed + 2, wavelength=0.7)
        jag = np.where((t == 0) | (t == 1), 0.9 * radius * torn, 0.0)
        x = (t - 0.5) * length + jag
        y, z = bend[0] * np.sin(np.pi * t) * length * 0.5, bend[1] * np.sin(np.pi * t) * length * 0.3
        points = np.stack([x, y + thick * np.cos(angle), z + thick * np.sin(angle)], axis=-1)
        shade = 0.95 + 0.5 * ridges + 0.3 * knots
        color = np.clip(bark * shade[..., None], 0.02, 0.8)
        parts = [_barrel(points, color, length)]
        along = np.stack([(at - 0.5) * length, bend[0] * np.sin(np.pi * at) * length * 0.5, 0 * at], axis=1)
        out = np.stack([rng.normal(0.3, 0.2, stubs), np.cos(turn), np.sin(turn)], axis=1)
        foot = radius * 0.28 * np.ones(stubs)
        tones = varied(rng, bark, stubs, 0.08)
        parts.append(
            tubes(rng, along, along + unit(out) * (radius + reach)[:, None], foot, foot * 0.45, tones, sides // 2 + 1)
        )
        levels.append(merge(parts))
    return tuple(levels)


def _barrel(points_rk3: Floats, colors_rk3: Floats, length: float) -> Part:
    """Rings joined to a tube with lids of paler, broken wood."""
    rings, sides = points_rk3.shape[:2]
    ends = points_rk3[[0, -1]].mean(axis=1)
    ends[:, 0] += [0.04, -0.04]
    here = np.arange(rings - 1)[:, None] * sides + np.arange(sides)
    turn = np.arange(rings - 1)[:, None] * sides + (np.arange(sides) + 1) % sides
    body = np.stack([np.stack([here, turn, turn + sides], -1), np.stack([here, turn + sides, here + sides], -1)])
    total = rings * sides
    first, last = np.arange(sides), np.arange(sides) + total - sides
    lid_a = np.stack([first * 0 + total, np.roll(first, -1), first], axis=1)
    lid_b = np.stack([last * 0 + total + 1, last, np.roll(last, -1)], axis=1)
    uv = np.zeros((rings, sides, 2))
    uv[..., 0], uv[..., 1] = np.arange(sides) / sides, np.linspace(0, length, rings)[:, None]
    return Part(
        "wood",
        np.concatenate([points_rk3.reshape(-1, 3), ends]),
        np.concatenate([body.reshape(-1, 3), lid_a, lid_b]),
        np.concatenate([colors_rk3.reshape(-1, 3), np.tile([[0.42, 0.32, 0.21]], (2, 1))]),
        np.concatenate([uv.reshape(-1, 2), np.zeros((2, 2))]),
    )


def litter(rng: Rng, stones: Sequence[ArrayLike], *, pebbles: int, twigs: int, leafs: int) -> Levels:
    """A patch of ground clutter, about 0.9 m wide: pebbles, dead twigs and fallen leaves."""
    levels = []
    for share in (1.0, 0.6, 0.3, 0.12):
        wide = share**-0.35
        parts = [_pebbles(rng, stones, max(2, int(pebbles * share)), wide, 1 if share == 1 else 0)]
        count = max(1, int(twigs * share))
        middle = _scatter(rng, count, 0.012)
        heading = unit(random_directions(rng, count) * [1, 1, 0.18])
        half = heading * rng.uniform(0.05, 0.22, (count, 1))
        thick = rng.uniform(0.003, 0.009, count) * wide
        tones = mixed(rng, [(0.25, 0.19, 0.13), (0.36, 0.30, 0.24), (0.16, 0.11, 0.08)], count)
        if share == 1:
            bend = across(rng, heading) * [1, 1, 0.2] * np.abs(half).max(axis=1, keepdims=True) * 0.25
            parts.append(tubes(rng, middle - half, middle + bend, thick, 0.8 * thick, tones, 4))
            parts.append(tubes(rng, middle + bend, middle + half, 0.8 * thick, 0.4 * thick, tones, 4))
        else:
            parts.append(spikes(rng, middle - half, middle + half, thick * 1.2, tones, "wood"))
        count = max(1, int(leafs * share))
        heading = unit(random_directions(rng, count) * [1, 1, 0.3])
        length = rng.uniform(0.02, 0.05, count) * wide
        tones = mixed(rng, [(0.38, 0.28, 0.15), (0.28, 0.19, 0.10), (0.48, 0.40, 0.27)], count)
        parts.append(leaves(rng, _scatter(rng, count, 0.010), heading, length, 0.4 * length, tones, "leaf"))
        levels.append(merge(parts))
    return tuple(levels)


def _scatter(rng: Rng, count: int, z: float) -> Floats:
    """Points of a round patch, denser in the middle."""
    turn, out = rng.uniform(0, 2 * np.pi, count), 0.48 * rng.uniform(0, 1, count) ** 0.75
    return np.stack([out * np.cos(turn), out * np.sin(turn), np.full(count, z)], axis=1)


def _pebbles(rng: Rng, stones: Sequence[ArrayLike], count: int, wide: float, subdivisions: int) -> Part:
    """Small stones, each a sphere squeezed and dented by chance."""
    direction, faces = icosphere(subdivisions)
    dents = rng.uniform(0.75, 1.15, (count, len(direction), 1))
    size = 0.011 + 0.03 * rng.uniform(0, 1, (count, 1, 1)) ** 3
    shape = rng.uniform(0.6, 1.2, (count, 1, 3)) * [1.0, 1.0, 0.7]
    vertices = direction[None] * dents * shape * size * wide + _scatter(rng, count, 0.006)[:, None]
    colors = np.repeat(mixed(rng, stones, count, 0.16), len(direction), axis=0)
    index = (faces[None] + (np.arange(count) * len(direction))[:, None, None]).reshape(-1, 3)
    return Part("rock", vertices.reshape(-1, 3), index, colors, vertices.reshape(-1, 3)[:, :2] * 3.0)
