"""Closed solids made of triangles: what the shapes of `object_shapes` are joined from, and how they are shaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import ConvexHull

from perpixel.synthesis.parts import Floats, icosphere, unit

Solid = tuple[Floats, NDArray[np.int64]]
"""``vertices_n3`` and ``faces_m3``: closed, counter-clockwise seen from outside."""

_WOBBLE = float(np.tan(np.radians(5)))  # what stands less firmly than that falls over


def joined(*solids: Solid) -> Solid:
    """Several solids as one; they may overlap."""
    starts = np.cumsum([0, *(len(vertices_n3) for vertices_n3, _ in solids)])
    faces = [faces_m3 + start for (_, faces_m3), start in zip(solids, starts, strict=False)]
    return np.concatenate([vertices_n3 for vertices_n3, _ in solids]), np.concatenate(faces)


def moved(
    solid: Solid, offset: ArrayLike = (0, 0, 0), *, scale: ArrayLike = 1.0, turn: ArrayLike | None = None
) -> Solid:
    """Scaled (positive factors), then turned by a rotation matrix, then moved."""
    vertices_n3 = solid[0] * np.asarray(scale, dtype=np.float64)
    if turn is not None:
        # Not a matrix product: what those round depends on the number of threads.
        vertices_n3 = (vertices_n3[:, None] * np.asarray(turn, dtype=np.float64)).sum(axis=-1)
    return vertices_n3 + np.asarray(offset, dtype=np.float64), solid[1]


def rotation(axis: ArrayLike, degrees: float) -> Floats:
    """The matrix that turns counter-clockwise about an axis (Rodrigues)."""
    x, y, z = unit(np.asarray(axis, dtype=np.float64))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    square = (cross[:, :, None] * cross[None]).sum(axis=1)
    angle = np.radians(degrees)
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * square)


def woven(points_rk3: Floats, *, loop: bool = False) -> Solid:
    """Rings of equally many points, joined one to the next; the last joins the first, or both have flat lids."""
    rings, sides = points_rk3.shape[:2]
    index = np.arange(rings * sides).reshape(rings, sides)
    low, high = (index, np.roll(index, -1, axis=0)) if loop else (index[:-1], index[1:])
    low_next, high_next = np.roll(low, -1, axis=1), np.roll(high, -1, axis=1)
    quads = [np.stack([low, low_next, high_next], axis=-1), np.stack([low, high_next, high], axis=-1)]
    faces, vertices = [quad.reshape(-1, 3) for quad in quads], points_rk3.reshape(-1, 3)
    if not loop:
        first, last = index[0], index[-1]
        below, above = np.full(sides, len(vertices)), np.full(sides, len(vertices) + 1)
        faces.append(np.stack([below, np.roll(first, -1), first], axis=1))
        faces.append(np.stack([above, last, np.roll(last, -1)], axis=1))
        vertices = np.concatenate([vertices, points_rk3[[0, -1]].mean(axis=1)])
    return outward((vertices, np.concatenate(faces)))


def outward(solid: Solid) -> Solid:
    """The same with its faces outward: its volume above 0."""
    return (solid[0], solid[1][:, ::-1]) if volume(solid) < 0 else solid


def volume(solid: Solid) -> float:
    """Cubic metres within; below 0 where the faces look inward."""
    a, b, c = (solid[0][solid[1][:, i]] for i in range(3))
    return float((np.cross(a, b) * c).sum() / 6)


def centroid(solid: Solid) -> Floats:
    """The middle of what lies within, of one density; where parts overlap, that of their sum."""
    a, b, c = (solid[0][solid[1][:, i]] for i in range(3))
    volume_m1 = (np.cross(a, b) * c).sum(axis=1, keepdims=True)
    return np.asarray((volume_m1 * (a + b + c)).sum(axis=0) / (4 * volume_m1.sum()))


def settled(solid: Solid, down: ArrayLike) -> Floats:
    """The rotation after which a solid that falls with its side ``down`` below lies still on a level floor.

    It lies on a face of its convex hull. Where a tilt of less than 5 degrees brings the centroid beyond an edge, it
    rolls over that edge, on to a face above which the centroid is lower; so it comes to rest.
    """
    equations_k4 = ConvexHull(solid[0]).equations  # outward normals, and offsets below 0 for what lies inside
    normal_k3 = equations_k4[:, :3]
    height_k = -(normal_k3 * centroid(solid)).sum(axis=1) - equations_k4[:, 3]
    toward_k = (normal_k3 * unit(np.asarray(down, dtype=np.float64))).sum(axis=1)
    face = int(np.where(toward_k > 1e-9, height_k / np.maximum(toward_k, 1e-9), np.inf).argmin())
    while True:
        cosine_k = (normal_k3 * normal_k3[face]).sum(axis=1).clip(-1, 1)
        reach_k = height_k[face] * (cosine_k + _WOBBLE * np.sqrt(1 - cosine_k**2))  # towards the planes of the faces
        beyond_k = np.where(height_k < height_k[face] * (1 - 1e-9), reach_k - height_k, 0.0)
        if beyond_k.max() <= 0:
            break
        face = int(beyond_k.argmax())
    axis = np.cross(normal_k3[face], (0.0, 0.0, -1.0))
    sine = float(np.linalg.norm(axis))
    return rotation(axis if sine > 1e-9 else (1, 0, 0), float(np.degrees(np.arctan2(sine, -normal_k3[face, 2]))))


def lathe(profile_p2: ArrayLike, *, sides: int = 40, loop: bool = False) -> Solid:
    """A profile of (radius above 0, height) turned about z; ``loop``: the profile closes, as that of a ring does."""
    radius, height = np.asarray(profile_p2, dtype=np.float64).T
    angle = np.arange(sides) * (2 * np.pi / sides)
    around = np.stack([np.cos(angle), np.sin(angle), np.zeros(sides)], axis=1)
    points = radius[:, None, None] * around + height[:, None, None] * np.array([0.0, 0.0, 1.0])
    return woven(points, loop=loop)


def curve(points_p2: ArrayLike, steps: int = 6) -> Floats:
    """A smooth line through points (Catmull-Rom), ``steps`` to a piece."""
    points = np.asarray(points_p2, dtype=np.float64)
    ends = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    p0, p1, p2, p3 = (ends[i : len(points) - 1 + i, None] for i in range(4))
    t = (np.arange(steps) / steps)[:, None]
    piece = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return np.concatenate([piece.reshape(-1, points.shape[1]), points[-1:]])


def vessel(outline_p2: ArrayLike, wall: float, *, sides: int = 40) -> Solid:
    """Something hollow and open above: an outer profile of (radius, height) from foot to rim, and a wall."""
    outer = np.asarray(outline_p2, dtype=np.float64)
    inner = outer[outer[:, 1] > outer[0, 1] + 1.5 * wall][::-1] - [wall, 0.0]
    floor = [[max(float(inner[-1, 0]), 0.02), outer[0, 1] + wall]]
    inner[:, 0] = inner[:, 0].clip(0.02)
    return lathe(np.concatenate([outer, inner, floor]), sides=sides)


def swept(path_p3: ArrayLike, radius: ArrayLike, *, sides: int = 12, loop: bool = False) -> Solid:
    """A tube along a path; ``radius`` of all or of each of its points."""
    return woven(tube_rings(path_p3, radius, sides=sides, loop=loop), loop=loop)


def tube_rings(path_p3: ArrayLike, radius: ArrayLike, *, sides: int = 12, loop: bool = False) -> Floats:
    """The rings of a tube, carried along its path without turning about it; in a loop they meet."""
    path = np.asarray(path_p3, dtype=np.float64)
    ahead, behind = (np.roll(path, -1, 0), np.roll(path, 1, 0)) if loop else (path, path)
    tangent = unit(ahead - behind) if loop else unit(np.gradient(path, axis=0))
    normal = np.cross(tangent[0], np.eye(3)[np.abs(tangent[0]).argmin()])
    normals = []
    for along in [*tangent, tangent[0]]:
        normal = unit(normal - (normal * along).sum() * along)
        normals.append(normal)
    side = np.cross(tangent[0], normals[0])
    twist = -np.arctan2((normals[-1] * side).sum(), (normals[-1] * normals[0]).sum()) if loop else 0.0
    u = np.stack(normals[:-1])
    v = np.cross(tangent, u)
    turn = np.arange(sides) * (2 * np.pi / sides) + (twist * np.arange(len(path)) / len(path))[:, None]
    ring = u[:, None] * np.cos(turn)[..., None] + v[:, None] * np.sin(turn)[..., None]
    wide = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(path))[:, None, None]
    return np.asarray(path[:, None] + wide * ring)


def circle(count: int, radius: float = 1.0, *, end: float = 2 * np.pi, endpoint: bool = False) -> Floats:
    """Points (count, 2) of a circle, or of an arc to the angle ``end`` in radians."""
    angle = np.linspace(0, end, count, endpoint=endpoint)
    return np.asarray(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1))


def rod(start: tuple[float, float, float], end: tuple[float, float, float], radius: float, sides: int = 16) -> Solid:
    """A straight bar."""
    return swept([start, end], radius, sides=sides)


def extruded(outline_k2: ArrayLike, height: float) -> Solid:
    """A prism; every point of its outline is seen from the middle of all of them."""
    outline = np.asarray(outline_k2, dtype=np.float64)
    levels = [np.column_stack([outline, np.full(len(outline), z)]) for z in (-height / 2, height / 2)]
    return woven(np.stack(levels))


def box(size: ArrayLike, middle: ArrayLike = (0, 0, 0)) -> Solid:
    """A box of edges ``size``."""
    x, y, z = np.asarray(size, dtype=np.float64)
    return moved(extruded([(-x / 2, -y / 2), (x / 2, -y / 2), (x / 2, y / 2), (-x / 2, y / 2)], z), middle)


def boxes(*corners: tuple[float, float, float, float, float, float]) -> Solid:
    """Boxes of (x, y, z) low and high corners as one solid."""
    ends = np.array(corners)
    return joined(*(box(high - low, (low + high) / 2) for low, high in zip(ends[:, :3], ends[:, 3:], strict=True)))


def bevelled_box(size: ArrayLike, bevel: float, *, steps: int = 3) -> Solid:
    """A box with round edges of radius ``bevel``: a sphere whose eight parts are drawn asunder."""
    quarter = np.repeat(np.arange(4), steps + 1)
    sign = np.stack([[1, -1, -1, 1], [1, 1, -1, -1]], axis=1)[quarter]
    turn = quarter * (np.pi / 2) + (np.arange(4 * steps + 4) % (steps + 1)) / steps * (np.pi / 2)
    lift = np.concatenate([np.linspace(-1, 0, steps + 1), np.linspace(0, 1, steps + 1)]) * (np.pi / 2)
    lift = lift.clip(0.15 - np.pi / 2, np.pi / 2 - 0.15)  # thinner triangles would be shaded by chance
    core = np.asarray(size, dtype=np.float64) / 2 - bevel
    across = np.cos(lift)[:, None, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    rings = np.zeros((len(lift), len(turn), 3))
    rings[..., :2] = bevel * across + sign * core[:2]
    rings[..., 2] = (bevel * np.sin(lift) + np.repeat([-core[2], core[2]], steps + 1))[:, None]
    return woven(rings)


def superquadric(squareness: tuple[float, float], *, sides: int = 48) -> Solid:
    """Radius 1; exponents of the outline from the side and from above: 1 a circle, 0 a square, 2 a
    rhomb (Barr, "Superquadrics and Angle-Preserving Transformations", 1981)."""

    def power(values: Floats, exponent: float) -> Floats:
        return np.asarray(np.sign(values) * np.abs(values) ** exponent, dtype=np.float64)

    lift = np.linspace(-np.pi / 2 + 0.02, np.pi / 2 - 0.02, sides // 2 + 1)[:, None]
    turn = np.arange(sides) * (2 * np.pi / sides)
    wide, tall = power(np.cos(lift), squareness[0]), power(np.sin(lift), squareness[0])
    x, y = wide * power(np.cos(turn), squareness[1]), wide * power(np.sin(turn), squareness[1])
    return woven(np.stack([x, y, tall + 0 * x], axis=-1))


def ball(radius: Callable[[Floats], Floats] | float = 1.0, *, subdivisions: int = 3) -> Solid:
    """A sphere; ``radius`` may be a function of the directions (n, 3)."""
    direction, faces = icosphere(subdivisions)
    length = radius(direction)[:, None] if callable(radius) else radius
    return direction * length, faces


def lettering(rows: Sequence[str], depth: float) -> Solid:
    """A letter of square cells: each run of ``#`` in a row becomes a bar."""
    bars = []
    for i, row in enumerate(rows):
        for run in re.finditer("#+", row):
            bars.append((run.start(), -depth / 2, len(rows) - 1 - i, run.end(), depth / 2, len(rows) - i))
    return boxes(*bars)


def refined(solid: Solid, longest: float) -> Solid:
    """The same surface in triangles without an edge above ``longest``; they share no vertices."""
    corners_m33 = solid[0][solid[1]]
    while np.linalg.norm(corners_m33 - np.roll(corners_m33, 1, axis=1), axis=-1).max() > longest:
        a, b, c = (corners_m33[:, i] for i in range(3))
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        quarters = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        corners_m33 = np.concatenate([np.stack(quarter, axis=1) for quarter in quarters])
    return corners_m33.reshape(-1, 3), np.arange(3 * len(corners_m33)).reshape(-1, 3)


def shading_normals(solid: Solid, *, crease: float = 38.0) -> Floats:
    """A normal for each corner of each face (m, 3, 3): the mean of those faces around the corner that lie within
    ``crease`` degrees of its own, weighed by area, so that curves are smooth and edges sharp."""
    vertices_n3, faces_m3 = solid
    a, b, c = (vertices_n3[faces_m3[:, i]] for i in range(3))
    area_m3 = np.cross(b - a, c - a)
    normal_m3 = area_m3 / np.maximum(np.linalg.norm(area_m3, axis=1, keepdims=True), 1e-30)
    corner = faces_m3.ravel()
    order = np.argsort(corner, kind="stable")
    count = np.bincount(corner, minlength=len(vertices_n3))
    start = np.cumsum(count) - count
    # Every pair of corners that share a vertex: the one, and each of the others around it.
    around = count[corner]
    one = np.repeat(np.arange(len(corner)), around)
    step = np.arange(len(one)) - np.repeat(np.cumsum(around) - around, around)
    other = order[start[corner[one]] + step]
    alike = (normal_m3[one // 3] * normal_m3[other // 3]).sum(axis=1) > np.cos(np.radians(crease))
    total = np.zeros((len(corner), 3))
    for axis in range(3):
        total[:, axis] = np.bincount(one[alike], area_m3[other[alike] // 3, axis], len(corner))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    smooth = np.where(length > 1e-30, total / np.maximum(length, 1e-30), np.repeat(normal_m3, 3, axis=0))
    return np.asarray(smooth.reshape(-1, 3, 3))


def box_mapping(solid: Solid) -> Floats:
    """Texture coordinates in metres for each corner of each face (m, 3, 2): seen along the axis that the face faces
    most, so that no texture is stretched by more than sqrt 3. The second runs along z on upright faces."""
    corners_m33 = solid[0][solid[1]]
    normal_m3 = np.cross(corners_m33[:, 1] - corners_m33[:, 0], corners_m33[:, 2] - corners_m33[:, 0])
    axis = np.abs(normal_m3).argmax(axis=1)
    first, second = np.array([1, 0, 0])[axis], np.array([2, 2, 1])[axis]
    row = np.arange(len(axis))
    return np.stack([corners_m33[row, :, first], corners_m33[row, :, second]], axis=-1)
