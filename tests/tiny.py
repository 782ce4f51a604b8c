"""A data set and a recipe small enough to train in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from perpixel.console import Console
from perpixel.images import write_image, write_label_map
from perpixel.recipe import Recipe, load_recipe
from perpixel.synthesis.objects_dataset import ENCODINGS


def write_tiny(root: Path, count: int = 20, *, size: int = 40, unlabelled: int = 3, seed: int = 0) -> Path:
    """Bright discs on noise; the mask (0 or 65535) is the disc, every fifth image has none."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    lines = ["id,z"]
    for index in range(count + unlabelled):
        image = rng.normal(90, 15, (size, size))
        mask = np.zeros((size, size), dtype=bool)
        if index % 5:
            top, left = rng.uniform(0.3 * size, 0.7 * size, 2)
            mask = (rows - top) ** 2 + (columns - left) ** 2 < (0.25 * size) ** 2
            image[mask] += 90
        grey = np.clip(image, 0, 255).astype(np.uint8)
        folder = "train" if index < count else "test"
        path = root / folder / "images" / f"{index:010x}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, np.repeat(grey[..., None], 3, axis=2))
        lines.append(f"{index:010x},{100 + index // 2}")
        if index < count:
            target = root / "train" / "masks" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_label_map(target, mask.astype(np.int64) * 65535)
    (root / "depths.csv").write_text("\n".join(lines) + "\n")
    return root


def write_scenes(root: Path, scenes: int = 10, captures: int = 4) -> Path:
    """Scenes of near-identical views: tilted planes of the original's encoding, with the table of scenes."""
    rng = np.random.default_rng(0)
    codec = ENCODINGS["srgb-radial"]
    rows_hw, columns_hw = np.mgrid[:32, :32] / 32
    lines = ["id,scene"]
    for number in range(scenes * captures):
        if number % captures == 0:
            slope, texture_hw = rng.uniform(-1, 1, 2), rng.normal(0, 25, (32, 32))
        depth_hw = (3 / (1 - 0.3 * (slope[0] * rows_hw + slope[1] * columns_hw))).astype(np.float32)
        grey_hw = np.clip(255 * (1.2 - depth_hw / 5) + texture_hw + rng.normal(0, 1, (32, 32)), 0, 255)
        write_image(root / f"rgb/rgb_{number:04d}.png", np.repeat(grey_hw.astype(np.uint8)[..., None], 3, axis=2))
        codec.write(root / f"depth/depth_{number:04d}.png", depth_hw, np.ones((32, 32), dtype=bool))
        lines.append(f"{number:04d},{number // captures}")
    (root / "scenes.csv").write_text("\n".join(lines) + "\n")
    return root


TINY_SETTINGS = (
    "model.encoder=mobilenetv3_small_050",
    "model.weights=none",
    "model.decoder_norm=true",
    "input.size=[32, 32]",
    "training.epochs=3",
    "training.batch_size=4",
    "training.precision=fp32",
    "training.threads=1",
    "optimizer.learning_rate=0.003",
    "inference.batch_size=4",
)


def tiny_recipe(root: Path, *settings: str, name: str = "salt") -> Recipe:
    """A built-in recipe made tiny."""
    return load_recipe(name, [f"data.root={root}", *TINY_SETTINGS, *settings])


def weights(path: Path) -> dict[str, Any]:
    """Tensors of a safetensors file."""
    from safetensors.numpy import load_file

    return load_file(path)


def assert_same_weights(left: Path, right: Path) -> None:
    """Both files hold the same tensors, bit for bit."""
    first, second = weights(left), weights(right)
    assert first.keys() == second.keys()
    different = [name for name in first if first[name].tobytes() != second[name].tobytes()]
    assert not different


class Told(Console):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def with_log(self, log_file: Path) -> Console:
        return self

    def say(self, text: str) -> None:
        self.lines.append(text)
