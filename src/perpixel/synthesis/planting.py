"""Where things stand: places drawn from densities and clumps, copies of prototypes at them, merged into meshes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.synthesis.noise import Floats, fractal, smoothstep
from perpixel.synthesis.parts import Part
from perpixel.synthesis.plants import Levels
from perpixel.synthesis.scene import Mesh
from perpixel.synthesis.terrain import Terrain

KEEP_OUT = 1.5  # metres around the camera's foot in which nothing stands


@dataclass(frozen=True)
class Species:
    """One kind of thing and how it is spread.

    Attributes:
        prototypes: shapes to choose from, each at several levels of detail, finest first.
        pixels: a level is used where a copy is at least so many pixels (of a picture 540 high) large.
        size, radius: metres of a copy of scale 1: largest extent, and half its width.
        density: copies a square metre where it grows best; reach: metres beyond which there are none.
        clump: wavelength in metres of its patches and their share of the ground (1: everywhere).
        scale: least and largest; small ones are more frequent the larger ``skew`` is.
        sink: share of the scale by which it stands in the ground; ``aligned``: lies flat on a slope; ``tilt``: radians.
        solid: share of the radius that nothing else may enter. bed: density in the wash relative to outside.
    """

    class_id: int
    prototypes: tuple[Levels, ...]
    pixels: tuple[float, ...]
    size: float
    radius: float
    density: float
    reach: float
    clump: tuple[float, float] = (20.0, 1.0)
    scale: tuple[float, float] = (0.7, 1.3)
    skew: float = 1.0
    sink: float = 0.03
    aligned: bool = False
    tilt: float = 0.05
    tint: float = 0.10
    solid: float = 0.0
    bed: float = 0.15


@dataclass(frozen=True)
class View:
    """What the camera sees: direction and half width in radians, focal length in pixels of a picture 540 high."""

    yaw: float
    half_view: float
    focal: float


@dataclass(frozen=True)
class Placed:
    """Copies of a species: position, rotation, scale, colour factor and instance number of each."""

    species: Species
    position_n3: Floats
    rotation_n33: Floats
    scale_n: Floats
    tint_n3: Floats
    instance_n: NDArray[np.int64]


def plant(
    rng: np.random.Generator, species: Species, terrain: Terrain, view: View, solids_n3: Floats, first_instance: int
) -> Placed:
    """Draw the copies of a species. ``solids_n3``: x, y and radius of what already stands."""
    count = int(rng.poisson(species.density * np.pi * species.reach**2))
    out, turn = species.reach * np.sqrt(rng.uniform(0, 1, count)), rng.uniform(0, 2 * np.pi, count)
    scale = species.scale[0] + (species.scale[1] - species.scale[0]) * rng.uniform(0, 1, count) ** species.skew
    chance, seed = rng.uniform(0, 1, count), int(rng.integers(1 << 30))
    aside = np.abs(np.mod(turn - view.yaw + np.pi, 2 * np.pi) - np.pi)
    pixels = species.size * scale * view.focal / np.maximum(out, 0.1)
    # What is not in view still throws its shadow; what is smaller than a pixel is left to the colour of the ground.
    seen = (aside < view.half_view) | (out < 3.0 + 1.5 * species.size * scale)
    clear = out - _extent(species) * scale > KEEP_OUT + 0.1 + 0.3 * species.radius * scale
    kept = np.flatnonzero(seen & clear & (chance < (pixels / 1.6) ** 2))
    x, y, scale, chance = out[kept] * np.cos(turn[kept]), out[kept] * np.sin(turn[kept]), scale[kept], chance[kept]
    grown = _grown(species, terrain, x, y, seed, rng) & _free(x, y, species.radius * scale, solids_n3)
    x, y, scale = x[grown], y[grown], scale[grown]
    z = terrain.height(x, y) - species.sink * scale
    tint = rng.normal(1.0, species.tint, (len(x), 1)) + rng.normal(0.0, species.tint / 3, (len(x), 3))
    return Placed(
        species,
        np.stack([x, y, z], axis=1),
        _rotations(rng, species, terrain.normals(x, y)),
        scale,
        np.clip(tint, 0.5, 1.5),
        first_instance + np.arange(len(x)),
    )


def _extent(species: Species) -> float:
    """How far a copy of scale 1 reaches sideways at most, when it leans as far as it may (four deviations)."""
    reach = 0.0
    for part in (part for levels in species.prototypes for parts in levels for part in parts):
        x, y, z = part.vertices_n3.T
        reach = max(reach, float((np.hypot(x, y) + 4.0 * species.tilt * np.abs(z)).max()))
    return reach


def _grown(
    species: Species, terrain: Terrain, x: Floats, y: Floats, seed: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Which candidates lie in the patches of the species, outside the wash unless it likes it, off the steepest."""
    length, share = species.clump
    chance = np.ones(len(x))
    if share < 1:
        edge = 0.55 - 1.1 * share
        chance = smoothstep(edge - 0.12, edge + 0.16, fractal(x, y, seed, wavelength=length, octaves=3))
    wash = terrain.sample(terrain.wash_ra, x, y)
    chance = chance * (1 - wash + wash * species.bed)
    chance = chance * smoothstep(0.45, 0.7, terrain.normals(x, y, 1.5)[:, 2])
    return np.asarray(rng.uniform(0, 1, len(x)) < chance)


def _free(x: Floats, y: Floats, radius_n: Floats, solids_n3: Floats) -> NDArray[np.bool_]:
    """Which points keep clear of the solid things."""
    free = np.ones(len(x), dtype=bool)
    order = np.argsort(x, kind="stable")  # so that each solid thing is compared with its neighbours alone
    sorted_x, reach = x[order], solids_n3[:, 2] + 0.3 * radius_n.max(initial=0.0)
    firsts = np.searchsorted(sorted_x, solids_n3[:, 0] - reach)
    lasts = np.searchsorted(sorted_x, solids_n3[:, 0] + reach)
    for (solid_x, solid_y, solid), first, last in zip(solids_n3, firsts, lasts, strict=True):
        near = order[first:last]
        free[near] &= np.hypot(x[near] - solid_x, y[near] - solid_y) >= solid + 0.3 * radius_n[near]
    return free


def _rotations(rng: np.random.Generator, species: Species, normals_n3: Floats) -> Floats:
    """A turn about the upright axis, then a lean by chance, or with the slope of the ground."""
    count = len(normals_n3)
    up = normals_n3 if species.aligned else np.tile([0.0, 0.0, 1.0], (count, 1))
    up = up + species.tilt * np.concatenate([rng.standard_normal((count, 2)), np.zeros((count, 1))], axis=1)
    up = up / np.linalg.norm(up, axis=1, keepdims=True)
    turn = rng.uniform(0, 2 * np.pi, count)
    heading = np.stack([np.cos(turn), np.sin(turn), np.zeros(count)], axis=1)
    side = np.cross(up, heading)
    side = side / np.linalg.norm(side, axis=1, keepdims=True)
    return np.stack([np.cross(side, up), side, up], axis=-1)


def solids(placed: Placed) -> Floats:
    """x, y and radius of the copies that nothing else may enter."""
    radius = placed.species.solid * placed.species.radius * placed.scale_n
    return np.column_stack([placed.position_n3[:, :2], radius])[radius > 0.1]


def expand(placed: Sequence[Placed], view: View, rng: np.random.Generator) -> list[Mesh]:
    """Copies of all species as meshes, one for each material and class."""
    merged: dict[tuple[str, int], list[tuple[NDArray[Any], ...]]] = defaultdict(list)
    for group in placed:
        species = group.species
        which = rng.integers(len(species.prototypes), size=len(group.scale_n))
        distance = np.maximum(np.hypot(group.position_n3[:, 0], group.position_n3[:, 1]), 1.0)
        pixels = species.size * group.scale_n * view.focal / distance
        level = np.minimum((pixels[:, None] < np.array(species.pixels)).sum(axis=1), len(species.pixels) - 1)
        for number, levels in enumerate(species.prototypes):
            for depth, parts in enumerate(levels):
                copies = np.flatnonzero((which == number) & (level == depth))
                for part in parts if len(copies) else ():
                    merged[part.material, species.class_id].append(_copies(part, group, copies))
    return [_join(material, class_id, pieces) for (material, class_id), pieces in merged.items()]


def _copies(part: Part, group: Placed, copies: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
    """Vertices, faces, colours, texture coordinates and instances of a part at many places."""
    count, size = len(copies), len(part.vertices_n3)
    turned = (group.rotation_n33[copies] * group.scale_n[copies, None, None]).astype(np.float32)
    x, y, z = part.vertices_n3.astype(np.float32).T
    vertices = np.empty((count, size, 3), np.float32)
    for axis in range(3):  # written out: a matrix product rounds differently from machine to machine
        row = turned[:, axis, :, None]
        vertices[:, :, axis] = x * row[:, 0] + y * row[:, 1] + z * row[:, 2]
    vertices += group.position_n3[copies, None].astype(np.float32)
    colors = part.colors_n3.astype(np.float32) * group.tint_n3[copies, None].astype(np.float32)
    faces = part.faces_m3.astype(np.uint32) + (np.arange(count, dtype=np.uint32) * np.uint32(size))[:, None, None]
    uv = part.uv_n2.astype(np.float32) * group.scale_n[copies, None, None].astype(np.float32)
    instance = np.repeat(group.instance_n[copies].astype(np.uint32), len(part.faces_m3))
    return vertices.reshape(-1, 3), faces.reshape(-1, 3), colors.reshape(-1, 3), uv.reshape(-1, 2), instance


def _join(material: str, class_id: int, pieces: Sequence[tuple[NDArray[Any], ...]]) -> Mesh:
    vertices, faces, colors, uv, instance = zip(*pieces, strict=True)
    starts = np.cumsum([0] + [len(v) for v in vertices[:-1]]).astype(np.uint32)
    return Mesh(
        vertices_n3=np.concatenate(vertices),
        faces_m3=np.concatenate([f + start for f, start in zip(faces, starts, strict=True)]),
        colors_n3=np.clip(np.concatenate(colors), 0.0, 0.95),
        material=material,
        class_id=class_id,
        instance_m=np.concatenate(instance),
        uv_n2=np.concatenate(uv),
    )
