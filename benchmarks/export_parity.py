"""Exports of all five systems beside their runs: how far scores and figures of each format are off.

    OMP_NUM_THREADS=1 python benchmarks/export_parity.py [--out benchmarks/results/export_parity.md]

The built-in recipes with their own decoders, fits and test-time views, small encoders and random weights (batch
statistics those of images, so that activations have a network's ranges), on random pairs. Each file goes through
`perpixel export`, so that one which is not as good as its run is told as refused. Weights that were learned make larger
gaps between classes: what differs here differs less there.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from perpixel import api
from perpixel.console import Console
from perpixel.errors import PerpixelError
from perpixel.inference.timing import processor_name
from perpixel.models import build_model
from perpixel.recipe import Recipe, load_recipe
from perpixel.run import Run
from perpixel.tasks import build_task
from perpixel.training.loop import model_bytes

FORMS = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2", "safetensors": ".safetensors"}
_LAYOUT = ("data.images=images/{id}.png", "data.targets=targets/{id}.png", "data.unlabelled=null", "data.tables=[]")


@dataclass(frozen=True)
class System:
    """A built-in recipe, what makes it small, and its pairs' image size (height, width) and target."""

    number: int
    recipe: str
    settings: tuple[str, ...]
    size: tuple[int, int]
    target: str
    scale: int = 1


SYSTEMS = (
    System(1, "salt", ("model.encoder=resnet18", "model.decoder_norm=true", "input.size=[64, 64]"), (101, 101), "mask"),
    System(2, "desert", ("model.encoder=resnet18", "input.size=[64, 64]"), (90, 160), "classes"),
    System(3, "lowlight", (), (20, 32), "picture", 4),
    System(4, "depth-regression", ("model.encoder=tf_efficientnet_lite0",), (96, 128), "metres"),
    System(5, "zoedepth-synthetic", ("input.size=[64, 64]",), (96, 128), "levels"),
)
# ZoeDepth, its layers few and narrow.
_ZOE = {
    "model_type": "zoedepth",
    "backbone_config": {
        "model_type": "beit",
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "image_size": 64,
        "patch_size": 16,
        "use_relative_position_bias": True,
        "reshape_hidden_states": False,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    },
    "neck_hidden_sizes": [8, 16, 16, 32],
    "fusion_hidden_size": 16,
    "bottleneck_features": 16,
    "bin_embedding_dim": 16,
    "bin_configurations": [{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0}],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "export_parity.md")
    parser.add_argument("--system", type=int, choices=range(1, 6), action="append")
    asked = parser.parse_args()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "onnxruntime", "openvino"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for system in SYSTEMS:
            if asked.system and system.number not in asked.system:
                continue
            run = run_of(system, Path(folder) / str(system.number))
            rows += [row(system, run, form) for form in FORMS]
            print(rows[-len(FORMS) :], flush=True)
    lines = [
        "# Exported files beside their runs",
        "",
        f"Written by `python benchmarks/export_parity.py` on {time.strftime('%Y-%m-%d')}: {processor_name()},"
        f" Python {platform.python_version()}, {versions}.",
        "",
        " ".join(line for line in str(__doc__).splitlines()[4:] if line),
        "",
        "Sizes and batches: those at which both were compared; differences are of scores, as parts of the largest.",
        "",
        "| system | format | sizes | batches | largest difference | mean difference | monitored figure: run | file |",
        "| :--- | :--- | :--- | :--- | ---: | ---: | ---: | ---: |",
        *rows,
        "",
    ]
    asked.out.write_text("\n".join(lines), encoding="utf-8")


def run_of(system: System, root: Path) -> Run:
    """A run folder with random weights, all of whose pairs are of val."""
    rng = np.random.default_rng(system.number)
    root.mkdir()
    recipe = recipe_of(system, root)
    values = [spec.values[0] for spec in getattr(recipe.target, "classes", ())]
    for kind in ("images", "targets"):
        (root / kind).mkdir(parents=True)
    for index in range(4):
        image_hwc = picture(rng, system.size)
        cv2.imwrite(str(root / f"images/{index}.png"), image_hwc)
        cv2.imwrite(str(root / f"targets/{index}.png"), target(rng, system, values))
    run = Run(root / "run")
    run.write_recipe(recipe)
    run.write_split({str(index): "val" for index in range(4)}, {})
    run.best_path.parent.mkdir(parents=True)
    run.best_path.write_bytes(model_bytes(network(recipe, rng)))
    return run


def recipe_of(system: System, root: Path) -> Recipe:
    """The recipe on these pairs."""
    settings = [f"data.root={root}", *_LAYOUT, "data.archives=[]", "split.method=random", "model.weights=none"]
    if system.target == "levels":  # its network is told by a file of a hub
        (root / "config.json").write_text(json.dumps(_ZOE), encoding="utf-8")
        settings += [f"model.encoder={root}"]
    return load_recipe(system.recipe, [*settings, *system.settings, "training.precision=fp32"])


def network(recipe: Recipe, rng: np.random.Generator) -> Any:
    """Random weights; batch statistics of pictures."""
    torch.manual_seed(0)
    task, section = build_task(recipe), recipe.model
    model = build_model(
        architecture=section.architecture,
        encoder=section.encoder,
        weights="none",
        out_channels=task.out_channels,
        decoder_norm=section.decoder_norm,
        decoder_attention=section.decoder_attention,
        scale=task.image_scale,
    )
    with torch.no_grad():
        for _ in range(3):
            images = np.stack([picture(rng, recipe.input.size) for _ in range(2)])
            model.train()(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
        if section.architecture == "global-regression":
            # Metres, as of a trained head. About 0, a level of 255 that resizing rounds otherwise is a large part.
            model.network.head[-1].bias.add_(5)
    return model


def picture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Smooth blobs of colour with grain."""
    coarse_hwc = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image_hwc = cv2.resize(coarse_hwc, size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return (image_hwc + rng.normal(0, 8, image_hwc.shape)).clip(0, 255).astype(np.uint8)


def target(rng: np.random.Generator, system: System, values: list[int]) -> np.ndarray:
    """Of a picture, what the data set would hold of it."""
    height, width = (system.scale * side for side in system.size)
    if system.target == "picture":
        return picture(rng, (height, width))
    if system.target == "levels":
        return cv2.resize(rng.uniform(60, 240, (4, 5)), (width, height)).astype(np.uint8)
    if system.target == "metres":
        depth_hw = cv2.resize(rng.uniform(1000, 9000, (4, 5)), (width, height), interpolation=cv2.INTER_LINEAR)
        return depth_hw.astype(np.uint16)
    chosen_hw = rng.integers(0, len(values), (5, 6), dtype=np.uint8)
    label_hw = cv2.resize(chosen_hw, (width, height), interpolation=cv2.INTER_NEAREST)
    return np.array(values)[label_hw].astype(np.uint16)


def row(system: System, run: Run, form: str) -> str:
    """A line of the table."""
    head = f"| {system.number}: `{system.recipe}` | {form} |"
    out = run.path.parent / f"model{FORMS[form]}"
    try:
        sidecar = api.export(run.path, out, form=form, console=Console())
    except PerpixelError as error:
        return f"{head} refused: {'; '.join([error.what, *error.details])} | | | | | |"
    parity = sidecar["parity"]
    checks, figure = parity["checks"], parity["figures"][parity["monitor"]]
    sizes = ", ".join(dict.fromkeys(f"{check['width']}x{check['height']}" for check in checks))
    batches = ", ".join(dict.fromkeys(str(check["batch"]) for check in checks))
    fixed = " (fixed)" if sidecar["metadata"]["fixed_size"] else ""
    largest, mean = (max(check[key] for check in checks) for key in ("largest", "mean"))
    values = " | ".join("none" if figure[key] is None else f"{figure[key]:.5f}" for key in ("run", "file"))
    return f"{head} {sizes}{fixed} | {batches} | {largest:.1e} | {mean:.1e} | {parity['monitor']} {values} |"


if __name__ == "__main__":
    main()
