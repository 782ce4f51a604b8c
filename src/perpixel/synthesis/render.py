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
from perpixel.synthesis.scene import Camera, Environment, Material, Mesh, Render, Scene, SunSky

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["VARIANTS", "Renderer"]

VARIANTS = {"cuda": "cuda_ad_rgb", "llvm": "llvm_ad_rgb", "scalar": "scalar_rgb"}
"""Short names of the variants of Mitsuba that can be asked for, fastest first, and Mitsuba's own."""

_OLDEST_LLVM = 17  # older ones cannot translate what Dr.Jit writes, and end the process
_MAX_DEPTH = 5  # path segments: eye, up to three bounces, light
_NEAR, _FAR = 0.01, 1e5  # metres; what a camera sees lies between
_GLASS_INDEX = 1.5


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
        shapes = [_Shape(material, scene) for material in scene.materials]
        drawn = _load(mi, scene, shapes)
        class_hw, instance_hw, depth_hw, normal_hwc = self._facts(mi, drawn, scene, shapes)
        radiance_hwc, distance_hw, coverage_hw = self._radiance(mi, drawn, scene, spp, seed)
        image_hwc = develop(radiance_hwc, distance_hw, coverage_hw, haze=scene.haze, exposure=scene.exposure)
        return Render(image_hwc, class_hw, instance_hw, depth_hw, normal_hwc)

    def _facts(self, mi: ModuleType, drawn: Any, scene: Scene, shapes: list[_Shape]) -> tuple[Any, ...]:
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
        return class_hw, instance_hw, depth_hw, normal_hwc

    def _radiance(
        self, mi: ModuleType, drawn: Any, scene: Scene, spp: int, seed: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Denoised linear RGB, the mean distance of what is met within a pixel, and its share of the pixel."""
        background = scene.light.background if isinstance(scene.light, Environment) else None
        sensor = mi.load_dict(_sensor(mi, scene.camera, lens=True, sampler={"type": "independent"}))

        def draw(**integrator: Any) -> NDArray[np.float32]:
            # One seed: every call starts with the same rays. All channels in one call would take twice as long.
            return np.array(mi.render(drawn, sensor=sensor, integrator=mi.load_dict(integrator), spp=spp, seed=seed))

        seen_hwc = draw(type="path", max_depth=_MAX_DEPTH, hide_emitters=background is not None)
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


class _Shape:
    """All meshes of one material as one: no two faces share a vertex where the mesh is faceted."""

    def __init__(self, material: Material, scene: Scene) -> None:
        self.material = material
        meshes = [mesh for mesh in scene.meshes if mesh.material == material.name and len(mesh.faces_m3)]
        parts = [_corners(mesh) for mesh in meshes] or [_nothing(scene)]
        starts = np.cumsum([0, *(len(part[0]) for part in parts[:-1])])
        self.vertices_n3, self.normals_n3, self.colors_n3, self.uv_n2 = (
            np.concatenate([part[i] for part in parts]) for i in range(4)
        )
        self.faces_m3 = np.concatenate([part[4] + start for part, start in zip(parts, starts, strict=True)])
        self.faces_m3 = self.faces_m3.astype(np.uint32)
        self.class_m = np.concatenate([np.full(len(mesh.faces_m3), mesh.class_id) for mesh in meshes] or [np.zeros(1)])
        self.instance_m = np.concatenate([mesh.instance_m for mesh in meshes] or [np.zeros(1, np.uint32)])


def _corners(mesh: Mesh) -> tuple[NDArray[Any], ...]:
    """Vertices, normals, colours, texture coordinates and faces; a vertex for each corner of a faceted mesh."""
    vertices_n3, colors_n3, faces_m3 = mesh.vertices_n3, mesh.colors_n3, mesh.faces_m3.astype(np.int64)
    uv_n2 = np.zeros((len(vertices_n3), 2), np.float32) if mesh.uv_n2 is None else mesh.uv_n2
    if mesh.normals_n3 is not None:
        return vertices_n3, mesh.normals_n3, colors_n3, uv_n2, faces_m3
    corner = faces_m3.ravel()
    normals_n3 = np.repeat(_face_normals(vertices_n3, faces_m3), 3, axis=0)
    return vertices_n3[corner], normals_n3, colors_n3[corner], uv_n2[corner], np.arange(len(corner)).reshape(-1, 3)


def _nothing(scene: Scene) -> tuple[NDArray[Any], ...]:
    """A triangle without area, for a material that no mesh uses, in a place where something else stands."""
    place = next((mesh.vertices_n3[:1] for mesh in scene.meshes if len(mesh.vertices_n3)), np.zeros((1, 3)))
    up_n3 = np.tile([0.0, 0.0, 1.0], (3, 1))
    return np.repeat(place, 3, axis=0), up_n3, np.zeros((3, 3)), np.zeros((3, 2)), np.arange(3).reshape(1, 3)


def _face_normals(vertices_n3: NDArray[Any], faces_m3: NDArray[Any]) -> NDArray[np.float64]:
    """Unit normals, counter-clockwise seen; 0 where a face has no area."""
    a, b, c = (vertices_n3[faces_m3[:, i]].astype(np.float64) for i in range(3))
    normal_m3 = np.cross(b - a, c - a)
    unit_m3: NDArray[np.float64] = normal_m3 / np.maximum(np.linalg.norm(normal_m3, axis=1, keepdims=True), 1e-300)
    return unit_m3


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
    normal_m3 = _face_normals(corners_m33.reshape(-1, 3), np.arange(corners_m33.size // 3).reshape(-1, 3))
    along_m = (normal_m3 * ray_m3).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth_m = (normal_m3 * corners_m33[:, 0]).sum(1) / along_m
    # A triangle seen edge-on has no clear depth, but never one beyond its corners.
    depth_m = np.clip(np.nan_to_num(depth_m), corners_m33[..., 2].min(1), corners_m33[..., 2].max(1))
    return depth_m, np.where(along_m[:, None] > 0, -normal_m3, normal_m3)


def _numbers(mi: ModuleType, drawn: Any, variant: str, shapes: list[_Shape]) -> list[int]:
    """What Mitsuba writes for each shape as its ``shape_index``; 0 is nothing."""
    loaded = {shape.id(): shape for shape in drawn.shapes()}
    if variant == VARIANTS["scalar"]:
        return [list(loaded).index(_shape_id(shape)) + 1 for shape in shapes]
    import drjit  # the others write Dr.Jit's number of the object

    numbers: list[Any] = [drjit.reinterpret_array(mi.UInt32, mi.ShapePtr(loaded[_shape_id(shape)])) for shape in shapes]
    return [int(number[0]) for number in numbers]


# ---------------------------------------------------------------- what Mitsuba is given


def _load(mi: ModuleType, scene: Scene, shapes: list[_Shape]) -> Any:
    content: dict[str, Any] = {"type": "scene"}
    for shape in shapes:
        content[_shape_id(shape)] = _mesh(mi, shape)
    content.update(_sun_and_sky(scene.light) if isinstance(scene.light, SunSky) else _environment(mi, scene.light))
    return mi.load_dict(content, optimize=False)  # as it is: joined shapes would have other faces


def _shape_id(shape: _Shape) -> str:
    return f"shape-{shape.material.name}"


def _mesh(mi: ModuleType, shape: _Shape) -> Any:
    content: Any = mi.Properties()
    content["bsdf"] = mi.load_dict(_bsdf(mi, shape.material))
    mesh = mi.Mesh(_shape_id(shape), len(shape.vertices_n3), len(shape.faces_m3), content, True, True)
    params = mi.traverse(mesh)
    params["vertex_positions"] = _flat(shape.vertices_n3)
    params["vertex_texcoords"] = _flat(shape.uv_n2)
    params["faces"] = shape.faces_m3.ravel()
    params["vertex_normals"] = _flat(shape.normals_n3)
    params.update()  # all at once: given apart, the normals would be computed
    texture_hwc = shape.material.texture_hwc
    ends = (np.ones(3),) if texture_hwc is None else _texture_axis(texture_hwc)[:2]
    for name, color in zip(("vertex_color", "vertex_color2"), ends, strict=False):
        mesh.add_attribute(name, 3, _flat((shape.colors_n3 * color).clip(0, 1)))
    return mesh


def _flat(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32).ravel()


def _bsdf(mi: ModuleType, material: Material) -> dict[str, Any]:
    surface = _surface(material, "vertex_color")
    if material.texture_hwc is not None:
        weight = {"type": "bitmap", "bitmap": mi.Bitmap(_texture_axis(material.texture_hwc)[2]), "raw": True}
        high = _surface(material, "vertex_color2")
        surface = {"type": "blendbsdf", "weight": weight, "low": surface, "high": high}
    two_faced = bool(material.transmission or material.translucency)  # these kinds know by themselves what a back is
    return surface if two_faced else {"type": "twosided", "surface": surface}


def _surface(material: Material, attribute: str) -> dict[str, Any]:
    """One of three kinds: clear, thin or opaque. Few kinds make few kernels."""
    surface = {"base_color": {"type": "mesh_attribute", "name": attribute}, "roughness": material.roughness}
    if material.transmission:
        return surface | {"type": "principled", "spec_trans": material.transmission, "eta": _GLASS_INDEX}
    if material.translucency:  # diff_trans: 0 all is reflected, 2 all is let through
        return surface | {"type": "principledthin", "diff_trans": 2 * material.translucency}
    return surface | {"type": "principled", "metallic": material.metallic, "specular": material.specular}


def _texture_axis(texture_hwc: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Two colours, and the share of the second in each texel, that come nearest to the texture.

    Mitsuba cannot multiply a texture with vertex colours. It can mix two surfaces by a grey picture, and each of them
    has vertex colours: multiplied by the texture's two ends, they give the product, exactly where all colours of the
    texture lie on one line, as they do from dark to light sand.
    """
    color_n3 = texture_hwc.reshape(-1, 3).astype(np.float64)
    mean = color_n3.mean(0)
    axis = np.linalg.svd(np.cov(color_n3.T))[0][:, 0]
    place_n = (color_n3 - mean) @ axis
    low, high = place_n.min(), max(place_n.max(), place_n.min() + 1e-6)
    share_hw1 = ((place_n - low) / (high - low)).reshape(*texture_hwc.shape[:2], 1).astype(np.float32)
    return mean + low * axis, mean + high * axis, share_hw1


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
