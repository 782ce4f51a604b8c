"""Reports of several runs: a grid, and a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perpixel.evaluation.compare import Comparison, compare_stored
from perpixel.evaluation.fronts import pareto_plot
from perpixel.evaluation.tables import number
from perpixel.reporting.curves import curves_png
from perpixel.reporting.document import Code, Document, Figure, Section, Table, Text
from perpixel.reporting.plots import points_png
from perpixel.reports.run_report import scored_subsets
from perpixel.run import Run, read_json, read_rows
from perpixel.tasks import build_task

__all__ = ["comparison_document", "grid_document"]

_PLAIN = {"cell", "seconds", "parameters", "best epoch"}


def grid_document(folder: Path) -> Document:
    """The report of a grid: which cell is best, and whether that can be told from chance."""
    stored = read_json(folder / "grid.json")
    rows = read_rows(folder / "table.csv")
    runs = [Run(folder / row["cell"]) for row in rows]
    monitor, best = stored["monitor"], rows[0]
    subset = "test" if f"test {monitor}" in best else "val"
    comparisons = _compared(runs, subset)
    keys = [key for key in best if key not in _PLAIN and not key.startswith(("val ", "test "))]
    told = ", ".join(f"{key} {best[key]}" for key in keys)
    answer = [f"Of {len(rows)} cells {best['cell']} ({told}) has the best {monitor} on validation data."]
    answer += [_rivals(best["cell"], comparisons)] if comparisons else []
    left = 1 + len(keys)
    table = Table(list(best), [[row[key] for key in best] for row in rows], "Best first, by validation data.", left)
    sections = [
        Section("The cells", [table, *_cost_plot(rows, f"val {monitor}", monitor), *_front(runs, "val", monitor)]),
        Section("Curves", _curves(runs, monitor)),
        _comparison_section(comparisons, subset),
        Section("How to repeat it", [Code(_command(runs[0], stored))]),
    ]
    return Document(
        f"Grid of {len(rows)} runs: {runs[0].recipe.name}", answer, (), [item for item in sections if item.blocks]
    )


def comparison_document(runs: Sequence[Run], subset: str) -> Document:
    """The report of a comparison of stored evaluations.

    Raises:
        RequestError: as `compare_stored`.
    """
    comparisons = compare_stored(runs, subset)
    monitor = runs[0].recipe.training.monitor
    leading = [item for item in comparisons if item.figure == comparisons[0].figure]
    shown = [f"{run.path.name} ({run.recipe.name})" for run in runs]
    headings = ["run", "recipe", monitor, "parameters", "training minutes"]
    rows = [_run_row(run, subset, monitor) for run in runs]
    sections = [
        Section("The runs", [Table(headings, rows, left=2), *_front(runs, subset, monitor)]),
        _comparison_section(comparisons, subset),
        Section("Curves", _curves(runs, monitor)),
    ]
    return Document(f"Comparison: {' and '.join(shown)}", [item.sentence() for item in leading], (), sections)


def _run_row(run: Run, subset: str, monitor: str) -> list[str]:
    found = {item.name: item for item in scored_subsets(run)}
    manifest = run.manifest
    parameters = sum(int(value) for value in (manifest.get("parameters") or {}).values())
    minutes = manifest.get("training_seconds", 0.0) / 60
    return [run.path.name, run.recipe.name, found[subset].shown(monitor), f"{parameters:,}", f"{minutes:.1f}"]


def _compared(runs: Sequence[Run], subset: str) -> list[Comparison]:
    return compare_stored(runs, subset) if len(runs) > 1 else []


def _rivals(best: str, comparisons: Sequence[Comparison]) -> str:
    figure = comparisons[0].figure
    rivals = []
    for item in comparisons:
        if item.figure == figure and best in (item.first, item.second) and item.verdict == "not to be told apart":
            rivals.append(item.second if item.first == best else item.first)
    if not rivals:
        return f"By {figure} on the reported images it can be told apart from every other cell."
    return f"By {figure} on the reported images it cannot be told apart from {', '.join(rivals)}."


def _comparison_section(comparisons: Sequence[Comparison], subset: str) -> Section:
    if not comparisons:
        return Section("Are they different?", [])
    rows = [
        [
            item.figure,
            item.first,
            item.second,
            number(item.first_value),
            number(item.second_value),
            f"{item.difference.mean:+.4f}",
            f"{number(item.difference.low)} to {number(item.difference.high)}",
            number(item.corrected_p),
            item.verdict,
        ]
        for item in comparisons
    ]
    headings = ["figure", "first", "second", "first's", "second's", "difference", "95 % interval", "p", "the second is"]
    first = comparisons[0].difference
    text = (
        f"The same {first.images} images of {subset}, paired"
        + (f", in {first.groups} groups that are drawn together" if first.groups < first.images else "")
        + "; intervals by bootstrap, p-values by sign flips, corrected for the number of pairs (Holm)."
    )
    return Section("Are they different?", [Text(text), Table(headings, rows, left=3)])


def _curves(runs: Sequence[Run], monitor: str) -> list[Any]:
    histories = {run.path.name: run.read_history() for run in runs}
    key = f"val_{monitor}"
    known = {name: rows for name, rows in histories.items() if rows and key in rows[0]}
    if not known:
        return []
    higher = build_task(runs[0].recipe).metrics().infos()[monitor].direction == "higher"
    png = curves_png(known, key, f"{monitor} on validation data", higher=higher)
    return [Figure(png, f"{monitor} of {len(known)} runs by epoch")]


def _cost_plot(rows: Sequence[dict[str, str]], key: str, monitor: str) -> list[Any]:
    known = [row for row in rows if row.get(key) and row.get("seconds")]
    if len(known) < 2:
        return []
    minutes = [float(row["seconds"]) / 60 for row in known]
    png = points_png(
        "minutes of training",
        f"{monitor} on validation data",
        minutes,
        [float(row[key]) for row in known],
        [row["cell"] for row in known],
    )
    return [Figure(png, f"{monitor} against minutes of training", "What each cell cost, and what it reached.")]


def _front(runs: Sequence[Run], subset: str, monitor: str) -> list[Any]:
    png = pareto_plot(runs, [run.path.name for run in runs], [subset] * len(runs), monitor)
    return [Figure(png, f"{monitor} against operations an image", "The line is the Pareto front.")] if png else []


def _command(run: Run, stored: dict[str, Any]) -> str:
    axes: dict[str, list[str]] = {}
    for settings in stored["cells"].values():
        for setting in settings:
            key, _, value = setting.partition("=")
            axes.setdefault(key, [])
            if value not in axes[key]:
                axes[key].append(value)
    vary = " ".join(f"--vary '{key}={','.join(values)}'" for key, values in axes.items())
    return f"perpixel grid {run.path}/recipe.yaml {vary}"
