"""`make bench`: perpixel and its rivals train the same, in turn, each in a process of its own; ratios of medians.

    python benchmarks/suite.py [--rounds 3] [--case unet --case head ...] [--out benchmarks/results/training_speed.md]

A round runs every way of a case once, in an order that is drawn anew. Processor time is the main figure: on a machine
that others use too it hardly changes, wall time does. One thread and no worker processes, on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from cases import CASES, Case

HERE = Path(__file__).parent
WAYS = ("perpixel", "plain Lightning")
_QUALITY_WAYS = ("perpixel", "perpixel fp32", "plain Lightning")
_QUALITY_SEEDS = (1, 2, 3, 4, 5)
Rows = dict[str, list[dict[str, Any]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", action="append", choices=CASES, help="default: all")
    parser.add_argument("--no-quality", action="store_true", help="leave the comparison of quality out")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "training_speed.md")
    asked = parser.parse_args()
    names = asked.case or CASES
    began = time.time()
    peak = answer("floor.py", "--peak")
    lines = [*heading(asked.rounds), *peak_lines(peak)]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            case, data = CASES[name], Path(folder) / name
            case.write(data, case.images)
            rows = rounds(case, data, asked.rounds)
            lines += section(case, rows, answer("floor.py", "--case", name), peak)
            if name == "unet" and not asked.no_quality:
                lines += quality_section(quality(case, Path(folder) / "quality"))
            asked.out.write_text("\n".join([*lines, *ending(began)]), encoding="utf-8")
    print(asked.out.read_text(encoding="utf-8"))


def answer(script: str, *arguments: str) -> Any:
    """What a script prints last, JSON."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        sys.exit(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rounds(case: Case, data: Path, count: int) -> Rows:
    """What each way took in each round."""
    rows: Rows = {way: [] for way in (*WAYS, *case.rivals)}
    order = random.Random(0)
    for number in range(count):
        for way in order.sample(list(rows), len(rows)):
            rows[way].append(answer("worker.py", case.name, way, str(data)))
            told = rows[way][-1]
            print(f"{case.name}, round {number + 1}: {way} {told['processor']:.2f} s of processor a batch", flush=True)
    return rows


def quality(case: Case, data: Path) -> dict[str, list[float]]:
    """IoU on validation images after the same epochs from the same weights, by seed."""
    import torch

    from perpixel.models import build_model
    from perpixel.training.loop import model_bytes

    case.write(data, 160)
    found: dict[str, list[float]] = {way: [] for way in _QUALITY_WAYS}
    for seed in _QUALITY_SEEDS:
        torch.manual_seed(seed)
        model = build_model(architecture="unet", encoder="resnet34", weights="none", out_channels=1)
        (data / "start.safetensors").write_bytes(model_bytes(model))
        for way in _QUALITY_WAYS:
            found[way].append(answer("worker.py", case.name, way, str(data), "--quality", str(seed))["quality"])
            print(f"quality, seed {seed}: {way} {found[way][-1]:.4f}", flush=True)
    return found


def heading(count: int) -> list[str]:
    packages = ("perpixel", "torch", "lightning", "segmentation-models-pytorch", "timm", "transformers", "keras")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return [
        "# Training, beside the plain loop",
        "",
        f"Written by `make bench` on {time.strftime('%Y-%m-%d')}: {processor()}, {os.cpu_count()} cores, no GPU,"
        f" Python {platform.python_version()}, {versions}.",
        "",
        f"{count} rounds, in each of which every way runs once in a process of its own, in an order drawn anew; one"
        " thread, no worker processes. Timed are the batches: loading, augmentation, forward, backward, optimiser. Not"
        " timed: imports, the first look at the data, filling the cache, features of a frozen encoder, validation."
        " `plain Lightning` is `benchmarks/plain.py`: a Dataset of Pillow and numpy, a LightningModule, Adam, fp32, as"
        " the examples of segmentation-models-pytorch have it; the others are in `benchmarks/rivals.py`. Ratios are of"
        " medians; in brackets the smallest and the largest ratio of a round. Peak memory is of the process.",
        "",
    ]


def processor() -> str:
    from perpixel.inference.timing import processor_name

    return processor_name()


def peak_lines(peak: dict[str, float]) -> list[str]:
    told = ", ".join(f"{name} {value:.0f}" for name, value in peak.items())
    return [
        f"What one core reaches, in 10^9 operations a second of processor time (`benchmarks/floor.py --peak`): {told}.",
        "",
    ]


def section(case: Case, rows: Rows, operations: int, peak: dict[str, float]) -> list[str]:
    """A table of one case."""
    lines = [
        f"## {case.title}",
        "",
        "| way | images/s of processor | processor s a batch | ratio | wall s a batch | ratio | peak MiB |"
        " of the convolution peak |",
        "| :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    plain = rows[WAYS[1]]
    for way, own in rows.items():
        seconds = {kind: statistics.median(row[kind] for row in own) for kind in ("processor", "wall", "peak_mib")}
        precision = own[0]["precision"]
        reached = operations / seconds["processor"] / 1e9 / peak[f"convolution {precision}"]
        lines.append(
            f"| {way}, {precision} | {case.batch / seconds['processor']:.1f} | {seconds['processor']:.3f} |"
            f" {ratio(plain, own, 'processor')} | {seconds['wall']:.3f} | {ratio(plain, own, 'wall')} |"
            f" {seconds['peak_mib']:.0f} | {'' if case.frozen and way == WAYS[0] else f'{reached:.0%}'} |"
        )
    amount = f"{operations / 1e9:.0f} x 10^9 operations a batch, forward and backward"
    return [*lines, "", f"{amount}{' (of the plain loop)' if case.frozen else ''}.", ""]


def ratio(plain: list[dict[str, Any]], own: list[dict[str, Any]], kind: str) -> str:
    """How many times as fast as the plain loop, each round beside its own."""
    whole = statistics.median(row[kind] for row in plain) / statistics.median(row[kind] for row in own)
    each = [a[kind] / b[kind] for a, b in zip(plain, own, strict=True)]
    return "1" if plain is own else f"**{whole:.2f}** ({min(each):.2f} to {max(each):.2f})"


def quality_section(found: dict[str, list[float]]) -> list[str]:
    """Equal quality: the same network from the same weights on the same images."""
    lines = [
        "### Quality of both",
        "",
        "The same start weights, 160 synthetic salt tiles at 64x64, 24 epochs, Adam 5e-4, flips; IoU an image on 40"
        " others after the last epoch, by the same code.",
        "",
        "| way | " + " | ".join(f"seed {seed}" for seed in _QUALITY_SEEDS) + " | mean |",
        "| :--- |" + " ---: |" * (len(_QUALITY_SEEDS) + 1),
    ]
    for way, values in found.items():
        lines.append(f"| {way} | " + " | ".join(f"{value:.4f}" for value in [*values, statistics.mean(values)]) + " |")
    return [*lines, ""]


def ending(began: float) -> list[str]:
    load = Path("/proc/loadavg")
    text = f" Load average at the end: {load.read_text(encoding='utf-8').split()[1]}." if load.is_file() else ""
    return [f"All of it took {(time.time() - began) / 60:.0f} minutes.{text}", ""]


if __name__ == "__main__":
    main()
