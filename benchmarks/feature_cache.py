"""Epochs with a frozen encoder, its features computed once or in every step: in turn in one process, ratios of medians.

    python benchmarks/feature_cache.py [--rounds 5] [--pairs 256] [--case head | --case unet]

Random pairs of 640x480 (PNG; depth in 16 bits) at 128x128 in batches of 32 train `depth-regression` on a frozen
EfficientNet-Lite0, and a quarter of them a U-Net's decoder on a frozen ResNet34; weights are random, and cost what any
others do. Each way is a whole training by `perpixel.training.train.train`, whose first epoch is left out. Measured are
the steps of an epoch (loading, encoder, head, loss, gradients, optimiser) and, apart from them, its end (validation of
an eighth as many images, at their own size, and checkpoints). The features are computed outside of all that is
measured: how long that took is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

import perpixel.training.train as training
from perpixel.depth_files import write_numbers
from perpixel.images import write_image
from perpixel.recipe import load_recipe
from perpixel.training.loop import TrainingModule
from perpixel.training.precision import _processor_has_bf16

_EPOCHS = 3
_COMMON = (
    "data.targets=depths/{id}.png",
    "data.images=images/{id}.png",
    "data.unlabelled=null",
    "split.method=random",
    "split.validation=0.111",
    "model.weights=none",
    f"training.epochs={_EPOCHS}",
    "training.batch_size=32",
)
_HEAD = ("model.encoder=tf_efficientnet_lite0",)
_UNET = ("model.architecture=unet", "model.encoder=resnet34")
_SHARE = {"head": 1, "unet": 4}  # of the pairs: one in so many
_EVERY_STEP = "encoder in every step"  # the loop without the cache: `cache_features` is put out of action
_CASES: dict[str, dict[str, tuple[str, ...]]] = {
    "head": {
        "cached": _HEAD,
        _EVERY_STEP: _HEAD,
        "files, too, in every step": (*_HEAD, "data.cache=off"),
    },
    "unet": {
        "cached": _UNET,
        _EVERY_STEP: _UNET,
        "all trained, fp32": (*_UNET, "model.freeze_encoder=false", "training.precision=fp32"),
    },
}


class Cost(NamedTuple):
    """Seconds of an epoch."""

    steps: float
    steps_processor: float
    end: float
    end_processor: float


class Watch:
    """Notes the clock where the steps of an epoch begin, where they end, and where the epoch ends."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def note(self) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def costs(self) -> list[Cost]:
        """Of every epoch but the first."""
        marks = np.array(self.times).reshape(-1, 3, 2)[1:]
        return [Cost(*map(float, row)) for row in np.diff(marks, axis=1).reshape(-1, 4)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=256, help="that train")
    parser.add_argument("--case", choices=_CASES, help="this one alone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PERPIXEL_CACHE"] = f"{folder}/cache"
        for case, ways in _CASES.items():
            if asked.case not in (None, case):
                continue
            data = Path(folder) / case
            write_pairs(data, asked.pairs // _SHARE[case] * 9 // 8)
            costs: dict[str, list[list[Cost]]] = {way: [] for way in ways}
            for number in range(asked.rounds):
                for way, settings in ways.items():
                    run = data / f"{way}-{number}"
                    costs[way].append(measure(data, run, settings, plain=way == _EVERY_STEP))
                    if way == "cached" and number == 0:
                        said(run)
            table(case, costs)


def write_pairs(root: Path, count: int) -> None:
    """Smooth random depths between 1 and 9 m, in millimetres; what is near is bright."""
    rng = np.random.default_rng(0)
    for name in ("images", "depths"):
        (root / name).mkdir(parents=True)
    for index in range(count):
        depth_hw = cv2.resize(rng.uniform(1000, 9000, (6, 8)), (640, 480), interpolation=cv2.INTER_LINEAR)
        grey_hw = 255 - depth_hw / 40 + rng.normal(0, 5, depth_hw.shape)
        image_hwc = np.repeat(np.clip(grey_hw, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        write_image(root / "images" / f"{index}.png", image_hwc)
        write_numbers(root / "depths" / f"{index}.png", depth_hw.astype(np.uint16))


def measure(data: Path, run: Path, settings: tuple[str, ...], *, plain: bool) -> list[Cost]:
    """Train, and return what each epoch but the first cost."""
    precision = "bf16" if _processor_has_bf16() or torch.cuda.is_available() else "fp32"
    given = (f"data.root={data}", f"training.precision={precision}", "training.threads=1", *_COMMON, *settings)
    watch = Watch()
    start, finish = TrainingModule.on_train_epoch_start, TrainingModule._finish_epoch

    def starting(module: Any) -> None:
        watch.note()
        start(module)

    def finishing(module: Any) -> None:
        watch.note()
        finish(module)
        watch.note()

    patches: list[tuple[Any, str, Any]] = [
        (TrainingModule, "on_train_epoch_start", starting),
        (TrainingModule, "_finish_epoch", finishing),
    ]
    patches += [(training, "finish", lambda *args: None)]
    if plain:
        patches += [
            (training, "cache_features", lambda *args: None),
            (training, "validation_memory", lambda *args: None),
        ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    try:
        for owner, name, instead in patches:
            setattr(owner, name, instead)
        training.train(load_recipe("depth-regression", given), run)
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)
    return watch.costs()


def said(run: Path) -> None:
    """Print what a run said of its features."""
    print("\n".join(line for line in (run / "log.txt").read_text().splitlines() if "encoder is frozen" in line), "\n")


def table(case: str, costs: dict[str, list[list[Cost]]]) -> None:
    """Medians over all epochs; ratios to the cached way, with the smallest and the largest of a round."""
    print(f"| {case} | steps, s | processor, s | ratio (of a round) | processor ratio | end, s | whole epoch, ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    cached = medians([cost for rows in costs["cached"] for cost in rows])
    for way, rounds in costs.items():
        own = medians([cost for rows in rounds for cost in rows])
        ratios = [
            medians(rows).steps / medians(others).steps for rows, others in zip(rounds, costs["cached"], strict=True)
        ]
        cells = [
            f"{own.steps:.3f}",
            f"{own.steps_processor:.3f}",
            f"**{own.steps / cached.steps:.1f}** ({min(ratios):.1f} .. {max(ratios):.1f})",
            f"{own.steps_processor / cached.steps_processor:.1f}",
            f"{own.end:.3f}",
            f"{(own.steps + own.end) / (cached.steps + cached.end):.1f}",
        ]
        print(f"| {way} | " + " | ".join(cells) + " |")
    print()


def medians(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


if __name__ == "__main__":
    main()
