"""A scene: what stands where, made of what, in which light, seen from where. Plain data, no renderer.

World coordinates are metres, z up. A camera looks along its own +z, with x to the right and y down (OpenCV).
Colours are linear RGB: shares of reflected light for surfaces, radiance for skies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Material:
    """How a surface answers light (the parameters of Disney's principled model). One is equal to itself alone.

    Attributes:
        name: unique in a scene; meshes of one material are drawn as one shape.
        texture_hwc: float32 linear RGB, tiled over ``uv_n2``; multiplies the vertex colours. None: they
            alone. Drawn exactly where all its colours lie on one line, from a dark one to a light one; else nearly.
        roughness: 0 mirror to 1 matte. metallic: 0 or 1. transmission: 0 opaque to 1 clear glass.
        translucency: share of the light that shines through a thin leaf, 0 to 1.
    """

    name: str
    roughness: float = 0.9
    metallic: float = 0.0
    transmission: float = 0.0
    translucency: float = 0.0
    specular: float = 0.3
    texture_hwc: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Mesh:
    """Triangles of one object (or of many alike): ``vertices_n3`` in world metres, ``faces_m3`` indices.

    Attributes:
        colors_n3: reflectance of each vertex, 0 to 1.
        material: name of a material of the scene.
        class_id: raw label value of every face.
        instance_m: instance number of each face, 0 for none; unique in the scene.
        normals_n3: shading normals; None: flat faces.
        uv_n2: texture coordinates, where the material has a texture.
    """

    vertices_n3: NDArray[np.float32]
    faces_m3: NDArray[np.uint32]
    colors_n3: NDArray[np.float32]
    material: str
    class_id: int
    instance_m: NDArray[np.uint32]
    normals_n3: NDArray[np.float32] | None = None
    uv_n2: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class SunSky:
    """A physical clear sky. ``azimuth`` degrees counter-clockwise from +x, ``elevation`` degrees above the horizon,
    ``turbidity`` 2 (clear) to 10 (dusty); ``sky_scale`` and ``sun_scale`` multiply the radiance."""

    azimuth: float
    elevation: float
    turbidity: float = 3.0
    ground_albedo: float = 0.3
    sky_scale: float = 1.0
    sun_scale: float = 1.0


@dataclass(frozen=True)
class Environment:
    """Light and background from a latitude-longitude picture of radiance (row 0 is up), and lamps.

    ``lamps``: (position xyz, radius in metres, radiance), seen as balls of no class. ``background``: a plain colour
    that the camera sees instead of the picture.
    """

    radiance_hwc: NDArray[np.float32]
    background: Color | None = None
    lamps: tuple[tuple[tuple[float, float, float], float, Color], ...] = ()
    directional: tuple[tuple[float, float, float], Color] | None = None  # direction of travel, irradiance


@dataclass(frozen=True)
class Camera:
    """A pinhole. ``pose_44``: camera to world. Focal lengths and centre in pixels; the centre of pixel (row i,
    column j) lies at (j + 0.5, i + 0.5). ``aperture_radius`` metres (0: all is sharp), ``focus`` metres."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    pose_44: NDArray[np.float64]
    aperture_radius: float = 0.0
    focus: float = 1.0


@dataclass(frozen=True)
class Haze:
    """Aerial perspective: ``extinction`` a metre, ``color`` the radiance of the air at infinite depth relative to the
    exposed picture (1 is white)."""

    extinction: float
    color: Color


@dataclass(frozen=True)
class Scene:
    """All that a renderer needs. ``sky_class``: raw label of pixels that meet nothing.

    The same kinds of materials in the same order keep a renderer's compiled kernels alive from scene to scene: give
    every scene of a data set all of its materials, whether a mesh uses them or not.

    ``joined``: all opaque materials are drawn as one shape, so are all clear and all thin ones. Many materials are then
    drawn many times faster. Their textures are of one size, and no face spans more than 3 tiles of one; specular,
    transmission and translucency are those of the first material of a kind.
    """

    id: str
    materials: tuple[Material, ...]
    meshes: tuple[Mesh, ...]
    light: SunSky | Environment
    camera: Camera
    haze: Haze | None = None
    sky_class: int = 0
    exposure: float | None = None  # factor on radiance; None: chosen from the picture
    joined: bool = False
    longest_path: int = 5  # pieces of a light's way: from the eye, over three bounces, to the light
    facts: dict[str, Any] = field(default_factory=dict)  # what the scene was made of, for scenes.csv


@dataclass(frozen=True)
class Render:
    """A drawn scene, aligned to the pixel.

    Attributes:
        image_hwc: uint8 sRGB.
        class_hw: uint16 raw label values; instance_hw: uint32, 0 for none.
        depth_hw: float32 planar depth (along the optical axis) in metres, inf where nothing is met.
        normal_hwc: float32 unit geometric normals in camera axes (x right, y down, z forward), facing the camera;
            0 where nothing is met.
    """

    image_hwc: NDArray[np.uint8]
    class_hw: NDArray[np.uint16]
    instance_hw: NDArray[np.uint32]
    depth_hw: NDArray[np.float32]
    normal_hwc: NDArray[np.float32]


def look_at(
    position: tuple[float, float, float], *, yaw: float, pitch: float, roll: float = 0.0
) -> NDArray[np.float64]:
    """Camera-to-world pose. Degrees: ``yaw`` counter-clockwise from +x, ``pitch`` up from the horizon, ``roll``
    clockwise as the picture shows it."""
    yaw_r, pitch_r, roll_r = np.radians([yaw, pitch, roll])
    forward = np.array([np.cos(pitch_r) * np.cos(yaw_r), np.cos(pitch_r) * np.sin(yaw_r), np.sin(pitch_r)])
    right = np.array([np.sin(yaw_r), -np.cos(yaw_r), 0.0])
    down = np.cross(forward, right)
    right, down = (
        np.cos(roll_r) * right + np.sin(roll_r) * down,
        -np.sin(roll_r) * right + np.cos(roll_r) * down,
    )
    pose_44 = np.eye(4)
    pose_44[:3, 0], pose_44[:3, 1], pose_44[:3, 2], pose_44[:3, 3] = right, down, forward, position
    return pose_44


def camera_from_fov(
    width: int, height: int, *, vertical_fov: float, pose_44: NDArray[np.float64], **lens: float
) -> Camera:
    """A camera with square pixels and the principal point in the middle; ``vertical_fov`` in degrees."""
    focal = height / 2 / np.tan(np.radians(vertical_fov) / 2)
    return Camera(width, height, float(focal), float(focal), width / 2, height / 2, pose_44, **lens)
