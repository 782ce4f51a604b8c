"""100,000 pairs listed, split and streamed: seconds and memory. And how soon the command line answers.

    python benchmarks/scale.py [--pairs 100000] [--out benchmarks/results/scale.md]

The pairs are tiles of 101x101 under 100,000 names (hard links to 50 pairs), read without the cache, as data that do not
fit into it are. Each measurement is a process of its own, whose peak of resident memory is told.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_SOURCES = 50  # a file may have so many thousand names
_LIMIT_MIB = 1536
_STREAMED = 5000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "scale.md")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(asked.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), asked.pairs)
        done = subprocess.run(
            [sys.executable, __file__, "--measure", folder], stdout=subprocess.PIPE, text=True, check=True
        )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    from perpixel.inference.timing import processor_name

    lines = [
        f"# {asked.pairs:,} pairs, and the first answer",
        "",
        f"Written by `python benchmarks/scale.py` on {time.strftime('%Y-%m-%d')}: {processor_name()}, Python"
        f" {platform.python_version()}. Seconds are of the processor; memory is the peak of the process so far.",
        "",
        "| step | seconds | MiB |",
        "| :--- | ---: | ---: |",
        *(f"| {step} | {seconds:.1f} | {mib:.0f} |" for step, (seconds, mib) in found.items()),
        "",
        f"Aim: within {_LIMIT_MIB} MiB. `perpixel --help`: {help_seconds():.2f} s of the processor (median of 5"
        " processes; aim: 0.5 s).",
        "",
    ]
    asked.out.write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))
    if max(mib for _, mib in found.values()) > _LIMIT_MIB:
        sys.exit("more memory than is aimed at")


def write(root: Path, count: int) -> None:
    """Hard links: no machine needs 200,000 files of its own for this."""
    rng = np.random.default_rng(0)
    for kind in ("source", "train/images", "train/masks"):
        (root / kind).mkdir(parents=True)
    for number in range(_SOURCES):
        cv2.imwrite(str(root / f"source/image{number}.png"), rng.integers(0, 256, (101, 101, 3), dtype=np.uint8))
        mask_hw = (np.arange(101) > number)[None].repeat(101, 0)
        cv2.imwrite(str(root / f"source/mask{number}.png"), mask_hw.astype(np.uint8) * 255)
    for index in range(count):
        for kind in ("image", "mask"):
            os.link(root / f"source/{kind}{index % _SOURCES}.png", root / f"train/{kind}s/{index:06}.png")


def measure(root: Path) -> dict[str, tuple[float, float]]:
    """(seconds of the processor, peak MiB so far) of each step."""
    from perpixel.data.cache import decode_samples, fingerprint
    from perpixel.data.dataset import EpochOrder, TrainingSet, training_loader
    from perpixel.data.samples import list_samples
    from perpixel.data.split import make_split
    from perpixel.recipe import load_recipe
    from perpixel.tasks import build_task

    found: dict[str, tuple[float, float]] = {}
    began = time.process_time()

    def step(name: str) -> None:
        nonlocal began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found[name], began = (time.process_time() - began, peak), time.process_time()

    recipe = load_recipe("salt", [f"data.root={root}", "data.tables=[]", "data.unlabelled=null", "data.cache=off"])
    task = build_task(recipe)
    step("imports")
    samples = list_samples(recipe.data, root)
    step("listed")
    fingerprint(samples, task.meaning, contents=False)
    step("fingerprint of names and sizes")
    decoded = decode_samples(samples, task.decode_target, key=None)
    subsets, _ = make_split(samples, recipe.split, lambda sample: 0.0)  # random: nothing is asked
    step("split")
    ids = [sample.id for sample in samples]
    positions = [place for place, id_ in enumerate(ids) if subsets[id_] == "train"]
    dataset = TrainingSet(
        decoded,
        ids,
        positions,
        input_section=recipe.input,
        augmentation=recipe.augmentation,
        fill=task.fill,
        seed=0,
        epoch=0,
    )
    order = EpochOrder(len(dataset), 32, seed=0, epoch=0)
    streamed = 0
    for batch in training_loader(dataset, order, workers=0):
        streamed += len(batch.ids)
        if streamed >= _STREAMED:
            break
    step(f"{streamed:,} of them streamed as augmented batches of 32")
    return found


def help_seconds() -> float:
    """Processor time of ``perpixel --help``."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "perpixel", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
