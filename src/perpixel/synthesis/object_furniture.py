"""The shapes of furniture: solids of any size, z up."""

from __future__ import annotations

import numpy as np

from perpixel.synthesis.solids import Solid, bevelled_box, boxes, circle, curve, joined, lathe, moved, rod, swept

__all__ = ["bench", "book", "chair", "crate", "ladder", "lamp", "shelf", "sofa", "stool", "table"]

Rng = np.random.Generator


def _legs(x: float, y: float, tall: float, thick: float) -> list[tuple[float, float, float, float, float, float]]:
    """Four legs under a board from -x to x and -y to y."""
    left, front = (-x, x - thick), (-y, y - thick)
    return [(a, b, 0.0, a + thick, b + thick, tall) for a in left for b in front]


def chair(rng: Rng) -> Solid:
    back, thick = rng.uniform(0.85, 1.05), rng.uniform(0.04, 0.06)
    seat = (-0.22, -0.22, 0.43, 0.22, 0.22, 0.48)
    posts = [(-0.22, y, 0.48, -0.22 + thick, y + thick, back) for y in (-0.22, 0.22 - thick)]
    slats = [(-0.21, -0.2, z, -0.19, 0.2, z + 0.08) for z in np.linspace(0.6, back - 0.1, 3)]
    return boxes(seat, *posts, *slats, *_legs(0.22, 0.22, 0.43, thick))


def table(rng: Rng) -> Solid:
    x, y = rng.uniform(0.4, 0.6), rng.uniform(0.3, 0.4)
    apron = (-x + 0.04, -y + 0.04, 0.6, x - 0.04, y - 0.04, 0.68)
    return boxes((-x, -y, 0.68, x, y, 0.73), apron, *_legs(x - 0.03, y - 0.03, 0.68, 0.06))


def stool(rng: Rng) -> Solid:
    legs = int(rng.integers(3, 5))
    foot, top = circle(legs, rng.uniform(0.26, 0.36)), circle(legs, 0.17)
    pairs = zip(np.column_stack([foot, np.zeros(legs)]), np.column_stack([top, np.full(legs, 0.62)]), strict=True)
    rods = [swept(pair, 0.028, sides=10) for pair in pairs]
    seat = lathe([(0.2, 0.6), (0.25, 0.62), (0.25, 0.66), (0.22, 0.69)])
    return joined(seat, *rods)


def bench(rng: Rng) -> Solid:
    x = rng.uniform(0.6, 0.9)
    boards = [(-x, y, 0.42, x, y + 0.11, 0.46) for y in (-0.19, -0.055, 0.08)]
    return boxes(*boards, *((a, -0.17, 0.0, a + 0.06, 0.17, 0.42) for a in (-x + 0.12, x - 0.18)))


def sofa(rng: Rng) -> Solid:
    x = rng.uniform(0.5, 0.9)
    blocks = np.array([(2 * x, 0.8, 0.36, 0, 0, 0.2), (2 * x, 0.22, 0.55, 0, 0.3, 0.55)])  # seat and back
    ends = [(0.2, 0.8, 0.55, side * (x - 0.02), 0, 0.3) for side in (-1, 1)]
    cushions = [(x - 0.12, 0.6, 0.16, side * (x / 2 - 0.06), -0.1, 0.44) for side in (-1, 1)]
    parts = np.concatenate([blocks, ends, cushions])
    return joined(*(moved(bevelled_box(part[:3], 0.06), part[3:]) for part in parts))


def shelf(rng: Rng) -> Solid:
    x, boards = rng.uniform(0.3, 0.45), int(rng.integers(3, 6))
    levels = [(-x, -0.14, z, x, 0.14, z + 0.03) for z in np.linspace(0.0, 1.1, boards)]
    sides = [(a, -0.14, 0.0, a + 0.03, 0.14, 1.13) for a in (-x, x - 0.03)]
    return boxes(*levels, *sides, (-x, 0.13, 0, x, 0.15, 1.13))


def lamp(rng: Rng) -> Solid:
    tall, wide = rng.uniform(0.6, 0.9), rng.uniform(0.2, 0.3)
    stand = lathe(np.concatenate([[(0.18, 0), (0.18, 0.03)], curve([(0.1, 0.06), (0.05, 0.2), (0.025, tall)])]))
    outer = np.array([(wide, tall - 0.1), (wide * 0.6, tall + 0.22)])
    shade = np.concatenate([outer, outer[::-1] - [0.015, 0]])
    return joined(stand, lathe(shade, loop=True), lathe([(0.05, tall), (0.05, tall + 0.1)], sides=16))


def book(rng: Rng) -> Solid:
    x, y, z = rng.uniform(0.3, 0.4), rng.uniform(0.45, 0.55), rng.uniform(0.06, 0.16)
    covers = [(-x, -y, side, x, y, side + 0.02) for side in (0.0, z)]
    pages = (-x + 0.02, -y + 0.02, 0.02, x - 0.03, y - 0.02, z)
    return boxes(*covers, pages, (-x - 0.01, -y, 0.0, -x + 0.01, y, z + 0.02))


def crate(rng: Rng) -> Solid:
    slats = []
    for z in (0.0, 0.21, 0.42):
        slats += [(-0.5, y, z, 0.5, y + 0.03, z + 0.16) for y in (-0.35, 0.32)]
        slats += [(x, -0.32, z, x + 0.03, 0.32, z + 0.16) for x in (-0.5, 0.47)]
    posts = [(x, y, 0.0, x + 0.06, y + 0.06, 0.58) for x in (-0.47, 0.41) for y in (-0.32, 0.26)]
    return moved(boxes((-0.47, -0.32, 0.0, 0.47, 0.32, 0.03), *slats, *posts), scale=(1, 1, rng.uniform(0.8, 1.3)))


def ladder(rng: Rng) -> Solid:
    rungs = int(rng.integers(4, 7))
    rails = [rod((x, 0, 0), (0.8 * x, 0, 1.4), 0.035) for x in (-0.28, 0.28)]
    return joined(*rails, *(rod((-0.26, 0, z), (0.26, 0, z), 0.022, 10) for z in np.linspace(0.15, 1.25, rungs)))
