"""Which of two runs is better on the same images, how much, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import read_evaluation, read_groups
from perpixel.evaluation.fronts import pareto_plot
from perpixel.evaluation.several import evaluate_several
from perpixel.evaluation.statistics import PairedDifference, holm, paired_difference
from perpixel.evaluation.tables import number, text_table
from perpixel.notebook import notebook_html
from perpixel.run import Run, read_rows, write_atomic

_SAME = ("pairs", "images", "size", "fingerprint")
_SHOWN = 8


@dataclass(frozen=True)
class Comparison:
    """Two runs by one figure on one set of images; ``difference`` is second minus first."""

    figure: str
    direction: str
    first: str
    second: str
    first_value: float
    second_value: float
    difference: PairedDifference
    corrected_p: float

    @property
    def verdict(self) -> str:
        """``better``, ``worse`` (of the second run), or ``not to be told apart``."""
        if not self.corrected_p < 0.05:
            return "not to be told apart"
        return "better" if (self.difference.mean > 0) == (self.direction == "higher") else "worse"

    def sentence(self) -> str:
        """For a person."""
        found = self.difference
        units = f"{found.images} images" + (f" in {found.groups} groups" if found.groups < found.images else "")
        told = (
            f"{self.figure} {self.first_value:.4f} -> {self.second_value:.4f}, difference {found.mean:+.4f}"
            f" (95 % interval {number(found.low)} to {number(found.high)}, p {number(self.corrected_p)}, {units})"
        )
        if self.verdict != "not to be told apart":
            return f"{self.second} is {self.verdict} than {self.first}: {told}"
        if 2 / 2**found.groups >= 0.05:  # the two extreme sign patterns are too large a share of all
            return f"{self.first} and {self.second} cannot be told apart: {told}; fewer than six groups never can"
        more = found.images_to_decide - found.images
        enough = f"; about {math.ceil(more):,} more images would decide" if 0 < more < 1e6 else ""
        return f"{self.first} and {self.second} cannot be told apart on this much data: {told}{enough}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON, where what is no number is null."""
        values = asdict(self) | {"verdict": self.verdict, "sentence": self.sentence()}
        values["difference"] = {key: _finite(value) for key, value in values["difference"].items()}
        return {key: _finite(value) for key, value in values.items()}


def compare_runs(runs: Sequence[Run], *, subset: str, data: Sequence[Path], console: Console) -> Compared:
    """Score all runs on the same images and compare each pair of them.

    Returns:
        By name of the data: the comparisons by the monitored figure, then those by each other one. p-values of one
        figure are corrected for the number of pairs (Holm).

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
        scored = [_Scored.read(run, own[place], title) for run, (title, own) in zip(runs, names.items(), strict=True)]
        found[first_name] = compare_scored(scored, runs[0].recipe.training.monitor)
    sources = [own[0] for own in names.values()]
    if front := pareto_plot(runs, list(names), sources, runs[0].recipe.training.monitor):
        for run in runs:
            write_atomic(run.path / "evaluation" / "pareto.png", front)
    return found


@dataclass(frozen=True)
class _Scored:
    """What an evaluation of one run left behind."""

    title: str
    protocol: Mapping[str, Any]
    figures: Mapping[str, float | None]
    meaning: Mapping[str, Mapping[str, str]]
    rows: Mapping[str, Mapping[str, str]]
    groups: Mapping[str, str]

    @classmethod
    def read(cls, run: Run, name: str, title: str) -> _Scored:
        stored = read_evaluation(run, name)
        rows = read_rows(run.evaluation_dir(name) / "per_image.csv")
        if stored is None or not rows:
            raise RequestError(f"this run has no evaluation {name!r}", where=run.path)
        return cls(
            title,
            stored["protocol"],
            stored["figures"],
            stored["meaning"],
            {row["sample"]: row for row in rows},
            dict(zip((row["sample"] for row in rows), read_groups(run, name, rows), strict=True)),
        )

    def values(self, figure: str, ids: Sequence[str]) -> list[float]:
        return [float(self.rows[id_].get(figure) or "nan") for id_ in ids]


def compare_stored(runs: Sequence[Run], subset: str) -> list[Comparison]:
    """Compare what earlier evaluations of a subset left behind; nothing is predicted.

    Raises:
        RequestError: fewer than two runs, a run without this evaluation, or other images or another protocol.
    """
    if len(runs) < 2:
        raise RequestError("one run cannot be compared", rule="a comparison holds two runs or more.")
    return compare_scored([_Scored.read(run, subset, run.path.name) for run in runs], runs[0].recipe.training.monitor)


def compare_scored(scored: Sequence[_Scored], monitor: str) -> list[Comparison]:
    """Every pair of evaluations of the same images by every figure that is a mean over images."""
    first = scored[0]
    for other in scored[1:]:
        _require_same(first, other)
    ids = sorted(first.rows)
    groups = [first.groups.get(id_, "") for id_ in ids]
    figures = [
        key
        for key, info in first.meaning.items()
        if info["averaging"] == "mean over images" and info["direction"] in ("higher", "lower")
    ]
    # The monitored figure may be one of pixels; then no interval of it is known, and the others speak.
    figures.sort(key=lambda key: key != monitor)
    comparisons = []
    for figure in figures:
        pairs = list(combinations(scored, 2))
        differences = [paired_difference(a.values(figure, ids), b.values(figure, ids), groups) for a, b in pairs]
        corrected = holm([difference.p_value for difference in differences])
        for (a, b), difference, p_value in zip(pairs, differences, corrected, strict=True):
            comparisons.append(
                Comparison(
                    figure,
                    first.meaning[figure]["direction"],
                    a.title,
                    b.title,
                    _number(a.figures.get(figure)),
                    _number(b.figures.get(figure)),
                    difference,
                    p_value,
                )
            )
    return comparisons


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


_HEADINGS = ("figure", "first", "second", "first run", "second run", "difference", "from", "to", "p", "verdict")


def _leading_sentences(comparisons: Sequence[Comparison]) -> list[str]:
    return [item.sentence() for item in comparisons if item.figure == comparisons[0].figure]


def _rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    return [
        [
            item.figure,
            item.first,
            item.second,
            number(item.first_value),
            number(item.second_value),
            f"{item.difference.mean:+.4f}",
            number(item.difference.low),
            number(item.difference.high),
            number(item.corrected_p),
            item.verdict,
        ]
        for item in comparisons
    ]


def _require_same(first: _Scored, other: _Scored) -> None:
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


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
