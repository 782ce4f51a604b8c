"""A grid: every combination of some recipe keys, trained one after the other, compared in one table and one plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perpixel.console import Console
from perpixel.errors import DataError, PerpixelError, RunError
from perpixel.experiments.cells import grid_command, grid_recipes, require_free
from perpixel.experiments.results import write_results
from perpixel.run import Run
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
    """Train every cell into ``folder/<cell>``, then write its results as `write_results` does.

    Raises:
        RequestError: an axis is not ``key=value,value``, or the folder holds something already.
        DataError: the data, which all cells share, are not what the recipe says.
        RunError: a cell failed; the others were trained all the same.
    """
    cells, recipes = grid_recipes(recipe, vary, overrides)
    if not resume:
        require_free(folder)
    command = grid_command(recipe, vary, folder, data=data, overrides=overrides)
    failures: dict[str, str] = {}
    look = FirstLook(force=force)
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
            failures[name] = error.text()
        write_results(folder, cells, recipes, command, {name: f"failed: {text}" for name, text in failures.items()})
    if failures:
        details = [f"{name}: {text}" for name, text in failures.items()]
        raise RunError(f"{len(failures)} of {len(cells)} cells failed", where=folder, details=details)
