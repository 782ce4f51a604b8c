"""Verbs that train."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from perpixel.api._arguments import RUNS, as_path, as_paths, as_seconds
from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.launching.request import Slurm
from perpixel.recipe import Recipe, load_recipe
from perpixel.run import Run


def train(
    recipe: str | Path | Recipe,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    devices: int | None = None,
    nodes: int | None = None,
    slurm: Slurm | None = None,
    budget: str | None = None,
    console: Console | None = None,
) -> Run:
    """Train a recipe (a name, a file or a `Recipe`) into a run folder, by default the next free ``runs/NAME``.

    Some of the data are inspected first; errors stop the training, unless ``force`` is asked. ``devices`` processes
    train together on each of ``nodes`` machines; under torchrun or srun, those that were started. ``slurm`` trains in a
    job of a cluster, which is followed to its end. ``budget`` (``30m``, ``1h30m``) is a time that all of it may take:
    the number of epochs is chosen by it, from steps and a validation that are measured first.
    """
    seconds = as_seconds(budget)
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)

    def choose_folder() -> Path:
        return Path(run) if run is not None else _default_run(resolved.name, resume)

    if slurm is not None:
        if devices or nodes:
            raise RequestError("--devices and --nodes are of this machine", cure="of a job say --gpus.")
        from perpixel.launching.launch import launch_train

        shown, folder = console or Console(), choose_folder()
        asked: dict[str, Any] = {"data": as_path(data), "resume": resume, "force": force, "budget": seconds}
        return launch_train(resolved, folder, slurm, console=shown, **asked)
    from perpixel.training.launch import train_with

    asked = {"devices": devices, "nodes": nodes, "resume": resume, "force": force, "budget": seconds}
    return train_with(resolved, choose_folder, data=as_path(data), console=console, **asked)


def grid(
    recipe: str | Path,
    vary: Sequence[str],
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    slurm: Slurm | None = None,
    console: Console | None = None,
) -> Path:
    """Train every combination of ``key=value,value`` axes; returns the grid's folder.

    ``slurm`` trains each in a job of a cluster; they are followed to their end.
    """
    load_recipe(recipe, overrides)
    folder = Path(run) if run is not None else _default_run(f"{Path(recipe).stem}-grid", resume)
    asked: dict[str, Any] = {"data": as_path(data), "overrides": overrides, "resume": resume, "force": force}
    asked["console"] = console or Console()
    if slurm is not None:
        from perpixel.launching.launch import launch_grid

        launch_grid(recipe, vary, folder, slurm, **asked)
    else:
        from perpixel.experiments.grid import run_grid

        run_grid(recipe, vary, folder, **asked)
    return folder


def sbatch_script(
    recipe: str | Path,
    vary: Sequence[str] = (),
    *,
    slurm: Slurm,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
) -> str:
    """The script that `train`, or with ``vary`` `grid`, would hand to SLURM's sbatch; nothing is submitted."""
    resolved = load_recipe(recipe, overrides)
    name = f"{Path(recipe).stem}-grid" if vary else resolved.name
    folder = Path(run) if run is not None else _default_run(name, resume)
    from perpixel.experiments.cells import grid_recipes
    from perpixel.launching.launch import launch_script

    recipes = list(grid_recipes(recipe, vary, overrides)[1].values()) if vary else [resolved]
    return launch_script(recipes, folder, slurm)


def search(
    recipe: str | Path,
    over: Sequence[str],
    *,
    trials: int | None = None,
    hours: float | None = None,
    pruner: str = "median",
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Let Optuna choose values of recipe keys (``key=1e-4..1e-2 log``, ``key=value,value``); returns the folder.

    ``trials`` counts all of the search, ``hours`` those of this call; ``pruner`` (median, hyperband or none) ends
    trials whose validation curve is poor. Needs the extra ``perpixel[search]``.
    """
    load_recipe(recipe, overrides)
    folder = Path(run) if run is not None else _default_run(f"{Path(recipe).stem}-search", resume)
    from perpixel.experiments.search import run_search

    run_search(
        recipe,
        over,
        folder,
        trials=trials,
        hours=hours,
        pruner=pruner,
        data=as_path(data),
        overrides=overrides,
        resume=resume,
        force=force,
        console=console or Console(),
    )
    return folder


def before_after(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    others: str | Path | Iterable[str | Path] | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Score a recipe's starting weights, fine-tune them, score again, and say what changed and how sure that is."""
    name = load_recipe(recipe, overrides).name
    folder = Path(run) if run is not None else _default_run(f"{name}-before-after", resume)
    from perpixel.experiments.before_after import run_before_after

    run_before_after(
        recipe,
        folder,
        data=as_path(data),
        others=as_paths(others),
        overrides=overrides,
        resume=resume,
        force=force,
        console=console or Console(),
    )
    return folder


def ensemble(
    runs: Iterable[str | Path], out: str | Path | None = None, *, console: Console | None = None
) -> dict[str, Any]:
    """Average several runs, or the folds of one recipe, into a folder that predicts and is evaluated as a run is.

    ``out`` is the folder to write, by default the next free ``runs/NAME-ensemble``.

    Returns:
        ``run``, and ``table`` (text): the ensemble beside its members, on what none of them trained on.
    """
    opened = [Run.open(run) for run in runs]
    if not opened:
        raise RequestError("no run is named", rule="an ensemble holds two different runs or more.")
    folder = Path(out) if out is not None else _default_run(f"{opened[0].recipe.name}-ensemble", False)
    from perpixel.experiments.ensemble import run_ensemble

    table = run_ensemble(opened, folder, console=console or Console())
    return {"run": Run(folder), "table": table}


def _default_run(name: str, resume: bool) -> Path:
    """The next free ``runs/NAME``, ``runs/NAME-2``, ...; with resume, the last that exists."""
    last, number = RUNS / name, 2
    if not last.exists():
        return last
    while (following := RUNS / f"{name}-{number}").exists():
        last, number = following, number + 1
    return last if resume else following
