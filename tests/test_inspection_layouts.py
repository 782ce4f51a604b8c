"""The layouts of the five systems, small and with their quirks: understood from the bare folder, trainable at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perpixel import api
from perpixel.inspection import Inspection
from perpixel.recipe import Recipe, load_recipe
from planted import each, room, shapes, write_depth, write_desert, write_lowlight, write_salt, write_unity

SMALL = ("training.epochs=1", "training.batch_size=4", "training.precision=fp32", "training.threads=1")
ENCODER = ("model.encoder=mobilenetv3_small_050", "model.weights=none", "input.size=[32, 32]")


def understood(root: Path, tmp_path: Path) -> tuple[Inspection, Recipe]:
    """Look at a bare folder; nothing is wrong with it."""
    inspection = api.inspect(root, fix_recipe=tmp_path / "proposed.yaml")
    assert not [finding.text() for finding in inspection.findings if finding.severity != "note"]
    return inspection, load_recipe(tmp_path / "proposed.yaml")


def trained(tmp_path: Path, *settings: str) -> dict[str, Any]:
    """The manifest of a training by the proposed recipe, made small and left alone otherwise."""
    run = api.train(tmp_path / "proposed.yaml", overrides=(*SMALL, *settings), run=tmp_path / "run")
    assert run.finished
    manifest = run.manifest
    assert {name: found for name, found in manifest["inspection"].items() if found} == {}
    return manifest


def test_desert(tmp_path: Path) -> None:
    """System 1: values of 16 bits, a test folder of another place, background that nobody is asked for."""
    root = tmp_path / "desert"
    write_desert(root)
    for path in sorted((root / "train" / "Segmentation").iterdir())[:3]:
        values_hw = np.array(Image.open(path))
        values_hw[:4, :4] = 0
        Image.fromarray(values_hw).save(path)
    for folder in ("Color_Images", "Segmentation"):
        (root / "test" / folder).mkdir(parents=True)
        for path in sorted((root / "train" / folder).iterdir())[-6:]:
            path.rename(root / "test" / folder / path.name)
    inspection, recipe = understood(root, tmp_path)
    assert recipe.data.images == "{subset}/Color_Images/{id}.png"
    assert recipe.data.targets == "{subset}/Segmentation/{id}.png"
    assert recipe.split.method == "given"
    assert recipe.target == load_recipe("desert").target
    assert inspection.figures["subsets"] == {"train": 24, "val": 10, "test": 6}
    assert trained(tmp_path, *ENCODER)["data"]["samples"] == 40


@pytest.mark.parametrize("zipped", [False, True])
def test_salt(tmp_path: Path, zipped: bool) -> None:
    """System 2: masks of 0 and 65535, some of them empty and of 8 bits, tables, images without masks; as zip files."""
    root = tmp_path / "salt"
    write_salt(root)
    if zipped:
        for folder in ("train", "test"):
            shutil.make_archive(str(root / folder), "zip", root / folder)
            shutil.rmtree(root / folder)
    _, recipe = understood(root, tmp_path)
    assert recipe.data.images == "train/images/{id}.png"
    assert recipe.data.targets == "train/masks/{id}.png"
    assert recipe.data.unlabelled == "test/images/{id}.png"
    assert [spec.values for spec in recipe.target.classes] == [(0,), (65535,)]
    assert (recipe.input.size, recipe.input.fit) == ((128, 128), "pad")
    if not zipped:
        trained(tmp_path, *ENCODER)


def test_lowlight(tmp_path: Path) -> None:
    """System 3: names that share a number alone, clean images of four times the size, test images without them."""
    root = tmp_path / "lowlight"
    write_lowlight(root)
    (root / "test").mkdir()
    for number in range(4):
        Image.fromarray(shapes(number, 5, 40, 64)[0] // 4).save(root / "test" / f"test_{number}.png")
    _, recipe = understood(root, tmp_path)
    assert recipe.data.images == "{subset}/{subset}/{any}_{id}.png"
    assert recipe.data.targets == "{subset}/gt/gt_{id}.png"
    assert recipe.data.unlabelled == "test/{id}.png"
    assert (recipe.target.kind, recipe.target.scale, recipe.target.bits) == ("restoration", 4, 8)
    trained(tmp_path, "input.size=[16, 16]")


@pytest.mark.parametrize("bits", [16, 8])
def test_depth_regression(tmp_path: Path, bits: int) -> None:
    """System 4: equal names, depth of any bit depth, 0 where nothing was read, testing images without depth."""
    root = tmp_path / "depth"
    write_depth(root)
    if bits == 8:  # ten metres in 255 steps
        each(root, "*/depths/*.png", lambda raw_hw: np.rint(raw_hw.astype(float) / 10000 * 255).astype(np.uint8))
    (root / "testing" / "images").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(room(9000 + number)[0]).save(root / "testing" / "images" / f"{number:05d}.png")
    _, recipe = understood(root, tmp_path)
    assert recipe.data.images == "{subset}/images/{id}.png"
    assert recipe.data.targets == "{subset}/depths/{id}.png"
    assert recipe.data.unlabelled == "testing/images/{id}.png"
    assert recipe.split.method == "given"
    assert (recipe.target.kind, recipe.target.stored) == ("depth", f"uint{bits}")
    assert recipe.target.invalid == (0.0,)
    if bits == 16:
        assert recipe.target.scale == 0.001
        trained(tmp_path, *ENCODER)
    else:
        assert (recipe.target.encoding, recipe.target.metres_at_full) == ("linear", 10.0)


@pytest.mark.parametrize("scenes", [True, False])
def test_unity(tmp_path: Path, scenes: bool) -> None:
    """System 5: radial distance, sRGB-encoded in 8 bits, 255 for background, frames in order; scenes listed or not."""
    root = tmp_path / "unity"
    write_unity(root)
    if not scenes:
        (root / "scenes.csv").unlink()
    _, recipe = understood(root, tmp_path)
    assert (recipe.data.images, recipe.data.targets) == ("rgb/rgb_{id}.png", "depth/depth_{id}.png")
    target = recipe.target
    assert (target.kind, target.stored, target.encoding, target.geometry) == ("depth", "uint8", "srgb", "radial")
    assert (target.metres_at_zero, target.metres_at_full, target.beyond) == (0.0, 10.0, (255.0,))
    assert target.vertical_fov_deg == 60
    if scenes:
        assert recipe.split.group_column == "scene"
        trained(tmp_path, *ENCODER)
    else:
        assert recipe.split.method in ("grouped", "sorted")  # neighbours look alike
