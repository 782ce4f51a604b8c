"""Faults of label maps, depth maps and clean pictures."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from perpixel.depth_maps import srgb_to_linear
from perpixel.recipe import Recipe
from planted import COUNT, DESERT, each, fault, files, shapes, swap, with_values


@fault("desert", "label-cut-to-8-bits")
def _(root: Path, recipe: Recipe) -> None:
    """16-bit labels cut to 8 bits, so that two classes merge."""
    each(root, "*/Segmentation/*", lambda pixels: (pixels & 255).astype(np.uint8))


@fault("desert", "label-cut-to-8-bits")
def _(root: Path, recipe: Recipe) -> None:
    """16-bit labels clipped at 255."""
    each(root, "*/Segmentation/*", lambda pixels: np.minimum(pixels, 255).astype(np.uint8))


@fault("desert", "label-cut-to-8-bits")
def _(root: Path, recipe: Recipe) -> None:
    """16-bit labels divided by 256."""
    each(root, "*/Segmentation/*", lambda pixels: (pixels >> 8).astype(np.uint8))


@fault("desert", "label-values")
def _(root: Path, recipe: Recipe) -> None:
    """A value that no class has."""
    each(root, "train/Segmentation/*", lambda pixels: np.where(pixels == 600, 650, pixels).astype(np.uint16), 5)


@fault("desert", "label-values", "label-class-untrained")
def _(root: Path, recipe: Recipe) -> None:
    """Class numbers where raw values are declared."""
    table = {value: index for index, value in enumerate(DESERT)}
    each(root, "*/Segmentation/*", lambda pixels: np.vectorize(table.get)(pixels).astype(np.uint8))


@fault("desert", "label-values")
def _(root: Path, recipe: Recipe) -> None:
    """Label maps that are off by one."""
    each(root, "*/Segmentation/*", lambda pixels: pixels + np.uint16(1))


@fault("masks", "label-foreground-ignored", "label-empty", "label-one-class")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Masks of 0 and 255 where 255 is ignored."""
    classes = [
        {"name": "ground", "values": [0], "color": [0, 0, 0]},
        {"name": "thing", "values": [1], "color": [255, 0, 0]},
    ]
    return with_values(recipe, target={"classes": classes, "ignore": [255]})


@fault("masks", "label-interpolated")
def _(root: Path, recipe: Recipe) -> None:
    """Masks resized with interpolation."""
    each(
        root, "masks/*", lambda pixels: cv2.resize(cv2.resize(pixels, (48, 36), interpolation=cv2.INTER_AREA), (96, 72))
    )


@fault("masks", "label-jpeg", "file-ending")
def _(root: Path, recipe: Recipe) -> None:
    """Masks saved as JPEG."""
    for path in files(root, "masks/*"):
        Image.open(path).save(path, format="JPEG", quality=80)


@fault("masks", "label-photographs")
def _(root: Path, recipe: Recipe) -> None:
    """Photographs in the folder of the masks."""
    for number, path in enumerate(files(root, "masks/*")):
        Image.fromarray(shapes(7000 + number, 5)[0]).save(path)


@fault("masks", "label-kinds")
def _(root: Path, recipe: Recipe) -> None:
    """Palettes in some files, grey in others."""
    for path in files(root, "masks/*")[:6]:
        image = Image.fromarray(np.array(Image.open(path)) // 255 * 255, mode=None).convert("P")
        image.putpalette([value for level in range(256) for value in (level, 0, 255 - level)])
        image.save(path)


@fault("masks", "label-scales")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Foreground 1 in some files and 255 in others."""
    each(root, "masks/*", lambda pixels: pixels // 255, 8)
    classes = [
        {"name": "ground", "values": [0], "color": [0, 0, 0]},
        {"name": "thing", "values": [1, 255], "color": [255, 0, 0]},
    ]
    return with_values(recipe, target={"classes": classes})


@fault("desert", "label-class-untrained")
def _(root: Path, recipe: Recipe) -> None:
    """A class that is in no training image."""
    each(root, "train/Segmentation/*", lambda pixels: np.where(pixels == 7100, 100, pixels).astype(np.uint16))


@fault("desert", "label-class-absent")
def _(root: Path, recipe: Recipe) -> None:
    """A class that is nowhere."""
    each(root, "*/Segmentation/*", lambda pixels: np.where(pixels == 600, 100, pixels).astype(np.uint16))


@fault("masks", "label-empty")
def _(root: Path, recipe: Recipe) -> None:
    """Masks that are all empty."""
    each(root, "masks/*", np.zeros_like)


@fault("masks", "label-one-class")
def _(root: Path, recipe: Recipe) -> None:
    """Masks that are all full."""
    each(root, "masks/*", lambda pixels: np.full_like(pixels, 255))


@fault("masks", "label-speckles", "pair-unrelated")
def _(root: Path, recipe: Recipe) -> None:
    """Masks that are dust."""
    rng = np.random.default_rng(4)
    each(root, "masks/*", lambda pixels: np.where(rng.random(pixels.shape) < 0.06, 255, 0).astype(np.uint8))


@fault("salt", "label-table")
def _(root: Path, recipe: Recipe) -> None:
    """Empty masks where the table has codes."""
    for path in files(root, "train/masks/*"):
        pixels = np.array(Image.open(path))
        if pixels.any():
            Image.fromarray(np.zeros_like(pixels)).save(path)
            break


@fault("salt", "label-table")
def _(root: Path, recipe: Recipe) -> None:
    """Masks grown by a pixel against the codes of the table."""
    each(root, "train/masks/*", lambda pixels: cv2.dilate(pixels, np.ones((3, 3), np.uint8)))


@fault("desert", "split-class-share")
def _(root: Path, recipe: Recipe) -> None:
    """A class that is far commoner in one subset."""
    for _ in range(10):
        for folder in ("Color_Images", "Segmentation"):
            source = files(root, f"train/{folder}/*")[0]
            source.rename(root / "val" / folder / source.name)
    rows_h1 = np.arange(72)[:, None]
    each(root, "val/Segmentation/*", lambda pixels: np.where((pixels == 10000) & (rows_h1 > 10), 100, pixels))


# ---------------------------------------------------------------- depth


@fault("depth", "depth-type")
def _(root: Path, recipe: Recipe) -> None:
    """Depth saved with 8 bits where 16 are declared."""
    each(root, "*/depths/*", lambda pixels: (pixels / 40).astype(np.uint8))


@fault("depth", "depth-zero")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Missing depth (0) trained as depth."""
    return with_values(recipe, target={"invalid": []})


@fault("unity", "depth-clipped")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Background (255) read as depth."""
    return with_values(recipe, target={"beyond": []})


@fault("unity", "depth-decoding")
def _(root: Path, recipe: Recipe) -> Recipe:
    """sRGB radial depth read linearly."""
    return with_values(recipe, target={"encoding": "linear"})


@fault("unity", "depth-decoding")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Radial distance read as planar depth."""
    return with_values(recipe, target={"geometry": "planar"})


@fault("unity", "depth-inverted")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Depth inverted: near is white."""
    each(
        root,
        "depth/*",
        lambda pixels: np.where(pixels == 255, 255, np.rint(254 * (1 - srgb_to_linear(pixels / 255)))).astype(np.uint8),
    )
    return with_values(recipe, target={"encoding": "linear"})


@fault("depth", "depth-inverted", "depth-range")
def _(root: Path, recipe: Recipe) -> None:
    """Disparity read as depth."""
    each(
        root,
        "*/depths/*",
        lambda pixels: np.where(pixels > 0, 8_000_000 / np.maximum(pixels, 200), 0).astype(np.uint16),
    )


@fault("depth", "depth-unit", "depth-range", "depth-hollow")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Millimetres read as metres."""
    return with_values(recipe, target={"scale": 1.0, "maximum_m": 100000.0})


@fault("depth", "depth-unit")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Depth divided by 65535 whatever it means."""
    return with_values(recipe, target={"scale": 1 / 65535})


@fault("depth", "depth-range", "depth-hollow")
def _(root: Path, recipe: Recipe) -> Recipe:
    """A maximum that leaves most of the scene out."""
    return with_values(recipe, target={"maximum_m": 1.5})


@fault("depth", "depth-hollow")
def _(root: Path, recipe: Recipe) -> None:
    """Maps without any reading."""
    each(root, "training/depths/*", np.zeros_like, 3)


@fault("depth", "depth-levels")
def _(root: Path, recipe: Recipe) -> None:
    """Depth in coarse steps."""
    each(root, "*/depths/*", lambda pixels: (pixels // 400 * 400).astype(np.uint16))


@fault("depth", "depth-stretched", "depth-inverted", "depth-range", "depth-hollow")
def _(root: Path, recipe: Recipe) -> None:
    """Maps stretched one by one from 0 to the largest number."""

    def stretch(pixels: np.ndarray) -> np.ndarray:
        low, high = int(pixels[pixels > 0].min()), int(pixels.max())
        return np.rint((np.maximum(pixels.astype(float), low) - low) / (high - low) * 65535).astype(np.uint16)

    each(root, "*/depths/*", stretch)


@fault("depth", "depth-flat", "pair-one-target", "pair-unrelated")
def _(root: Path, recipe: Recipe) -> None:
    """Maps of one depth all over."""
    each(root, "training/depths/*", lambda pixels: np.full_like(pixels, 3000), 3)


@fault("depth", "file-unusable")
def _(root: Path, recipe: Recipe) -> None:
    """Depth painted in colours."""
    for path in files(root, "training/depths/*")[:3]:
        painted = cv2.applyColorMap((np.array(Image.open(path)) / 40).astype(np.uint8), cv2.COLORMAP_TURBO)
        cv2.imwrite(str(path), painted)


@fault("depth", "file-unusable", "file-ending")
def _(root: Path, recipe: Recipe) -> None:
    """Depth saved as JPEG."""
    for path in files(root, "training/depths/*")[:3]:
        Image.fromarray((np.array(Image.open(path)) / 40).astype(np.uint8)).save(path, format="JPEG")


# ---------------------------------------------------------------- restoration


@fault("lowlight", "pair-size")
def _(root: Path, recipe: Recipe) -> Recipe:
    """A factor of 2 where the clean images are 4 times as large."""
    return with_values(recipe, target={"scale": 2})


@fault("lowlight", "pair-shift")
def _(root: Path, recipe: Recipe) -> None:
    """Clean images shifted by three pixels of the dark ones."""
    each(root, "*/gt/*", lambda pixels: np.roll(pixels, 12, axis=1))


@fault("lowlight", "pair-shift-some")
def _(root: Path, recipe: Recipe) -> None:
    """A few clean images out of register."""
    each(root, "train/gt/*", lambda pixels: np.roll(pixels, (12, -16), axis=(0, 1)), 5)


@fault("lowlight", "pair-exchanged", "restoration-scene")
def _(root: Path, recipe: Recipe) -> None:
    """Two clean images exchanged."""
    paths = files(root, "train/gt/*")
    swap(paths[2], paths[9])


@fault("lowlight", "restoration-channels")
def _(root: Path, recipe: Recipe) -> None:
    """Red and blue exchanged on one side."""
    each(root, "*/gt/*", lambda pixels: pixels[..., ::-1])


@fault("lowlight", "restoration-cast")
def _(root: Path, recipe: Recipe) -> None:
    """A colour cast of the clean images."""
    each(root, "*/gt/*", lambda pixels: (pixels * np.array([1.0, 0.8, 0.35])).astype(np.uint8))


@fault("lowlight", "restoration-bits")
def _(root: Path, recipe: Recipe) -> Recipe:
    """16 bits declared, 8 stored."""
    return with_values(recipe, target={"bits": 16})


@fault("lowlight", "restoration-enlarged")
def _(root: Path, recipe: Recipe) -> None:
    """Clean images that are the dark ones enlarged."""
    for path in files(root, "*/gt/*"):
        number = path.stem.removeprefix("gt_")
        source = next(path.parents[1].glob(f"{path.parents[1].name}/*_{number}.png"))
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(source)), None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))


@fault("lowlight", "restoration-clipped")
def _(root: Path, recipe: Recipe) -> None:
    """Clean images that are burnt out."""
    each(root, "*/gt/*", lambda pixels: (pixels.astype(float) * 2.2).clip(0, 255).astype(np.uint8))


@fault("lowlight", "restoration-swapped", "restoration-darker")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Dark and clean sides swapped, at one size."""
    _same_size(root)
    for path in files(root, "*/gt/*"):
        number = path.stem.removeprefix("gt_")
        swap(path, next(path.parents[1].glob(f"{path.parents[1].name}/*_{number}.png")))
    return with_values(recipe, target={"scale": 1})


@fault("lowlight", "restoration-darker")
def _(root: Path, recipe: Recipe) -> None:
    """Clean images darker than the dark ones."""
    each(root, "*/gt/*", lambda pixels: (pixels * 0.05).astype(np.uint8))


@fault("lowlight", "restoration-darker")
def _(root: Path, recipe: Recipe) -> None:
    """One clean image darker than its dark one."""
    each(root, "*/gt/*", lambda pixels: (pixels * 0.05).astype(np.uint8), 1)


@fault("lowlight", "restoration-scene")
def _(root: Path, recipe: Recipe) -> None:
    """One clean image of another scene."""
    path = files(root, "train/gt/*")[5]
    pixels = cv2.imread(str(path))
    cv2.imwrite(str(path), cv2.resize(pixels[::-1, ::-1], None, fx=1.5, fy=1.5)[: pixels.shape[0], : pixels.shape[1]])


@fault("lowlight", "pair-size")
def _(root: Path, recipe: Recipe) -> None:
    """One clean image of another factor."""
    path = files(root, "train/gt/*")[5]
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


@fault("lowlight", "pair-shift-some")
def _(root: Path, recipe: Recipe) -> None:
    """One clean image shifted by some pixels."""
    each(root, "train/gt/*", lambda pixels: np.roll(pixels, (8, 12), axis=(0, 1)), 1)


@fault("lowlight", "pair-next")
def _(root: Path, recipe: Recipe) -> None:
    """Clean images of the training folder shifted by one in the list."""
    paths = files(root, "train/gt/*")
    contents = [path.read_bytes() for path in paths]
    for number, path in enumerate(paths):
        path.write_bytes(contents[(number + 1) % len(paths)])


@fault("lowlight", "split-clean-copies")
def _(root: Path, recipe: Recipe) -> None:
    """Clean images of training samples in the validation, under other dark ones."""
    for number in range(0, COUNT, 4):
        clean = cv2.imread(str(root / "train" / "gt" / f"gt_{number + 1}.png"))
        small = cv2.resize(clean, (64, 40), interpolation=cv2.INTER_AREA)
        noise = np.random.default_rng(900 + number).normal(0, 12, small.shape)
        shutil.copy(root / "train" / "gt" / f"gt_{number + 1}.png", root / "val" / "gt" / f"gt_{number}.png")
        dark = next((root / "val" / "val").glob(f"*_{number}.png"))
        cv2.imwrite(str(dark), (small * 0.12 + noise / 4).clip(0, 255).astype(np.uint8))


@fault("lowlight", "restoration-equal", "pair-same-file")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Clean images that are the dark ones, saved again."""
    for path in files(root, "*/gt/*"):
        number = path.stem.removeprefix("gt_")
        source = next(path.parents[1].glob(f"{path.parents[1].name}/*_{number}.png"))
        content = io.BytesIO()
        Image.open(source).save(content, format="PNG", compress_level=1)
        path.write_bytes(content.getvalue())
    return with_values(recipe, target={"scale": 1})


def _same_size(root: Path) -> None:
    for path in files(root, "*/gt/*"):
        Image.open(path).resize((64, 40), Image.Resampling.BOX).save(path)


assert COUNT >= 40  # of fewer pairs, some of these faults could not be told from chance
