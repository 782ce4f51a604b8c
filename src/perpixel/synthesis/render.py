"""Drawing a scene with Mitsuba 3: the picture, and for each pixel what stands there, how far and facing where.

The picture is traced with light, and is noisy before it is denoised. The facts are not: one ray through the middle of
each pixel says which triangle is met there, and depth and normal are then computed from that triangle in float64.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import RequestError
from perpixel.synthesis.develop import develop
from perpixel.synthesis.render_shapes import Shape, face_normals, shapes_of
from perpixel.synthesis.scene import Camera, Environment, Render, Scene, SunSky

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["VARIANTS", "Renderer"]

VARIANTS = {"cuda": "cuda_ad_rgb", "llvm": "llvm_ad_rgb", "scalar": "scalar_rgb"}
"""Short names of the variants of Mitsuba that can be asked for, fastest first, and Mitsuba's own."""

_OLDEST_LLVM = 17  # older ones cannot translate what Dr.Jit writes, and end the process
_BLOCK = 32  # pixels of the side of a block
_NEAR, _FAR = 0.01, 1e5  # metres; what a camera sees lies between


class Renderer:
    """Draws scenes. Equal scenes and seeds give equal bytes on one machine with one variant.

    Attributes:
        variant: the variant of Mitsuba that draws: ``cuda_ad_rgb``, ``llvm_ad_rgb`` or ``scalar_rgb``.
        denoised: whether pictures are denoised (where the package mitsuba-oidn is installed).
    """

    def __init__(self, variant: str = "auto", *, threads: int | None = None) -> None:
        """``variant``: ``auto``, ``cuda``, ``llvm`` or ``scalar``; ``threads``: at most so many, None for all cores.

        Raises:
            RequestError: Mitsuba is not installed, or not able to draw with this variant here.
        """
        mi = _mitsuba()
        if variant != "auto" and variant not in VARIANTS:
            raise RequestError(
                f"no renderer has the variant {variant!r}",
                rule=f"Known: auto, {', '.join(VARIANTS)}.",
                cure="Take one.",
            )
        self.variant = next(
            (name for short, name in VARIANTS.items() if variant in ("auto", short) and _usable(mi, name)), ""
        )
        if not self.variant:
            raise RequestError(
                f"this machine cannot draw with the variant {variant!r}",
                rule=f"cuda needs an NVIDIA device, llvm the library libLLVM {_OLDEST_LLVM} or newer.",
                cure="Take auto: it takes what there is.",
            )
        self.denoised = importlib.util.find_spec("mitsuba_oidn") is not None
        mi.set_variant(self.variant)
        if threads is not None:
            import drjit

            drjit.set_thread_count(threads)

    def render(self, scene: Scene, *, spp: int = 16, seed: int = 0) -> Render:
        """Draw ``scene`` with ``spp`` rays a pixel; ``seed`` is that of the picture's noise.

        Raises:
            ValueError: the camera has pixels that are not square, or a lens and an eccentric principal point.
        """
        mi = _mitsuba()
        mi.set_variant(self.variant)
        shapes = shapes_of(scene)
        drawn = _load(mi, scene, shapes)
        class_hw, instance_hw, depth_hw, normal_hwc = self._facts(mi, drawn, scene, shapes)
        radiance_hwc, distance_hw, coverage_hw = self._radiance(mi, drawn, scene, spp, seed)
        image_hwc = develop(radiance_hwc, distance_hw, coverage_hw, haze=scene.haze, exposure=scene.exposure)
        return Render(image_hwc, class_hw, instance_hw, depth_hw, normal_hwc)

    def _facts(self, mi: ModuleType, drawn: Any, scene: Scene, shapes: list[Shape]) -> tuple[Any, ...]:
        """Class, instance, depth and normal of what the ray through each pixel's middle meets."""
        camera = scene.camera
        sensor = mi.load_dict(_sensor(mi, camera, lens=False, sampler={"type": "stratified", "jitter": False}))
        integrator = mi.load_dict({"type": "aov", "aovs": "shape:shape_index,face:prim_index"})
        met_hwc = np.array(mi.render(drawn, sensor=sensor, integrator=integrator, spp=1))
        shape_hw, face_hw = met_hwc[..., 0].astype(np.int64), met_hwc[..., 1].astype(np.int64)

        class_hw = np.full((camera.height, camera.width), scene.sky_class, np.uint16)
        instance_hw = np.zeros(class_hw.shape, np.uint32)
        depth_hw = np.full(class_hw.shape, np.inf, np.float32)
        normal_hwc = np.zeros((*class_hw.shape, 3), np.float32)
        ray_hwc = _rays(camera)
        for number, shape in zip(_numbers(mi, drawn, self.variant, shapes), shapes, strict=True):
            met = shape_hw == number
            faces = face_hw[met]
            class_hw[met], instance_hw[met] = shape.class_m[faces], shape.instance_m[faces]
            depth_hw[met], normal_hwc[met] = _meet(shape.vertices_n3, shape.faces_m3[faces], camera, ray_hwc[met])
        for position, radius, _ in scene.light.lamps if isinstance(scene.light, Environment) else ():
            lamp_hw, outward_hwc = _meet_ball(np.array(position), radius, camera, ray_hwc)
            first = lamp_hw < depth_hw
            depth_hw[first], normal_hwc[first] = lamp_hw[first], outward_hwc[first]
        return class_hw, instance_hw, depth_hw, normal_hwc

    def _radiance(
        self, mi: ModuleType, drawn: Any, scene: Scene, spp: int, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Denoised linear RGB, the mean distance of what is met within a pixel, and its share of the pixel."""
        background = scene.light.background if isinstance(scene.light, Environment) else None
        sensor = mi.load_dict(_sensor(mi, scene.camera, lens=True, sampler={"type": "independent"}))

        def draw(**integrator: Any) -> NDArray[np.float32]:
            # One seed: every call starts with the same rays. All channels in one call would take twice as long.
            # The scalar variant gives each block of pixels its own seed; left to itself it sizes them by the threads.
            integrator |= {"block_size": _BLOCK}
            return np.array(mi.render(drawn, sensor=sensor, integrator=mi.load_dict(integrator), spp=spp, seed=seed))

        seen_hwc = draw(type="path", max_depth=scene.longest_path, hide_emitters=background is not None)
        distance_hwc = draw(type="depth")
        radiance_hwc = np.nan_to_num(seen_hwc[..., :3], nan=0.0, posinf=0.0)
        if self.denoised:
            guides_hwc = draw(type="aov", aovs="albedo:albedo,normal:sh_normal")
            radiance_hwc = _denoise(radiance_hwc, guides_hwc[..., -6:-3], guides_hwc[..., -3:])
        if background is not None:  # it has no noise
            radiance_hwc = radiance_hwc + (1 - seen_hwc[..., 3:]) * np.array(background, np.float32)
        coverage_hw = distance_hwc[..., 3]
        distance_hw = (distance_hwc[..., 0] / np.maximum(coverage_hw, 1e-6)).astype(np.float32)
        return radiance_hwc, distance_hw, coverage_hw


def _denoise(
    radiance_hwc: NDArray[np.float32], albedo_hwc: NDArray[np.float32], normal_hwc: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Intel's Open Image Denoise, guided by what the surfaces are, on one thread: it rounds otherwise on several."""
    import drjit
    import mitsuba_oidn

    threads = drjit.thread_count()
    drjit.set_thread_count(1)
    guides = (np.ascontiguousarray(albedo_hwc.clip(0, 1)), np.ascontiguousarray(normal_hwc.clip(-1, 1)))
    try:
        denoised_hwc: NDArray[np.float32] = np.maximum(mitsuba_oidn.denoise(radiance_hwc, *guides, hdr=True), 0)
    finally:
        drjit.set_thread_count(threads)
    return denoised_hwc


# ---------------------------------------------------------------- facts of pixels


def _rays(camera: Camera) -> NDArray[np.float64]:
    """Directions through the pixels' middles in camera axes, of length 1 along the optical axis."""
    x_hw, y_hw = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    return np.stack([(x_hw - camera.cx) / camera.fx, (y_hw - camera.cy) / camera.fy, np.ones_like(x_hw)], axis=-1)


def _meet(
    vertices_n3: NDArray[Any], faces_m3: NDArray[Any], camera: Camera, ray_m3: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Planar depth and normal (camera axes, facing the camera) where each ray meets the plane of its triangle."""
    rotation, position = camera.pose_44[:3, :3], camera.pose_44[:3, 3]
    corners_m33 = (vertices_n3[faces_m3].astype(np.float64) - position) @ rotation
    normal_m3 = face_normals(corners_m33.reshape(-1, 3), np.arange(corners_m33.size // 3).reshape(-1, 3))
    along_m = (normal_m3 * ray_m3).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth_m = (normal_m3 * corners_m33[:, 0]).sum(1) / along_m
    # A triangle seen edge-on has no clear depth, but never one beyond its corners.
    depth_m = np.clip(np.nan_to_num(depth_m), corners_m33[..., 2].min(1), corners_m33[..., 2].max(1))
    return depth_m, np.where(along_m[:, None] > 0, -normal_m3, normal_m3)


def _meet_ball(
    position: NDArray[np.float64], radius: float, camera: Camera, ray_hwc: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Planar depth (inf beside it) and normal where each ray meets a sphere in front of the camera."""
    middle = (position - camera.pose_44[:3, 3]) @ camera.pose_44[:3, :3]
    square_hw, along_hw = (ray_hwc**2).sum(-1), (ray_hwc * middle).sum(-1)
    root_hw = along_hw**2 - square_hw * (float((middle**2).sum()) - radius**2)
    depth_hw = (along_hw - np.sqrt(np.maximum(root_hw, 0))) / square_hw
    normal_hwc = (depth_hw[..., None] * ray_hwc - middle) / radius
    return np.where((root_hw >= 0) & (depth_hw > 0), depth_hw, np.inf), normal_hwc


def _numbers(mi: ModuleType, drawn: Any, variant: str, shapes: list[Shape]) -> list[int]:
    """What Mitsuba writes for each shape as its ``shape_index``; 0 is nothing."""
    loaded = {shape.id(): shape for shape in drawn.shapes()}
    if variant == VARIANTS["scalar"]:
        return [list(loaded).index(shape.name) + 1 for shape in shapes]
    import drjit  # the others write Dr.Jit's number of the object

    numbers: list[Any] = [drjit.reinterpret_array(mi.UInt32, mi.ShapePtr(loaded[shape.name])) for shape in shapes]
    return [int(number[0]) for number in numbers]


# ---------------------------------------------------------------- what Mitsuba is given


def _load(mi: ModuleType, scene: Scene, shapes: list[Shape]) -> Any:
    content: dict[str, Any] = {"type": "scene"}
    for shape in shapes:
        content[shape.name] = _mesh(mi, shape)
    content.update(_sun_and_sky(scene.light) if isinstance(scene.light, SunSky) else _environment(mi, scene.light))
    # As it is: joined shapes would have other faces, and another order of loading another kernel.
    return mi.load_dict(content, optimize=False, parallel=False)


def _mesh(mi: ModuleType, shape: Shape) -> Any:
    content: Any = mi.Properties()
    content["bsdf"] = mi.load_dict(shape.bsdf(mi))
    mesh = mi.Mesh(shape.name, len(shape.vertices_n3), len(shape.faces_m3), content, True, True)
    params = mi.traverse(mesh)
    params["vertex_positions"] = _flat(shape.vertices_n3)
    params["vertex_texcoords"] = _flat(shape.uv_n2)
    params["faces"] = shape.faces_m3.ravel()
    params["vertex_normals"] = _flat(shape.normals_n3)
    params.update()  # all at once: given apart, the normals would be computed
    for name, values in shape.attributes.items():
        mesh.add_attribute(name, values.shape[1], _flat(values))
    return mesh


def _flat(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32).ravel()


def _sun_and_sky(light: SunSky) -> dict[str, Any]:
    azimuth, elevation = np.radians([light.azimuth, light.elevation])
    sun = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    sky: dict[str, Any] = {"type": "sunsky", "sun_direction": [float(x) for x in sun], "turbidity": light.turbidity}
    sky["albedo"] = {"type": "rgb", "value": [light.ground_albedo] * 3}
    return {"sky": sky | {"sky_scale": light.sky_scale, "sun_scale": light.sun_scale}}


def _environment(mi: ModuleType, light: Environment) -> dict[str, Any]:
    transform = mi.ScalarTransform4f
    upright = transform().rotate([1, 0, 0], 90)  # Mitsuba's pictures of the surroundings have y up
    bitmap = mi.Bitmap(np.ascontiguousarray(light.radiance_hwc, np.float32))
    content: dict[str, Any] = {"sky": {"type": "envmap", "bitmap": bitmap, "to_world": upright}}
    for i, (position, radius, radiance) in enumerate(light.lamps):
        emitter = {"type": "area", "radiance": {"type": "rgb", "value": list(radiance)}}
        content[f"lamp-{i}"] = {"type": "sphere", "center": list(position), "radius": radius, "emitter": emitter}
    if light.directional is not None:
        direction, irradiance = light.directional
        color = {"type": "rgb", "value": list(irradiance)}
        content["directional"] = {"type": "directional", "direction": list(direction), "irradiance": color}
    return content


def _sensor(mi: ModuleType, camera: Camera, *, lens: bool, sampler: dict[str, Any]) -> dict[str, Any]:
    if not np.isclose(camera.fx, camera.fy, rtol=1e-6):
        raise ValueError(f"pixels are square: fx {camera.fx} and fy {camera.fy} differ")
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])  # Mitsuba's cameras have x to the left and y up
    content: dict[str, Any] = {
        "type": "perspective",
        "fov_axis": "x",
        "fov": float(np.degrees(2 * np.arctan(camera.width / 2 / camera.fx))),
        "near_clip": _NEAR,
        "far_clip": _FAR,
        "to_world": mi.ScalarTransform4f(camera.pose_44 @ flip),
        "sampler": sampler,
        "film": {
            "type": "hdrfilm",
            "width": camera.width,
            "height": camera.height,
            "pixel_format": "rgba",
            "component_format": "float32",
            "rfilter": {"type": "box"},  # pixels that share no samples: the denoiser wants their noise independent
        },
    }
    offset = (0.5 - camera.cx / camera.width, 0.5 - camera.cy / camera.height)
    if lens and camera.aperture_radius > 0:
        if not np.allclose(offset, 0, atol=1e-6):
            raise ValueError("a camera with a lens has its principal point in the middle")
        thin = {"type": "thinlens", "aperture_radius": camera.aperture_radius, "focus_distance": camera.focus}
        return content | thin
    return content | {"principal_point_offset_x": offset[0], "principal_point_offset_y": offset[1]}


def _mitsuba() -> ModuleType:
    try:
        import mitsuba
    except ImportError as error:
        raise RequestError(
            "scenes are drawn by Mitsuba, and it is not installed", cure="Run: pip install 'perpixel[scenes]'"
        ) from error
    module: ModuleType = mitsuba
    return module


def _usable(mi: ModuleType, variant: str) -> bool:
    if variant not in mi.variants():
        return False
    import drjit

    if variant == VARIANTS["llvm"]:
        return bool(drjit.has_backend(drjit.JitBackend.LLVM)) and drjit.detail.llvm_version()[0] >= _OLDEST_LLVM
    return variant == VARIANTS["scalar"] or bool(drjit.has_backend(drjit.JitBackend.CUDA))
