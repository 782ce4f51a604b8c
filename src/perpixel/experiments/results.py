"""The results of a grid or a search, wherever it ran: every run with its figures and its cost, ranked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perpixel.evaluation.evaluate import read_evaluation
from perpixel.evaluation.fronts import pareto_plot
from perpixel.recipe import Recipe
from perpixel.reporting.curves import plot_curves
from perpixel.reporting.html import to_html
from perpixel.reporting.markdown import write_markdown
from perpixel.reports.grid_report import grid_document, ranked_cells
from perpixel.run import Run, write_atomic, write_json, write_rows
from perpixel.tasks import build_task

__all__ = ["write_results"]

_BESIDE = ("iou_per_image", "competition_score")  # figures that are told beside the monitored one, where they are known


def write_results(
    folder: Path,
    cells: Mapping[str, Sequence[str]],
    recipes: Mapping[str, Recipe],
    command: Sequence[str],
    ended: Mapping[str, str] | None = None,
) -> None:
    """Write grid.json, table.csv, table.md, table.html, curves.png and pareto.png of what is there so far.

    Runs are ranked by the monitored figure on validation data, those that differ by their seed alone by their mean.

    Args:
        cells: the settings of each run, ``key=value``, by the name of its folder.
        recipes: of the cells.
        command: what was typed, without ``--resume``: ``perpixel grid ...``.
        ended: of runs that are not finished, how they ended: ``failed: ...``, ``pruned``.
    """
    first = next(iter(recipes.values()))
    monitor = first.training.monitor
    higher = build_task(first).metrics().infos()[monitor].direction == "higher"
    known = [_row(Run(folder / name), name, settings, monitor, ended or {}) for name, settings in cells.items()]
    ranked = ranked_cells(known, cells, f"val {monitor}", higher=higher)
    finished = [row for cell in ranked for row in cell.rows]
    rows = [*finished, *(row for cell in ranked for row in cell.unfinished)]
    columns = dict.fromkeys(column for row in rows for column in row)
    write_rows(folder / "table.csv", [{column: row.get(column) for column in columns} for row in rows])
    best = finished[0]["cell"] if finished else None
    facts = {"kind": command[1], "monitor": monitor, "higher": higher, "cells": cells, "best": best}
    write_json(folder / "grid.json", {**facts, "command": list(command)})
    runs = {row["cell"]: Run(folder / row["cell"]) for row in rows}
    histories = {name: run.read_history() for name, run in runs.items()}
    plot_curves(folder / "curves.png", histories, f"val_{monitor}", f"{monitor} on validation data", higher=higher)
    if best is None:
        return
    with_runs = [cell for cell in ranked if cell.rows]
    own = [[runs[row["cell"]] for row in cell.rows] for cell in with_runs]
    if front := pareto_plot(own, [cell.title for cell in with_runs], ["val"] * len(own), monitor):
        write_atomic(folder / "pareto.png", front)
    document = grid_document(folder)
    write_markdown(folder / "table.md", document, pictures=False)
    write_atomic(folder / "table.html", to_html(document))


def _row(run: Run, name: str, settings: Sequence[str], monitor: str, ended: Mapping[str, str]) -> dict[str, Any]:
    """Varied keys, state, figures and cost of a run; of one that is not finished what is known."""
    manifest = run.manifest
    state = "finished" if run.finished else ended.get(name) or manifest.get("status", "not begun")
    row: dict[str, Any] = {"cell": name} | dict(setting.split("=", 1) for setting in settings) | {"state": state}
    val = read_evaluation(run, "val") if run.finished else None
    for subset, result in (("val", val), ("test", read_evaluation(run, "test") if val else None)):
        if result is not None:
            keys = dict.fromkeys([monitor, *(key for key in _BESIDE if key in result["figures"])])
            row |= {f"{subset} {key}": _rounded(result["figures"][key]) for key in keys}
    cost, parameters = manifest.get("cost") or {}, manifest.get("parameters") or {}
    return row | {
        "best epoch": manifest.get("best_epoch"),
        "seconds": manifest.get("training_seconds"),
        "parameters": sum(parameters.values()) or None,
        "operations": cost.get("operations_per_image"),
        "latency_ms": cost.get("latency_ms_per_image"),
        "memory_mib": cost.get("peak_memory_mib"),
    }


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)
