"""Trees, bushes, grass and flowers, each at several levels of detail, grown from random numbers alone.

A plant is first a list of twigs and leaves (`Plant`); a level of detail keeps a random part of them and widens what is
kept, so that the silhouette and the covered area stay while triangles go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from perpixel.synthesis.parts import (
    Floats,
    Part,
    across,
    leaves,
    merge,
    mixed,
    random_directions,
    spikes,
    tubes,
    unit,
    varied,
)

Levels = tuple[tuple[Part, ...], ...]
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Twigs:
    """Segments of wood: ends, radii in metres, colours."""

    starts_n3: Floats
    ends_n3: Floats
    start_radius_n: Floats
    end_radius_n: Floats
    colors_n3: Floats


@dataclass(frozen=True)
class Leaves:
    """Leaves: base, unit direction, length and width in metres, colour, material."""

    bases_n3: Floats
    directions_n3: Floats
    length_n: Floats
    width_n: Floats
    colors_n3: Floats
    material: str = "leaf"


@dataclass(frozen=True)
class Plant:
    """Twigs (thick ones first matter most) and groups of leaves."""

    twigs: Twigs | None
    leaves: tuple[Leaves, ...]


@dataclass(frozen=True)
class Level:
    """A level of detail: at most so many leaves and thin twigs, and how many sides a stem has."""

    leaves: int
    twigs: int
    sides: int


def _thin_twigs(rng: np.random.Generator, twigs: Twigs, level: Level) -> list[Part]:
    """Stems as tubes; thin twigs as single triangles where the level is coarse."""
    thick = twigs.start_radius_n > (0.02 if level.sides < 6 else 0.0)
    order = np.argsort(-twigs.start_radius_n, kind="stable")
    stems = order[thick[order]][: max(level.twigs, 1)]
    thin = rng.permutation(np.flatnonzero(~thick))
    kept = thin[: level.twigs]
    parts = []
    if len(stems):
        sides = level.sides
        radius = twigs.start_radius_n[stems], twigs.end_radius_n[stems]
        parts.append(
            tubes(rng, twigs.starts_n3[stems], twigs.ends_n3[stems], *radius, twigs.colors_n3[stems], max(sides, 3))
        )
    if len(kept):
        # A spike has half the area of the tube that it stands for.
        wider = 1.6 * (len(thin) / len(kept)) ** 0.6 * twigs.start_radius_n[kept]
        parts.append(spikes(rng, twigs.starts_n3[kept], twigs.ends_n3[kept], wider, twigs.colors_n3[kept], "wood"))
    return parts


def _thin_leaves(rng: np.random.Generator, group: Leaves, share: float, *, coarse: bool) -> Part:
    count = len(group.bases_n3)
    keep = rng.permutation(count)[: max(round(count * share), 1)]
    grow = np.sqrt(count / len(keep))
    base, direction, color = group.bases_n3[keep], group.directions_n3[keep], group.colors_n3[keep]
    # A leaf widens more than it lengthens: lengths would swell the silhouette.
    length, width = group.length_n[keep] * grow**0.7, group.width_n[keep] * grow**1.3
    if coarse:
        return spikes(rng, base, base + direction * length[:, None], 0.8 * width, color, group.material)
    return leaves(rng, base, direction, length, np.minimum(width, length), color, group.material)


def levels_of(rng: np.random.Generator, plant: Plant, levels: Sequence[Level]) -> Levels:
    """The plant at each level of detail, finest first."""
    total = sum(len(group.bases_n3) for group in plant.leaves)
    drawn = []
    for level in levels:
        parts = [] if plant.twigs is None else _thin_twigs(rng, plant.twigs, level)
        share = min(1.0, level.leaves / max(total, 1))
        parts += [_thin_leaves(rng, group, share, coarse=level.sides < 4) for group in plant.leaves]
        drawn.append(merge(parts))
    return tuple(drawn)


@dataclass(frozen=True)
class Habit:
    """How a plant branches: a row a level of branches.

    Attributes:
        children: branches at each branch of the level before.
        spread: degrees between a branch and its parent. lift: how strongly a branch bends up (negative: droops).
        length: of a branch relative to its parent's. thin: the same for radii. wiggle: bending by chance.
    """

    children: tuple[int, ...]
    spread: float
    lift: float
    length: float = 0.7
    thin: float = 0.6
    wiggle: float = 0.15
    from_share: float = 0.35


def grow(
    rng: np.random.Generator,
    habit: Habit,
    *,
    stems: int,
    lean: float,
    length: float,
    radius: float,
    color: ArrayLike,
    steps: int = 3,
    foot: float = 0.0,
) -> tuple[Twigs, Floats, Floats]:
    """Twigs of a plant, and of the last level of branches the (points, directions) along them.

    ``lean``: degrees from upright, at most; ``foot``: stems start within that many metres of the middle.
    """
    turn = rng.uniform(0, 2 * np.pi, stems)
    tilt = np.radians(lean) * rng.uniform(0.3, 1.0, stems)
    out = np.stack([np.cos(turn), np.sin(turn), np.zeros(stems)], axis=1)
    start = out * rng.uniform(0.0, foot + 1e-9, (stems, 1)) - [0.0, 0.0, 0.05 * length]
    direction = unit(out * np.sin(tilt)[:, None] + UP * np.cos(tilt)[:, None])
    size, thick = rng.uniform(0.75, 1.15, stems) * length, rng.uniform(0.7, 1.1, stems) * radius
    segments: list[tuple[Floats, ...]] = []
    for level in range(len(habit.children) + 1):
        points, headings = [start], [direction]
        for _ in range(steps):
            bent = headings[-1] + habit.wiggle * rng.standard_normal(start.shape) + UP * (habit.lift / steps)
            headings.append(unit(bent))
            points.append(points[-1] + headings[-1] * (size / steps)[:, None])
        for step in range(steps):
            taper = [thick * (1 - (1 - habit.thin) * s / steps) for s in (step, step + 1)]
            segments.append((points[step], points[step + 1], *taper))
        if level == len(habit.children):
            break
        count = habit.children[level]
        parent = np.repeat(np.arange(len(start)), count)
        step_at = rng.integers(max(1, round(habit.from_share * steps)), steps + 1, len(parent))
        step_at[::count] = steps  # one child goes on from the end
        start = np.stack(points, axis=1)[parent, step_at]
        along = np.stack(headings, axis=1)[parent, step_at]
        angle = np.radians(habit.spread) * rng.uniform(0.5, 1.3, len(parent))
        direction = unit(along * np.cos(angle)[:, None] + across(rng, along) * np.sin(angle)[:, None])
        size = size[parent] * habit.length * rng.uniform(0.7, 1.2, len(parent))
        thick = thick[parent] * habit.thin
    twigs = [np.concatenate(column) for column in zip(*segments, strict=True)]
    last = np.stack(points[1:], axis=1), np.stack(headings[1:], axis=1)
    colors = varied(rng, color, len(twigs[0]), 0.1)
    return Twigs(twigs[0], twigs[1], twigs[2], twigs[3], colors), last[0].reshape(-1, 3), last[1].reshape(-1, 3)


def foliage(
    rng: np.random.Generator,
    points_n3: Floats,
    directions_n3: Floats,
    *,
    each: int,
    cloud: float,
    length: float,
    width: float,
    colors: Sequence[ArrayLike],
    along: float = 0.7,
    rise: float = 0.0,
) -> Leaves:
    """``each`` leaves in a cloud of ``cloud`` metres around every point, turned ``along`` the twig by that share."""
    count = len(points_n3) * each
    offset = random_directions(rng, count) * cloud * rng.uniform(0, 1, (count, 1)) ** 0.5
    base = np.repeat(points_n3, each, axis=0) + offset
    heading = np.repeat(directions_n3, each, axis=0) * along + random_directions(rng, count) * 0.8 + UP * rise
    sizes = rng.uniform(0.7, 1.3, count)
    shade = np.clip(1.0 - 0.25 * (1 - np.linalg.norm(offset, axis=1, keepdims=True) / max(cloud, 1e-6)), 0.6, 1.0)
    return Leaves(base, unit(heading), length * sizes, width * sizes, mixed(rng, colors, count) * shade)
