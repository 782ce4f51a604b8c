"""Which of two runs is better on the same images, how much, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.evaluation.configurations import Configuration, Scored, by_configuration, configurations, shared_title
from perpixel.evaluation.fronts import pareto_plot
from perpixel.evaluation.several import evaluate_several
from perpixel.evaluation.statistics import (
    PairedDifference,
    TrainedDifference,
    holm,
    paired_difference,
    trained_difference,
)
from perpixel.evaluation.tables import number, text_table
from perpixel.notebook import notebook_html
from perpixel.run import Run, write_atomic

_SAME = ("pairs", "images", "size", "fingerprint")
_SHOWN = 8


@dataclass(frozen=True)
class Comparison:
    """Two configurations by one figure on one set of images; ``difference`` is second minus first.

    ``trained`` is there where one of them has several runs (seeds): then the interval and the p-value hold for other
    trainings as well as for other images.
    """

    figure: str
    direction: str
    first: str
    second: str
    first_value: float
    second_value: float
    difference: PairedDifference
    corrected_p: float
    trained: TrainedDifference | None = None

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` (of the second), or ``not to be told apart``."""
        if not self.corrected_p < 0.05:
            return "not to be told apart"
        return "better" if (self.difference.mean > 0) == (self.direction == "higher") else "worse"

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference, over images, and over trainings where there are several."""
        found = self.trained or self.difference
        return found.low, found.high

    def sentence(self) -> str:
        """For a person."""
        found = self.difference
        told = (
            f"{self.figure} {self.first_value:.4f} -> {self.second_value:.4f}, difference {found.mean:+.4f}"
            f" ({self._how_sure()})"
        )
        if self.verdict != "not to be told apart":
            return f"{self.second} is {self.verdict} than {self.first}: {told}"
        if 2 / 2**found.groups >= 0.05:  # the two extreme sign patterns are too large a share of all
            return f"{self.first} and {self.second} cannot be told apart: {told}; fewer than six groups never can"
        return f"{self.first} and {self.second} cannot be told apart on this much data: {told}{self._what_would()}"

    def _how_sure(self) -> str:
        found, low, high = self.difference, *self.interval
        units = f"{found.images} images" + (f" in {found.groups} groups" if found.groups < found.images else "")
        interval = f"95 % interval {number(low)} to {number(high)}, p {number(self.corrected_p)}"
        if self.trained is None:
            return f"{interval}, {units}"
        spreads = (self.trained.first_spread, self.trained.second_spread)
        spread = " and ".join(number(value) for value in spreads if math.isfinite(value))
        alone = f"over images alone {number(found.low)} to {number(found.high)}"
        return f"{interval}, over {units} and over trainings; {alone}; trainings that differ by seed spread by {spread}"

    def _what_would(self) -> str:
        needed = (self.trained or self.difference).images_to_decide
        more = needed - self.difference.images
        if 0 < more < 1e6:
            return f"; about {math.ceil(more):,} more images would decide"
        if self.trained is None or (math.isfinite(needed) and more <= 0):
            return ""
        if self.trained.runs_to_decide < 1e3:
            return (
                f"; about {math.ceil(self.trained.runs_to_decide)} seeds of each would decide, more images alone never"
            )
        return "; only more seeds and more images together would decide"

    def as_dict(self) -> dict[str, Any]:
        """For JSON, where what is no number is null."""
        values = asdict(self) | {"verdict": self.verdict, "sentence": self.sentence()}
        values["difference"] = {key: _finite(value) for key, value in values["difference"].items()}
        if self.trained is not None:
            values["trained"] = {key: _finite(value) for key, value in values["trained"].items()}
        return {key: _finite(value) for key, value in values.items()}


def compare_runs(runs: Sequence[Run], *, subset: str, data: Sequence[Path], console: Console) -> Compared:
    """Score all runs on the same images and compare each pair of them.

    Returns:
        By name of the data: the comparisons by the monitored figure, then those by each other one. Runs that differ by
        their seed alone enter as one configuration. p-values of one figure are corrected for the number of pairs
        (Holm).

    Raises:
        RequestError: fewer than two runs, or runs that were not scored on the same images by the same protocol.
    """
    if len(runs) < 2:
        raise RequestError("one run cannot be compared", rule="a comparison holds two runs or more.")
    rows = evaluate_several(runs, subset=subset, data=data, console=console)["rows"]
    names: dict[str, list[str]] = {}  # by run, in their order; the n-th of each run are the same data
    for row in rows:
        names.setdefault(row["run"], []).append(row["evaluation"])
    found = Compared()
    for place, first_name in enumerate(next(iter(names.values()))):
        scored = [Scored.read(run, own[place], title) for run, (title, own) in zip(runs, names.items(), strict=True)]
        found[first_name] = compare_scored(by_configuration(runs, scored), runs[0].recipe.training.monitor)
    places, titles, sources = configurations(runs), list(names), [own[0] for own in names.values()]
    if front := pareto_plot(
        [[runs[place] for place in own] for own in places],
        [shared_title([titles[place] for place in own]) for own in places],
        [sources[own[0]] for own in places],
        runs[0].recipe.training.monitor,
    ):
        for run in runs:
            write_atomic(run.path / "evaluation" / "pareto.png", front)
    return found


def compare_stored(runs: Sequence[Run], subset: str) -> list[Comparison]:
    """Compare what earlier evaluations of a subset left behind; nothing is predicted.

    Raises:
        RequestError: fewer than two runs, a run without this evaluation, or other images or another protocol.
    """
    if len(runs) < 2:
        raise RequestError("one run cannot be compared", rule="a comparison holds two runs or more.")
    scored = [Scored.read(run, subset, run.path.name) for run in runs]
    return compare_scored(by_configuration(runs, scored), runs[0].recipe.training.monitor)


def compare_scored(
    compared: Sequence[Configuration], monitor: str, *, pairs: Sequence[tuple[int, int]] | None = None
) -> list[Comparison]:
    """Pairs of configurations, by each figure that is a mean over images.

    Args:
        compared: evaluations of the same images.
        monitor: the figure that comes first.
        pairs: places in ``compared``; None for every pair. With pairs, the first figure alone is compared.
    """
    all_runs = [run for each in compared for run in each.runs]
    first = all_runs[0]
    for other in all_runs[1:]:
        _require_same(first, other)
    ids = sorted(first.rows)
    groups = [first.groups.get(id_, "") for id_ in ids]
    figures = [
        key
        for key, info in first.meaning.items()
        if info["averaging"] == "mean over images" and info["direction"] in ("higher", "lower")
    ]
    # The monitored figure may be one of pixels; then no interval of it is known, and its mean over images speaks.
    figures.sort(key=lambda key: (key != monitor, key != f"{monitor}_per_image"))
    chosen = list(combinations(range(len(compared)), 2)) if pairs is None else pairs
    comparisons = []
    for figure in figures if pairs is None else figures[:1]:
        values = [each.values_kn(figure, ids) for each in compared]
        found = [_differ(values[a], values[b], groups) for a, b in chosen]
        corrected = holm([(trained or difference).p_value for difference, trained in found])
        comparisons += [
            Comparison(
                figure,
                first.meaning[figure]["direction"],
                compared[a].title,
                compared[b].title,
                compared[a].figure(figure),
                compared[b].figure(figure),
                difference,
                p_value,
                trained,
            )
            for (a, b), (difference, trained), p_value in zip(chosen, found, corrected, strict=True)
        ]
    return comparisons


def _differ(
    first_kn: NDArray[np.float64], second_mn: NDArray[np.float64], groups: Sequence[str]
) -> tuple[PairedDifference, TrainedDifference | None]:
    difference = paired_difference(first_kn.mean(axis=0).tolist(), second_mn.mean(axis=0).tolist(), groups)
    return difference, trained_difference(difference, first_kn, second_mn)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """The sentence of the first figure of each pair, then a row a figure."""
    return "\n".join([*_leading_sentences(comparisons), "", *text_table(_HEADINGS, _rows(comparisons), left=3)])


class Compared(dict[str, list[Comparison]]):
    """Comparisons by name of the data; in a notebook they show themselves."""

    def table(self) -> str:
        """All of it as text."""
        return "\n\n".join(f"{name}:\n{comparison_table(items)}" for name, items in self.items())

    def _repr_html_(self) -> str:
        return "".join(
            notebook_html(name, _leading_sentences(items), _HEADINGS, _rows(items)) for name, items in self.items()
        )


def _leading_sentences(comparisons: Sequence[Comparison]) -> list[str]:
    return [item.sentence() for item in comparisons if item.figure == comparisons[0].figure]


_HEADINGS = ("figure", "first", "second", "first run", "second run", "difference", "from", "to", "p", "verdict")


def _rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    return [
        [
            item.figure,
            item.first,
            item.second,
            number(item.first_value),
            number(item.second_value),
            f"{item.difference.mean:+.4f}",
            *(number(end) for end in item.interval),
            number(item.corrected_p),
            item.verdict,
        ]
        for item in comparisons
    ]


def _require_same(first: Scored, other: Scored) -> None:
    different = [key for key in _SAME if first.protocol.get(key) != other.protocol.get(key)]
    alone = sorted(first.rows.keys() ^ other.rows.keys())
    if different or alone:
        raise RequestError(
            f"{first.title} and {other.title} were not scored on the same images by the same protocol",
            details=[
                *(f"{key}: {first.protocol.get(key)} and {other.protocol.get(key)}" for key in different),
                *(f"only one of them has {id_}" for id_ in alone[:_SHOWN]),
            ],
            cure="give a data folder with --data: all runs are then scored on it.",
        )


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
