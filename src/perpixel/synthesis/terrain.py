"""Heightfield terrain: a polar grid around the camera, finest where it looks, up to hills that close the horizon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpixel.synthesis.noise import Floats, fractal, smoothstep

REACH = 6000.0  # metres: radius of the last ring
INNER = 1.0  # metres: rings grow geometrically beyond it and are evenly spaced within
MIDDLE = 700.0  # metres: beyond it, where mountains stand, rings are closer than their distance asks for


@dataclass(frozen=True)
class Relief:
    """How high the ground is. Wavelengths and amplitudes in metres; each pair is one sum of octaves.

    Attributes:
        swells: (wavelength, amplitude) of the ground around the camera, long to short.
        hills: the same, growing with distance from ``hills_from``; ``far`` is ridged mountains beyond 1 km.
        wash: depth of a dry river bed that passes near the camera, 0 for none; ``wash_width`` its half width.
    """

    swells: tuple[tuple[float, float], ...]
    hills: tuple[float, float] = (300.0, 0.0)
    hills_from: tuple[float, float] = (30.0, 300.0)
    far: tuple[float, float] = (1500.0, 300.0)
    dunes: tuple[float, float] = (70.0, 0.0)
    wash: float = 0.0
    wash_width: float = 5.0


@dataclass(frozen=True)
class Terrain:
    """A polar grid of heights: rows are rings from the inside out, columns directions counter-clockwise.

    Attributes:
        radius_r, angle_a: metres from the camera's foot, radians (rising over one turn, in steps of their own).
        height_ra: metres; the camera stands over height 0.
        wash_ra: 1 in the dry river bed, 0 outside.
    """

    radius_r: Floats
    angle_a: Floats
    height_ra: Floats
    wash_ra: Floats

    def sample(self, values_ra: Floats, x: Floats, y: Floats) -> Floats:
        """Values of the grid at points, bilinear within a cell: on the drawn surface, give or take its diagonals."""
        radius = np.hypot(x, y)
        row = np.interp(radius, self.radius_r, np.arange(len(self.radius_r)))
        turned = self.angle_a[0] + np.mod(np.arctan2(y, x) - self.angle_a[0], 2 * np.pi)
        closed = np.append(self.angle_a, self.angle_a[0] + 2 * np.pi)
        column = np.interp(turned, closed, np.arange(len(closed)))
        r0 = np.minimum(row.astype(np.int64), len(self.radius_r) - 2)
        a0 = np.minimum(column.astype(np.int64), len(self.angle_a) - 1)
        a1 = (a0 + 1) % len(self.angle_a)
        u, v = row - r0, column - a0
        inner = values_ra[r0, a0] * (1 - v) + values_ra[r0, a1] * v
        outer = values_ra[r0 + 1, a0] * (1 - v) + values_ra[r0 + 1, a1] * v
        return np.asarray(inner * (1 - u) + outer * u, dtype=np.float64)

    def height(self, x: Floats, y: Floats) -> Floats:
        """Metres of the ground at points."""
        return self.sample(self.height_ra, x, y)

    def normals(self, x: Floats, y: Floats, step: float = 0.4) -> Floats:
        """Unit normals of the ground at points, over ``step`` metres."""
        dx = (self.height(x + step, y) - self.height(x - step, y)) / (2 * step)
        dy = (self.height(x, y + step) - self.height(x, y - step)) / (2 * step)
        normals = np.stack([-dx, -dy, np.ones_like(dx)], axis=-1)
        return np.asarray(normals / np.linalg.norm(normals, axis=-1, keepdims=True), dtype=np.float64)

    def vertices(self) -> Floats:
        """Points of the grid, (rings, angles, 3)."""
        x = self.radius_r[:, None] * np.cos(self.angle_a)
        y = self.radius_r[:, None] * np.sin(self.angle_a)
        return np.stack([x, y, self.height_ra], axis=-1)


def polar_grid(yaw: float, half_view: float) -> tuple[Floats, Floats]:
    """(radii, angles): fine steps within ``half_view`` radians of ``yaw``, coarse ones behind the camera."""
    near = INNER * np.expm1(np.linspace(0.01, 1.0, 220) * np.log(MIDDLE / INNER + 1.0))
    radius_r = np.concatenate([near, np.geomspace(MIDDLE, REACH, 111)[1:]])
    fine = np.linspace(-half_view, half_view, 540, endpoint=False)
    coarse = np.linspace(half_view, 2 * np.pi - half_view, 80, endpoint=False)
    return radius_r, np.asarray(yaw + np.concatenate([fine, coarse]), dtype=np.float64)


def _octaves(x: Floats, y: Floats, radius_r: Floats, seed: int, wavelength: float, amplitude: float) -> Floats:
    """Three octaves of noise over the grid, each left out where the rings are too coarse to carry it."""
    total = np.zeros(x.shape)
    for octave in range(3):
        length = wavelength / 2.0**octave
        fade = 1.0 - smoothstep(6.0 * length, 16.0 * length, radius_r)
        rings = int(np.count_nonzero(fade))
        if rings:
            noise = fractal(x[:rings], y[:rings], seed + 7 * octave, wavelength=length, octaves=1)
            total[:rings] += fade[:rings, None] * noise * amplitude / 2.0**octave
    return total


def _wash(x: Floats, y: Floats, seed: int, yaw: float, relief: Relief) -> Floats:
    """1 in the bed of a meandering wash that leaves the camera roughly along its view, 0 outside."""
    along = x * np.cos(yaw) + y * np.sin(yaw)
    aside = y * np.cos(yaw) - x * np.sin(yaw)
    bend = fractal(along, np.zeros_like(along), seed, wavelength=45.0, octaves=2) * 14.0
    start = float(fractal(np.zeros(1), np.zeros(1), seed, wavelength=45.0, octaves=2)[0]) * 14.0
    distance = np.abs(aside - (bend - start) - relief.wash_width * 0.4)
    return 1.0 - smoothstep(0.7 * relief.wash_width, 1.25 * relief.wash_width, distance)


def make_terrain(seed: int, relief: Relief, *, yaw: float, half_view: float, eye: float) -> Terrain:
    """Heights of a place. ``yaw`` and ``half_view`` in radians choose where the grid is fine; beyond the hills the
    ground rises above ``eye`` metres in every direction, so that no gap opens between ground and sky."""
    radius_r, angle_a = polar_grid(yaw, half_view)
    x, y = radius_r[:, None] * np.cos(angle_a), radius_r[:, None] * np.sin(angle_a)
    height = np.zeros(x.shape)
    for number, (wavelength, amplitude) in enumerate(relief.swells):
        height += _octaves(x, y, radius_r, seed + 1000 * number, wavelength, amplitude)
    wash = np.zeros(x.shape)
    if relief.wash > 0:
        near = int(np.searchsorted(radius_r, 400.0))
        wash[:near] = _wash(x[:near], y[:near], seed + 50, yaw + 0.25, relief)
        height -= relief.wash * wash
    grown = smoothstep(*relief.hills_from, radius_r)[:, None]
    if relief.hills[1] > 0:
        hills = fractal(x, y, seed + 20000, wavelength=relief.hills[0], octaves=5)
        height += relief.hills[1] * grown * (hills + 0.25)
    if relief.dunes[1] > 0:
        dunes = fractal(x, y * 0.5, seed + 30000, wavelength=relief.dunes[0], octaves=2, ridged=True)
        height += relief.dunes[1] * smoothstep(40.0, 160.0, radius_r)[:, None] * np.maximum(dunes, -0.2)
    mountains = fractal(x, y, seed + 40000, wavelength=relief.far[0], octaves=5, ridged=True)
    height += relief.far[1] * smoothstep(900.0, 3800.0, radius_r)[:, None] * 0.75 * (mountains + 0.4)
    height -= height[0].mean()
    short = np.maximum(eye + 0.008 * REACH - height.max(axis=0), 0.0)
    height += smoothstep(0.35 * REACH, 0.9 * REACH, radius_r)[:, None] * short
    return Terrain(radius_r, angle_a, height, wash)


def grid_faces(rows: int, columns: int) -> NDArray[np.int64]:
    """Two triangles a cell of a grid whose last column meets the first, counter-clockwise seen from above where rows
    go outwards and columns counter-clockwise."""
    here = np.arange(rows - 1)[:, None] * columns + np.arange(columns)
    left = np.arange(rows - 1)[:, None] * columns + (np.arange(columns) + 1) % columns
    lower = np.stack([here, here + columns, left + columns], axis=-1)
    upper = np.stack([here, left + columns, left], axis=-1)
    return np.concatenate([lower.reshape(-1, 3), upper.reshape(-1, 3)])


def grid_normals(points_ra3: Floats) -> Floats:
    """Unit normals of a grid of points from their neighbours; the last column meets the first."""
    along = np.gradient(points_ra3, axis=0)
    around = np.roll(points_ra3, -1, axis=1) - np.roll(points_ra3, 1, axis=1)
    normals = np.cross(along, around)
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12))


@dataclass(frozen=True)
class Mesa:
    """A table mountain: centre, radius at the cliff's foot and height, all in metres."""

    x: float
    y: float
    radius: float
    height: float


def mesa_grid(seed: int, mesa: Mesa, terrain: Terrain, around: int = 360) -> Floats:
    """Points of a mesa, (levels, directions, 3), from the foot of its talus over the cracked cliff to the flat cap.
    The foot follows the terrain, a little below it, so that no gap opens; the cliff stands level."""
    share_l = np.concatenate([np.linspace(0, 0.42, 12), np.linspace(0.43, 0.97, 40), np.linspace(0.98, 1.0, 5)])
    angle = np.arange(around) * (2 * np.pi / around)
    x, y = np.cos(angle), np.sin(angle)
    outline = 1.0 + np.clip(0.75 * fractal(x + mesa.x, y + mesa.y, seed, wavelength=0.8, octaves=5), -0.45, 0.45)
    cracks = fractal(x * 7 + mesa.y, y * 7, seed + 5, wavelength=1.0, octaves=4, ridged=True)
    gullies = fractal(x * 5, y * 5, seed + 13, wavelength=1.0, octaves=3)
    steps = 3.0 + 9.0 * (0.5 + fractal(share_l * 3.0, 0 * share_l, seed + 9, wavelength=1.0, octaves=1))
    terrace = np.floor(share_l * steps.mean() + 0.3 * np.sin(share_l * 23.0))  # ledges where layers are harder
    slope = np.where(share_l < 0.42, 1.75 - 0.75 * (share_l / 0.42) ** 0.7, 1.0)
    cliff = smoothstep(0.38, 0.50, share_l)
    cap = np.interp(share_l, [0.97, 0.98, 1.0], [1.0, 0.98, 0.02])
    shrink = slope - cliff * 0.022 * (terrace - terrace[np.searchsorted(share_l, 0.42)])
    soften = 1.0 - 0.5 * smoothstep(0.85, 1.0, share_l)
    reach = (
        shrink[:, None] * outline - (cliff * soften)[:, None] * 0.05 * cracks + (1 - cliff)[:, None] * 0.14 * gullies
    )
    radius = mesa.radius * reach * cap[:, None]
    points_x, points_y = mesa.x + radius * x, mesa.y + radius * y
    # Cells widen with distance, and their diagonals stray further from the heights that are asked for here.
    below = terrain.height(points_x, points_y) - 3.0 - 0.005 * np.hypot(points_x, points_y)
    middle = float(terrain.height(np.array([mesa.x]), np.array([mesa.y]))[0]) - 0.15 * mesa.height
    z = below + (middle - below) * smoothstep(0.0, 0.42, share_l)[:, None] + mesa.height * share_l[:, None]
    return np.stack([points_x, points_y, z], axis=-1)
