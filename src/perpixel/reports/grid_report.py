"""The report of a grid or a search: what is best, what cannot be told apart from it, what each cost, how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from perpixel.errors import RequestError
from perpixel.evaluation.compare import Comparison, compare_scored
from perpixel.evaluation.configurations import Configuration, Scored
from perpixel.evaluation.fronts import pareto_plot
from perpixel.evaluation.tables import number
from perpixel.reporting.document import Block, Code, Document, Figure, Folded, Section, Table, Text
from perpixel.reporting.plots import points_png
from perpixel.reports.many import comparison_section, curve_blocks
from perpixel.run import Run, read_json, read_rows

__all__ = ["Cell", "grid_document", "ranked_cells"]

_SEED = "training.seed"
_MOST_RIVALS = 20  # that are held against the best
_MOST_PAIRED = 6  # configurations up to which every pair is told of
_MORE_SEEDS = 3
_LONG_NUMBER = 8  # characters
_ADVICE = "Each was trained once, so that what another seed alone would change is not known."


@dataclass(frozen=True)
class Cell:
    """A configuration: the runs that differ by their seed alone.

    Attributes:
        settings: the varied keys without the seed, and their values.
        rows: of table.csv, the finished runs, the best first.
        unfinished: rows of the others.
    """

    settings: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    unfinished: Sequence[Mapping[str, Any]]

    @property
    def title(self) -> str:
        """For people."""
        return ", ".join(self.shown.values()) or "the recipe"

    @property
    def shown(self) -> dict[str, str]:
        """The settings with numbers of four digits: a search proposes them in sixteen."""
        return {key: _short(value) for key, value in self.settings.items()}

    def values(self, column: str) -> list[float]:
        """A column of the finished runs; of nothing, and of what is no figure, nothing."""
        return [float(row[column]) for row in self.rows if row.get(column) not in (None, "")]

    def mean(self, column: str) -> float | None:
        """The mean over the finished runs, if all of them have it."""
        values = self.values(column)
        return float(np.mean(values)) if values and len(values) == len(self.rows) else None

    def spread(self, column: str) -> float | None:
        """The standard deviation over the finished runs."""
        values = self.values(column)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


def _short(value: str) -> str:
    if len(value) <= _LONG_NUMBER:
        return value
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def ranked_cells(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Sequence[str]], column: str, *, higher: bool
) -> list[Cell]:
    """Runs by configuration, the best mean first; those without the figure come last.

    Args:
        rows: of the runs: ``cell``, ``state`` and figures.
        settings: by cell, as ``key=value``.
        column: by which they are ranked.
    """
    sign = -1 if higher else 1
    found: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        pairs = [setting.split("=", 1) for setting in settings[row["cell"]]]
        found.setdefault(tuple((key, value) for key, value in pairs if key != _SEED), []).append(row)

    def own(row: Mapping[str, Any]) -> tuple[bool, float]:
        known = row.get(column) not in (None, "")
        return not known, sign * float(row[column]) if known else 0.0

    def mean(cell: Cell) -> tuple[bool, bool, float]:
        value = cell.mean(column)
        return not cell.rows, value is None, 0.0 if value is None else sign * value

    cells = [
        Cell(
            dict(key),
            sorted((row for row in own_rows if row["state"] == "finished"), key=own),
            [row for row in own_rows if row["state"] != "finished"],
        )
        for key, own_rows in found.items()
    ]
    return sorted(cells, key=mean)


def grid_document(folder: Path) -> Document:
    """The report of a grid or a search, of what is finished so far.

    Raises:
        RequestError: no run is finished, or the table is of an earlier version.
    """
    stored, rows = read_json(folder / "grid.json"), read_rows(folder / "table.csv")
    if "command" not in stored:
        raise RequestError(
            "this grid's table was written by an earlier version of perpixel",
            where=folder,
            cure="repeat the grid's command with --resume: it trains nothing again and writes the table anew.",
        )
    if stored["best"] is None:
        raise RequestError("this grid has no finished run yet", where=folder, cure="finish it with --resume.")
    monitor, kind = stored["monitor"], stored["kind"]
    cells = ranked_cells(rows, stored["cells"], f"val {monitor}", higher=stored["higher"])
    known = [cell for cell in cells if cell.rows]
    runs = [[Run(folder / row["cell"]) for row in cell.rows] for cell in known]
    subset = "test" if all(cell.mean(f"test {monitor}") is not None for cell in known) else "val"
    compared, trouble = _read(known, runs, subset)
    rivals = _against_best(compared, monitor)
    answer = [_best(known, monitor), *_rivals(rivals, subset), *([trouble] if trouble else [])]
    answer += [_ADVICE] if len(known) > 1 and all(len(cell.rows) == 1 for cell in known) else []
    places = list(combinations(range(len(compared)), 2)) if 2 < len(compared) <= _MOST_PAIRED else []
    sections = [
        Section("Ranking", [_ranking(known, monitor, rivals, kind)]),
        Section("Quality and cost", [*_time_plot(known, monitor), *_front(known, runs, monitor)]),
        Section("Curves", curve_blocks([run for own in runs for run in own], monitor)),
        comparison_section(compare_scored(compared, monitor, pairs=places) if places else [], subset),
        Section("Every run", [_every_run(cells)]),
        Section("How to go on", _commands(stored, folder, rows)),
    ]
    title = f"{kind.capitalize()} of {len(rows)} {'trials' if kind == 'search' else 'runs'}: {runs[0][0].recipe.name}"
    return Document(title, answer, _warnings(cells, kind), [section for section in sections if section.blocks])


def _read(cells: Sequence[Cell], runs: Sequence[Sequence[Run]], subset: str) -> tuple[list[Configuration], str]:
    """What evaluations of the subset hold; or nothing, and why."""
    try:
        found = [
            Configuration(cell.title, [Scored.read(run, subset, run.path.name) for run in own])
            for cell, own in zip(cells, runs, strict=True)
        ]
        compare_scored(found, "", pairs=[])
    except RequestError as error:
        return [], f"They are not compared image by image: {error.what}."
    return found, ""


def _against_best(compared: Sequence[Configuration], monitor: str) -> list[Comparison]:
    """The best, first, against those behind it."""
    last = min(len(compared), 1 + _MOST_RIVALS)
    return compare_scored(compared, monitor, pairs=[(0, place) for place in range(1, last)]) if last > 1 else []


def _best(cells: Sequence[Cell], monitor: str) -> str:
    best, column, runs = cells[0], f"val {monitor}", sum(len(cell.rows) for cell in cells)
    named = ", ".join(f"`{key}={value}`" for key, value in best.shown.items()) or "the recipe"
    value, spread = best.mean(column), best.spread(column)
    many = f", the mean of {len(best.rows)} seeds, which spread by {spread:.4f} (standard deviation)" if spread else ""
    of = f"Of {len(cells)} configurations ({runs} runs)" if runs > len(cells) else f"Of {len(cells)} configurations"
    return f"{of} {named} has the best {monitor} on validation data: {number(value)}{many}."


def _rivals(rivals: Sequence[Comparison], subset: str) -> list[str]:
    """What the best can be told apart from, in sentences."""
    if not rivals:
        return []
    found = rivals[0].difference
    groups = f" in {found.groups} groups" if found.groups < found.images else ""
    over = " and over seeds" if rivals[0].trained else ""
    told = f"By {rivals[0].figure} on the {found.images} images of {subset}{groups}{over}"
    same = [item.second for item in rivals if item.verdict == "not to be told apart"]
    better = [item.second for item in rivals if item.verdict == "better"]
    if not same and not better:
        return [f"{told} it is better than every other one."]
    parts = [f"it cannot be told apart from {_listed(same)}"] if same else []
    parts += [f"{_listed(better)} {'is' if len(better) == 1 else 'are'} better"] if better else []
    rest = len(rivals) - len(same) - len(better)
    parts += [f"it is better than the other {'one' if rest == 1 else rest}"] if rest else []
    return [f"{told} {'; '.join(parts)}."]


def _listed(names: Sequence[str]) -> str:
    shown = "; ".join(f"`{name}`" for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} others"


def _warnings(cells: Sequence[Cell], kind: str) -> list[str]:
    rows = [row for cell in cells for row in cell.unfinished if row["state"] != "pruned"]
    if not rows:
        return []
    named = "; ".join(f"{row['cell']} ({row['state']})" for row in rows[:8])
    more = f"; and {len(rows) - 8} others" if len(rows) > 8 else ""
    one = len(rows) == 1
    cure = (
        "A search does not try again what failed; under “How to go on” is how to train such a trial by itself."
        if kind == "search"
        else "The first command under “How to go on” takes up what is missing."
    )
    return [
        f"{len(rows)} {'run is' if one else 'runs are'} not finished, and {'is' if one else 'are'} in no ranking:"
        f" {named}{more}. {cure}"
    ]


def _ranking(cells: Sequence[Cell], monitor: str, rivals: Sequence[Comparison], kind: str) -> Table:
    """A row a configuration: settings, figures with their spread, and how it stands against the best."""
    keys = list(cells[0].settings)
    columns = [column for column in (f"val {monitor}", f"test {monitor}") if any(cell.values(column) for cell in cells)]
    seeds = any(len(cell.rows) > 1 for cell in cells)
    headings = ["#", *keys, *(["seeds"] if seeds else [])]
    for column in columns:
        headings += [column, "spread of seeds"] if seeds else [column]
    headings += ["against the best", "difference to it", "95 % interval"] if rivals else []
    rows = []
    for place, cell in enumerate(cells):
        row = [str(place + 1), *cell.shown.values(), *([str(len(cell.rows))] if seeds else [])]
        for column in columns:
            row += [number(cell.mean(column)), *([number(cell.spread(column))] if seeds else [])]
        if rivals:
            row += _against(rivals[place - 1]) if 0 < place <= len(rivals) else ["" if place else "the best", "", ""]
        rows.append(row)
    caption = (
        f"Ranked by {monitor} on validation data. The epoch, the decision and this ranking were chosen on the same"
        " images: expect less on others. Figures of test, where there are any, are the honest ones."
    )
    if rivals:
        over = ", and over seeds where there are several" if seeds else ""
        caption += (
            f" Differences are of {rivals[0].figure}, image by image; intervals by bootstrap over images{over};"
            " verdicts corrected for their number (Holm)."
        )
    return Table(headings, rows, caption, left=1 + len(keys))


def _against(item: Comparison) -> list[str]:
    low, high = item.interval
    return [item.verdict, f"{item.difference.mean:+.4f}", f"{number(low)} to {number(high)}"]


def _time_plot(cells: Sequence[Cell], monitor: str) -> list[Block]:
    column = f"val {monitor}"
    points = [
        (cell.title, seconds / 60, value)
        for cell in cells
        if (seconds := cell.mean("seconds")) is not None and (value := cell.mean(column)) is not None
    ]
    if len(points) < 2:
        return []
    names, minutes, values = zip(*points, strict=True)
    png = points_png("minutes of training", f"{monitor} on validation data", minutes, values, names)
    told = "; ".join(f"{name}: {minute:.1f} minutes, {value:.4f}" for name, minute, value in points[:8])
    return [Figure(png, f"{monitor} against minutes of training: {told}", "What each cost, and what it reached.")]


def _front(cells: Sequence[Cell], runs: Sequence[Sequence[Run]], monitor: str) -> list[Block]:
    png = pareto_plot(runs, [cell.title for cell in cells], ["val"] * len(cells), monitor)
    return [Figure(png, f"{monitor} against operations an image", "The line is the Pareto front.")] if png else []


def _every_run(cells: Sequence[Cell]) -> Table:
    """All that table.csv holds, with numbers that people can read."""
    rows = [row for cell in cells for row in (*cell.rows, *cell.unfinished)]
    columns = list(rows[0])
    shown = [[_shown(column, str(row[column] or "")) for column in columns] for row in rows]
    words = columns.index("state") + 1
    return Table([_HEADINGS.get(column, column) for column in columns], shown, _EVERY_RUN, left=words)


_EVERY_RUN = (
    "The same as table.csv. Memory: on a GPU what predictions held at most, elsewhere what the whole process did, which"
    " is more."
)
_HEADINGS = {
    "seconds": "minutes of training",
    "operations": "billion operations an image",
    "latency_ms": "milliseconds an image",
    "memory_mib": "memory, MiB",
}


def _shown(column: str, value: str) -> str:
    if not value:
        return ""
    if column == "parameters":
        return f"{int(value):,}"
    if column in ("seconds", "operations"):
        return f"{float(value) / (60 if column == 'seconds' else 1e9):.2f}"
    return value


def _commands(stored: Mapping[str, Any], folder: Path, rows: Sequence[Mapping[str, str]]) -> list[Block]:
    """One command each to continue, to add seeds, and to use the best; typed where the grid was begun."""
    command: list[str] = stored["command"]
    best = folder / stored["best"]
    seed = Run(best).recipe.training.seed
    if stored["kind"] == "search":
        first = "Continue it; a larger `--trials` tries more:"
        seeds = [
            "perpixel",
            "grid",
            str(best / "recipe.yaml"),
            "--vary",
            _seed_axis([seed]),
            "--run",
            f"{folder}-seeds",
        ]
        again = "Train the best with other seeds, to see what they alone change:"
    else:
        first = "Continue it: train what is missing, and again what failed:"
        known = sorted({int(row[_SEED]) for row in rows if row.get(_SEED)} or {seed})
        axes = [word for word in command if not word.startswith(f"{_SEED}=")]
        axes = [word for place, word in enumerate(axes) if word != "--vary" or not axes[place + 1].startswith("--")]
        seeds = [*axes, "--vary", _seed_axis(known), "--resume"]
        again = "Add seeds, to see what they alone change; what is trained stays:"
    blocks: list[Block] = [Text(first), Code(shlex.join([*command, "--resume"]))]
    failed = [folder / row["cell"] for row in rows if row["state"].startswith("failed")]
    lines = [
        f"perpixel train {path}/recipe.yaml --run {path} --resume" for path in failed if Run(path).recipe_path.is_file()
    ]
    if stored["kind"] == "search" and lines:
        blocks.append(Folded("Train a trial that failed again", [Code("\n".join(lines))]))
    blocks += [Text(again), Code(shlex.join(seeds)), Text("Use the best, which this folder stands for:")]
    return [*blocks, Code(f"perpixel predict {shlex.quote(str(folder))} IMAGES --out predictions")]


def _seed_axis(known: Sequence[int]) -> str:
    more = range(max(known) + 1, max(known) + _MORE_SEEDS)
    return f"{_SEED}={','.join(map(str, [*known, *more]))}"
