"""The plants of a desert: trees, lush and dry bushes, grass and flowers. Colours are linear reflectances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from perpixel.synthesis.parts import Floats, Part, across, leaves, merge, mixed, random_directions, spikes, unit, varied
from perpixel.synthesis.plants import UP, Habit, Leaves, Level, Levels, Plant, Twigs, foliage, grow, levels_of

Rng = np.random.Generator

TREE_LEVELS = (
    Level(30000, 900, 8),
    Level(12000, 600, 7),
    Level(6000, 260, 5),
    Level(3000, 60, 4),
    Level(500, 12, 3),
    Level(90, 4, 3),
)
BUSH_LEVELS = (Level(4200, 500, 6), Level(3000, 160, 4), Level(1400, 40, 3), Level(320, 10, 3), Level(40, 2, 3))

JUNIPER_GREENS = ((0.105, 0.140, 0.060), (0.080, 0.115, 0.045), (0.150, 0.170, 0.075))
MESQUITE_GREENS = ((0.14, 0.19, 0.055), (0.11, 0.15, 0.045), (0.20, 0.22, 0.08))
JOSHUA_GREENS = ((0.13, 0.17, 0.075), (0.10, 0.13, 0.06), (0.19, 0.20, 0.09))
LUSH_GREENS = ((0.115, 0.190, 0.045), (0.085, 0.150, 0.035), (0.165, 0.230, 0.060))
CREOSOTE_GREENS = ((0.115, 0.145, 0.040), (0.09, 0.12, 0.035), (0.15, 0.16, 0.05))
SAGE_GREENS = ((0.22, 0.25, 0.17), (0.17, 0.21, 0.13), (0.27, 0.28, 0.20))
DEAD_LEAVES = ((0.30, 0.20, 0.10), (0.24, 0.15, 0.08), (0.38, 0.28, 0.15))
STRAW = ((0.50, 0.38, 0.18), (0.42, 0.31, 0.15), (0.56, 0.46, 0.25))
BLOSSOMS: dict[str, ArrayLike] = {
    "yellow": (0.86, 0.58, 0.03),
    "purple": (0.30, 0.12, 0.50),
    "orange": (0.88, 0.26, 0.03),
    "white": (0.84, 0.82, 0.76),
    "magenta": (0.66, 0.08, 0.34),
}


def joshua_tree(rng: Rng) -> Levels:
    """Few thick forking limbs with daggers of leaves at their ends and dead leaves along them; about 4.5 m high."""
    habit = Habit((2, 2, 2), spread=48, lift=0.5, length=0.72, thin=0.85, wiggle=0.13, from_share=1.0)
    twigs, _, _ = grow(rng, habit, stems=1, lean=8, length=1.9, radius=0.19, color=(0.17, 0.12, 0.085), steps=4)
    ends = twigs.ends_n3[-8:] if len(twigs.ends_n3) >= 8 else twigs.ends_n3
    axis = unit(ends - twigs.starts_n3[-8:])
    each = 190
    heading = unit(np.repeat(axis, each, axis=0) * 0.35 + random_directions(rng, len(ends) * each))
    back = rng.uniform(0.0, 0.38, (len(heading), 1))
    daggers = Leaves(
        np.repeat(ends, each, axis=0) - np.repeat(axis, each, axis=0) * back,
        heading,
        rng.uniform(0.20, 0.34, len(heading)),
        np.full(len(heading), 0.028),
        mixed(rng, JOSHUA_GREENS, len(heading)),
    )
    late = np.flatnonzero(twigs.ends_n3[:, 2] > 1.2)
    at = rng.choice(late, 1400)
    share = rng.uniform(0, 1, (len(at), 1))
    along = unit(twigs.ends_n3[at] - twigs.starts_n3[at])
    dead = Leaves(
        twigs.starts_n3[at] * (1 - share) + twigs.ends_n3[at] * share,
        unit(across(rng, along) - 0.5 * along - 0.3 * UP),
        rng.uniform(0.14, 0.26, len(at)),
        np.full(len(at), 0.022),
        mixed(rng, DEAD_LEAVES, len(at)),
    )
    return levels_of(rng, Plant(twigs, (daggers, dead)), TREE_LEVELS)


def mesquite(rng: Rng, *, greens: Sequence[ArrayLike] = MESQUITE_GREENS, height: float = 4.0) -> Levels:
    """Several leaning stems under a wide, airy crown of small leaves: mesquite, acacia, palo verde."""
    habit = Habit((3, 3, 3), spread=38, lift=0.12, length=0.68, thin=0.55, wiggle=0.17)
    stems = int(rng.integers(1, 4))
    bark = varied(rng, (0.13, 0.105, 0.08), 1, 0.2)[0]
    size = 0.40 * height
    twigs, points, along = grow(rng, habit, stems=stems, lean=30, length=size, radius=0.035 * height, color=bark)
    each = max(2, 26000 // len(points))
    crown = foliage(
        rng, points, along, each=each, cloud=0.07 * height, length=0.07, width=0.022, colors=greens, along=0.5
    )
    return levels_of(rng, Plant(twigs, (crown,)), TREE_LEVELS)


def juniper(rng: Rng) -> Levels:
    """A short twisted trunk under dense dark sprays, broader or more pointed by chance; about 4 m high."""
    pointed = rng.uniform(0.25, 0.75)
    bark = (0.20, 0.155, 0.12)
    habit = Habit((7, 5), spread=66, lift=0.35, length=0.48, thin=0.5, wiggle=0.22, from_share=0.1)
    twigs, points, along = grow(
        rng, habit, stems=int(rng.integers(2, 4)), lean=22, length=2.5, radius=0.14, color=bark, steps=5
    )
    narrow = 1.0 - pointed * np.clip(points[:, 2:] / max(points[:, 2].max(), 1.0), 0, 1) ** 1.5
    points = points * np.concatenate([narrow, narrow, np.ones_like(narrow)], axis=1)
    points = points[points[:, 2] > 0.35]
    along = along[: len(points)]
    each = max(3, 30000 // len(points))
    sprays = foliage(
        rng, points, along, each=each, cloud=0.34, length=0.085, width=0.028, colors=JUNIPER_GREENS, along=0.2, rise=0.4
    )
    return levels_of(rng, Plant(twigs, (sprays,)), TREE_LEVELS)


def broadleaf(rng: Rng) -> Levels:
    """A single trunk and a full crown of larger leaves, as cottonwoods along a wash; about 6 m high."""
    habit = Habit((4, 3, 3), spread=40, lift=0.25, length=0.66, thin=0.55, wiggle=0.13, from_share=0.4)
    bark = (0.22, 0.19, 0.155)
    twigs, points, along = grow(rng, habit, stems=1, lean=6, length=2.6, radius=0.21, color=bark, steps=3)
    each = max(3, 26000 // len(points))
    crown = foliage(
        rng, points, along, each=each, cloud=0.48, length=0.10, width=0.065, colors=LUSH_GREENS, along=0.2, rise=-0.1
    )
    return levels_of(rng, Plant(twigs, (crown,)), TREE_LEVELS)


def palm(rng: Rng) -> Levels:
    """A fan palm: ringed trunk, feathered fronds that arch over, a skirt of dead ones below; about 6 m high."""
    steps = 9
    bend = np.cumsum(rng.normal(0, 0.05, (steps, 2)), axis=0)
    top = rng.uniform(3.6, 5.2)
    spine = np.concatenate([np.concatenate([[[0.0, 0.0]], bend]), np.linspace(-0.2, top, steps + 1)[:, None]], axis=1)
    radius = np.linspace(0.24, 0.17, steps + 1)
    trunk = Twigs(spine[:-1], spine[1:], radius[:-1], radius[1:] * 0.95, varied(rng, (0.24, 0.185, 0.13), steps, 0.12))
    groups = []
    for count, pitch, colors in ((26, (-0.3, 1.1), LUSH_GREENS), (22, (-1.35, -0.7), DEAD_LEAVES)):
        turn, rise = rng.uniform(0, 2 * np.pi, count), rng.uniform(*pitch, count)
        s = np.linspace(0.12, 1.0, 26)
        reach = 1.9 * s * np.cos(rise)[:, None]
        z = top + 1.9 * s * np.sin(rise)[:, None] - 0.9 * s**2 * np.cos(rise)[:, None]
        points = np.stack([reach * np.cos(turn)[:, None], reach * np.sin(turn)[:, None], z], axis=-1)
        points[..., :2] += spine[-1, :2]
        along = unit(np.gradient(points, axis=1))
        side = unit(np.cross(along, UP))
        for sign in (-1.0, 1.0):
            heading = unit(along * 0.8 + sign * side + rng.normal(0, 0.12, side.shape) - 0.25 * UP).reshape(-1, 3)
            length = np.tile(0.62 * (1.1 - s**2 * 0.8), count) * rng.uniform(0.85, 1.1, len(heading))
            color = mixed(rng, colors, len(heading))
            groups.append(Leaves(points.reshape(-1, 3), heading, length, np.full(len(heading), 0.05), color))
    return levels_of(rng, Plant(trunk, tuple(groups)), TREE_LEVELS)


def lush_bush(rng: Rng, *, greens: Sequence[ArrayLike] = LUSH_GREENS, leaf: float = 0.06, dense: int = 4200) -> Levels:
    """A rounded bush full of leaves from the ground up; about 1.1 m high."""
    habit = Habit((4, 3), spread=42, lift=0.25, length=0.62, thin=0.5, wiggle=0.16, from_share=0.2)
    stems = int(rng.integers(7, 13))
    twigs, points, along = grow(
        rng, habit, stems=stems, lean=62, length=0.52, radius=0.012, color=(0.16, 0.12, 0.08), foot=0.14
    )
    each = max(1, dense // len(points))
    crown = foliage(
        rng, points, along, each=each, cloud=0.10, length=leaf, width=0.45 * leaf, colors=greens, along=0.6, rise=0.3
    )
    return levels_of(rng, Plant(twigs, (crown,)), BUSH_LEVELS)


def dry_bush(rng: Rng, *, color: ArrayLike = (0.26, 0.20, 0.145), leafy: float = 0.45) -> Levels:
    """A brush of grey-brown twigs with few dead leaves; about 0.8 m high."""
    habit = Habit((4, 3, 2), spread=36, lift=0.12, length=0.66, thin=0.74, wiggle=0.22, from_share=0.2)
    stems = int(rng.integers(9, 16))
    twigs, points, along = grow(rng, habit, stems=stems, lean=68, length=0.36, radius=0.011, color=color, foot=0.10)
    kept = rng.permutation(len(points))[: max(1, int(len(points) * leafy))]
    crown = foliage(
        rng, points[kept], along[kept], each=3, cloud=0.03, length=0.024, width=0.011, colors=DEAD_LEAVES, rise=0.2
    )
    levels = (Level(1400, 4200, 6), Level(700, 1600, 4), Level(200, 700, 3), Level(40, 180, 3), Level(8, 30, 3))
    return levels_of(rng, Plant(twigs, (crown,)), levels)


def _blades(rng: Rng, count: int, *, height: float, foot: float, lean: float, width: float, two: bool) -> Part:
    turn = rng.uniform(0, 2 * np.pi, count)
    out = np.stack([np.cos(turn), np.sin(turn), np.zeros(count)], axis=1)
    base = out * (foot * rng.uniform(0, 1, (count, 1)) ** 0.5)
    tilt = lean * rng.uniform(0.05, 1.0, (count, 1))
    size = height * rng.uniform(0.45, 1.1, (count, 1))
    heading = unit(UP + out * tilt + 0.15 * random_directions(rng, count))
    middle = base + heading * size * 0.6
    tip = middle + unit(heading + out * tilt * 0.9 - UP * 0.35 * tilt) * size * 0.5
    half = np.cross(heading, out)
    half = unit(half + 1e-9) * width * 0.5
    color = mixed(rng, STRAW, count)
    if not two:
        vertices = np.stack([base - half * 1.3, base + half * 1.3, tip], axis=1)
        shade = np.array([0.72, 0.72, 1.05])
        index = np.array([[0, 1, 2]])
    else:
        vertices = np.stack([base - half, base + half, middle - half * 0.8, middle + half * 0.8, tip], axis=1)
        shade = np.array([0.65, 0.65, 0.95, 0.95, 1.1])
        index = np.array([[0, 1, 3], [0, 3, 2], [2, 3, 4]])
    corners = vertices.shape[1]
    faces = (index[None] + (np.arange(count) * corners)[:, None, None]).reshape(-1, 3)
    colors = np.clip(color[:, None] * shade[:, None], 0, 0.9).reshape(-1, 3)
    return Part("grass", vertices.reshape(-1, 3), faces, colors, np.zeros((count * corners, 2)))


def dry_grass(rng: Rng, *, height: float = 0.38) -> Levels:
    """A tuft of straw-coloured blades."""
    shape = {"height": height, "foot": 0.07, "lean": rng.uniform(0.5, 1.1)}
    fine = _blades(rng, 130, **shape, width=0.0055, two=True)
    middle = _blades(rng, 60, **shape, width=0.008, two=False)
    coarse = _blades(rng, 22, **shape, width=0.015, two=False)
    far = _blades(rng, 6, **shape, width=0.045, two=False)
    return (fine,), (middle,), (coarse,), (far,)


def _heads(rng: Rng, tops: Floats, color: ArrayLike, petals: int, size: float) -> list[Part]:
    """A ring of petals and a small heart on every stem."""
    count = len(tops)
    turn = (np.arange(petals) * (2 * np.pi / petals) + rng.uniform(0, 6, (count, 1))).reshape(-1)
    face = unit(UP + 0.45 * rng.standard_normal((count, 3)))
    u = across(rng, face)
    v = np.cross(face, u)
    u, v, face = (np.repeat(a, petals, axis=0) for a in (u, v, face))
    heading = unit(u * np.cos(turn)[:, None] + v * np.sin(turn)[:, None] + 0.35 * face)
    base = np.repeat(tops, petals, axis=0)
    length = size * rng.uniform(0.8, 1.15, len(base))
    hue = np.repeat(varied(rng, color, count, 0.1), petals, axis=0)
    heart = leaves(
        rng,
        np.repeat(tops, 3, axis=0) + 0.1 * size * UP,
        random_directions(rng, count * 3),
        np.full(count * 3, 0.3 * size),
        np.full(count * 3, 0.3 * size),
        varied(rng, (0.5, 0.3, 0.03), count * 3),
        "petal",
    )
    return [leaves(rng, base, heading, length, 0.75 * length, hue, "petal"), heart]


def flowers(rng: Rng, color: str, *, stems: int = 46, height: float = 0.30, size: float = 0.032) -> Levels:
    """A clump of blossoms of one colour on green stems with narrow leaves; about 0.5 m wide."""
    levels = []
    for share, petals in ((1.0, 7), (0.75, 4), (0.4, 2), (0.16, 1)):
        count = max(3, int(stems * share))
        turn, out = rng.uniform(0, 2 * np.pi, count), 0.24 * rng.uniform(0, 1, count) ** 0.6
        foot = np.stack([out * np.cos(turn), out * np.sin(turn), np.full(count, -0.02)], axis=1) * [0.7, 0.7, 1.0]
        top = foot * [1.5, 1.5, 1.0] + UP * (height * rng.uniform(0.6, 1.1, (count, 1)) * (1.15 - out[:, None]))
        wide = 0.003 / share**0.5
        parts = [spikes(rng, foot, top, np.full(count, wide), varied(rng, (0.10, 0.17, 0.05), count), "leaf")]
        green = count * (5 if petals > 3 else 2)
        at = rng.integers(count, size=green)
        base = foot[at] + (top[at] - foot[at]) * rng.uniform(0, 0.75, (green, 1))
        heading = unit(random_directions(rng, green) + 0.7 * UP)
        length = rng.uniform(0.05, 0.10, green) / share**0.5
        parts.append(leaves(rng, base, heading, length, 0.3 * length, mixed(rng, LUSH_GREENS, green), "leaf"))
        parts += _heads(rng, top, BLOSSOMS[color], petals, size / share**0.35 * (1.0 if petals > 3 else 1.6))
        levels.append(merge(parts))
    return tuple(levels)
