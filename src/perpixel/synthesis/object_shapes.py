"""The shapes of things: solids of any size, z up, each a little different from the last of its kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perpixel.synthesis.noise import fractal
from perpixel.synthesis.object_furniture import bench, book, chair, crate, ladder, lamp, shelf, sofa, stool, table
from perpixel.synthesis.parts import Floats, random_directions
from perpixel.synthesis.solids import (
    Solid,
    ball,
    bevelled_box,
    box,
    boxes,
    circle,
    curve,
    extruded,
    joined,
    lathe,
    lettering,
    moved,
    outward,
    rod,
    rotation,
    superquadric,
    swept,
    tube_rings,
    vessel,
    woven,
)

__all__ = ["SHAPES"]

Rng = np.random.Generator
Shape = Callable[[Rng], Solid]

_LETTERS = {
    "A": (" ### ", "#   #", "#   #", "#####", "#   #", "#   #", "#   #"),
    "E": ("#####", "#    ", "#    ", "#### ", "#    ", "#    ", "#####"),
    "F": ("#####", "#    ", "#    ", "#### ", "#    ", "#    ", "#    "),
    "H": ("#   #", "#   #", "#   #", "#####", "#   #", "#   #", "#   #"),
    "L": ("#    ", "#    ", "#    ", "#    ", "#    ", "#    ", "#####"),
    "S": ("#####", "#    ", "#    ", "#####", "    #", "    #", "#####"),
    "T": ("#####", "  #  ", "  #  ", "  #  ", "  #  ", "  #  ", "  #  "),
    "U": ("#   #", "#   #", "#   #", "#   #", "#   #", "#   #", "#####"),
}


# ---------------------------------------------------------------- plain bodies


def _box(rng: Rng) -> Solid:
    return box(rng.uniform(0.35, 1.0, 3))


def _bevelled_box(rng: Rng) -> Solid:
    size = rng.uniform(0.4, 1.0, 3)
    return bevelled_box(size, float(size.min() * rng.uniform(0.08, 0.3)))


def _cylinder(rng: Rng) -> Solid:
    radius = rng.uniform(0.2, 0.5)
    return lathe([(radius, 0), (radius, 1)])


def _cone(rng: Rng) -> Solid:
    return lathe([(rng.uniform(0.3, 0.5), 0), (0.004, 1)], sides=48)


def _frustum(rng: Rng) -> Solid:
    return lathe([(rng.uniform(0.35, 0.5), 0), (rng.uniform(0.12, 0.3), rng.uniform(0.5, 1.0))])


def _torus(rng: Rng) -> Solid:
    return swept(np.column_stack([circle(48), np.zeros(48)]), rng.uniform(0.18, 0.42), sides=20, loop=True)


def _capsule(rng: Rng) -> Solid:
    arc = circle(9, end=np.pi / 2 - 0.05, endpoint=True)[::-1]
    half = rng.uniform(0.4, 1.4)
    top = arc[::-1] + np.array([0, half])
    return lathe(np.concatenate([arc * [1, -1] - [0, half], top]), sides=32)


def _ellipsoid(rng: Rng) -> Solid:
    return moved(ball(), scale=rng.uniform(0.4, 1.0, 3))


def _cushion(rng: Rng) -> Solid:
    return moved(superquadric((1.0, rng.uniform(0.25, 0.45))), scale=(1, rng.uniform(0.7, 1), rng.uniform(0.28, 0.45)))


def _rounded_cube(rng: Rng) -> Solid:
    return superquadric((rng.uniform(0.3, 0.5), rng.uniform(0.3, 0.5)))


def _star_body(rng: Rng) -> Solid:
    return superquadric((rng.uniform(2.5, 3.2), rng.uniform(2.5, 3.2)))


def _pyramid(rng: Rng) -> Solid:
    return lathe([(0.6, 0), (0.003, rng.uniform(0.6, 1.0))], sides=4)


def _tetrahedron(rng: Rng) -> Solid:
    return lathe([(0.577, 0), (0.003, 0.816)], sides=3)


def _octahedron(rng: Rng) -> Solid:
    return lathe([(0.003, -1), (1.0, 0), (0.003, rng.uniform(0.8, 1.3))], sides=4)


def _hexagonal_prism(rng: Rng) -> Solid:
    return lathe([(0.5, 0), (0.5, rng.uniform(0.3, 1.0))], sides=6)


def _gem(rng: Rng) -> Solid:
    return lathe([(0.003, 0), (0.5, 0.5), (0.5, 0.56), (0.3, 0.72)], sides=int(rng.integers(7, 11)))


# ---------------------------------------------------------------- turned and blown


def _vase(rng: Rng) -> Solid:
    belly, neck, rim = rng.uniform(0.25, 0.42), rng.uniform(0.08, 0.16), rng.uniform(0.16, 0.28)
    return vessel(curve([(0.18, 0), (belly, 0.3), (belly * 0.85, 0.55), (neck, 0.8), (rim, 1.0)]), 0.02)


def _bottle(rng: Rng) -> Solid:
    wide, shoulder = rng.uniform(0.14, 0.2), rng.uniform(0.5, 0.65)
    round_part = curve([(wide, shoulder), (wide * 0.8, shoulder + 0.09), (0.055, shoulder + 0.2), (0.05, 0.95)])
    rim = [(0.065, 0.955), (0.065, 1.0)]
    return vessel(np.concatenate([[(wide * 0.92, 0), (wide, 0.02)], round_part, rim]), 0.015)


def _bowl(rng: Rng) -> Solid:
    return vessel(curve([(0.18, 0), (0.38, 0.14), (0.48, 0.3), (0.5, rng.uniform(0.36, 0.46))]), 0.03)


def _goblet(rng: Rng) -> Solid:
    wide = rng.uniform(0.2, 0.28)
    foot = [(0.22, 0), (0.2, 0.02), (0.04, 0.05), (0.03, 0.1), (0.03, 0.38), (0.05, 0.44)]
    cup = curve([(0.05, 0.44), (wide, 0.62), (wide, 0.8), (wide * 0.85, 1.0)])
    inside = [(wide * 0.85 - 0.02, 1.0), (wide - 0.025, 0.8), (wide - 0.025, 0.63), (0.03, 0.48)]
    return lathe(np.concatenate([foot, cup[1:], curve(inside)]))


def _plate(rng: Rng) -> Solid:
    return vessel([(0.28, 0), (0.32, 0.02), (0.5, rng.uniform(0.07, 0.12))], 0.02, sides=56)


def _mug(rng: Rng) -> Solid:
    wide = rng.uniform(0.28, 0.4)
    bow = curve([(wide - 0.02, 0.68), (wide + 0.2, 0.7), (wide + 0.24, 0.42), (wide - 0.02, 0.2)])
    handle = swept(np.column_stack([bow[:, 0], 0 * bow[:, 0], bow[:, 1]]), 0.045, sides=10)
    return joined(vessel([(wide * 0.95, 0), (wide, 0.04), (wide, 0.85)], 0.035), handle)


def _teapot(rng: Rng) -> Solid:
    body = lathe(curve([(0.22, 0), (0.42, 0.2), (0.4, 0.42), (0.2, 0.56), (0.05, 0.6), (0.07, 0.68), (0.01, 0.72)]))
    bow = curve([(-0.36, 0.46), (-0.62, 0.5), (-0.6, 0.22), (-0.38, 0.14)])
    spout = curve([(0.33, 0.16), (0.52, 0.24), (0.56, 0.42), (0.68, rng.uniform(0.5, 0.58))])
    thin = np.linspace(0.09, 0.04, len(spout))
    handle = swept(np.column_stack([bow[:, 0], 0 * bow[:, 0], bow[:, 1]]), 0.035, sides=10)
    return joined(body, handle, swept(np.column_stack([spout[:, 0], 0 * spout[:, 0], spout[:, 1]]), thin))


def _bell(rng: Rng) -> Solid:
    cup = vessel(curve([(0.06, 1.0), (0.16, 0.97), (0.22, 0.7), (0.28, 0.35), (0.46, 0)]) * [1, -1], 0.03)
    knob = np.column_stack([0.08 * circle(20)[:, 0], np.zeros(20), -1.06 + 0.08 * circle(20)[:, 1]])
    return moved(joined(cup, swept(knob, 0.03, sides=8, loop=True)), turn=rotation((1, 0, 0), 180))


def _pawn(rng: Rng) -> Solid:
    neck = rng.uniform(0.08, 0.12)
    points = [(0.3, 0), (0.3, 0.08), (0.22, 0.14), (0.13, 0.3), (neck, 0.55), (0.19, 0.62), (0.1, 0.66)]
    head = circle(14, 0.19, end=np.pi * 0.84, endpoint=True)
    turned = np.stack([head[:, 1], 0.83 - head[:, 0]], axis=1)[2:]
    return lathe(np.concatenate([curve(points, 4), turned + np.array([0.002, 0])]))


def _dumbbell(rng: Rng) -> Solid:
    far = rng.uniform(0.8, 1.1)
    bar = lathe([(0.12, -far), (0.12, far)], sides=24)
    return joined(bar, *(moved(ball(0.36), (0, 0, z)) for z in (-far, far)))


def _hourglass(rng: Rng) -> Solid:
    waist = rng.uniform(0.05, 0.14)
    middle = curve([(0.3, 0.08), (0.3, 0.3), (waist, 0.5), (0.3, 0.7), (0.3, 0.92)])
    return lathe(np.concatenate([[(0.38, 0), (0.38, 0.08)], middle, [(0.38, 0.92), (0.38, 1.0)]]))


def _mushroom(rng: Rng) -> Solid:
    cap = curve([(0.11, 0.55), (0.4, 0.5), (0.48, 0.58), (0.36, 0.82), (0.15, 0.94), (0.01, 0.97)])
    return lathe(np.concatenate([curve([(0.16, 0), (0.11, 0.2), (0.11, 0.5)]), cap]))


def _pear(rng: Rng) -> Solid:
    fruit = lathe(curve([(0.02, 0.02), (0.2, 0), (0.4, 0.28), (0.3, 0.58), (0.17, 0.82), (0.1, 0.93), (0.01, 0.95)]))
    return joined(fruit, rod((0, 0, 0.92), (float(rng.uniform(-0.06, 0.06)), 0.03, 1.1), 0.02, 8))


def _candlestick(rng: Rng) -> Solid:
    knots = [(0.06, z) if i % 2 else (rng.uniform(0.08, 0.15), z) for i, z in enumerate(np.linspace(0.15, 0.85, 7))]
    return lathe(np.concatenate([[(0.28, 0), (0.26, 0.05)], curve(knots), [(0.16, 0.9), (0.16, 0.93), (0.07, 1.0)]]))


# ---------------------------------------------------------------- parts of machines


def _gear(rng: Rng) -> Solid:
    teeth = int(rng.integers(10, 19))
    angle = (np.arange(teeth)[:, None] + np.array([0.0, 0.28, 0.42, 0.86])) * (2 * np.pi / teeth)
    radius = np.tile([1.0, 1.0, 0.82, 0.82], teeth)
    outer = radius[:, None] * np.stack([np.cos(angle.ravel()), np.sin(angle.ravel())], axis=1)
    inner = 0.3 * np.stack([np.cos(angle.ravel()), np.sin(angle.ravel())], axis=1)
    return _washer(outer, inner, rng.uniform(0.2, 0.5))


def _nut(rng: Rng) -> Solid:
    angle = np.arange(48) * (2 * np.pi / 48)
    hexagon = np.cos(np.pi / 6) / np.cos((angle + np.pi / 6) % (np.pi / 3) - np.pi / 6)
    around = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _washer(around * hexagon[:, None], 0.55 * around, rng.uniform(0.5, 0.8))


def _washer(outer_k2: Floats, inner_k2: Floats, height: float) -> Solid:
    """What lies between two outlines of equally many points."""
    rings = [(outer_k2, -1), (outer_k2, 1), (inner_k2, 1), (inner_k2, -1)]
    levels = [np.column_stack([line, np.full(len(line), side * height / 2)]) for line, side in rings]
    return woven(np.stack(levels), loop=True)


def _ring(rng: Rng) -> Solid:
    inner, tall = rng.uniform(0.3, 0.44), rng.uniform(0.3, 1.2)
    return lathe([(0.5, 0), (0.5, tall), (inner, tall), (inner, 0)], loop=True, sides=48)


def _elbow(rng: Rng) -> Solid:
    bend = circle(14, 0.5, end=np.pi / 2, endpoint=True)
    reach = rng.uniform(0.2, 0.6)
    line = np.concatenate([[(0.5, -reach)], bend, [(-reach, 0.5)]])
    path = np.column_stack([line, np.zeros(len(line))])
    hollow = np.concatenate([tube_rings(path, 0.22, sides=24), tube_rings(path, 0.17, sides=24)[::-1]])
    flanges = [((0.5, -reach, 0), (1, 0, 0), 90), ((-reach, 0.5, 0), (0, 1, 0), 90)]
    collar = lathe([(0.3, -0.03), (0.3, 0.03), (0.17, 0.03), (0.17, -0.03)], loop=True)
    return joined(woven(hollow, loop=True), *(moved(collar, at, turn=rotation(a, d)) for at, a, d in flanges))


def _spring(rng: Rng) -> Solid:
    turns = int(rng.integers(4, 8))
    t = np.linspace(0, 1, turns * 20)
    angle = 2 * np.pi * turns * t
    return swept(np.stack([0.35 * np.cos(angle), 0.35 * np.sin(angle), t * 1.2], axis=1), rng.uniform(0.035, 0.06))


def _knot(rng: Rng) -> Solid:
    p, q = ((2, 3), (3, 2), (2, 5))[int(rng.integers(3))]
    t = np.arange(160) * (2 * np.pi / 160)
    out = 1.0 + 0.42 * np.cos(q * t)
    return swept(np.stack([out * np.cos(p * t), out * np.sin(p * t), 0.5 * np.sin(q * t)], axis=1), 0.17, loop=True)


def _wheel(rng: Rng) -> Solid:
    spokes = int(rng.integers(5, 10))
    rim = swept(np.column_stack([circle(48), np.zeros(48)]), 0.1, sides=14, loop=True)
    rods = [rod((0, 0, 0), (float(x), float(y), 0), 0.045, 10) for x, y in circle(spokes, 0.97)]
    return joined(rim, lathe([(0.16, -0.13), (0.16, 0.13)], sides=24), *rods)


def _frame(rng: Rng) -> Solid:
    """A frame of a cube's edges."""
    thick = rng.uniform(0.07, 0.14)
    corner = np.array([[i & 1, i >> 1 & 1, i >> 2] for i in range(8)], dtype=np.float64)
    pairs = [(i, j) for i in range(8) for j in range(i) if np.abs(corner[i] - corner[j]).sum() == 1]
    return joined(*(box(np.abs(corner[i] - corner[j]) + thick, (corner[i] + corner[j]) / 2) for i, j in pairs))


# ---------------------------------------------------------------- cut out


def _star(rng: Rng) -> Solid:
    points = int(rng.integers(5, 8))
    radius = np.tile([1.0, rng.uniform(0.4, 0.55)], points)
    return extruded(circle(2 * points) * radius[:, None], rng.uniform(0.25, 0.5))


def _heart(rng: Rng) -> Solid:
    t = np.arange(60) * (2 * np.pi / 60)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return moved(extruded(np.stack([x, y], axis=1) / 16, rng.uniform(0.3, 0.6)), turn=rotation((1, 0, 0), 90))


def _cross(rng: Rng) -> Solid:
    arm = rng.uniform(0.13, 0.22)
    ends = np.full((3, 3), arm) + np.eye(3) * (0.5 - arm)
    return joined(*(box(2 * end) for end in ends))


def _letter(rng: Rng) -> Solid:
    return lettering(_LETTERS["AEFHLSTU"[int(rng.integers(8))]], rng.uniform(1.0, 2.0))


def _arch(rng: Rng) -> Solid:
    bend = circle(20, end=np.pi, endpoint=True)
    thick, wide, leg = rng.uniform(0.16, 0.28), rng.uniform(0.4, 0.7), rng.uniform(0.4, 1.0)
    line = np.concatenate([[(1.0, -leg)], bend, [(-1.0, -leg)]])
    out = np.concatenate([[(1.0, 0.0)], bend, [(-1.0, 0.0)]])
    inner, outer = line - thick * out, line + thick * out
    edges = [(inner, -wide), (inner, wide), (outer, wide), (outer, -wide)]
    return outward(woven(np.stack([np.insert(edge, 1, y / 2, axis=1) for edge, y in edges], axis=1)))


def _stairs(rng: Rng) -> Solid:
    steps = int(rng.integers(4, 8))
    wide = rng.uniform(0.5, 1.0)
    return boxes(*((i / steps, 0.0, 0.0, (i + 1) / steps, wide, 0.8 * (i + 1) / steps) for i in range(steps)))


# ---------------------------------------------------------------- grown and broken


def _rock(rng: Rng) -> Solid:
    planes, seed = random_directions(rng, 16), int(rng.integers(1 << 30))
    cuts = rng.uniform(0.55, 0.9, 16)

    def radius(direction: Floats) -> Floats:
        facing = np.maximum((direction[:, None] * planes).sum(axis=-1), 1e-6)
        return np.asarray(np.minimum(1.0, (cuts / facing).min(axis=1)) * (1 + 0.1 * _bumps(direction, seed, 1.0)))

    return moved(ball(radius), scale=(1, rng.uniform(0.6, 1), rng.uniform(0.5, 0.9)))


def _potato(rng: Rng) -> Solid:
    seed = int(rng.integers(1 << 30))
    return moved(ball(lambda direction: 1 + 0.25 * _bumps(direction, seed, 3.0)), scale=(1, 0.75, 0.7))


def _bumps(direction: Floats, seed: int, wavelength: float) -> Floats:
    x, y, z = direction.T
    return fractal(x * 2 + z * 1.3, y * 2 - z * 1.7, seed, wavelength=wavelength, octaves=4)


def _spiky_ball(rng: Rng) -> Solid:
    spike = lathe([(0.2, 0.8), (0.006, rng.uniform(1.3, 1.7))], sides=12)
    poles = ball(subdivisions=0)[0]
    turns = [rotation(np.cross((0, 0, 1), pole) + 1e-6, float(np.degrees(np.arccos(pole[2])))) for pole in poles]
    return joined(ball(), *(moved(spike, turn=turn) for turn in turns))


def _sphere(rng: Rng) -> Solid:
    return ball()


SHAPES: dict[str, Shape] = {
    function.__name__.strip("_"): function
    for function in (
        *(_sphere, _box, _bevelled_box, _cylinder, _cone, _frustum, _torus, _capsule, _ellipsoid, _cushion),
        *(_rounded_cube, _star_body, _pyramid, _tetrahedron, _octahedron, _hexagonal_prism, _gem),
        *(_vase, _bottle, _bowl, _goblet, _plate, _mug, _teapot, _bell, _pawn, _dumbbell, _hourglass, _mushroom),
        *(_pear, _candlestick, _gear, _nut, _ring, _elbow, _spring, _knot, _wheel, _frame, _star, _heart, _cross),
        *(_letter, _arch, _stairs, chair, table, stool, bench, sofa, shelf, lamp, book, crate, ladder),
        *(_rock, _potato, _spiky_ball),
    )
}
"""Name to the function that makes one of its kind."""
