"""Runs as they enter a comparison: those that differ by their seed alone are one configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import read_evaluation, read_groups
from perpixel.run import Run, read_rows

__all__ = ["Configuration", "Scored", "by_configuration", "configurations", "shared_title"]

_WITHOUT_MEANING = ("seed", "threads", "workers", "checkpoint_seconds")  # of the training section


@dataclass(frozen=True)
class Scored:
    """What an evaluation of one run left behind.

    Attributes:
        title: of the run, for people.
        protocol, figures, meaning: as metrics.json holds them.
        rows: of per_image.csv, by sample id.
        groups: by sample id; an empty text is an image by itself.
    """

    title: str
    protocol: Mapping[str, Any]
    figures: Mapping[str, float | None]
    meaning: Mapping[str, Mapping[str, str]]
    rows: Mapping[str, Mapping[str, str]]
    groups: Mapping[str, str]

    @classmethod
    def read(cls, run: Run, name: str, title: str) -> Scored:
        """The evaluation ``name`` of a run; raises RequestError where there is none."""
        stored = read_evaluation(run, name)
        rows = read_rows(run.evaluation_dir(name) / "per_image.csv")
        if stored is None or not rows:
            raise RequestError(
                f"this run has no evaluation {name!r}",
                where=run.path,
                cure=f"perpixel evaluate {run.path} --subset {name}",
            )
        return cls(
            title,
            stored["protocol"],
            stored["figures"],
            stored["meaning"],
            {row["sample"]: row for row in rows},
            dict(zip((row["sample"] for row in rows), read_groups(run, name, rows), strict=True)),
        )


@dataclass(frozen=True)
class Configuration:
    """One run, or several that differ by their seed alone."""

    title: str
    runs: Sequence[Scored]

    def values_kn(self, figure: str, ids: Sequence[str]) -> NDArray[np.float64]:
        """The figure of each image (columns) in each run (rows); nan where there is none."""
        return np.array([[float(run.rows[id_].get(figure) or "nan") for id_ in ids] for run in self.runs])

    def figure(self, key: str) -> float:
        """The mean of the runs' figures; nan where one has none."""
        values = [run.figures.get(key) for run in self.runs]
        return math.nan if None in values else float(np.mean(np.array(values, dtype=float)))


def configurations(runs: Sequence[Run]) -> list[list[int]]:
    """The places of the runs of each configuration, in the order of the runs.

    Runs are one configuration when their recipes differ by ``training.seed`` alone and they learned from the same
    files. Where a seed occurs twice, something else must be different (the code, say): then each run stands alone. So
    it does where all runs would be one configuration, which could not be compared with anything.
    """
    places: dict[str, list[int]] = {}
    seeds = []
    for place, run in enumerate(runs):
        recipe, manifest = run.recipe.to_dict(), run.manifest
        seeds.append(recipe.get("training", {}).get("seed"))
        training = {key: value for key, value in recipe.get("training", {}).items() if key not in _WITHOUT_MEANING}
        origin = [manifest.get("data", {}).get("fingerprint"), manifest.get("ensemble")]
        places.setdefault(json.dumps([recipe | {"training": training}, origin], default=str), []).append(place)
    if len(places) == 1:
        return [[place] for place in range(len(runs))]
    found: list[list[int]] = []
    for own in places.values():
        distinct = len({seeds[place] for place in own}) == len(own)
        found += [own] if distinct else [[place] for place in own]
    return sorted(found)


def by_configuration(runs: Sequence[Run], scored: Sequence[Scored]) -> list[Configuration]:
    """The evaluations of runs, put together where `configurations` says so."""
    found = []
    for places in configurations(runs):
        own = [scored[place] for place in places]
        found.append(Configuration(shared_title([item.title for item in own]), own))
    if len({item.title for item in found}) < len(found):  # what their names have in common tells them not apart
        return [Configuration(_listed([run.title for run in item.runs]), item.runs) for item in found]
    return found


def shared_title(names: Sequence[str]) -> str:
    """What the names of runs have in common, and how many seeds there are; of one run its name."""
    if len(names) == 1:
        return names[0]
    first, last = min(names), max(names)
    same = next((place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first))
    common = first[:same].rstrip("0123456789-_. /=,")
    common = common.removesuffix("seed").rstrip("-_. /=,")
    return f"{common} ({len(names)} seeds)" if common else _listed(names)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more seeds"
