"""Building blocks of plants, rocks and litter: triangles of one material around the origin, and their merging."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Triangles of one material: ``vertices_n3`` metres, ``faces_m3``, ``colors_n3`` 0 to 1, ``uv_n2``."""

    material: str
    vertices_n3: Floats
    faces_m3: NDArray[np.int64]
    colors_n3: Floats
    uv_n2: Floats


def merge(parts: Sequence[Part]) -> tuple[Part, ...]:
    """One part a material, in the order in which materials first occur."""
    merged = []
    for material in dict.fromkeys(part.material for part in parts):
        alike = [part for part in parts if part.material == material]
        starts = np.cumsum([0] + [len(part.vertices_n3) for part in alike])
        merged.append(
            Part(
                material,
                np.concatenate([part.vertices_n3 for part in alike]),
                np.concatenate([part.faces_m3 + start for part, start in zip(alike, starts[:-1], strict=True)]),
                np.concatenate([part.colors_n3 for part in alike]),
                np.concatenate([part.uv_n2 for part in alike]),
            )
        )
    return tuple(merged)


def unit(vectors_n3: Floats) -> Floats:
    """Vectors scaled to length 1 along the last axis."""
    return np.asarray(vectors_n3 / np.linalg.norm(vectors_n3, axis=-1, keepdims=True), dtype=np.float64)


def random_directions(rng: np.random.Generator, count: int) -> Floats:
    """Directions spread evenly over the sphere."""
    return unit(rng.standard_normal((count, 3)))


def across(rng: np.random.Generator, directions_n3: Floats) -> Floats:
    """A random unit vector perpendicular to each direction."""
    return unit(np.cross(directions_n3, random_directions(rng, len(directions_n3))))


def tubes(
    rng: np.random.Generator,
    starts_n3: Floats,
    ends_n3: Floats,
    start_radius_n: Floats,
    end_radius_n: Floats,
    colors_n3: Floats,
    sides: int,
) -> Part:
    """A frustum without lids for each segment; texture runs once around and by metres along. Each begins half a
    radius early, so that no gap opens where a stem bends."""
    starts_n3 = starts_n3 - unit(ends_n3 - starts_n3) * (0.5 * start_radius_n)[:, None]
    axis = ends_n3 - starts_n3
    u = across(rng, unit(axis))
    v = np.cross(unit(axis), u)
    turn = np.arange(sides) * (2 * np.pi / sides)
    ring_nk3 = u[:, None] * np.cos(turn)[:, None] + v[:, None] * np.sin(turn)[:, None]
    low = starts_n3[:, None] + ring_nk3 * start_radius_n[:, None, None]
    high = ends_n3[:, None] + ring_nk3 * end_radius_n[:, None, None]
    vertices = np.stack([low, high], axis=1).reshape(-1, 3)
    k = np.arange(sides)
    after = (k + 1) % sides
    quad = np.concatenate(
        [np.stack([k, after, after + sides], axis=1), np.stack([k, after + sides, k + sides], axis=1)]
    )
    count = len(starts_n3)
    faces = (quad[None] + (np.arange(count) * 2 * sides)[:, None, None]).reshape(-1, 3)
    uv = np.zeros((count, 2, sides, 2))
    uv[..., 0] = k / sides
    uv[:, 1, :, 1] = np.linalg.norm(axis, axis=1)[:, None]
    return Part("wood", vertices, faces, np.repeat(colors_n3, 2 * sides, axis=0), uv.reshape(-1, 2))


def spikes(
    rng: np.random.Generator, starts_n3: Floats, ends_n3: Floats, radius_n: Floats, colors_n3: Floats, material: str
) -> Part:
    """One thin triangle for each segment: a twig, a needle or a blade seen from afar."""
    side = across(rng, unit(ends_n3 - starts_n3)) * radius_n[:, None]
    vertices = np.stack([starts_n3 - side, starts_n3 + side, ends_n3], axis=1).reshape(-1, 3)
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return Part(material, vertices, faces, np.repeat(colors_n3, 3, axis=0), np.zeros((len(vertices), 2)))


def leaves(
    rng: np.random.Generator,
    bases_n3: Floats,
    directions_n3: Floats,
    length_n: Floats,
    width_n: Floats,
    colors_n3: Floats,
    material: str = "leaf",
) -> Part:
    """A rhomb of two triangles for each leaf, slightly folded along its rib."""
    side = across(rng, directions_n3)
    fold = np.cross(directions_n3, side) * (0.25 * width_n)[:, None]
    middle = bases_n3 + directions_n3 * (0.45 * length_n)[:, None]
    half = side * (0.5 * width_n)[:, None]
    tip = bases_n3 + directions_n3 * length_n[:, None]
    vertices = np.stack([bases_n3, middle - half + fold, tip, middle + half + fold], axis=1).reshape(-1, 3)
    first = np.arange(len(bases_n3))[:, None] * 4
    faces = (first + np.array([0, 1, 2, 0, 2, 3])).reshape(-1, 3)
    return Part(material, vertices, faces, np.repeat(colors_n3, 4, axis=0), np.zeros((len(vertices), 2)))


def varied(rng: np.random.Generator, color: ArrayLike, count: int, spread: float = 0.15) -> Floats:
    """``count`` colours around one: brightness varies by ``spread``, hue by a third of it."""
    base = np.asarray(color, dtype=np.float64)
    factor = rng.normal(1.0, spread, (count, 1)) + rng.normal(0.0, spread / 3, (count, 3))
    return np.asarray(np.clip(base * np.clip(factor, 0.4, 1.8), 0.0, 0.95), dtype=np.float64)


def mixed(rng: np.random.Generator, colors: Sequence[ArrayLike], count: int, spread: float = 0.12) -> Floats:
    """``count`` colours, each around one of ``colors`` drawn by chance."""
    palette = np.asarray(colors, dtype=np.float64)[rng.integers(len(colors), size=count)]
    return varied(rng, palette, count, spread)


def icosphere(subdivisions: int) -> tuple[Floats, NDArray[np.int64]]:
    """Unit sphere of 20 * 4^subdivisions triangles; vertices are shared."""
    golden = (1 + 5**0.5) / 2
    corners: list[tuple[float, float, float]]
    corners = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0), (0, -1, golden), (0, 1, golden)]
    corners += [(0, -1, -golden), (0, 1, -golden), (golden, 0, -1), (golden, 0, 1), (-golden, 0, -1), (-golden, 0, 1)]
    vertices = unit(np.array(corners, dtype=np.float64))
    faces = np.array(
        [
            *[(0, 11, 5), (0, 5, 1), (0, 1, 7), (0, 7, 10), (0, 10, 11), (1, 5, 9), (5, 11, 4), (11, 10, 2)],
            *[(10, 7, 6), (7, 1, 8), (3, 9, 4), (3, 4, 2), (3, 2, 6), (3, 6, 8), (3, 8, 9), (4, 9, 5)],
            *[(2, 4, 11), (6, 2, 10), (8, 6, 7), (9, 8, 1)],
        ],
        dtype=np.int64,
    )
    for _ in range(subdivisions):
        edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        unique, index = np.unique(edges, axis=0, return_inverse=True)
        middle = index.reshape(-1, 3) + len(vertices)
        vertices = np.concatenate([vertices, unit(vertices[unique].sum(axis=1))])
        a, b, c = faces.T
        ab, bc, ca = middle.T
        rows = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = np.concatenate([np.stack(row, axis=1) for row in rows])
    return vertices, faces
