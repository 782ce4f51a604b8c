"""Faults of files, pairs and subsets."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms

from perpixel.recipe import Recipe
from planted import each, fault, files, shapes, swap, with_values


@fault("masks", "file-empty")
def _(root: Path, recipe: Recipe) -> None:
    """An image file of no bytes."""
    files(root, "images/*")[3].write_bytes(b"")


@fault("masks", "file-damaged")
def _(root: Path, recipe: Recipe) -> None:
    """An image cut short."""
    path = files(root, "images/*")[3]
    path.write_bytes(path.read_bytes()[:2000])


@fault("masks", "file-damaged")
def _(root: Path, recipe: Recipe) -> None:
    """A mask with flipped bytes."""
    path = files(root, "masks/*")[3]
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 30] = bytes(30)
    path.write_bytes(content)


@fault("masks", "file-no-image")
def _(root: Path, recipe: Recipe) -> None:
    """A web page saved as an image."""
    files(root, "images/*")[3].write_text("<html>not found</html>" * 20)


@fault("masks", "file-ending")
def _(root: Path, recipe: Recipe) -> None:
    """JPEG files named .png."""
    for path in files(root, "images/*")[:3]:
        Image.open(path).save(path, format="JPEG", quality=95)


@fault("masks", "file-several")
def _(root: Path, recipe: Recipe) -> None:
    """An animated image."""
    path = files(root, "images/*")[3]
    image = Image.open(path).convert("RGB")
    image.save(path, format="PNG", save_all=True, append_images=[Image.eval(image, lambda value: 255 - value)])


@fault("masks", "file-cmyk", "file-ending")
def _(root: Path, recipe: Recipe) -> None:
    """A CMYK image."""
    path = files(root, "images/*")[3]
    Image.open(path).convert("CMYK").save(path, format="TIFF")


@fault("masks", "file-transparent")
def _(root: Path, recipe: Recipe) -> None:
    """A partly transparent image."""
    path = files(root, "images/*")[3]
    image = Image.open(path).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.save(path)


@fault("masks", "file-turned")
def _(root: Path, recipe: Recipe) -> None:
    """Images turned by EXIF data, masks not."""
    for path in files(root, "images/*")[:3]:
        image = Image.open(path)
        image.load()
        exif = image.getexif()
        exif[0x0112] = 3
        image.save(path, exif=exif)


@fault("masks", "file-bits-mixed")
def _(root: Path, recipe: Recipe) -> None:
    """Some images of 16 bits among those of 8."""
    for path in files(root, "images/*")[:5]:
        cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 257)


@fault("masks", "file-16-bits-unused", "file-16-bits")
def _(root: Path, recipe: Recipe) -> None:
    """Images of 10 bits in 16."""
    for path in files(root, "images/*"):
        cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 2)


@fault("masks", "file-profile")
def _(root: Path, recipe: Recipe) -> None:
    """A colour profile that is not sRGB in some images."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for path in files(root, "images/*")[:4]:
        Image.open(path).save(path, icc_profile=profile)


@fault("masks", "file-huge")
def _(root: Path, recipe: Recipe) -> None:
    """A decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (40000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    files(root, "images/*")[3].write_bytes(content)


@fault("masks", "file-size", "file-sizes")
def _(root: Path, recipe: Recipe) -> None:
    """A pair of absurd shape."""
    name = files(root, "images/*")[3].name
    for folder in ("images", "masks"):
        path = root / folder / name
        Image.open(path).resize((600, 4), Image.Resampling.NEAREST).save(path)


@fault("masks", "file-blank")
def _(root: Path, recipe: Recipe) -> None:
    """A tenth of the images of one colour."""
    each(root, "images/*", lambda pixels: np.full_like(pixels, 128), 4)


@fault("masks", "file-names", "split-copies")
def _(root: Path, recipe: Recipe) -> None:
    """Names that differ only in case."""
    for folder in ("images", "masks"):
        path = next(path for path in files(root, f"{folder}/*") if path.stem != path.stem.upper())
        shutil.copy(files(root, f"{folder}/*")[-1], path.with_name(path.stem.upper() + ".png"))


@fault("masks", "file-link")
def _(root: Path, recipe: Recipe) -> None:
    """A link that leaves the folder."""
    path = files(root, "images/*")[3]
    outside = root.parent / f"{root.name}-outside.png"
    path.rename(outside)
    path.symlink_to(outside)


@fault("masks", "file-numbers", "file-ending")
def _(root: Path, recipe: Recipe) -> None:
    """An image of 32-bit fractions."""
    path = files(root, "images/*")[3]
    Image.fromarray(np.array(Image.open(path).convert("L")).astype(np.float32)).save(path, format="TIFF")


# ---------------------------------------------------------------- pairs


@fault("salt", "pair-missing-target")
def _(root: Path, recipe: Recipe) -> None:
    """A missing mask that would be read as an empty one."""
    files(root, "train/masks/*")[4].unlink()


@fault("masks", "pair-missing-image")
def _(root: Path, recipe: Recipe) -> None:
    """Masks without images."""
    for path in files(root, "images/*")[:3]:
        path.unlink()


@fault("masks", "pair-ambiguous")
def _(root: Path, recipe: Recipe) -> None:
    """One name with two endings."""
    path = files(root, "images/*")[3]
    Image.open(path).save(path.with_suffix(".jpg"))


@fault("masks", "pair-size")
def _(root: Path, recipe: Recipe) -> None:
    """Masks of half the size."""
    each(root, "masks/*", lambda pixels: pixels[::2, ::2])


@fault("masks", "pair-size")
def _(root: Path, recipe: Recipe) -> None:
    """One mask lying on its side."""
    each(root, "masks/*", lambda pixels: pixels.T, 1)


@fault("masks", "pair-shift")
def _(root: Path, recipe: Recipe) -> None:
    """Masks shifted by five pixels."""
    each(root, "masks/*", lambda pixels: np.roll(pixels, (3, 5), axis=(0, 1)))


@fault("depth", "pair-shift")
def _(root: Path, recipe: Recipe) -> None:
    """Depth shifted against the picture."""
    each(root, "*/depths/*", lambda pixels: np.roll(pixels, -6, axis=1))


@fault("desert", "pair-mirrored")
def _(root: Path, recipe: Recipe) -> None:
    """Label maps mirrored."""
    each(root, "*/Segmentation/*", lambda pixels: pixels[:, ::-1])


@fault("masks", "pair-mirrored")
def _(root: Path, recipe: Recipe) -> None:
    """Masks upside down (rows from the bottom, as BMP has them)."""
    each(root, "masks/*", lambda pixels: pixels[::-1])


@fault("masks", "pair-unrelated")
def _(root: Path, recipe: Recipe) -> None:
    """Masks of other images, at random."""
    paths = files(root, "masks/*")
    contents = [path.read_bytes() for path in paths]
    for path, other in zip(paths, np.random.default_rng(5).permutation(len(paths)), strict=True):
        path.write_bytes(contents[other])


@fault("masks", "pair-next")
def _(root: Path, recipe: Recipe) -> None:
    """Masks shifted by one in the list."""
    paths = files(root, "masks/*")
    contents = [path.read_bytes() for path in paths]
    for number, path in enumerate(paths):
        path.write_bytes(contents[(number + 1) % len(paths)])


@fault("masks", "pair-exchanged")
def _(root: Path, recipe: Recipe) -> None:
    """Two masks exchanged."""
    paths = files(root, "masks/*")
    swap(paths[5], paths[17])


@fault("masks", "pair-swapped")
def _(root: Path, recipe: Recipe) -> None:
    """Folders of images and masks swapped."""
    swap(root / "images", root / "masks")


@fault("masks", "pair-same-file", "label-photographs")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Targets that are the images."""
    shutil.rmtree(root / "masks")
    shutil.copytree(root / "images", root / "masks")
    return recipe


@fault("desert", "pair-one-target")
def _(root: Path, recipe: Recipe) -> None:
    """One label map for several images."""
    paths = files(root, "train/Segmentation/*")
    for path in paths[1:6]:
        shutil.copy(paths[0], path)


# ---------------------------------------------------------------- subsets


@fault("desert", "split-copies")
def _(root: Path, recipe: Recipe) -> None:
    """The same pictures in train and val."""
    for folder in ("Color_Images", "Segmentation"):
        for path in files(root, f"train/{folder}/*")[:3]:
            shutil.copy(path, root / "val" / folder / f"x{path.name}")


@fault("desert", "split-near-copies", "pair-one-target")
def _(root: Path, recipe: Recipe) -> None:
    """Compressed copies of training images in val."""
    train, val = files(root, "train/Color_Images/*"), files(root, "val/Color_Images/*")
    for source, path in zip(train[:6], val, strict=False):
        pixels = np.array(Image.open(source)).astype(int) + np.random.default_rng(1).integers(-2, 3, (1, 1, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        for folder in ("Segmentation",):
            shutil.copy(root / "train" / folder / source.name, root / "val" / folder / path.name)


@fault("desert", "split-contradiction")
def _(root: Path, recipe: Recipe) -> None:
    """One picture twice, with different targets."""
    paths = files(root, "train/Color_Images/*")
    shutil.copy(paths[0], paths[7])


@fault("unity", "split-frames", "split-near-copies", "split-groups")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Views of one scene spread over the subsets."""
    return with_values(recipe, split={"method": "random", "group_column": None, "validation": 0.3, "test": 0.0})


@fault("unity", "split-groups", "split-frames", "split-near-copies")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Scenes of a table on both sides."""
    return with_values(recipe, split={"method": "random", "group_column": None, "validation": 0.3, "test": 0.0})


@fault("salt", "split-tiles")
def _(root: Path, recipe: Recipe) -> Recipe:
    """Tiles of one mosaic on both sides."""
    mosaic_hwc, index_hw = shapes(77, 2, 5 * 101, 8 * 101)
    grain_hw = (
        cv2.GaussianBlur(np.random.default_rng(3).normal(0, 90, index_hw.shape).astype(np.float32), (0, 0), 2.5) * 4
    )
    grey_hw = (cv2.cvtColor(mosaic_hwc, cv2.COLOR_RGB2GRAY) * 0.5 + grain_hw + 60).clip(0, 255).astype(np.uint8)
    for number, path in enumerate(files(root, "train/images/*")):
        row, column = divmod(number, 8)
        part = np.s_[101 * row : 101 * row + 101, 101 * column : 101 * column + 101]
        Image.fromarray(grey_hw[part]).save(path)
        mask_hw = index_hw[part].astype(np.uint16) * 65535
        Image.fromarray(mask_hw).save(root / "train" / "masks" / path.name)
    (root / "train.csv").unlink()
    return recipe


@fault("salt", "split-test-known")
def _(root: Path, recipe: Recipe) -> None:
    """Training images among those of the test."""
    for path, known in zip(files(root, "test/images/*")[:2], files(root, "train/images/*")[:2], strict=True):
        shutil.copy(known, path)


@fault("desert", "split-impossible")
def _(root: Path, recipe: Recipe) -> None:
    """A split that leaves no validation image."""
    shutil.rmtree(root / "val")


@fault("desert", "split-different")
def _(root: Path, recipe: Recipe) -> None:
    """A validation subset of another camera."""
    each(root, "val/Color_Images/*", lambda pixels: (pixels * np.array([0.7, 0.9, 1.0])).astype(np.uint8))
    for number in range(10):
        for folder in ("Color_Images", "Segmentation"):
            source = files(root, f"train/{folder}/*")[number]
            source.rename(root / "val" / folder / source.name)
    each(root, "val/Color_Images/*", lambda pixels: (pixels * np.array([0.8, 0.95, 1.0])).astype(np.uint8))
