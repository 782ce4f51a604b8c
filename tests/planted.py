"""Small clean data sets in the layouts of the five systems, and faults that are planted into them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from perpixel.depth_maps import linear_to_srgb
from perpixel.images import write_image, write_label_map
from perpixel.pointcloud import camera_from_fov, planar_to_radial
from perpixel.recipe import Recipe, load_recipe, recipe_from_dict
from perpixel.rle import encode

COUNT = 40
HEIGHT, WIDTH = 72, 96
DESERT = (100, 200, 300, 500, 550, 600, 700, 800, 7100, 10000)


# ---------------------------------------------------------------- scenes


def shapes(
    seed: int, kinds: int, height: int = HEIGHT, width: int = WIDTH
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(image_hwc, index_hw): ellipses and boxes of some kinds, each with a colour, on a textured ground of kind 0."""
    rng = np.random.default_rng(seed)
    colors = np.random.default_rng(99).integers(40, 216, (kinds, 3))
    index_hw = np.zeros((height, width), dtype=np.uint8)
    for _ in range(7):
        kind = int(rng.integers(1, kinds))
        centre = (int(rng.integers(8, width - 8)), int(rng.integers(8, height - 8)))
        size = (int(rng.integers(6, 18)), int(rng.integers(6, 18)))
        if rng.random() < 0.5:
            cv2.ellipse(index_hw, centre, size, float(rng.uniform(0, 180)), 0, 360, kind, -1)
        else:
            cv2.rectangle(
                index_hw,
                (centre[0] - size[0], centre[1] - size[1]),
                (centre[0] + size[0], centre[1] + size[1]),
                kind,
                -1,
            )
    ground_hw = cv2.GaussianBlur(rng.normal(0, 60, (height, width)).astype(np.float32), (0, 0), 6) * 3
    light = rng.uniform(0.75, 1.2)
    image_hwc = colors[index_hw] * light + ground_hw[..., None] + rng.normal(0, 3, (height, width, 3))
    return image_hwc.clip(1, 254).astype(np.uint8), index_hw


def room(
    seed: int, frame: int = 0, height: int = HEIGHT, width: int = WIDTH
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(image_hwc, planar depth_hw in metres) of a room with balls, seen with a vertical field of view of 60 degrees.

    Frames of one room differ in where the camera looks.
    """
    rng = np.random.default_rng(seed)
    camera = camera_from_fov(height, width, vertical_deg=60)
    y, x = np.mgrid[:height, :width]
    rays = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, np.ones((height, width))], axis=-1)
    yaw, pitch = rng.uniform(-0.6, 0.6) + 0.01 * frame, rng.uniform(-0.1, 0.3)
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    rays = rays @ (turn @ nod).T
    depth_hw, id_hw = np.full((height, width), np.inf), np.zeros((height, width), dtype=int)
    walls = ((1, 1.3), (1, -1.5), (0, rng.uniform(1.5, 3)), (0, -rng.uniform(1.5, 3)), (2, rng.uniform(3, 6)))
    for number, (axis, place) in enumerate(walls):
        with np.errstate(divide="ignore"):
            hit = place / rays[..., axis]
        hit = np.where(hit > 0, hit, np.inf)
        id_hw, depth_hw = np.where(hit < depth_hw, number, id_hw), np.minimum(depth_hw, hit)
    for number in range(3):
        centre = np.array([rng.uniform(-1.2, 1.2), rng.uniform(0, 1), rng.uniform(1.8, 3)])
        radius, length, along = rng.uniform(0.2, 0.45), (rays**2).sum(-1), rays @ centre
        inside = along**2 - length * (centre @ centre - radius**2)
        hit = np.where(inside > 0, (along - np.sqrt(np.maximum(inside, 0))) / length, np.inf)
        id_hw, depth_hw = np.where(hit < depth_hw, 5 + number, id_hw), np.minimum(depth_hw, hit)
    colors = rng.integers(40, 220, (8, 3))
    image_hwc = colors[id_hw] * (1.3 / (0.6 + 0.3 * depth_hw))[..., None] + rng.normal(0, 4, (height, width, 3))
    return image_hwc.clip(0, 255).astype(np.uint8), depth_hw


# ---------------------------------------------------------------- clean sets


def write_masks(root: Path) -> Recipe:
    """Colour images and masks of 0 and 255, in folders of their own."""
    for number in range(COUNT):
        image_hwc, index_hw = shapes(number, 2)
        name = f"{(number * 2654435761) % 2**32:08x}.png"
        write_image(root / "images" / name, image_hwc)
        write_label_map(root / "masks" / name, index_hw * 255)
    return _recipe(root, "images/{id}.png", "masks/{id}.png", _two([0], [255]))


def write_salt(root: Path) -> Recipe:
    """System 2: grey images of 101 x 101, masks of 16 bits and of 8 where empty, tables, images without masks."""
    rows, codes = ["id,z"], ["id,rle_mask"]
    for number in range(COUNT + 6):
        image_hwc, index_hw = shapes(500 + number, 2, 101, 101)
        name = f"{(number * 2654435761) % 2**40:010x}"
        grey_hw = cv2.cvtColor(image_hwc, cv2.COLOR_RGB2GRAY)
        folder = "train" if number < COUNT else "test"
        _save_grey(root / folder / "images" / f"{name}.png", grey_hw)
        rows.append(f"{name},{100 + number}")
        if folder == "train":
            empty = number % 3 == 0
            _save_grey(
                root / "train" / "masks" / f"{name}.png",
                np.zeros_like(grey_hw) if empty else index_hw.astype(np.uint16) * 65535,
            )
            codes.append(f"{name},{encode(index_hw > 0) if not empty else ''}")
    (root / "depths.csv").write_text("\n".join(rows) + "\n")
    (root / "train.csv").write_text("\n".join(codes) + "\n")
    return load_recipe("salt", [f"data.root={root}"])


def write_desert(root: Path) -> Recipe:
    """System 1: label maps of 16 bits, train and val."""
    for number in range(COUNT):
        image_hwc, index_hw = shapes(1000 + number, len(DESERT))
        subset = "val" if number % 4 == 0 else "train"
        write_image(root / subset / "Color_Images" / f"cc{number:06d}.png", image_hwc)
        _save_grey(root / subset / "Segmentation" / f"cc{number:06d}.png", np.array(DESERT, dtype=np.uint16)[index_hw])
    return load_recipe("desert", [f"data.root={root}"])


def write_lowlight(root: Path) -> Recipe:
    """System 3: dark noisy images and clean ones of four times the size."""
    for number in range(COUNT):
        clean_hwc, _ = shapes(2000 + number, 6, 4 * 40, 4 * 64)
        rng = np.random.default_rng(number)
        small_hwc = cv2.resize(clean_hwc, (64, 40), interpolation=cv2.INTER_AREA)
        dark_hwc = (small_hwc * 0.3 + rng.normal(0, 6, small_hwc.shape)).clip(0, 255).astype(np.uint8)
        subset = "val" if number % 4 == 0 else "train"
        write_image(root / subset / subset / f"{('night', 'shot_dark')[number % 2]}_{number}.png", dark_hwc)
        write_image(root / subset / "gt" / f"gt_{number}.png", clean_hwc)
    return load_recipe("lowlight", [f"data.root={root}"])


def write_depth(root: Path) -> Recipe:
    """System 4: depth of 16 bits in millimetres, 0 where nothing was read, training and validation."""
    for number in range(COUNT):
        image_hwc, depth_hw = room(3000 + number)
        raw_hw = np.rint(1000 * depth_hw).astype(np.uint16)
        raw_hw[:4, :6] = 0
        subset = "validation" if number % 4 == 0 else "training"
        write_image(root / subset / "images" / f"{number:05d}.png", image_hwc)
        _save_grey(root / subset / "depths" / f"{number:05d}.png", raw_hw)
    return load_recipe("depth-regression", [f"data.root={root}"])


def write_unity(root: Path) -> Recipe:
    """System 5: radial distance over 10 m, sRGB-encoded in 8 bits, 255 for background; scenes of four frames."""
    camera = camera_from_fov(HEIGHT, WIDTH, vertical_deg=60)
    rows = ["id,scene"]
    for number in range(COUNT):
        image_hwc, depth_hw = room(4000 + number // 4, number % 4)
        rng = np.random.default_rng(number)
        image_hwc = (image_hwc * 0.97 + rng.normal(0, 2, image_hwc.shape)).clip(0, 255).astype(np.uint8)
        raw_hw = np.rint(255 * linear_to_srgb(planar_to_radial(depth_hw, camera) / 10)).clip(0, 254).astype(np.uint8)
        raw_hw[:10, :24] = 255
        write_image(root / "rgb" / f"rgb_{number:04d}.png", image_hwc)
        _save_grey(root / "depth" / f"depth_{number:04d}.png", raw_hw)
        rows.append(f"{number:04d},{number // 4}")
    (root / "scenes.csv").write_text("\n".join(rows) + "\n")
    return load_recipe("zoedepth-synthetic", [f"data.root={root}"])


CLEAN: dict[str, Callable[[Path], Recipe]] = {
    "masks": write_masks,
    "salt": write_salt,
    "desert": write_desert,
    "lowlight": write_lowlight,
    "depth": write_depth,
    "unity": write_unity,
}


def _recipe(root: Path, images: str, targets: str, target: dict[str, object]) -> Recipe:
    data = {"root": str(root), "images": images, "targets": targets}
    return recipe_from_dict({"name": "planted", "data": data, "target": target})


def _two(low: list[int], high: list[int], ignore: list[int] | None = None) -> dict[str, object]:
    classes = [
        {"name": "ground", "values": low, "color": [0, 0, 0]},
        {"name": "thing", "values": high, "color": [255, 0, 0]},
    ]
    return {"kind": "segmentation", "classes": classes, "ignore": ignore or []}


def _save_grey(path: Path, values_hw: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values_hw).save(path)


# ---------------------------------------------------------------- faults


@dataclass(frozen=True)
class Fault:
    """``plant`` spoils a copy of the clean set ``base`` (or the recipe) so that ``rule`` must be found.

    ``may`` are rules that truly hold as well.
    """

    name: str
    base: str
    rule: str
    plant: Callable[[Path, Recipe], Recipe | None]
    may: tuple[str, ...] = ()


FAULTS: list[Fault] = []


def fault(base: str, rule: str, *may: str) -> Callable[[Callable[[Path, Recipe], Recipe | None]], None]:
    """Register a function that plants a fault; its docstring names the fault."""

    def register(plant: Callable[[Path, Recipe], Recipe | None]) -> None:
        FAULTS.append(Fault((plant.__doc__ or "").rstrip("."), base, rule, plant, may))

    return register


def files(root: Path, pattern: str) -> list[Path]:
    """Files that match, sorted."""
    return sorted(root.glob(pattern))


def each(
    root: Path, pattern: str, change: Callable[[NDArray[np.generic]], NDArray[np.generic]], count: int = 10**6
) -> None:
    """Rewrite the pixels of the first files that match."""
    for path in files(root, pattern)[:count]:
        Image.fromarray(np.ascontiguousarray(change(np.array(Image.open(path))))).save(path)


def swap(left: Path, right: Path) -> None:
    """Exchange two files or folders."""
    hold = left.with_name("hold")
    left.rename(hold)
    right.rename(left)
    hold.rename(right)


def with_values(recipe: Recipe, **sections: dict[str, object]) -> Recipe:
    """The recipe with other values in its sections."""
    values = recipe.to_dict()
    for name, changes in sections.items():
        values[name] = values[name] | changes
    return recipe_from_dict(values)


def copy_of(clean: Path, root: Path, recipe: Recipe) -> Recipe:
    """A copy of a clean set, and its recipe."""
    shutil.copytree(clean, root, symlinks=True)
    return with_values(recipe, data={"root": str(root)})
