"""Desert scenes: the same everywhere, well formed, small enough, closed at the horizon, and with every class."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest

from perpixel.synthesis.desert import DESERT_CLASSES, make_desert_scene
from perpixel.synthesis.desert_places import CLASS_ID
from perpixel.synthesis.noise import fractal, tile_noise
from perpixel.synthesis.parts import icosphere
from perpixel.synthesis.planting import KEEP_OUT
from perpixel.synthesis.scene import Scene
from perpixel.synthesis.terrain import Mesa, Relief, make_terrain, mesa_grid

PLACES = "ABC"
SIZE = (96, 54)
OBJECTS = [label for _, label, _ in DESERT_CLASSES[:-2]]


@cache
def scene(place: str, index: int = 0) -> Scene:
    return make_desert_scene(7, index, place=place, size=SIZE)


def digest(drawn: Scene) -> str:
    """Of all that a renderer is given."""
    total = hashlib.sha256(repr((drawn.id, drawn.light, drawn.haze, drawn.exposure, drawn.facts)).encode())
    total.update(drawn.camera.pose_44.tobytes())
    for material in drawn.materials:
        total.update(material.name.encode() + (b"" if material.texture_hwc is None else material.texture_hwc.tobytes()))
    for mesh in drawn.meshes:
        arrays = (mesh.vertices_n3, mesh.faces_m3, mesh.colors_n3, mesh.instance_m, mesh.normals_n3, mesh.uv_n2)
        for array in arrays:
            total.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def test_the_same_seed_gives_the_same_scene_and_another_gives_another() -> None:
    again = make_desert_scene(7, 0, place="B", size=SIZE)
    assert digest(again) == digest(scene("B"))
    assert digest(scene("B", 1)) != digest(again)


def test_the_size_of_the_picture_changes_no_object() -> None:
    larger = make_desert_scene(7, 0, place="B", size=(192, 108))
    for one, other in zip(scene("B").meshes, larger.meshes, strict=True):
        np.testing.assert_array_equal(one.vertices_n3, other.vertices_n3)


def test_a_place_is_drawn_where_none_is_named() -> None:
    drawn = make_desert_scene(7, 0, size=SIZE)
    assert digest(drawn) == digest(scene(str(drawn.facts["place"])))


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no desert has the place 'D'"):
        make_desert_scene(7, 0, place="D")


def test_classes_are_those_of_the_system() -> None:
    assert [raw for raw, _, _ in DESERT_CLASSES] == [100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000]
    assert {label: raw for raw, label, _ in DESERT_CLASSES} == CLASS_ID
    assert len({color for _, _, color in DESERT_CLASSES}) == len(DESERT_CLASSES)


def test_materials_are_the_same_kinds_in_the_same_order() -> None:
    kinds = {
        tuple((m.name, m.roughness, m.translucency, m.texture_hwc is None) for m in scene(p).materials) for p in PLACES
    }
    assert len(kinds) == 1
    texture = scene("A").materials[0].texture_hwc
    assert texture is not None and texture.dtype == np.float32
    assert 0.6 < texture.mean() < 0.8 and texture.min() >= 0 and texture.max() <= 1


@pytest.mark.parametrize("place", PLACES)
def test_meshes_are_well_formed(place: str) -> None:
    names = {material.name for material in scene(place).materials}
    textured = {material.name for material in scene(place).materials if material.texture_hwc is not None}
    for mesh in scene(place).meshes:
        assert mesh.material in names and mesh.class_id in CLASS_ID.values()
        assert mesh.faces_m3.dtype == mesh.instance_m.dtype == np.uint32
        assert mesh.vertices_n3.dtype == mesh.colors_n3.dtype == np.float32
        assert len(mesh.instance_m) == len(mesh.faces_m3) and mesh.faces_m3.max() < len(mesh.vertices_n3)
        assert np.isfinite(mesh.vertices_n3).all()
        assert 0 <= mesh.colors_n3.min() <= mesh.colors_n3.max() <= 1
        assert mesh.material not in textured or mesh.uv_n2 is not None
        if mesh.normals_n3 is not None:
            np.testing.assert_allclose(np.linalg.norm(mesh.normals_n3, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
def test_a_scene_stays_within_its_budget_of_triangles(place: str) -> None:
    assert 300_000 < sum(len(mesh.faces_m3) for mesh in scene(place).meshes) < 2_000_000


@pytest.mark.parametrize("place", PLACES)
def test_an_instance_belongs_to_one_class_and_counts_agree(place: str) -> None:
    instances: dict[int, set[int]] = {raw: set() for raw in CLASS_ID.values()}
    for mesh in scene(place).meshes:
        instances[mesh.class_id] |= set(np.unique(mesh.instance_m).tolist())
    assert instances.pop(CLASS_ID["Landscape"]) == {0}
    numbers = [number for group in instances.values() for number in group]
    assert len(numbers) == len(set(numbers)) and 0 not in numbers
    for label in OBJECTS:
        assert len(instances[CLASS_ID[label]]) == scene(place).facts[label.lower().replace(" ", "_")]


@pytest.mark.parametrize("place", PLACES)
def test_nothing_stands_where_the_camera_is(place: str) -> None:
    for mesh in scene(place).meshes:
        if mesh.class_id != CLASS_ID["Landscape"]:
            assert np.hypot(*mesh.vertices_n3[:, :2].T).min() > KEEP_OUT


@pytest.mark.parametrize("place", PLACES)
def test_objects_stand_on_the_ground(place: str) -> None:
    """The lowest point of a rock lies below the ground beside it, its highest above it."""
    ground = scene(place).meshes[0].vertices_n3.astype(np.float64)
    near = ground[np.hypot(*ground[:, :2].T) < 40]
    rocks = next(mesh for mesh in scene(place).meshes if mesh.class_id == CLASS_ID["Rocks"])
    checked = 0
    for number in np.unique(rocks.instance_m):
        own = rocks.vertices_n3[np.unique(rocks.faces_m3[rocks.instance_m == number])]
        middle = own.mean(axis=0)
        if np.hypot(*middle[:2]) > 15 or checked == 40:
            continue
        below = near[np.argmin(np.hypot(*(near[:, :2] - middle[:2]).T)), 2]
        assert own[:, 2].min() < below + 0.1 and own[:, 2].max() > below - 0.1
        checked += 1
    assert checked


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("index", [0, 1])
def test_the_horizon_is_closed(place: str, index: int) -> None:
    """In every direction some ground rises above the eye: no ray passes between ground and sky."""
    drawn = scene(place, index)
    ground = drawn.meshes[0].vertices_n3.astype(np.float64)
    eye = drawn.camera.pose_44[2, 3]
    turn = np.degrees(np.arctan2(ground[:, 1], ground[:, 0])).astype(int)
    rising = {int(degree) for degree in turn[ground[:, 2] > eye]}
    assert rising == set(turn.tolist()) and len(rising) > 150
    assert np.hypot(*ground[:, :2].T).max() > 5000


def test_each_place_yields_every_class() -> None:
    for place in PLACES:
        seen = [scene(place, index).facts for index in (0, 1)]
        for label in OBJECTS:
            assert sum(facts[label.lower().replace(" ", "_")] for facts in seen) > 0, (place, label)


def test_places_differ_in_soil_and_sun() -> None:
    red, green, blue = (scene("B").meshes[0].colors_n3.mean(axis=0) / scene("C").meshes[0].colors_n3.mean(axis=0)).T
    assert red > 1.2 * green > 1.2 * blue
    assert scene("C").facts["haze_km"] < scene("B").facts["haze_km"]


def test_noise_repeats_without_a_seam_and_stays_in_bounds() -> None:
    tile = tile_noise(np.random.default_rng(3), 128, slope=1.0)
    across, within = np.abs(tile[:, 0] - tile[:, -1]).mean(), np.abs(np.diff(tile, axis=1)).mean()
    assert across < 1.3 * within
    x, y = np.meshgrid(np.linspace(0, 40, 200), np.linspace(0, 40, 200))
    noise = fractal(x, y, 5, wavelength=8.0)
    assert abs(noise.mean()) < 0.1 and 0.4 < np.abs(noise).max() < 1.5
    assert np.abs(fractal(x + 1e-6, y, 5, wavelength=8.0) - noise).max() < 1e-5


def test_an_icosphere_is_closed() -> None:
    """Euler: vertices - edges + faces = 2."""
    vertices, faces = icosphere(3)
    assert len(faces) == 20 * 4**3 and len(vertices) - 3 * len(faces) // 2 + len(faces) == 2
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1)


def test_the_foot_of_a_mesa_lies_below_the_ground() -> None:
    """Else the camera would look under it. The ground around this one falls and rises by tens of metres."""
    relief = Relief(swells=((900.0, 60.0),), far=(1500.0, 200.0))
    terrain = make_terrain(4, relief, yaw=0.0, half_view=0.7, eye=2.0)
    points = mesa_grid(5, Mesa(1500.0, 200.0, 350.0, 120.0), terrain)
    ground = terrain.height(points[0, :, 0], points[0, :, 1])
    assert np.ptp(ground) > 20
    assert (points[0, :, 2] < ground - 2).all()
    assert np.ptp(points[-1, :, 2]) < 5 and points[-1, :, 2].min() > ground.min() + 60


def test_the_ground_is_sampled_where_it_is_drawn() -> None:
    """Heights asked for at the grid's own points are the grid's heights, also across the seam of the last column."""
    terrain = make_terrain(4, Relief(swells=((30.0, 2.0),)), yaw=2.0, half_view=0.7, eye=2.0)
    points = terrain.vertices()[5:-1:20].reshape(-1, 3)
    np.testing.assert_allclose(terrain.height(points[:, 0], points[:, 1]), points[:, 2], atol=1e-6)
