"""Desert scenes: off-road terrain in ten classes, at three places that differ in ground, plants, soil and light."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.synthesis.desert_places import CLASS_ID, PLACES, Place
from perpixel.synthesis.noise import Floats, fractal, smoothstep, tile_noise
from perpixel.synthesis.planting import Placed, View, expand, plant, solids
from perpixel.synthesis.scene import Camera, Haze, Material, Mesh, Scene, SunSky, camera_from_fov, look_at
from perpixel.synthesis.terrain import Mesa, Terrain, grid_faces, grid_normals, make_terrain, mesa_grid

__all__ = ["DESERT_CLASSES", "make_desert_scene"]

DESERT_CLASSES: tuple[tuple[int, str, tuple[int, int, int]], ...] = (
    (100, "Trees", (20, 90, 30)),
    (200, "Lush Bushes", (80, 200, 60)),
    (300, "Dry Grass", (230, 205, 110)),
    (500, "Dry Bushes", (150, 105, 60)),
    (550, "Ground Clutter", (140, 70, 160)),
    (600, "Flowers", (255, 60, 150)),
    (700, "Logs", (95, 45, 15)),
    (800, "Rocks", (125, 125, 135)),
    (7100, "Landscape", (215, 150, 100)),
    (10000, "Sky", (110, 180, 240)),
)
"""Raw label value, name and colour of each class, in the order of training indices."""

_SOIL_TILE = 4.0  # metres that the soil's texture spans


def make_desert_scene(seed: int, index: int, *, place: str | None = None, size: tuple[int, int] = (960, 540)) -> Scene:
    """Scene number ``index`` of the series ``seed``.

    Args:
        place: ``A`` (tan plain under a high sun), ``B`` (red mesa country), ``C`` (pale wash between greenish hills,
            low sun, haze); None: drawn by chance for each scene.
        size: width and height of the picture in pixels.

    Raises:
        ValueError: there is no such place.
    """
    rng = np.random.default_rng([seed, index])
    drawn = "ABC"[int(rng.integers(3))]
    name = drawn if place is None else place
    if name not in PLACES:
        raise ValueError(f"no desert has the place {name!r}; known: {', '.join(PLACES)}")
    rng = np.random.default_rng([seed, index, ord(name)])
    here = PLACES[name](rng)
    camera, view = _camera(rng, size)
    terrain = make_terrain(
        int(rng.integers(1 << 30)), here.relief, yaw=view.yaw, half_view=view.half_view, eye=float(camera.pose_44[2, 3])
    )
    light, haze, exposure = _light(rng, here, view.yaw)
    placed = _populate(rng, here, terrain, view)
    meshes = [*_ground(rng, here, terrain), *_mesas(rng, here, terrain, view), *expand(placed, view, rng)]
    counts = {label: 0 for _, label, _ in DESERT_CLASSES[:-2]}
    for group in placed:
        counts[next(label for raw, label, _ in DESERT_CLASSES if raw == group.species.class_id)] += len(group.scale_n)
    facts: dict[str, Any] = {"place": name, "sun_elevation": round(light.elevation, 1)}
    facts |= {"sun_azimuth": round(light.azimuth, 1), "turbidity": round(light.turbidity, 2)}
    facts |= {"camera_height": round(float(camera.pose_44[2, 3]), 2), "haze_km": round(3.0 / haze.extinction / 1000, 1)}
    facts |= {label.lower().replace(" ", "_"): count for label, count in counts.items()}
    return Scene(
        id=f"desert-{name}-{seed}-{index:05d}",
        materials=_materials(rng, here),
        meshes=tuple(meshes),
        light=light,
        camera=camera,
        haze=haze,
        sky_class=CLASS_ID["Sky"],
        exposure=exposure,
        facts=facts,
    )


def _camera(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Camera, View]:
    """As from a vehicle: 0.8 to 2.6 m above the ground, looking along it or somewhat down."""
    width, height = size
    fov, eye = rng.uniform(35.0, 65.0), rng.uniform(0.8, 2.6)
    yaw, pitch, roll = rng.uniform(0, 360), rng.uniform(-18.0, 4.0), rng.normal(0, 1.2)
    pitch = max(pitch, -fov / 3.2)  # some horizon is in view
    pose = look_at((0.0, 0.0, float(eye)), yaw=float(yaw), pitch=float(pitch), roll=float(roll))
    camera = camera_from_fov(width, height, vertical_fov=float(fov), pose_44=pose)
    half_view = float(np.arctan(width / 2 / camera.fx)) + 0.14
    return camera, View(float(np.radians(yaw)), half_view, camera.fy * 540 / height)


def _light(rng: np.random.Generator, here: Place, yaw: float) -> tuple[SunSky, Haze, float]:
    """Sun and sky, air, and the exposure a camera would choose: ground and horizon weigh alike, off by chance.

    The radiance of white ground and of the sky at the horizon follow from the elevation; both are fits, good to a
    fifth, to what Mitsuba's sun and sky yield between 8 and 75 degrees.
    """
    low, high = here.sun
    elevation = float(low + (high - low) * rng.uniform() ** 0.8)
    azimuth, turbidity = rng.uniform(0, 360), rng.uniform(*here.turbidity)
    light = SunSky(float(azimuth), elevation, float(turbidity), here.albedo)
    height = np.sin(np.radians(elevation))
    ground = 0.5 * here.albedo * height * (0.86 + 0.14 * min(1.0, elevation / 30.0))
    facing = max(0.0, float(np.cos(np.radians(azimuth) - yaw)))
    horizon = 0.21 * height**0.5 * (1.0 + 1.5 * facing**4 * max(0.0, 1.0 - elevation / 50.0))
    exposure = float(0.48 / (0.5 * ground + 0.5 * horizon) * 2.0 ** rng.normal(0.0, 0.22))
    warm = np.clip(1.0 - smoothstep(8.0, 40.0, elevation) + here.dust, 0.0, 1.0)
    tint = np.array([0.74, 1.0, 1.22]) * (1 - warm) + np.array([1.08, 0.98, 0.84]) * warm
    red, green, blue = (float(value) for value in np.minimum(tint * horizon * exposure * 0.9, 0.95))
    extinction = 3.0 / (1000.0 * np.exp(rng.uniform(*np.log(here.visibility_km))))  # 3 = -ln(5 % contrast), Koschmieder
    return light, Haze(float(extinction), (red, green, blue)), exposure


def _populate(rng: np.random.Generator, here: Place, terrain: Terrain, view: View) -> list[Placed]:
    """All copies of all species; the solid ones come first and keep the others out."""
    placed: list[Placed] = []
    standing, first = np.zeros((0, 3)), 1
    for species in here.species:
        group = plant(rng, species, terrain, view, standing, first)
        first += len(group.scale_n)
        placed.append(group)
        if species.solid > 0:
            standing = np.concatenate([standing, solids(group)])
    return placed


def _ground(rng: np.random.Generator, here: Place, terrain: Terrain) -> list[Mesh]:
    """The terrain with soil of two colours, stone on steep ground, and far plants as specks of colour."""
    points = terrain.vertices()
    normals = grid_normals(points)
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    seed = int(rng.integers(1 << 30))
    mix = smoothstep(-0.35, 0.35, fractal(x, y, seed, wavelength=26.0, octaves=5))
    near = int(np.searchsorted(terrain.radius_r, 60.0))
    mix[:near] += 0.45 * fractal(x[:near], y[:near], seed + 1, wavelength=1.7, octaves=3)
    color = _blend(here.soil[0], here.soil[1], np.clip(mix, 0, 1))
    color = _blend(color, here.wash_color, terrain.wash_ra)
    bands = fractal(z * 0.06 + 0.3 * mix, x * 0, seed + 2, wavelength=1.0, octaves=3)
    stone = _blend(here.stone[0], here.stone[1], smoothstep(-0.3, 0.3, bands))
    color = _blend(color, stone, smoothstep(0.10, 0.42, 1.0 - normals[..., 2]) * here.bare)
    specks = fractal(x, y, seed + 3, wavelength=9.0, octaves=2)
    cover = fractal(x, y, seed + 4, wavelength=160.0, octaves=3)
    far = smoothstep(70.0, 320.0, terrain.radius_r)[:, None]
    green = far * smoothstep(0.02, 0.30, specks + 0.5 * cover) * here.cover
    color = _blend(color, here.cover_color, green)
    color *= 1.0 + 0.22 * fractal(x, y, seed + 5, wavelength=5.0, octaves=3)[..., None]
    return [_landscape(points, _facing(points, normals), grid_faces(*z.shape), color)]


def _facing(points: Floats, normals: Floats) -> Floats:
    """Shading normals that face the camera: far ridges have few rings, and would show the shade of their backs."""
    towards = -points / np.linalg.norm(points, axis=-1, keepdims=True)
    turned = normals + np.maximum(0.1 - (normals * towards).sum(axis=-1, keepdims=True), 0.0) * towards
    return np.asarray(turned / np.linalg.norm(turned, axis=-1, keepdims=True))


def _blend(low: Any, high: Any, share: Floats) -> Floats:
    low, high = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    return np.asarray(low + (high - low) * share[..., None], dtype=np.float64)


def _landscape(points: Floats, normals: Floats, faces: NDArray[np.int64], color: Floats) -> Mesh:
    flat = points.reshape(-1, 3)
    return Mesh(
        vertices_n3=flat.astype(np.float32),
        faces_m3=faces.astype(np.uint32),
        colors_n3=np.clip(color.reshape(-1, 3), 0.01, 0.9).astype(np.float32),
        material="soil",
        class_id=CLASS_ID["Landscape"],
        instance_m=np.zeros(len(faces), np.uint32),
        normals_n3=normals.reshape(-1, 3).astype(np.float32),
        uv_n2=(flat[:, :2] / _SOIL_TILE).astype(np.float32),
    )


def _mesas(rng: np.random.Generator, here: Place, terrain: Terrain, view: View) -> list[Mesh]:
    """Table mountains with strata, most of them in view."""
    meshes = []
    for _ in range(int(rng.integers(here.mesas[0], here.mesas[1] + 1))):
        distance = float(np.exp(rng.uniform(np.log(700.0), np.log(3800.0))))
        turn = view.yaw + rng.uniform(-1.3, 1.3) * view.half_view
        x, y = distance * np.cos(turn), distance * np.sin(turn)
        radius = float(min(rng.uniform(0.09, 0.27) * distance, 700.0))
        height = float(rng.uniform(70.0, 200.0))
        seed = int(rng.integers(1 << 30))
        points = mesa_grid(seed, Mesa(float(x), float(y), radius, height), terrain)
        layer = fractal(points[..., 2] / height * 11, points[..., 0] / (3 * radius), seed, wavelength=1.0, octaves=3)
        color = _blend(here.stone[0], here.stone[1], smoothstep(-0.25, 0.25, layer))
        level = np.linspace(0.0, 1.0, len(points))[:, None]  # the talus takes the first fifth of the levels
        talus = np.broadcast_to(1.0 - smoothstep(0.18, 0.26, level), layer.shape)
        speck = smoothstep(0.0, 0.3, fractal(points[..., 0], points[..., 1], seed + 1, wavelength=14.0, octaves=2))
        foot = _blend(_blend(color, here.soil[0], 0.6 * np.ones_like(talus)), here.cover_color, 0.5 * speck)
        color = _blend(color, foot, talus)
        normals, faces = -grid_normals(points), grid_faces(*points.shape[:2])[:, ::-1]
        # What faces away from the camera is never seen; half of the triangles are saved.
        facing = -(normals * points).sum(axis=-1) / np.linalg.norm(points, axis=-1)
        faces = faces[facing.reshape(-1)[faces].max(axis=1) > -0.25]
        meshes.append(_landscape(points, normals, faces, color))
    return meshes


def _materials(rng: np.random.Generator, here: Place) -> tuple[Material, ...]:
    """Always the same six, in the same order."""
    rock = 0.74 + 0.15 * tile_noise(rng, 512, slope=0.9)
    bark = 0.78 + 0.16 * np.repeat(tile_noise(rng, 256, slope=0.8)[::8], 8, axis=0).T
    return (
        Material("soil", roughness=0.95, specular=0.15, texture_hwc=_soil_texture(rng, here)),
        Material("rock", roughness=0.85, specular=0.25, texture_hwc=_grey(rock)),
        Material("wood", roughness=0.9, specular=0.2, texture_hwc=_grey(bark)),
        Material("leaf", roughness=0.6, translucency=0.35),
        Material("grass", roughness=0.7, translucency=0.30),
        Material("petal", roughness=0.7, translucency=0.40),
    )


def _grey(values_hw: Floats) -> NDArray[np.float32]:
    return np.repeat(np.clip(values_hw, 0.25, 1.0)[..., None], 3, axis=2).astype(np.float32)


def _soil_texture(rng: np.random.Generator, here: Place, size: int = 1024) -> NDArray[np.float32]:
    """Grain, crumbs and pebbles: a seamless square that multiplies the colours of the ground; its mean is near 0.7."""
    fine = tile_noise(rng, size, slope=0.35, low_cut=60.0)
    crumbs = tile_noise(rng, size, slope=1.3, low_cut=6.0)
    texture = 0.72 + 0.10 * fine + 0.07 * crumbs
    texture -= 0.16 * smoothstep(0.9, 2.2, tile_noise(rng, size, slope=0.9, low_cut=20.0))
    count = int(here.pebbles)
    row, column = rng.integers(size, size=(2, count))
    radius = 1.0 + 3.5 * rng.uniform(0, 1, count) ** 5
    tone = rng.normal(0.0, 0.13, count)
    reach = np.arange(-7, 8)
    for r, c, wide, shade in zip(row, column, radius, tone, strict=True):
        rows, columns = (r + reach) % size, (c + reach) % size
        stone = np.clip(wide - np.hypot(reach[:, None] * 1.15, reach[None]), 0, 1)
        dark = np.clip(wide - np.hypot(reach[:, None] - 0.4 * wide, reach[None] - 0.4 * wide), 0, 1)
        patch = texture[np.ix_(rows, columns)]
        patch = patch - 0.28 * dark * (1 - stone)
        texture[np.ix_(rows, columns)] = patch * (1 - stone) + (0.72 + shade) * stone
    return _grey(texture)
