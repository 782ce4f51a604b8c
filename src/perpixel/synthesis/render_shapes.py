"""What Mitsuba draws as one shape: the meshes of one material, or those of all materials of one kind."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perpixel.synthesis.scene import Material, Mesh, Scene

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Shape", "face_normals", "shapes_of"]

_GLASS_INDEX = 1.5
_REPEATS = 4  # of each texture in the picture of a joined scene, so that no face reaches into its neighbour's


@dataclass(frozen=True)
class Shape:
    """Triangles with one surface.

    Attributes:
        attributes: name to the values of each vertex (n, channels), which the surface looks up.
        surface: Mitsuba's description of the surface, its pictures still arrays.
        class_m, instance_m: of each face.
    """

    name: str
    vertices_n3: NDArray[Any]
    normals_n3: NDArray[Any]
    uv_n2: NDArray[Any]
    faces_m3: NDArray[np.uint32]
    attributes: dict[str, NDArray[Any]]
    surface: dict[str, Any]
    class_m: NDArray[Any]
    instance_m: NDArray[Any]

    def bsdf(self, mi: ModuleType) -> dict[str, Any]:
        """The surface as Mitsuba takes it."""
        pictured: dict[str, Any] = _pictured(mi, self.surface)
        return pictured


def shapes_of(scene: Scene) -> list[Shape]:
    """A shape a material; of a joined scene one a kind of material: opaque, clear, thin."""
    if not scene.joined:
        return [_one_material(material, scene) for material in scene.materials]
    starts = _texture_starts(scene.materials)
    kinds = {kind: [m for m in scene.materials if _kind(m) == kind] for kind in map(_kind, scene.materials)}
    return [_one_kind(kind, materials, starts, scene) for kind, materials in kinds.items()]


def face_normals(vertices_n3: NDArray[Any], faces_m3: NDArray[Any]) -> NDArray[np.float64]:
    """Unit normals, counter-clockwise seen; 0 where a face has no area."""
    a, b, c = (vertices_n3[faces_m3[:, i]].astype(np.float64) for i in range(3))
    normal_m3 = np.cross(b - a, c - a)
    unit_m3: NDArray[np.float64] = normal_m3 / np.maximum(np.linalg.norm(normal_m3, axis=1, keepdims=True), 1e-300)
    return unit_m3


# ---------------------------------------------------------------- a shape a material


def _one_material(material: Material, scene: Scene) -> Shape:
    """No two faces share a vertex where a mesh is faceted."""
    meshes = _meshes(material, scene)
    parts = [_corners(mesh) for mesh in meshes] or [_nothing(scene)]
    starts = np.cumsum([0, *(len(part[0]) for part in parts[:-1])])
    vertices_n3, normals_n3, colors_n3, uv_n2 = (np.concatenate([part[i] for part in parts]) for i in range(4))
    faces_m3 = np.concatenate([part[4] + start for part, start in zip(parts, starts, strict=True)])
    surface, ends = _surface(material, "vertex_color"), [np.ones(3)]
    if material.texture_hwc is not None:
        *ends, share_hw1 = _texture_axis(material.texture_hwc)
        high = _surface(material, "vertex_color2")
        surface = {"type": "blendbsdf", "weight": share_hw1, "low": surface, "high": high}
    names = ("vertex_color", "vertex_color2")
    return Shape(
        f"shape-{material.name}",
        vertices_n3,
        normals_n3,
        uv_n2,
        faces_m3.astype(np.uint32),
        {name: (colors_n3 * end).clip(0, 1) for name, end in zip(names, ends, strict=False)},
        _two_faced(material, surface),
        *_numbers(meshes),
    )


def _meshes(material: Material, scene: Scene) -> list[Mesh]:
    return [mesh for mesh in scene.meshes if mesh.material == material.name and len(mesh.faces_m3)]


def _numbers(meshes: list[Mesh]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Class and instance of each face."""
    class_m = np.concatenate([np.full(len(mesh.faces_m3), mesh.class_id) for mesh in meshes] or [np.zeros(1)])
    return class_m, np.concatenate([mesh.instance_m for mesh in meshes] or [np.zeros(1, np.uint32)])


def _corners(mesh: Mesh) -> tuple[NDArray[Any], ...]:
    """Vertices, normals, colours, texture coordinates and faces; a vertex for each corner of a faceted mesh."""
    vertices_n3, colors_n3, faces_m3 = mesh.vertices_n3, mesh.colors_n3, mesh.faces_m3.astype(np.int64)
    uv_n2 = np.zeros((len(vertices_n3), 2), np.float32) if mesh.uv_n2 is None else mesh.uv_n2
    if mesh.normals_n3 is not None:
        return vertices_n3, mesh.normals_n3, colors_n3, uv_n2, faces_m3
    corner = faces_m3.ravel()
    normals_n3 = np.repeat(face_normals(vertices_n3, faces_m3), 3, axis=0)
    return vertices_n3[corner], normals_n3, colors_n3[corner], uv_n2[corner], np.arange(len(corner)).reshape(-1, 3)


def _nothing(scene: Scene) -> tuple[NDArray[Any], ...]:
    """A triangle without area, for a material that no mesh uses, in a place where something else stands."""
    place = next((mesh.vertices_n3[:1] for mesh in scene.meshes if len(mesh.vertices_n3)), np.zeros((1, 3)))
    up_n3 = np.tile([0.0, 0.0, 1.0], (3, 1))
    return np.repeat(place, 3, axis=0), up_n3, np.zeros((3, 3)), np.zeros((3, 2)), np.arange(3).reshape(1, 3)


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


# ---------------------------------------------------------------- a shape a kind


def _kind(material: Material) -> str:
    """One of three kinds: clear, thin or opaque. Few kinds make few kernels."""
    return "clear" if material.transmission else "thin" if material.translucency else "opaque"


def _one_kind(kind: str, materials: list[Material], starts: dict[str, int], scene: Scene) -> Shape:
    """All meshes of some materials: what tells these apart is stored at the vertices."""
    parts = [_placed(mesh, material, starts) for material in materials for mesh in _meshes(material, scene)]
    meshes = [mesh for material in materials for mesh in _meshes(material, scene)]
    if not parts:
        vertices_n3, normals_n3, colors_n3, uv_n2, _ = _nothing(scene)
        parts = [(vertices_n3, normals_n3, uv_n2, colors_n3, colors_n3, np.zeros((3, 1)), np.zeros((3, 1)))]
    vertices_n3, normals_n3, uv_n2, *values = (np.concatenate([part[i] for part in parts]) for i in range(7))
    uv_n2[:, 1] /= max(len(starts), 1) * _REPEATS
    names = ("vertex_color", "vertex_color2", "vertex_roughness", "vertex_metallic")
    looked_up = {"roughness": _attribute(names[2])} | ({"metallic": _attribute(names[3])} if kind == "opaque" else {})
    surface = _surface(materials[0], names[0]) | looked_up
    if starts:
        high = _surface(materials[0], names[1]) | looked_up
        surface = {"type": "blendbsdf", "weight": _stacked(scene.materials), "low": surface, "high": high}
    return Shape(
        f"shape-{kind}",
        vertices_n3,
        normals_n3,
        uv_n2,
        np.arange(len(vertices_n3), dtype=np.uint32).reshape(-1, 3),
        dict(zip(names, values, strict=True)),
        _two_faced(materials[0], surface),
        *_numbers(meshes),
    )


def _placed(mesh: Mesh, material: Material, starts: dict[str, int]) -> tuple[NDArray[Any], ...]:
    """Corner by corner: vertices, normals, texture coordinates (rows in tiles), two colours, roughness, metallic."""
    vertices_n3, normals_n3, colors_n3, uv_n2, faces_m3 = _corners(mesh)
    corner = faces_m3.ravel()
    uv_m32 = uv_n2[corner].astype(np.float64).reshape(-1, 3, 2)
    low, high = np.ones(3), np.ones(3)
    if material.texture_hwc is not None:
        uv_m32[..., 1] -= np.floor(uv_m32[..., 1].min(axis=1, keepdims=True))
        if uv_m32[..., 1].max() > _REPEATS:
            raise ValueError(f"a face of {material.name} spans more than {_REPEATS - 1} tiles of its texture")
        uv_m32[..., 1] += starts[material.name] * _REPEATS
        low, high, _ = _known_axis(material)
    colors = [(colors_n3[corner] * end).clip(0, 1) for end in (low, high)]
    numbers = [np.full((len(corner), 1), value) for value in (material.roughness, material.metallic)]
    return vertices_n3[corner], normals_n3[corner], uv_m32.reshape(-1, 2), *colors, *numbers


def _texture_starts(materials: tuple[Material, ...]) -> dict[str, int]:
    """The place of each material's texture among all, from 0."""
    return {material.name: i for i, material in enumerate(m for m in materials if m.texture_hwc is not None)}


@lru_cache(maxsize=100)
def _known_axis(material: Material) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """`_texture_axis` of a material that comes again in the next scene."""
    assert material.texture_hwc is not None
    return _texture_axis(material.texture_hwc)


@lru_cache(maxsize=1)
def _stacked(materials: tuple[Material, ...]) -> NDArray[np.float32]:
    """The textures of all materials, each repeated, one under the other."""
    shares = [_known_axis(material)[2] for material in materials if material.texture_hwc is not None]
    return np.concatenate([share_hw1 for share_hw1 in shares for _ in range(_REPEATS)])


# ---------------------------------------------------------------- surfaces


def _surface(material: Material, attribute: str) -> dict[str, Any]:
    surface = {"base_color": _attribute(attribute), "roughness": material.roughness}
    if material.transmission:
        return surface | {"type": "principled", "spec_trans": material.transmission, "eta": _GLASS_INDEX}
    if material.translucency:  # diff_trans: 0 all is reflected, 2 all is let through
        return surface | {"type": "principledthin", "diff_trans": 2 * material.translucency}
    return surface | {"type": "principled", "metallic": material.metallic, "specular": material.specular}


def _attribute(name: str) -> dict[str, Any]:
    return {"type": "mesh_attribute", "name": name}


def _two_faced(material: Material, surface: dict[str, Any]) -> dict[str, Any]:
    """Clear and thin surfaces know by themselves what a back is."""
    return surface if _kind(material) != "opaque" else {"type": "twosided", "surface": surface}


def _pictured(mi: ModuleType, value: Any) -> Any:
    """The same with each array as a picture."""
    if isinstance(value, dict):
        return {key: _pictured(mi, part) for key, part in value.items()}
    return {"type": "bitmap", "bitmap": mi.Bitmap(value), "raw": True} if isinstance(value, np.ndarray) else value
