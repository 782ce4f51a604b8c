"""One image from memory to scores: eager PyTorch beside exported files, in turn in one process.

    OMP_NUM_THREADS=1 python benchmarks/export_latency.py [--rounds 15] [--size 256 --size 512] [--out FILE.md]

U-Net on ResNet34 (two classes) and DeepLabV3 on ResNet50 (six classes), random weights, which cost what any others do.
Every way takes the same uint8 image and gives float32 scores at its size, on one thread. A round runs each way once, in
an order that is drawn anew; medians over the rounds, after two to warm up. Differences are of scores, as parts of the
largest; of random weights in int8 they say little about a trained network: `perpixel export --int8` measures that.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from perpixel.exporting.int8 import quantize
from perpixel.exporting.metadata import describe
from perpixel.exporting.onnx_file import write_onnx, write_openvino
from perpixel.exporting.torch_file import write_torch_export
from perpixel.inference.exported import OnnxSession, OpenVinoSession, TorchSession
from perpixel.inference.predictor import Predictor
from perpixel.inference.timing import processor_name
from perpixel.models import build_model
from perpixel.recipe import load_recipe
from perpixel.run import Run
from perpixel.tasks import build_task

Way = Callable[[], Any]

_CASES = {
    "U-Net ResNet34": ("salt", "unet", "resnet34"),
    "DeepLabV3 ResNet50": ("desert", "deeplabv3", "resnet50"),
}
_WARM_UP = 2


def predictor_of(
    name: str, architecture: str, encoder: str, size: int, folder: Path
) -> tuple[Predictor, dict[str, dict[str, Any]]]:
    """Random weights whose batch statistics are those of images, so that activations have a network's ranges."""
    settings = [f"input.size=[{size}, {size}]", "input.fit=resize", f"model.architecture={architecture}"]
    settings += [f"model.encoder={encoder}", "model.weights=none", "model.decoder_norm=true", "inference.flip=false"]
    recipe = load_recipe(name, settings)
    task = build_task(recipe)
    torch.manual_seed(0)
    model = build_model(architecture=architecture, encoder=encoder, weights="none", out_channels=task.out_channels)
    with torch.no_grad():
        for number in range(3):
            images = [picture(size, 10 * number + offset) for offset in range(2)]
            model.train()(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255)
    predictor = Predictor(
        model,
        task,
        input_section=recipe.input,
        inference=recipe.inference,
        decision=task.first_decision(),
        precision="fp32",
        device=torch.device("cpu"),
    )
    run = Run(folder / "run")
    run.write_recipe(recipe)
    run.write_split({"a": "val"}, {})
    return predictor, {name: describe(predictor, run, None, name) for name in ("float32", "bf16", "int8")}


def picture(size: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Smooth blobs of colour with grain."""
    rng = np.random.default_rng(seed)
    coarse_hwc = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image_hwc = cv2.resize(coarse_hwc, (size, size), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    return (image_hwc + rng.normal(0, 8, image_hwc.shape)).clip(0, 255).astype(np.uint8)


def ways_of(predictor: Predictor, facts: dict[str, dict[str, Any]], folder: Path, size: int) -> dict[str, Way]:
    """Each way from the image to scores_bkhw."""
    image_hwc = picture(size, 99)
    float_file, int8_file = folder / "float.onnx", folder / "int8.onnx"
    began = time.perf_counter()
    write_onnx(predictor, float_file, facts["float32"], size=(size, size), any_size=True)
    print(f"  exported in {time.perf_counter() - began:.0f} s", flush=True)
    images = [picture(size, seed) for seed in range(16)]
    quantize(float_file, int8_file, images, facts["int8"])
    fixed_file = folder / "fixed.onnx"  # as perpixel writes it for bf16, see exporting/exporter.py
    write_onnx(predictor, fixed_file, facts["bf16"], size=(size, size), any_size=False)
    for source, kind in ((float_file, "float32"), (fixed_file, "bf16"), (int8_file, "int8")):
        write_openvino(source, folder / f"{kind}.xml", facts[kind])
    write_torch_export(predictor, folder / "a.pt2", facts["float32"], size=(size, size), any_size=True)
    sessions = {
        "ONNX Runtime fp32": OnnxSession(float_file, 1),
        "ONNX Runtime int8": OnnxSession(int8_file, 1),
        "OpenVINO fp32": OpenVinoSession(folder / "float32.xml", 1),
        "OpenVINO bf16": OpenVinoSession(folder / "bf16.xml", 1),
        "OpenVINO int8": OpenVinoSession(folder / "int8.xml", 1),
        "torch.export fp32": TorchSession(folder / "a.pt2", 1),
    }

    def eager(precision: str) -> Way:
        def run() -> Any:
            predictor.precision = precision
            return np.stack(predictor.scores([image_hwc]))

        return run

    exported = {name: lambda session=session: session(image_hwc[None])[1] for name, session in sessions.items()}
    return {"eager fp32": eager("fp32"), "eager bf16": eager("bf16"), **exported}


def measure(ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order = random.Random(0)
    for number in range(rounds + _WARM_UP):
        for name in order.sample(list(ways), len(ways)):
            began = time.perf_counter()
            ways[name]()
            if number >= _WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def table(ways: dict[str, Way], seconds: dict[str, list[float]]) -> list[str]:
    """A line a way."""
    wanted = ways["eager fp32"]()
    base = seconds["eager fp32"]
    lines = [
        "| way | ms, median | times eager fp32 (quartiles of rounds) | largest difference | mean difference |",
        "| :--- | ---: | ---: | ---: | ---: |",
    ]
    for name, run in ways.items():
        own = seconds[name]
        ratio = statistics.median(base) / statistics.median(own)
        low, _, high = statistics.quantiles([a / b for a, b in zip(base, own, strict=True)], n=4)
        gap = np.abs(run() - wanted) / np.abs(wanted).max()
        lines.append(
            f"| {name} | {1000 * statistics.median(own):.1f} | {ratio:.2f} ({low:.2f} to {high:.2f}) |"
            f" {gap.max():.1e} | {gap.mean():.1e} |"
        )
    return lines


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, action="append", help="default: 256 and 512")
    parser.add_argument("--out", type=Path, help="a Markdown file to write too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "onnxruntime", "openvino"))
    lines = [
        "# Latency of exported files: one image, one thread",
        "",
        f"{processor_name()}, Python {platform.python_version()}, {versions}, {time.strftime('%Y-%m-%d')};"
        f" {arguments.rounds} interleaved rounds; load of the machine while it ran: see the last line.",
    ]
    for title, (name, architecture, encoder) in _CASES.items():
        for size in arguments.size or (256, 512):
            print(title, size, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                predictor, facts = predictor_of(name, architecture, encoder, size, Path(folder))
                ways = ways_of(predictor, facts, Path(folder), size)
                lines += ["", f"## {title}, {size}x{size}", "", *table(ways, measure(ways, arguments.rounds))]
    load = Path("/proc/loadavg").read_text(encoding="utf-8").split()[1]
    lines += ["", f"Load average of the last five minutes at the end: {load}."]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
