"""Scenes of many things, after the generator of system 5: floating before a sky, or standing in a lit room."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from perpixel.synthesis.object_materials import Finish, finishes
from perpixel.synthesis.object_shapes import SHAPES
from perpixel.synthesis.object_skies import PLAIN, skies, studio
from perpixel.synthesis.parts import Floats, random_directions
from perpixel.synthesis.scene import Color, Environment, Mesh, Scene, camera_from_fov, look_at
from perpixel.synthesis.solids import Solid, box, box_mapping, moved, refined, rotation, settled, shading_normals

__all__ = ["STYLES", "VERTICAL_FOV", "Style", "make_objects_scene"]

Rng = np.random.Generator

_DEEP, _WIDE, _TALL = 6.0, 6.0, 2.9  # metres of the space that things stand in
VERTICAL_FOV = 60.0
_SCALE = (0.3, 0.9)  # metres of a thing's longest edge
_COUNT = (50, 75)
_PITCH, _ROLL = 10.0, 5.0  # degrees
_SUN = (35.0, 55.0)  # degrees above the horizon
_FINE = 0.9  # metres of a wall's triangles: a longer one would span too many tiles of a texture
_UPRIGHT = 0.7  # share of the things in a room that are set down as they are; the others are dropped
_LONGEST_PATH = 8  # through the four faces of a hollow glass, to a wall, to a lamp
_CLEAR = 0.5  # metres around the camera where nothing stands
_FLOORS = ("parquet", "oak", "carpet", "ceramic_tiles", "concrete", "terrazzo", "white_marble")
_WALLS = ("plaster", "plaster", "brick", "concrete", "pine", "ceramic_tiles")


@dataclass(frozen=True)
class Style:
    """A kind of scenes.

    Attributes:
        room: things stand upright in a room under lamps; else they float before a sky or a plain colour.
        travel: metres that the camera walks sideways from the first capture of a scene to the last.
        aperture: largest radius of the lens in metres; each scene draws its own.
        photons: fewest and most photons that a white pixel collects, for shot noise; each scene draws its own. None:
            no noise.
    """

    room: bool
    travel: float = 0.0
    aperture: float = 0.0
    photons: tuple[float, float] | None = None


STYLES: dict[str, Style] = {
    "sky": Style(room=False),
    "room": Style(room=True, travel=0.8, aperture=0.012, photons=(300.0, 3000.0)),
}
"""``sky``: system 5 as it was. ``room``: what its authors wanted next."""


@dataclass(frozen=True)
class _Content:
    """What all captures of a scene share."""

    meshes: tuple[Mesh, ...]
    eye: Floats
    yaw: float
    light: Environment
    sun: tuple[float, float, Color]  # degrees of elevation and of azimuth at the start, irradiance
    exposure: float | None
    lens: dict[str, float]
    facts: dict[str, Any]


def make_objects_scene(
    seed: int, index: int, *, style: str = "sky", size: tuple[int, int] = (256, 256), captures: int = 15
) -> Scene:
    """Picture number ``index`` of the series ``seed``: capture ``index % captures`` of scene ``index // captures``.

    50 to 75 things of 0.3 to 0.9 m in a box of 6 x 6 x 2.9 m. From the first capture to the last, t = 0 to 1, the
    camera pitches from -10 to 10 degrees and rolls by 5 sin(2 pi t); the sun, 35 to 55 degrees high, walks once around.
    All materials are in every scene, in one order.

    Args:
        style: a key of `STYLES`.
        size: width and height of the picture in pixels; the vertical field of view is 60 degrees.
        captures: pictures of one scene.
    """
    number, capture = divmod(index, captures)
    look, content = STYLES[style], _content(seed, number, style)
    t = capture / max(captures - 1, 1)
    pitch, roll = _PITCH * (2 * t - 1), _ROLL * float(np.sin(2 * np.pi * t))
    sideways = np.array([-np.sin(np.radians(content.yaw)), np.cos(np.radians(content.yaw)), 0.0])
    x, y, z = (float(value) for value in content.eye + look.travel * (t - 0.5) * sideways)
    camera = camera_from_fov(
        size[0],
        size[1],
        vertical_fov=VERTICAL_FOV,
        pose_44=look_at((x, y, z), yaw=content.yaw, pitch=pitch, roll=roll),
        **content.lens,
    )
    light, facts = content.light, {"scene": number, "capture": capture, "style": style} | content.facts
    facts |= {"pitch": round(pitch, 3), "roll": round(roll, 3), "sun_elevation": "", "sun_azimuth": ""}
    if not look.room:
        elevation, start, irradiance = content.sun
        azimuth = (start + 360.0 * capture / captures) % 360
        light = Environment(light.radiance_hwc, light.background, directional=(_from(azimuth, elevation), irradiance))
        facts |= {"sun_elevation": round(elevation, 2), "sun_azimuth": round(azimuth, 2)}
    return Scene(
        id=f"objects-{style}-{seed}-{number:04d}-{capture:02d}",
        materials=tuple(finish.material for finish in finishes()),
        meshes=(*content.meshes, _bounds()),
        light=light,
        camera=camera,
        exposure=content.exposure,
        joined=True,
        longest_path=_LONGEST_PATH,
        facts=facts,
    )


def _from(azimuth: float, elevation: float) -> tuple[float, float, float]:
    """Direction in which light travels that comes from there."""
    turn, lift = np.radians([azimuth, elevation])
    x, y, z = -np.cos(lift) * np.cos(turn), -np.cos(lift) * np.sin(turn), -np.sin(lift)
    return float(x), float(y), float(z)


@lru_cache(maxsize=2)
def _content(seed: int, number: int, style: str) -> _Content:
    rng = np.random.default_rng([seed, number, list(STYLES).index(style)])
    return _room(rng, STYLES[style]) if STYLES[style].room else _floating(rng)


# ---------------------------------------------------------------- before a sky


def _floating(rng: Rng) -> _Content:
    """Things anywhere in the box, in any rotation, before one of 6 skies or of 7 plain colours."""
    eye = np.zeros(3)
    taken = np.zeros((0, 4))
    meshes = []
    for i in range(int(rng.integers(_COUNT[0], _COUNT[1] + 1))):
        shape, solid = _thing(rng)
        turn = rotation(random_directions(rng, 1)[0], float(rng.uniform(0, 360)))
        solid = moved(solid, turn=turn)
        reach = float(np.linalg.norm(solid[0], axis=1).max())
        low, high = np.array([_CLEAR, -_WIDE / 2, -_TALL / 2]), np.array([_CLEAR + _DEEP, _WIDE / 2, _TALL / 2])
        places = rng.uniform(low, high, (40, 3))
        slack = _slack(places, reach, taken)
        slack = np.minimum(slack, np.linalg.norm(places - eye, axis=1) - reach - _CLEAR)
        at = places[_choice(slack)]
        taken = np.concatenate([taken, [[*at, reach]]])
        meshes.append(_mesh(rng, solid, at, turn, _finish(rng), shape, i + 1))
    light, sun, exposure, background = outdoors(rng)
    elevation, azimuth = rng.uniform(*_SUN), rng.uniform(0, 360)
    facts = {"background": background, "objects": len(meshes), "aperture": 0.0, "focus": "", "photons": ""}
    return _Content(tuple(meshes), eye, 0.0, light, (float(elevation), float(azimuth), sun), exposure, {}, facts)


def outdoors(rng: Rng) -> tuple[Environment, Color, float, str]:
    """Light, irradiance of the sun, exposure and the name of the background."""
    sky_number, plain_number, is_plain = int(rng.integers(6)), int(rng.integers(7)), bool(rng.integers(2))
    sky = studio() if is_plain else skies()[sky_number]
    turned_hwc = np.roll(sky.radiance_hwc, int(rng.integers(sky.radiance_hwc.shape[1])), axis=1)
    # The radiance of a white surface: the mean of what surrounds it, and its share of the sun at 45 degrees.
    white = float(turned_hwc.mean()) + float(np.mean(sky.sun)) * 0.7 / np.pi
    exposure = 0.85 / white * float(2.0 ** rng.normal(0, 0.2))
    name = list(PLAIN)[plain_number]
    red, green, blue = (value / exposure for value in PLAIN[name])
    environment = Environment(turned_hwc, (red, green, blue) if is_plain else None)
    return environment, sky.sun, exposure, f"plain {name}" if is_plain else f"sky {sky.name}"


# ---------------------------------------------------------------- in a room


def _room(rng: Rng, style: Style) -> _Content:
    """Things that stand or lie on the floor and on shelves; two lamps hang from the ceiling."""
    eye = np.array([rng.uniform(0.3, 0.7), rng.uniform(-1.2, 1.2), rng.uniform(1.0, 1.6)])
    yaw = float(rng.uniform(-18, 18) - 8 * eye[1])
    meshes, boards = _building(rng)
    taken = [np.array([[eye[0], eye[1], _CLEAR + style.travel / 2]]), *(np.zeros((0, 3)) for _ in boards[1:])]
    things = [_resting(rng) for _ in range(int(rng.integers(_COUNT[0], _COUNT[1] + 1)))]
    things.sort(key=lambda thing: -_reach(thing[1]))  # the small ones find room between the large ones
    for i, (shape, solid, turn) in enumerate(things):
        reach, tall = _reach(solid), float(solid[0][:, 2].max())
        fits = [k for k, (a, b, _) in enumerate(boards) if (b - a).min() > 1.6 * reach]
        found = [(*_on_board(rng, boards, k, reach, tall, taken[k]), k) for k in fits]
        _, at, k = max(found, key=lambda place: place[0])
        taken[k] = np.concatenate([taken[k], [[at[0], at[1], reach]]])
        meshes.append(_mesh(rng, solid, at, turn, _finish(rng), shape, i + 1))
    light = _lamps(rng)
    meshes += [_cord(rng, lamp[0]) for lamp in light.lamps]
    lens = {"aperture_radius": float(rng.uniform(0, style.aperture)), "focus": float(rng.uniform(1.5, 4.5))}
    photons = "" if style.photons is None else round(float(np.exp(rng.uniform(*np.log(style.photons)))), 1)
    facts = {"background": "room", "objects": len(things), "aperture": round(lens["aperture_radius"], 5)}
    facts |= {"focus": round(lens["focus"], 3), "photons": photons}
    return _Content(tuple(meshes), eye, yaw, light, (0.0, 0.0, (0.0, 0.0, 0.0)), None, lens, facts)


def _building(rng: Rng) -> tuple[list[Mesh], list[tuple[Floats, Floats, float]]]:
    """Floor, walls, ceiling and shelves; and the boards to stand on: corners low and high, height."""
    half, thick = _WIDE / 2, 0.1
    wall, floor = (_named(names[int(rng.integers(len(names)))]) for names in (_WALLS, _FLOORS))
    solids = [(box((_DEEP, _WIDE, thick), (_DEEP / 2, 0, -thick / 2)), floor)]
    solids += [(box((_DEEP, _WIDE, thick), (_DEEP / 2, 0, _TALL + thick / 2)), _named("plaster"))]
    for side in (-1, 1):
        solids += [(box((_DEEP, thick, _TALL), (_DEEP / 2, side * (half + thick / 2), _TALL / 2)), wall)]
        ends = (_DEEP / 2 + side * (_DEEP + thick) / 2, 0, _TALL / 2)
        solids += [(box((thick, _WIDE + 2 * thick, _TALL), ends), wall)]
    boards = [(np.array([0.2, -half + 0.1]), np.array([_DEEP - 0.1, half - 0.1]), 0.0)]
    shelf = _named(("pine", "oak", "walnut", "painted_metal", "glass")[int(rng.integers(5))])
    for height in np.repeat(rng.uniform((0.7, 1.5), (1.0, 1.8)), 3):
        deep, long = rng.uniform(0.3, 0.55), rng.uniform(1.0, 2.4)
        along = rng.uniform(long / 2, _DEEP - long / 2)
        side = (-1, 1, 0)[len(boards) % 3]
        middle = np.array([along, side * (half - deep / 2)]) if side else np.array([_DEEP - deep / 2, along - half])
        extent = np.array([long, deep] if side else [deep, long])
        solids += [(box((*extent, 0.03), (*middle, height - 0.015)), shelf)]
        boards.append((middle - extent / 2, middle + extent / 2, float(height)))
    tints = {finish.material: _tint(rng, finish) for _, finish in solids}  # one a material: all walls are alike
    meshes = [_fixture(rng, refined(solid, _FINE), finish, tints[finish.material]) for solid, finish in solids]
    return meshes, boards


def _on_board(
    rng: Rng, boards: list[tuple[Floats, Floats, float]], k: int, reach: float, tall: float, taken_n3: Floats
) -> tuple[float, Floats]:
    """How much room there is (below 0: too little) at the best of some places on board ``k``, and the place."""
    low, high, height = boards[k]
    inset = np.minimum(reach, (high - low) / 2 - 1e-3)
    places = rng.uniform(low + inset, high - inset, (60, 2))
    slack = _slack(places, reach, taken_n3)
    for a, b, level in boards:
        if height < level < height + tall:  # too tall for what is below this board
            beside = np.linalg.norm(np.maximum(np.maximum(a - places, places - b), 0), axis=1)
            slack = np.minimum(slack, beside - reach)
    chosen = _choice(slack)
    return float(slack[chosen]), np.array([*places[chosen], height])


def _lamps(rng: Rng) -> Environment:
    warm = rng.uniform(0.0, 1.0)
    radius = rng.uniform(0.08, 0.14)
    red, green, blue = (float(value) for value in (np.array([1.0, 0.97, 0.92]) - warm * np.array([0, 0.12, 0.34])) * 60)
    places = [(rng.uniform(0.8, 2.6), rng.uniform(-2, 2)), (rng.uniform(3.2, 5.2), rng.uniform(-2, 2))]
    hang = float(rng.uniform(0.25, 0.5))
    lamps = tuple(((float(x), float(y), _TALL - hang), float(radius), (red, green, blue)) for x, y in places)
    return Environment(np.full((4, 8, 3), 0.02, np.float32), lamps=lamps)


def _cord(rng: Rng, lamp: tuple[float, float, float]) -> Mesh:
    """From the lamp to the ceiling."""
    x, y, z = lamp
    finish = _named("rubber")
    return _fixture(rng, box((0.012, 0.012, _TALL - z), (x, y, (_TALL + z) / 2)), finish, np.array(finish.colors[0]))


def _fixture(rng: Rng, solid: Solid, finish: Finish, tint: Floats) -> Mesh:
    """A part of the building: shape and instance 0."""
    return _mesh(rng, solid, (0, 0, 0), np.eye(3), finish, 0, 0, tint)


# ---------------------------------------------------------------- things


def _thing(rng: Rng) -> tuple[int, Solid]:
    """Number of a shape from 1, and a solid of it with its size around the origin."""
    number = int(rng.integers(len(SHAPES)))
    vertices_n3, faces_m3 = list(SHAPES.values())[number](rng)
    low, high = vertices_n3.min(axis=0), vertices_n3.max(axis=0)
    scale = rng.uniform(*_SCALE) / (high - low).max()
    return number + 1, ((vertices_n3 - (low + high) / 2) * scale, faces_m3)


def _resting(rng: Rng) -> tuple[int, Solid, Floats]:
    """A thing that rests on the floor, the middle of its outline above the origin, and its rotation."""
    shape, solid = _thing(rng)
    down = (0.0, 0.0, -1.0) if rng.uniform() < _UPRIGHT else random_directions(rng, 1)[0]
    about_z = rotation((0, 0, 1), float(rng.uniform(0, 360)))
    turn = (about_z[:, :, None] * settled(solid, down)).sum(axis=1)
    solid = moved(solid, turn=turn)
    low, high = solid[0].min(axis=0), solid[0].max(axis=0)
    return shape, moved(solid, -(low + high) / 2 * [1, 1, 0] - [0, 0, low[2]]), turn


def _reach(solid: Solid) -> float:
    """Radius of the circle about the origin that a solid stands within."""
    return float(np.linalg.norm(solid[0][:, :2], axis=1).max())


def _slack(places_kd: Floats, reach: float, taken: Floats) -> Floats:
    """Metres between a thing at each place and its nearest neighbour; ``taken``: places and radii."""
    if not len(taken):
        return np.full(len(places_kd), np.inf)
    apart = np.linalg.norm(places_kd[:, None] - taken[None, :, :-1], axis=-1)
    return np.asarray((apart - taken[:, -1]).min(axis=1) - reach)


def _choice(slack_k: Floats) -> int:
    """The first place with room, or that with the most."""
    return int((slack_k >= 0).argmax()) if (slack_k >= 0).any() else int(slack_k.argmax())


def _bounds() -> Mesh:
    """Two triangles without area that give all scenes one bounding box: a renderer's kernel holds its size."""
    corners_n3 = np.repeat([[-12.0, -12, -12], [12, 12, 12]], 3, axis=0).astype(np.float32)
    faces_m3, up_n3 = np.arange(6, dtype=np.uint32).reshape(2, 3), np.tile(np.array([0, 0, 1], np.float32), (6, 1))
    name = finishes()[0].material.name
    return Mesh(corners_n3, faces_m3, np.ones((6, 3), np.float32), name, 0, np.zeros(2, np.uint32), up_n3)


def _finish(rng: Rng) -> Finish:
    return finishes()[int(rng.integers(len(finishes())))]


def _named(name: str) -> Finish:
    return next(finish for finish in finishes() if finish.material.name == name)


def _tint(rng: Rng, finish: Finish) -> Floats:
    color = np.array(finish.colors[int(rng.integers(len(finish.colors)))])
    return np.asarray((color * rng.uniform(0.85, 1.1)).clip(0, 1))


def _mesh(
    rng: Rng,
    solid: Solid,
    at: ArrayLike,
    turn: Floats,
    finish: Finish,
    shape: int,
    number: int,
    tint: Floats | None = None,
) -> Mesh:
    """A turned solid, moved to its place, in a finish; its texture is laid on as before it was turned."""
    vertices_n3, faces_m3 = solid
    corners_n3 = (vertices_n3 + np.asarray(at, dtype=np.float64))[faces_m3].reshape(-1, 3)
    uv_n2 = box_mapping(moved(solid, turn=turn.T)).reshape(-1, 2) / finish.tile + rng.uniform(0, 1, 2)
    color = _tint(rng, finish) if tint is None else tint
    return Mesh(
        vertices_n3=corners_n3.astype(np.float32),
        faces_m3=np.arange(len(corners_n3), dtype=np.uint32).reshape(-1, 3),
        colors_n3=np.tile(color, (len(corners_n3), 1)).astype(np.float32),
        material=finish.material.name,
        class_id=shape,
        instance_m=np.full(len(faces_m3), number, np.uint32),
        normals_n3=shading_normals(solid).reshape(-1, 3).astype(np.float32),
        uv_n2=uv_n2.astype(np.float32),
    )
