"""Scenes of things: shapes, finishes, the camera and the light of system 5, and depth that its codec reads back."""

from __future__ import annotations

import shlex
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from perpixel.cli import app
from perpixel.data.samples import list_samples
from perpixel.data.split import make_split
from perpixel.depth_codec import DepthCodec
from perpixel.errors import RequestError
from perpixel.images import read_image
from perpixel.recipe import load_recipe
from perpixel.run import read_rows
from perpixel.synthesis import WRITERS
from perpixel.synthesis.object_materials import finishes
from perpixel.synthesis.object_shapes import SHAPES
from perpixel.synthesis.object_skies import PLAIN, skies
from perpixel.synthesis.objects import STYLES, make_objects_scene, outdoors
from perpixel.synthesis.objects_dataset import ENCODINGS, synthesize_objects, with_shot_noise
from perpixel.synthesis.scene import Environment, Material, Mesh, Scene, camera_from_fov, look_at
from perpixel.synthesis.solids import (
    ball,
    bevelled_box,
    box,
    centroid,
    moved,
    refined,
    rotation,
    settled,
    shading_normals,
    swept,
    volume,
)

# ---------------------------------------------------------------- shapes and finishes


def test_there_are_as_many_as_system_5_had() -> None:
    assert len(SHAPES) >= 37 and len({finish.material.name for finish in finishes()}) == len(finishes()) >= 32
    assert (len(skies()), len({sky.name for sky in skies()}), len(PLAIN)) == (6, 6, 7)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_closed_and_looks_outward(name: str) -> None:
    """Each edge is walked once in each direction; a volume above 0 says that the outside is outside."""
    for seed in (0, 1):
        vertices_n3, faces_m3 = SHAPES[name](np.random.default_rng(seed))
        edges = np.stack([faces_m3, np.roll(faces_m3, -1, axis=1)], axis=-1).reshape(-1, 2)
        there, back = (np.sort(edge[:, 0] * len(vertices_n3) + edge[:, 1]) for edge in (edges, edges[:, ::-1]))
        np.testing.assert_array_equal(there, back)
        assert len(np.unique(there)) == len(there)
        assert volume((vertices_n3, faces_m3)) > 0
        lengths = np.linalg.norm(shading_normals((vertices_n3, faces_m3)), axis=-1)
        assert np.isfinite(vertices_n3).all() and (np.abs(lengths - 1) < 1e-9).mean() > 0.99
        assert len(faces_m3) < 6000


def test_volumes_are_those_of_geometry() -> None:
    assert volume(box((1.0, 2.0, 3.0), (5, 5, 5))) == pytest.approx(6)
    assert volume(ball(2.0, subdivisions=4)) == pytest.approx(4 / 3 * np.pi * 8, rel=0.01)
    circle = np.stack([np.cos(np.arange(90) * np.pi / 45), np.sin(np.arange(90) * np.pi / 45), np.zeros(90)], axis=1)
    torus = swept(circle, 0.25, sides=60, loop=True)
    assert volume(torus) == pytest.approx(2 * np.pi**2 * 0.25**2, rel=0.01)  # Pappus
    assert volume(refined(box((4, 4, 1)), 0.9)) == pytest.approx(16)
    assert 0.9 < volume(bevelled_box((1, 1, 1), 0.1)) < 1.0


@pytest.mark.parametrize("down", [(0, 0, -1), (0.3, -0.5, 0.4)])
@pytest.mark.parametrize("name", SHAPES)
def test_what_has_settled_stands(name: str, down: tuple[float, float, float]) -> None:
    """Three corners touch the floor, and whichever way it is tilted a little, its centroid rises above the floor."""
    solid = SHAPES[name](np.random.default_rng(0))
    still = moved(solid, turn=settled(solid, down))
    heights = still[0][:, 2] - still[0][:, 2].min()
    assert (heights < 1e-6).sum() >= 3
    level = centroid(still)[2] - still[0][:, 2].min()
    for angle in np.arange(16) * np.pi / 8:
        tilt = rotation((np.cos(angle), np.sin(angle), 0.0), 0.05)
        tilted = moved(still, turn=tilt)
        assert centroid(tilted)[2] - tilted[0][:, 2].min() > level


def test_what_stands_on_a_tip_or_an_edge_falls_over() -> None:
    for name in ("octahedron", "star_body", "ladder"):
        solid = SHAPES[name](np.random.default_rng(0))
        fallen = moved(solid, turn=settled(solid, (0, 0, -1)))
        assert np.ptp(fallen[0][:, 2]) < 0.9 * np.ptp(solid[0][:, 2]), name
    chair = SHAPES["chair"](np.random.default_rng(0))
    np.testing.assert_allclose(settled(chair, (0, 0, -1)), np.eye(3), atol=1e-9)


def test_the_centroid_of_a_pyramid_lies_at_a_quarter_of_its_height() -> None:
    pyramid = SHAPES["pyramid"](np.random.default_rng(0))
    high = pyramid[0][:, 2].max()
    np.testing.assert_allclose(centroid(pyramid), [0, 0, high / 4], atol=0.01 * high)
    np.testing.assert_allclose(centroid(box((1, 2, 3), (4, 5, 6))), [4, 5, 6])


def test_edges_are_sharp_and_curves_smooth() -> None:
    cube, sphere = box((1, 1, 1)), ball(subdivisions=3)
    normal_m33 = shading_normals(cube)
    assert (np.sort(np.abs(normal_m33), axis=-1).round(9) == [0, 0, 1]).all()
    cosine = (shading_normals(sphere) * sphere[0][sphere[1]]).sum(-1)
    assert cosine.min() > 0.999


def test_textures_have_no_seam() -> None:
    for finish in finishes():
        texture_hwc = finish.material.texture_hwc
        if texture_hwc is not None:
            for axis in (0, 1):
                steps = np.abs(np.diff(texture_hwc, axis=axis)).mean(axis=(1 - axis, 2))
                seam = np.abs(texture_hwc.take(0, axis) - texture_hwc.take(-1, axis)).mean()
                assert seam <= 1.5 * steps.max(), finish.material.name


def test_the_seven_plain_colours_and_six_skies_are_drawn_alike_often() -> None:
    rng = np.random.default_rng(0)
    names = [outdoors(rng)[-1] for _ in range(400)]
    assert abs(sum(name.startswith("plain") for name in names) - 200) < 45  # 4.5 standard deviations
    assert len(set(names)) == 13


# ---------------------------------------------------------------- scenes


def things(scene: Scene) -> dict[int, np.ndarray]:
    """Vertices of each thing."""
    return {int(mesh.instance_m[0]): mesh.vertices_n3.astype(float) for mesh in scene.meshes if mesh.instance_m[0]}


@pytest.mark.parametrize("style", STYLES)
def test_a_scene_is_that_of_the_description(style: str) -> None:
    scene = make_objects_scene(3, 15, style=style)
    found = things(scene)
    assert 50 <= len(found) <= 75 and set(found) == set(range(1, len(found) + 1))
    corners = np.concatenate(list(found.values()))
    assert np.ptp(corners, axis=0).max() < 6.0 + 2 * 0.9
    diagonals = [np.linalg.norm(np.ptp(vertices_n3, axis=0)) for vertices_n3 in found.values()]
    assert min(diagonals) >= 0.3 and max(diagonals) <= 0.9 * 3
    assert np.linalg.norm(corners - scene.camera.pose_44[:3, 3], axis=1).min() > 0.25  # no thing holds the camera
    assert scene.joined and [m.name for m in scene.materials] == [f.material.name for f in finishes()]
    again = make_objects_scene(3, 15, style=style)
    assert all((a.vertices_n3 == b.vertices_n3).all() for a, b in zip(scene.meshes, again.meshes, strict=True))


def test_the_captures_of_a_scene() -> None:
    """t runs from 0 to 1: pitch from -10 to 10 degrees, roll 5 sin(2 pi t), a sun that walks around."""
    scenes = [make_objects_scene(0, index) for index in range(15)]
    assert all(scene.meshes[0] is scenes[0].meshes[0] for scene in scenes)
    forward = np.array([scene.camera.pose_44[:3, 2] for scene in scenes])
    np.testing.assert_allclose(np.degrees(np.arcsin(forward[:, 2])), np.linspace(-10, 10, 15), atol=1e-9)
    right = np.array([scene.camera.pose_44[:3, 0] for scene in scenes])
    level = np.cross(forward, [0.0, 0, 1]) / np.cos(np.radians(np.linspace(-10, 10, 15)))[:, None]
    roll = np.degrees(np.arccos(np.clip((right * level).sum(1), -1, 1)))
    np.testing.assert_allclose(roll, np.abs(5 * np.sin(2 * np.pi * np.linspace(0, 1, 15))), atol=1e-6)
    suns = np.array([scene.light.directional[0] for scene in scenes if isinstance(scene.light, Environment)])
    height = np.degrees(np.arcsin(-suns[:, 2]))
    assert np.ptp(height) < 1e-9 and 35 <= height[0] <= 55
    steps = np.diff(np.unwrap(np.arctan2(suns[:, 1], suns[:, 0])))
    np.testing.assert_allclose(np.degrees(steps), 24)
    assert scenes[0].camera.fy == pytest.approx(128 / np.tan(np.radians(30)))
    assert [scene.facts["capture"] for scene in scenes] == list(range(15))
    other = make_objects_scene(0, 15)
    assert other.facts["scene"] == 1 and other.meshes[0] is not scenes[0].meshes[0]


def test_in_a_room_the_camera_walks_and_things_stand() -> None:
    first, last = (make_objects_scene(1, index, style="room") for index in (0, 14))
    assert np.linalg.norm(first.camera.pose_44[:3, 3] - last.camera.pose_44[:3, 3]) == pytest.approx(0.8)
    assert isinstance(first.light, Environment) and len(first.light.lamps) == 2 and first.light.directional is None
    lowest = np.array([vertices_n3[:, 2].min() for vertices_n3 in things(first).values()])
    assert (lowest > -1e-6).all() and (np.abs(lowest) < 1e-6).sum() > 20
    levels = np.unique(lowest.round(4))
    assert len(levels) <= 3  # the floor and two heights of shelves
    assert 0 <= first.camera.aperture_radius <= 0.012 and first.facts["photons"] >= 300


def test_nothing_grows_through_a_shelf() -> None:
    through = 0
    for number in range(4):
        scene = make_objects_scene(2, 15 * number, style="room")
        fixtures = [mesh.vertices_n3 for mesh in scene.meshes if not mesh.instance_m[0]]
        shelves = [corners_n3 for corners_n3 in fixtures if abs(np.ptp(corners_n3[:, 2]) - 0.03) < 1e-4]
        assert len(shelves) == 6
        for shelf_n3 in shelves:
            low, high = shelf_n3.min(axis=0), shelf_n3.max(axis=0)
            for corners_n3 in things(scene).values():
                over = ((corners_n3[:, :2] > low[:2]) & (corners_n3[:, :2] < high[:2])).all(axis=1)
                heights = corners_n3[over, 2]
                through += bool((heights < low[2] - 0.01).any() and (heights > high[2] + 0.01).any())
    assert through == 0


def test_all_scenes_fill_one_bounding_box() -> None:
    """What a renderer compiles holds its size: another box would be compiled anew."""
    for index, style in ((0, "sky"), (30, "sky"), (0, "room")):
        corners = np.concatenate([m.vertices_n3 for m in make_objects_scene(5, index, style=style).meshes])
        assert corners.min(axis=0).tolist() == [-12] * 3 and corners.max(axis=0).tolist() == [12] * 3


@given(photons=st.floats(100, 10000), grey=st.integers(1, 200))
def test_shot_noise_is_that_of_counting(photons: float, grey: int) -> None:
    """In linear light the mean stays, and the variance is mean / photons."""
    image_hwc = np.full((40, 40, 3), grey, np.uint8)
    noisy_hwc = with_shot_noise(np.random.default_rng(0), image_hwc, photons) / 255
    linear, expected = (
        np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) for x in (noisy_hwc, grey / 255)
    )
    assert linear.mean() == pytest.approx(float(expected), abs=5 * (expected / photons / 4800) ** 0.5 + 0.004)
    if grey > 100:  # darker ones are rounded more than they are noisy
        assert linear.var() == pytest.approx(float(expected) / photons, rel=0.25, abs=8e-6)


# ---------------------------------------------------------------- drawing

SMALL: dict[str, Any] = {"spp": 1, "variant": "scalar"}
CAMERA = camera_from_fov(48, 32, vertical_fov=60, pose_44=look_at((0, 0, 0), yaw=0, pitch=0))


def board(x: float, half: float, material: str = "paper") -> Mesh:
    """A square that faces the camera, x metres ahead."""
    corners_n3 = np.array([[x, -half, -half], [x, half, -half], [x, half, half], [x, -half, half]], np.float32)
    faces_m3 = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)
    colors_n3, one_m = np.full((4, 3), 0.6, np.float32), np.ones(2, np.uint32)
    uv_n2 = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], np.float32)
    return Mesh(corners_n3, faces_m3, colors_n3, material, 1, one_m, uv_n2=uv_n2)


def make_scene(seed: int, index: int, *, style: str, size: tuple[int, int], captures: int) -> Scene:
    """A small board 2 m ahead of one 9.5 m ahead, whose outer part is more than 10 m from the camera."""
    camera = camera_from_fov(*size, vertical_fov=60, pose_44=CAMERA.pose_44)
    light = Environment(np.full((4, 8, 3), 0.5 + seed, np.float32), background=(0.2, 0.3, 0.4))
    facts = {"scene": index // captures, "capture": index % captures, "style": style, "photons": 500.0 * (index == 1)}
    meshes = (board(2 + index / 7, 0.5), board(9.5, 4.0))
    return Scene(f"s{index}", (Material("paper"),), meshes, light, camera, exposure=1.0, facts=facts)


def write(out: Path, **options: Any) -> Path:
    synthesize_objects(out, **({"count": 4, "seed": 0, "size": (48, 32), "captures": 2} | SMALL | options))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def renderer() -> Any:
    pytest.importorskip("mitsuba")
    from perpixel.synthesis.render import Renderer

    return Renderer("scalar")


@pytest.fixture(scope="module")
def whole(renderer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("objects") / "whole", make_scene=make_scene)


def test_layout_of_system_5(whole: Path) -> None:
    names = {f"{kind}/{kind}_{i:04d}.png" for kind in ("rgb", "depth") for i in range(4)}
    assert set(contents(whole)) == names | {"scenes.csv", "synthesis.json"}
    rows = read_rows(whole / "scenes.csv")
    assert [(row["id"], row["scene"], row["capture"]) for row in rows] == [
        ("0000", "0", "0"),
        ("0001", "0", "1"),
        ("0002", "1", "0"),
        ("0003", "1", "1"),
    ]
    assert rows[0]["style"] == "sky" and float(rows[0]["fx"]) == pytest.approx(16 / np.tan(np.radians(30)))
    plain, noisy = (read_image(whole / "rgb" / f"rgb_000{i}.png").pixels_hwc for i in (0, 1))
    assert plain[0, 0].std() > 5 and np.ptp(plain[:3, :3].reshape(-1, 3), axis=0).max() == 0  # the plain background
    assert np.ptp(noisy[:3, :3].reshape(-1, 3), axis=0).min() > 3


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_codec_reads_the_renderers_own_depth(encoding: str, renderer: Any, tmp_path: Path) -> None:
    """Within half a step of the stored numbers, which an independent formula decodes."""
    out = write(tmp_path / "out", make_scene=make_scene, encoding=encoding, count=1)
    drawn = renderer.render(make_scene(0, 0, style="sky", size=(48, 32), captures=2), spp=1)
    planar_hw = drawn.depth_hw.astype(float)
    y_hw, x_hw = (np.indices((32, 48)) + 0.5 - np.array([16, 24])[:, None, None]) / (16 / np.tan(np.radians(30)))
    along_hw = np.sqrt(1 + x_hw**2 + y_hw**2) if encoding == "srgb-radial" else np.ones((32, 48))
    raw_hw = cv2.imread(str(out / "depth" / "depth_0000.png"), cv2.IMREAD_UNCHANGED)
    depth_hw, valid_hw = ENCODINGS[encoding].read(out / "depth" / "depth_0000.png")
    near_hw = np.isfinite(planar_hw) & (planar_hw * along_hw <= 10)
    np.testing.assert_array_equal(valid_hw, near_hw)
    assert (encoding == "metric") == (near_hw == np.isfinite(planar_hw)).all()  # radially, the far board is cut off
    assert set(np.unique(raw_hw[~near_hw])) == {0 if encoding == "metric" else 255}
    if encoding == "metric":
        assert raw_hw.dtype == np.uint16 and np.abs(raw_hw / 1000 - planar_hw)[near_hw].max() <= 0.0005 + 1e-6
        assert np.abs(depth_hw - planar_hw)[near_hw].max() <= 0.0005 + 1e-6
        return

    def metres(value: Any) -> Any:  # IEC 61966-2-1
        share = np.asarray(value) / 255
        return 10 * np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)

    radial = (planar_hw * along_hw)[near_hw]
    value = raw_hw[near_hw].astype(float)
    assert raw_hw.dtype == np.uint8
    assert (radial >= metres(value - 0.5) - 1e-4).all() and (radial <= metres(value + 0.5) + 1e-4)[value < 254].all()
    np.testing.assert_allclose(depth_hw[near_hw], metres(value) / along_hw[near_hw], rtol=1e-5)


def test_several_processes_and_a_continuation_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    assert contents(write(tmp_path / "several", make_scene=make_scene, processes=2)) == contents(whole)
    out = tmp_path / "killed"
    with pytest.raises(ValueError, match="stop"):
        write(out, make_scene=make_scene_that_stops)
    assert (out / "rgb" / "rgb_0001.png").exists() and not (out / "scenes.csv").exists()
    assert contents(write(out, make_scene=make_scene)) == contents(whole)
    with pytest.raises(RequestError, match="another synthetic data set"):
        write(out, make_scene=make_scene, encoding="srgb-radial")


def make_scene_that_stops(seed: int, index: int, **options: Any) -> Scene:
    if index == 2:
        raise ValueError("stop")
    return make_scene(seed, index, **options)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"style": "cave"}, "known: sky, room"),
        ({"encoding": "png"}, "known: metric, srgb-radial"),
        ({"captures": 0}, "captures"),
        ({"count": 0}, "number of scenes is 0"),
        ({"size": (256, 2)}, "256x2"),
    ],
)
def test_arguments_out_of_range(wrong: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=told):
        write(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_the_recipe_of_system_5_splits_by_scene(renderer: Any, tmp_path: Path) -> None:
    out = write(tmp_path / "out", make_scene=make_scene, encoding="srgb-radial", count=24, captures=2, size=(16, 16))
    recipe = load_recipe("zoedepth-synthetic")
    samples = list_samples(recipe.data, out)
    subset_by_id, _ = make_split(samples, recipe.split, lambda sample: 0.0)
    assert set(subset_by_id.values()) == {"train", "val", "test"}
    for first, second in zip(samples[::2], samples[1::2], strict=True):
        assert first.attributes["scene"] == second.attributes["scene"]
        assert subset_by_id[first.id] == subset_by_id[second.id]
    assert DepthCodec(**recipe.target.codec_settings()) == ENCODINGS["srgb-radial"]  # type: ignore[union-attr]


def test_the_command_that_is_printed_fits_what_is_written(renderer: Any, tmp_path: Path) -> None:
    said: list[str] = []
    out = write(tmp_path / "out", make_scene=make_scene, count=20, captures=2, size=(64, 32), say=said.append)
    words = shlex.split(said[-1].partition("perpixel train ")[2])
    assert words[:3] == ["depth-strong", "--data", str(out)] and set(words[3::2]) == {"--set"}
    recipe = load_recipe(words[0], words[4::2])
    samples = list_samples(recipe.data, out)
    assert [sample.target for sample in samples] == [out / f"depth/depth_{i:04d}.png" for i in range(20)]
    subset_by_id, group_by_id = make_split(samples, recipe.split, lambda sample: 0.0)
    assert set(subset_by_id.values()) == {"train", "val", "test"} and len(set(group_by_id.values())) == 10
    assert all(subset_by_id[f"{i:04d}"] == subset_by_id[f"{i + 1:04d}"] for i in range(0, 20, 2))
    assert recipe.input.size == (32, 64)
    codec = DepthCodec(**recipe.target.codec_settings())  # type: ignore[union-attr]
    assert codec == ENCODINGS["metric"]


def test_the_command_line_passes_every_option(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, Any] = {}

    @wraps(synthesize_objects)
    def record(out_dir: Path, **options: Any) -> None:
        given.update(options)

    monkeypatch.setitem(WRITERS, "objects", record)
    options = (
        "--count 30 --seed 4 --size 640x480 --style room --encoding srgb-radial --captures 5 --spp 8 --processes 2"
    )
    done = CliRunner().invoke(app, ["synthesize", "objects", "--out", str(tmp_path / "out"), *options.split()])
    assert done.exit_code == 0, done.output
    expected = {"count": 30, "seed": 4, "size": (640, 480), "style": "room", "encoding": "srgb-radial", "captures": 5}
    assert {name: given[name] for name in expected} == expected and (given["spp"], given["processes"]) == (8, 2)


# ---------------------------------------------------------------- what the renderer was taught for these scenes


def joined_pair() -> tuple[Scene, Scene]:
    """Two textures of opposite halves, a plain and a clear material, drawn both ways."""
    halves_hwc = np.repeat([[[0.1] * 3], [[0.9] * 3]], 8, axis=0).repeat(16, axis=1).astype(np.float32)
    materials = (
        Material("up", texture_hwc=halves_hwc),
        Material("plain", roughness=0.4),
        Material("down", texture_hwc=np.ascontiguousarray(halves_hwc[::-1] * [1.0, 0.6, 0.3], np.float32)),
        Material("clear", roughness=0.0, transmission=1.0),
    )
    meshes = tuple(
        replace(board(4.0, 0.7, name), vertices_n3=board(4.0, 0.7).vertices_n3 + np.float32([0, y, 0]))
        for name, y in (("up", 1.5), ("plain", 0.0), ("down", -1.5))
    )
    light = Environment(np.full((4, 8, 3), 1.0, np.float32))
    scene = Scene("pair", materials, meshes, light, CAMERA, exposure=0.8)
    return scene, replace(scene, joined=True)


def test_joined_materials_look_as_they_do_apart(renderer: Any) -> None:
    apart, joined = (renderer.render(scene, spp=64) for scene in joined_pair())
    for facts in ("class_hw", "instance_hw", "depth_hw", "normal_hwc"):
        np.testing.assert_array_equal(getattr(apart, facts), getattr(joined, facts))
    difference_hwc = apart.image_hwc.astype(float) - joined.image_hwc
    assert np.abs(difference_hwc).mean() < 1.0 and np.abs(difference_hwc).max() < 40
    assert np.ptp(apart.image_hwc[apart.instance_hw > 0].astype(float), axis=0).max() > 60  # the textures are there


def test_a_face_too_wide_for_a_joined_texture_is_refused(renderer: Any) -> None:
    _, joined = joined_pair()
    wide = replace(joined.meshes[0], uv_n2=np.array([[0, 0], [1, 0], [1, 9], [0, 9]], np.float32))
    with pytest.raises(ValueError, match="tiles"):
        renderer.render(replace(joined, meshes=(wide,)), spp=1)


def test_light_finds_its_way_through_hollow_glass(renderer: Any) -> None:
    """Through four faces of glass to a board, and from there through them again to the light."""
    far, near = board(4.0, 3.0), [board(x, 1.5, "clear") for x in (2.0, 2.1, 2.4, 2.5)]
    glass = Material("clear", roughness=0.0, transmission=1.0)
    light = Environment(np.full((4, 8, 3), 1.0, np.float32))
    scene = Scene("glass", (Material("paper"), glass), (far, *near), light, CAMERA, exposure=1.0)
    dark, bright = (
        renderer.render(replace(scene, longest_path=n), spp=16).image_hwc[8:24, 16:32].mean() for n in (4, 8)
    )
    assert dark < 100 and bright > 200  # what is left of the dark one is mirrored by the glass


def test_a_lamp_in_view_has_depth(renderer: Any) -> None:
    """A ball of 0.5 m whose middle is 4 m ahead is met at 3.5 m; a board before it is nearer."""
    light = Environment(np.full((4, 8, 3), 0.1, np.float32), lamps=(((4.0, 0.0, 0.0), 0.5, (5.0, 5.0, 5.0)),))
    small = board(2.0, 0.1)
    camera = replace(CAMERA, width=49, height=33, cx=24.5, cy=16.5)
    paper = (Material("paper"),)
    drawn = renderer.render(Scene("lamp", paper, (board(6, 0.1),), light, camera, exposure=1.0), spp=1)
    assert drawn.depth_hw[16, 24] == pytest.approx(3.5, abs=1e-6)
    np.testing.assert_allclose(drawn.normal_hwc[16, 24], [0, 0, -1], atol=1e-6)
    seen = np.isfinite(drawn.depth_hw).sum()
    radius = camera.fx * 0.5 / np.sqrt(16 - 0.25)
    assert seen == pytest.approx(np.pi * radius**2, rel=0.1)
    hidden = renderer.render(Scene("lamp", paper, (small,), light, camera, exposure=1.0), spp=1)
    assert hidden.depth_hw[16, 24] == pytest.approx(2.0)


def test_a_real_scene_is_drawn(renderer: Any) -> None:
    scene = make_objects_scene(0, 0, size=(48, 48))
    drawn = renderer.render(scene, spp=1)
    met = np.isfinite(drawn.depth_hw)
    assert 0.2 < met.mean() < 0.95 and drawn.depth_hw[met].min() > 0.3 and drawn.depth_hw[met].max() < 8
    assert len(np.unique(drawn.instance_hw)) > 15 and drawn.image_hwc[met].std() > 20


def test_moving_a_solid_turns_before_it_moves() -> None:
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    vertices_n3, _ = moved((np.array([[1.0, 0, 0]]), np.zeros((0, 3), np.int64)), (0, 0, 5), scale=2.0, turn=quarter)
    np.testing.assert_allclose(vertices_n3, [[0, 2, 5]])
