"""A grid: every combination of some recipe keys, trained one after the other, compared in one table and one plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perpixel.console import Console
from perpixel.errors import DataError, PerpixelError, RunError
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.evaluation.fronts import pareto_plot
from perpixel.experiments.cells import grid_cells, grid_recipes, require_free
from perpixel.recipe import Recipe
from perpixel.reporting.curves import plot_curves
from perpixel.run import Run, write_atomic, write_json, write_rows
from perpixel.tasks import build_task
from perpixel.training.first_look import FirstLook
from perpixel.training.train import train


def run_grid(
    recipe: str | Path,
    vary: Sequence[str],
    folder: Path,
    *,
    data: Path | None,
    overrides: Sequence[str],
    resume: bool,
    force: bool = False,
    console: Console,
) -> None:
    """Train every cell into ``folder/<cell>``, then write grid.json, table.csv, table.md and curves.png.

    Raises:
        RequestError: an axis is not ``key=value,value``, or the folder holds something already.
        DataError: the data, which all cells share, are not what the recipe says.
        RunError: a cell failed; the others were trained all the same.
    """
    cells = grid_cells(vary)
    recipes = grid_recipes(recipe, cells, overrides)
    if not resume:
        require_free(folder)
    failures, look = [], FirstLook(force=force)
    for number, (name, cell) in enumerate(recipes.items(), start=1):
        console.say(f"[{number}/{len(recipes)}] {name}")
        try:
            train(cell, folder / name, data=data, resume=resume, look=look, console=console)
        except DataError:  # the data are those of every cell
            raise
        except PerpixelError as error:
            if Run(folder / name).manifest.get("status") == "interrupted":
                raise
            console.say(f"{name} failed: {error.text()}")
            failures.append(f"{name}: {error.text()}")
        write_results(folder, cells, recipes)
    if failures:
        raise RunError(f"{len(failures)} of {len(cells)} cells failed", where=folder, details=failures)


def write_results(folder: Path, cells: dict[str, list[str]], recipes: dict[str, Recipe]) -> None:
    """One table and one plot of what is finished so far, ranked by the monitored figure."""
    monitor = next(iter(recipes.values())).training.monitor
    infos = build_task(next(iter(recipes.values()))).metrics().infos()
    rows = [row for name in cells if (row := _row(Run(folder / name), name, cells[name], monitor)) is not None]
    if not rows:
        return
    sign = -1 if infos[monitor].direction == "higher" else 1
    rows.sort(key=lambda row: math.inf if row[f"val {monitor}"] is None else sign * row[f"val {monitor}"])
    columns = dict.fromkeys(column for row in rows for column in row)
    rows = [{column: row.get(column) for column in columns} for row in rows]
    write_rows(folder / "table.csv", rows)
    write_atomic(folder / "table.md", _markdown(rows, monitor, infos[monitor].averaging))
    write_json(folder / "grid.json", {"monitor": monitor, "cells": cells, "best": rows[0]["cell"]})
    histories = {row["cell"]: Run(folder / row["cell"]).read_history() for row in rows}
    higher = infos[monitor].direction == "higher"
    plot_curves(folder / "curves.png", histories, f"val_{monitor}", f"{monitor} on validation data", higher=higher)
    runs = [Run(folder / row["cell"]) for row in rows]
    if front := pareto_plot(runs, [row["cell"] for row in rows], ["val"] * len(rows), monitor):
        write_atomic(folder / "pareto.png", front)


def _row(run: Run, name: str, settings: list[str], monitor: str) -> dict[str, Any] | None:
    val = read_evaluation(run, "val") if run.finished else None
    if val is None:
        return None
    test = read_evaluation(run, "test")
    row: dict[str, Any] = {"cell": name} | dict(setting.split("=", 1) for setting in settings)
    keys = [monitor] + [
        key for key in ("iou_per_image", "competition_score") if key in val["figures"] and key != monitor
    ]
    for subset, result in (("val", val), ("test", test)):
        if result is not None:
            row |= {f"{subset} {key}": _rounded(result["figures"][key]) for key in keys}
    manifest = run.manifest
    row |= {"best epoch": manifest["best_epoch"], "seconds": manifest["training_seconds"]}
    row["parameters"] = sum(manifest["parameters"].values())
    return row


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else round(figure, 4)


def _markdown(rows: list[dict[str, Any]], monitor: str, averaging: str) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += [
        "| " + " | ".join("" if row[column] is None else str(row[column]) for column in columns) + " |" for row in rows
    ]
    note = (
        f"Ranked by {monitor} on validation data ({averaging}). Each cell's best epoch was chosen on the same images,"
        " and so is the best cell: the test columns, where there are any, are the honest ones."
    )
    return "\n".join([*lines, "", note, ""])
