"""How often a comparison errs: on stored per-image scores, with no difference, and with a planted one.

    python benchmarks/comparisons.py RUN/evaluation/SUBSET/per_image.csv FIGURE [--sizes 50,100,300] [--trials 400]

Two "runs" of a trial get the scores of the same images, drawn from the file, each with noise of its own (a second
training with another seed), exchanged at random: no difference in truth. A planted difference is then added to the
second. `found` should be 5 % without a difference, and 80 % at the difference for which the method itself asks for as
many images as there are.

The second table is of configurations that were trained several times: trainings differ by chance also in their mean, by
``_TRAINING``, so that configurations which are the same still differ. `images alone` is what is found when only images
are drawn anew.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from perpixel.evaluation.statistics import paired_difference, trained_difference

_NOISE = 0.1  # standard deviation of an image's score between two trainings
_TRAINING = 0.015  # standard deviation of a training's mean, by its seed
_PER_GROUP = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("figure")
    parser.add_argument("--sizes", default="50,100,300")
    parser.add_argument("--trials", type=int, default=400)
    asked = parser.parse_args()
    with Path(asked.table).open(newline="", encoding="utf-8") as file:
        scores = np.array([float(row[asked.figure]) for row in csv.DictReader(file) if row[asked.figure]])
    scores = scores[np.isfinite(scores)]
    print("| images | groups | difference | found | interval covers | found, groups ignored |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in map(int, asked.sizes.split(",")):
        for grouped in (False, True):
            for power in (False, True):
                print(row(scores, size, grouped, power, asked.trials))
    print("\n| images | seeds | difference | found | interval covers | images alone |")
    print("| --- | --- | --- | --- | --- | --- |")
    for size in map(int, asked.sizes.split(",")):
        for seeds in ((1, 3), (2, 2), (3, 3), (5, 5)):
            for power in (False, True):
                print(seeded_row(scores, size, seeds, power, asked.trials))


def row(scores: np.ndarray, size: int, grouped: bool, power: bool, trials: int) -> str:
    rng = np.random.default_rng([size, grouped, power])
    count = size // _PER_GROUP if grouped else size
    names = [f"g{number // _PER_GROUP}" for number in range(size)] if grouped else [""] * size
    spread = _NOISE * np.sqrt(2) * np.sqrt(1 + (_PER_GROUP - 1) * 0.5 if grouped else 1)
    shift = 2.8016 * spread / np.sqrt(size) if power else 0.0
    found, covered, careless = 0, 0, 0
    for trial in range(trials):
        base = rng.choice(scores, size)
        pair = [base + noise(rng, size, grouped) for _ in range(2)]
        pair[1] = pair[1] + shift
        result = paired_difference(pair[0], pair[1], names, seed=trial)
        found += result.decided
        covered += result.low <= shift <= result.high
        careless += paired_difference(pair[0], pair[1], seed=trial).decided if grouped else result.decided
    cells = [found / trials, covered / trials, careless / trials]
    return f"| {size} | {count} | {shift:.4f} | " + " | ".join(f"{cell:.1%}" for cell in cells) + " |"


def seeded_row(scores: np.ndarray, size: int, seeds: tuple[int, int], power: bool, trials: int) -> str:
    rng = np.random.default_rng([size, *seeds, power])
    error = np.sqrt((_NOISE**2 / size + _TRAINING**2) * sum(1 / count for count in seeds))
    shift = 2.8016 * error if power else 0.0
    found, covered, careless = 0, 0, 0
    for trial in range(trials):
        base = rng.choice(scores, size)
        first_kn, second_mn = (
            base + rng.normal(0, _TRAINING, (count, 1)) + rng.normal(0, _NOISE, (count, size)) for count in seeds
        )
        second_mn = second_mn + shift
        alone = paired_difference(first_kn.mean(axis=0), second_mn.mean(axis=0), seed=trial)
        result = trained_difference(alone, first_kn, second_mn)
        assert result is not None
        found += result.p_value < 0.05
        covered += result.low <= shift <= result.high
        careless += alone.decided
    cells = [found / trials, covered / trials, careless / trials]
    return f"| {size} | {seeds[0]}, {seeds[1]} | {shift:.4f} | " + " | ".join(f"{cell:.1%}" for cell in cells) + " |"


def noise(rng: np.random.Generator, size: int, grouped: bool) -> np.ndarray:
    """Of each image alone; or half of its variance shared by the images of a group."""
    if not grouped:
        return rng.normal(0, _NOISE, size)
    groups = -(-size // _PER_GROUP)
    shared = np.repeat(rng.normal(0, _NOISE * np.sqrt(0.5), groups), _PER_GROUP)[:size]
    return shared + rng.normal(0, _NOISE * np.sqrt(0.5), size)


if __name__ == "__main__":
    main()
