"""The renderer, against rays and shapes whose answers are known in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from perpixel.errors import RequestError
from perpixel.synthesis.develop import develop, expose
from perpixel.synthesis.scene import (
    Camera,
    Environment,
    Haze,
    Material,
    Mesh,
    Render,
    Scene,
    SunSky,
    camera_from_fov,
    look_at,
)

pytest.importorskip("mitsuba")
from perpixel.synthesis import render
from perpixel.synthesis.render import VARIANTS, Renderer

SKY, GROUND, BALL = 10000, 7100, 800
CENTRE, RADIUS = np.array([4.0, 0.3, 0.8]), 0.7
POSE = look_at((0.2, -0.4, 1.5), yaw=3, pitch=-12, roll=4)
CAMERA = Camera(96, 64, 70.0, 70.0, 46.5, 33.25, POSE)  # its principal point is off the middle
MATERIALS = (Material("sand"), Material("rock"), Material("never used"))
GREY = Environment(np.ones((8, 16, 3), np.float32))


def ground(half: float = 30.0, height: float = 0.0, color: float = 0.4) -> Mesh:
    vertices_n3 = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32) * half
    vertices_n3[:, 2] = height
    faces_m3 = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)
    colors_n3 = np.full((4, 3), color, np.float32)
    return Mesh(vertices_n3, faces_m3, colors_n3, "sand", GROUND, np.zeros(2, np.uint32), uv_n2=vertices_n3[:, :2])


def ball(
    centre: Any = CENTRE, radius: float = RADIUS, instance: int = 70000, smooth: bool = True, material: str = "rock"
) -> Mesh:
    theta_nm, phi_nm = np.meshgrid(np.linspace(0, np.pi, 200), np.linspace(0, 2 * np.pi, 401), indexing="ij")
    normals_n3 = np.stack([np.sin(theta_nm) * np.cos(phi_nm), np.sin(theta_nm) * np.sin(phi_nm), np.cos(theta_nm)], -1)
    number_nm = np.arange(theta_nm.size).reshape(theta_nm.shape)
    a, b, c, d = (x.ravel() for x in (number_nm[:-1, :-1], number_nm[1:, :-1], number_nm[1:, 1:], number_nm[:-1, 1:]))
    faces_m3 = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).astype(np.uint32)
    unit_n3 = normals_n3.reshape(-1, 3).astype(np.float32)
    vertices_n3 = (unit_n3 * radius + np.asarray(centre)).astype(np.float32)
    instance_m = np.full(len(faces_m3), instance, np.uint32)
    colors_n3 = np.full(vertices_n3.shape, 0.3, np.float32)
    return Mesh(vertices_n3, faces_m3, colors_n3, material, BALL, instance_m, unit_n3 if smooth else None)


def scene(**changes: Any) -> Scene:
    whole = Scene("test", MATERIALS, (ball(), ground()), GREY, CAMERA, sky_class=SKY)
    return replace(whole, **changes)


def rays(camera: Camera) -> NDArray[np.float64]:
    """World directions through the pixels' middles, 1 metre deep."""
    y_hw, x_hw = np.mgrid[0.5 : camera.height, 0.5 : camera.width]
    ray_hwc = np.stack([(x_hw - camera.cx) / camera.fx, (y_hw - camera.cy) / camera.fy, np.ones_like(x_hw)], -1)
    return ray_hwc @ camera.pose_44[:3, :3].T


def analytic() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Planar depth of the ball and of the plane z = 0, inf where the ray misses."""
    origin, ray_hwc = POSE[:3, 3], rays(CAMERA)
    a_hw, b_hw = (ray_hwc**2).sum(-1), ray_hwc @ (origin - CENTRE)
    under_hw = b_hw**2 - a_hw * (((origin - CENTRE) ** 2).sum() - RADIUS**2)
    ball_hw = np.where(under_hw > 0, (-b_hw - np.sqrt(np.maximum(under_hw, 0))) / a_hw, np.inf)
    plane_hw = -origin[2] / np.where(ray_hwc[..., 2] < 0, ray_hwc[..., 2], np.nan)
    hit_hwc = origin + ray_hwc * plane_hw[..., None]
    inside_hw = np.abs(hit_hwc[..., :2]).max(-1) < 30
    return ball_hw, np.where(inside_hw, plane_hw, np.inf)


@pytest.fixture(scope="module", params=["auto", "scalar"])
def drawn(request: pytest.FixtureRequest) -> Render:
    return Renderer(request.param).render(scene(), spp=1, seed=3)


def test_ids_are_those_of_an_analytic_ray_test(drawn: Render) -> None:
    ball_hw, plane_hw = analytic()
    expected_hw = np.where(ball_hw < plane_hw, BALL, np.where(np.isfinite(plane_hw), GROUND, SKY))
    edge_hw = np.zeros(expected_hw.shape, bool)  # a ball of triangles is a hair smaller than a ball
    depth_hw = np.minimum(ball_hw, plane_hw)
    ray_hwc, origin = rays(CAMERA), POSE[:3, 3]
    nearest_hw = np.linalg.norm(np.cross(ray_hwc, CENTRE - origin), axis=-1) / np.linalg.norm(ray_hwc, axis=-1)
    edge_hw |= np.abs(nearest_hw - RADIUS) < 2e-4
    assert edge_hw.sum() < 5
    np.testing.assert_array_equal(drawn.class_hw[~edge_hw], expected_hw[~edge_hw])
    np.testing.assert_array_equal(drawn.instance_hw, np.where(drawn.class_hw == BALL, 70000, 0))
    assert {BALL, GROUND, SKY} == set(np.unique(drawn.class_hw))
    assert (np.isfinite(drawn.depth_hw) == (drawn.class_hw != SKY)).all() and np.isfinite(depth_hw).any()


def test_depth_is_planar_and_exact(drawn: Render) -> None:
    ball_hw, plane_hw = analytic()
    plane = drawn.class_hw == GROUND
    np.testing.assert_allclose(drawn.depth_hw[plane], plane_hw[plane], rtol=1e-6)
    inner = (drawn.class_hw == BALL) & np.isfinite(ball_hw)
    error = np.abs(drawn.depth_hw[inner] - ball_hw[inner])
    assert np.quantile(error, 0.9) < 1e-3 and error.max() < 0.02  # facets are far from a sphere at its rim alone


def test_normals_face_the_camera_in_its_axes(drawn: Render) -> None:
    up = POSE[:3, :3].T @ [0, 0, 1]
    np.testing.assert_allclose(drawn.normal_hwc[drawn.class_hw == GROUND] @ up, 1, atol=1e-6)
    assert up[1] < 0  # y points down
    ball_hw, _ = analytic()
    inner = (drawn.class_hw == BALL) & np.isfinite(ball_hw)
    met_n3 = POSE[:3, 3] + rays(CAMERA)[inner] * ball_hw[inner][:, None]
    expected_n3 = (met_n3 - CENTRE) / RADIUS @ POSE[:3, :3]
    cosine = (drawn.normal_hwc[inner] * expected_n3).sum(-1)
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).mean() < 0.5
    assert np.quantile(cosine, 0.02) > np.cos(np.radians(1))
    assert (drawn.normal_hwc[drawn.class_hw == SKY] == 0).all()


def test_points_are_seen_where_the_pinhole_projects_them() -> None:
    points_n3 = np.array([[3.0, 1.1, 1.3], [4.0, -1.5, 1.6], [6.0, 1.0, 0.2]])
    lamps = tuple((tuple(point.tolist()), 0.03, (80.0, 80.0, 80.0)) for point in points_n3)
    light = Environment(np.full((8, 16, 3), 1e-4, np.float32), lamps=lamps)  # type: ignore[arg-type]
    seen = Renderer("scalar").render(scene(meshes=(ball((40, 0, 0)),), light=light, exposure=1.0), spp=16)
    bright_hw = seen.image_hwc.astype(float).sum(-1)
    camera_n3 = (points_n3 - POSE[:3, 3]) @ POSE[:3, :3]
    for x, y in camera_n3[:, :2] / camera_n3[:, 2:] * 70.0 + [46.5, 33.25]:
        near_hw = bright_hw[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4]
        rows, columns = np.mgrid[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] + 0.5
        assert near_hw.max() > 300
        assert np.hypot((rows * near_hw).sum() / near_hw.sum() - y, (columns * near_hw).sum() / near_hw.sum() - x) < 0.5


def test_equal_scenes_and_seeds_give_equal_bytes_and_other_seeds_other_noise() -> None:
    renderer = Renderer("auto", threads=2)
    lit = scene(light=SunSky(120, 40))
    first, again, other = (renderer.render(lit, spp=4, seed=seed) for seed in (5, 5, 6))
    for one, two in zip(vars(first).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (first.image_hwc != other.image_hwc).any()
    np.testing.assert_array_equal(first.depth_hw, other.depth_hw)


def test_the_denoiser_does_not_depend_on_the_number_of_threads() -> None:
    pytest.importorskip("mitsuba_oidn")
    noise_hwc = np.random.default_rng(0).random((360, 640, 3), np.float32)
    results = []
    for threads in (1, 2):
        Renderer("scalar", threads=threads)
        results.append(render._denoise(noise_hwc, noise_hwc, noise_hwc))
    np.testing.assert_array_equal(*results)


def test_another_scene_of_the_same_materials_compiles_nothing() -> None:
    drjit = pytest.importorskip("drjit")
    renderer = Renderer("auto")
    if renderer.variant == VARIANTS["scalar"]:
        pytest.skip("the scalar variant compiles nothing ever")
    light = SunSky(120, 40)
    renderer.render(scene(light=light), spp=1)
    with drjit.scoped_set_flag(drjit.JitFlag.KernelHistory, True):
        drjit.kernel_history()
        other = scene(light=replace(light, azimuth=10.0, turbidity=5.0), meshes=(ground(50.0), ball((5, 0, 2), 0.2)))
        renderer.render(replace(other, meshes=other.meshes[:1], camera=replace(CAMERA, fx=60.0, fy=60.0)), spp=1)
        renderer.render(other, spp=1)
        kernels = [kernel for kernel in drjit.kernel_history() if "cache_hit" in kernel]
    assert kernels and all(kernel["cache_hit"] for kernel in kernels)


def test_the_variants_agree() -> None:
    fast, slow = Renderer("auto"), Renderer("scalar")
    if fast.variant == slow.variant:
        pytest.skip("this machine has the scalar variant alone")
    lit = scene(light=SunSky(120, 40), exposure=4.0, meshes=(ball(smooth=False), ground()))
    one, two = fast.render(lit, spp=16), slow.render(lit, spp=16)
    assert (one.class_hw != two.class_hw).sum() <= 2 and (one.instance_hw != two.instance_hw).sum() <= 2
    assert np.abs(one.image_hwc.astype(float) - two.image_hwc).mean() < 2


def test_materials_of_every_kind_are_lit_through_and_from_behind() -> None:
    texture_hwc = np.zeros((2, 2, 3), np.float32) + np.array([[[0.2], [1.0]], [[1.0], [0.2]]], np.float32)
    materials = (
        Material("sand", texture_hwc=texture_hwc),
        Material("leaf", translucency=0.4),
        Material("glass", transmission=1.0, roughness=0.05),
        Material("metal", metallic=1.0, roughness=0.2),
        Material("bark"),
    )
    kinds = ("leaf", "glass", "metal", "bark")
    balls = [ball((4, 1.5 - i, 1.0), 0.4, i + 1, i % 2 == 0, kind) for i, kind in enumerate(kinds)]
    balls[1] = replace(balls[1], colors_n3=np.ones_like(balls[1].colors_n3))
    seen = Renderer("scalar").render(scene(materials=materials, meshes=(*balls, ground())), spp=16)
    assert set(np.unique(seen.instance_hw)) == {0, 1, 2, 3, 4}
    grey = [float(seen.image_hwc[seen.instance_hw == i + 1].mean()) for i in range(4)]
    assert min(grey) > 30  # nothing is black
    assert grey[1] > grey[3] + 20  # one sees through glass
    soil = seen.image_hwc[seen.class_hw == GROUND].astype(float)
    assert soil[:, 0].std() > 10  # the texture shows


def test_a_texture_multiplies_the_vertex_colours() -> None:
    """A texture of one colour is that colour; a ground of 0.25 is one of 0.5 under a texture of 0.5."""
    half = np.full((4, 4, 3), 0.5, np.float32)
    down = camera_from_fov(16, 16, vertical_fov=40, pose_44=look_at((0, 0, 3), yaw=0, pitch=-90))
    renderer = Renderer("scalar")
    plain, textured = (
        renderer.render(
            scene(materials=(Material("sand", texture_hwc=t),), meshes=(ground(color=c),), camera=down, exposure=1.0),
            spp=64,
        ).image_hwc.astype(float)
        for c, t in ((0.25, None), (0.5, half))
    )
    assert abs(plain.mean() - textured.mean()) < 2 and 100 < plain.mean() < 180


def test_the_sun_throws_shadows_away_from_it() -> None:
    sun = SunSky(azimuth=90, elevation=45)  # from +y: shadows fall to -y
    down = camera_from_fov(40, 40, vertical_fov=60, pose_44=look_at((0, 0, 6), yaw=90, pitch=-90))
    post = ball((0, 0, 1.0), 0.3)
    grey = Renderer("scalar").render(scene(meshes=(post, ground()), light=sun, camera=down), spp=16).image_hwc.mean(-1)
    # Seen from above with +y up in the picture: 1 m high, the ball's shadow lies 1 m to -y.
    shadow, lit = grey[20 + 6, 20], grey[20 - 6, 20]
    assert shadow < lit - 40


def test_a_plain_background_is_seen_by_the_camera_alone() -> None:
    light = Environment(np.full((8, 16, 3), 2.0, np.float32), background=(1.0, 0.0, 0.0))
    seen = Renderer("scalar").render(scene(light=light, exposure=1.0), spp=4)
    sky = seen.image_hwc[:3, :3].reshape(-1, 3)
    assert (sky[:, 0] > 230).all() and (sky[:, 1:] < 10).all()
    soil = seen.image_hwc[seen.class_hw == GROUND].astype(float)
    assert abs(soil[:, 0] - soil[:, 2]).mean() < 10


def test_a_lens_blurs_what_is_out_of_focus() -> None:
    texture_hwc = np.kron([[0.1, 1.0], [1.0, 0.1]], np.ones((4, 4)))[..., None].repeat(3, 2).astype(np.float32)
    middle = camera_from_fov(96, 64, vertical_fov=50, pose_44=POSE)
    boards = scene(materials=(Material("sand", texture_hwc=texture_hwc), *MATERIALS[1:]), camera=middle)
    renderer = Renderer("scalar")
    sharp, blurred = (
        renderer.render(replace(boards, camera=replace(middle, aperture_radius=r, focus=30.0)), spp=16)
        for r in (0.0, 0.5)
    )
    change = [float(np.abs(np.diff(x.image_hwc[48:].astype(float), axis=1)).mean()) for x in (sharp, blurred)]
    assert change[1] < 0.5 * change[0]
    np.testing.assert_array_equal(sharp.depth_hw, blurred.depth_hw)


def test_cameras_that_cannot_be_drawn_are_refused() -> None:
    renderer = Renderer("scalar")
    with pytest.raises(ValueError, match="square"):
        renderer.render(scene(camera=replace(CAMERA, fy=80.0)), spp=1)
    with pytest.raises(ValueError, match="middle"):
        renderer.render(scene(camera=replace(CAMERA, aperture_radius=0.1)), spp=1)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(RequestError, match=r"auto, cuda, llvm, scalar"):
        Renderer("vulkan")
    assert Renderer("scalar").variant == VARIANTS["scalar"] == "scalar_rgb"


def test_without_mitsuba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mitsuba", None)
    with pytest.raises(RequestError, match=r"pip install 'perpixel\[scenes\]'"):
        Renderer()


def test_haze_takes_over_with_distance() -> None:
    """Half of the light is lost in ln 2 / extinction metres; what meets nothing lies before no air."""
    radiance_hwc = np.zeros((1, 4, 3), np.float32)
    distance_hw = np.array([[0.0, np.log(2) / 0.01, 1e9, 5.0]], np.float32)
    haze = Haze(0.01, (0.5, 0.25, 0.1))
    seen = develop(radiance_hwc, distance_hw, np.array([[1, 1, 1, 0]], np.float32), haze=haze, exposure=1.0)[0]
    assert (seen[0] == 0).all() and (seen[3] == 0).all()
    # IEC 61966-2-1: 0.5, 0.25 and 0.1 are 188, 137 and 89 of 255; 0.25 and 0.125 are 137 and 99.
    assert seen[2].tolist() == [188, 137, 89] and seen[1, :2].tolist() == [137, 99]


def test_exposure_is_that_of_a_camera() -> None:
    rng = np.random.default_rng(0)
    radiance_hwc = rng.uniform(0.5, 1.5, (20, 20, 3)).astype(np.float32)
    np.testing.assert_allclose(expose(radiance_hwc * 1000) * 1000, expose(radiance_hwc), rtol=1e-5)
    assert 100 < develop(radiance_hwc, radiance_hwc[..., 0], radiance_hwc[..., 0]).mean() < 180
    assert expose(np.zeros((4, 4, 3), np.float32)) == 1.0
    ramp_hwc = np.linspace(0, 8, 100, dtype=np.float32).reshape(1, 100, 1).repeat(3, 2)
    tones = develop(ramp_hwc, ramp_hwc[..., 0], ramp_hwc[..., 0], exposure=1.0)[0, :, 0].astype(int)
    assert (np.diff(tones) >= 0).all() and tones[0] == 0 and tones[-1] == 255 and tones[12] < 250  # highlights roll off
