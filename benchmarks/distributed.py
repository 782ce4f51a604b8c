"""Images a second of one process and of two, at the same batch of a step: what a second process is worth here.

    OMP_NUM_THREADS=1 python benchmarks/distributed.py --data DIR --out benchmarks/results/distributed.md

The two are measured in turn, several times, each training's first epoch left out; a process has one thread. What is
said is the median of the rounds' own ratios, and with each round how many other processes wanted the processors: where
they are more than the processors, the figures say what a second process gets of a busy machine, and little else.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from pathlib import Path

import perpixel
from perpixel.recipe import Recipe, load_recipe

SETTINGS = (
    "model.encoder=resnet18",
    "model.weights=none",
    "input.size=[96, 96]",
    "training.epochs=2",
    "training.batch_size=16",
    "training.precision=fp32",
    "training.threads=1",
    "split.method=random",
    "split.order_column=null",
    "split.validation=0.05",
)


def images_per_second(recipe: Recipe, devices: int) -> float:
    """Of the last epoch, validation included."""
    with tempfile.TemporaryDirectory() as folder:
        run = perpixel.train(recipe, run=Path(folder) / "run", devices=devices)
        first, last = (row["seconds"] for row in run.read_history()[-2:])
        images = sum(subset == "train" for subset in run.read_split()[0].values())
    return images / (last - first)


def main() -> None:
    """Measure in turn, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="of perpixel synthesize salt")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    recipe = load_recipe("salt", [f"data.root={asked.data}", *SETTINGS])
    rates: dict[int, list[float]] = {1: [], 2: []}
    loads: list[float] = []
    for number in range(asked.rounds):
        for devices in (1, 2) if number % 2 == 0 else (2, 1):
            rates[devices].append(images_per_second(recipe, devices))
            loads.append(os.getloadavg()[0])
            print(devices, round(rates[devices][-1], 2), f"load {os.getloadavg()[0]:.1f}", flush=True)
    gain = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    lines = [
        "# One process and two",
        "",
        f"`OMP_NUM_THREADS=1 python benchmarks/distributed.py --data DIR --rounds {asked.rounds} --out ...`; U-Net on",
        "resnet18, 96x96, batches of 16 together, float32, one thread a process, gloo, in turn;",
        f"{os.cpu_count()} processors ({platform.machine()}), whose load was {min(loads):.0f} to {max(loads):.0f}.",
        "",
        "| processes | images/s, each round |",
        "| --- | --- |",
    ]
    lines += [f"| {n} | {', '.join(f'{rate:.1f}' for rate in rates[n])} |" for n in rates]
    lines += [
        "",
        f"Two give {gain:.2f} times the images of one (median of the rounds): an efficiency of {gain / 2:.0%}.",
    ]
    if max(loads) > 2 * (os.cpu_count() or 1):
        lines.append("The machine was busy with other work: this is no measure of a machine of one's own.")
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
