"""`train` and `grid` on SLURM: the same run folders and the same table as on this machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from perpixel.console import Console
from perpixel.data.samples import stated_root
from perpixel.errors import RunError
from perpixel.experiments.cells import grid_command, grid_recipes, require_free
from perpixel.launching.follow import Submitted, failure, follow, remember, still_queued
from perpixel.launching.job import Job
from perpixel.launching.request import Slurm
from perpixel.launching.slurm import sbatch_script, submit
from perpixel.recipe import Recipe, dump_recipe
from perpixel.run import Run, write_atomic


def launch_train(
    recipe: Recipe,
    folder: Path,
    slurm: Slurm,
    *,
    data: Path | None,
    resume: bool,
    force: bool,
    budget: float | None = None,
    console: Console,
) -> Run:
    """Train in a job and follow it to its end.

    Raises:
        RequestError: the folder is taken, or there is no SLURM here.
        DataError: there is no such data folder.
        RunError: SLURM refused the job, or it ended before the training did.
    """
    run = Run(folder)
    if not resume:
        require_free(folder)
    jobs = _submitted({folder: recipe}, _work(folder), slurm, data=data, force=force, budget=budget, console=console)
    follow(jobs, console)
    if not run.finished:
        raise RunError(
            f"job {jobs[0].job_id} ended before the training did",
            where=jobs[0].log,
            details=[failure(jobs[0].log)],
            cure="the same command with --resume continues it.",
        )
    return run


def launch_grid(
    recipe: str | Path,
    vary: Sequence[str],
    folder: Path,
    slurm: Slurm,
    *,
    data: Path | None,
    overrides: Sequence[str],
    resume: bool,
    force: bool,
    console: Console,
) -> None:
    """Train every cell of a grid in a job of its own, an array of them, and write the grid's results.

    Raises:
        RequestError, DataError: as of `run_grid`, or there is no SLURM here.
        RunError: SLURM refused the jobs, or a cell failed; the others were trained all the same.
    """
    cells, recipes = grid_recipes(recipe, vary, overrides)
    if not resume:
        require_free(folder)
    by_folder = {folder / name: cell for name, cell in recipes.items()}
    from perpixel.experiments.results import write_results  # torch, which a single training's launch does without

    jobs = _submitted(by_folder, _work(folder), slurm, data=data, force=force, console=console, cells=True)
    command = grid_command(recipe, vary, folder, data=data, overrides=overrides)
    follow(jobs, console, lambda: write_results(folder, cells, recipes, command))
    failures = [job for job in jobs if not job.run.finished]
    write_results(folder, cells, recipes, command, {job.label: f"failed: {failure(job.log)}" for job in failures})
    if failures:
        details = [f"{job.label}: {failure(job.log)}" for job in failures]
        cure = "the same command with --resume trains what is missing."
        raise RunError(f"{len(failures)} of {len(cells)} cells failed", where=folder, details=details, cure=cure)


def launch_script(recipes: Sequence[Recipe], folder: Path, slurm: Slurm) -> str:
    """The sbatch script of a training (one recipe) or a grid (several)."""
    return sbatch_script(_work(folder), folder.name, slurm, jobs=len(recipes), processors=_processors(recipes, slurm))


def _work(folder: Path) -> Path:
    """Scripts, logs and recipes of the jobs; beside the run, whose folder has to be empty when training begins."""
    return folder.with_name(f"{folder.name}.slurm").resolve()


def _submitted(
    recipes: dict[Path, Recipe],
    work: Path,
    slurm: Slurm,
    *,
    data: Path | None,
    force: bool,
    budget: float | None = None,
    console: Console,
    cells: bool = False,
) -> list[Submitted]:
    """The jobs of all runs that are not finished: those that are queued already, and new ones."""
    unfinished = {folder: recipe for folder, recipe in recipes.items() if not Run(folder).finished}
    memory = work / "jobs.json"
    queued = still_queued(memory)
    new = [folder for folder in unfinished if folder.name not in queued]
    jobs = [_job(unfinished[folder], folder, work, slurm, data=data, force=force, budget=budget) for folder in new]
    name = work.name.removesuffix(".slurm")
    processors = _processors(list(recipes.values()), slurm)
    ids = dict(zip(new, submit(work, name, slurm, jobs, processors=processors) if jobs else [], strict=True))
    found: list[Submitted] = []
    for folder in unfinished:
        job_id, log = ids.get(folder) or queued[folder.name]
        run = Run(folder)
        found.append(Submitted(run, job_id, log, run.log_path if cells else log, folder.name if cells else ""))
    remember(memory, [job for job in found if job.run.path in ids])
    if ids:
        console.say(f"submitted {', '.join(job_id for job_id, _ in ids.values())}; logs are in {work}")
    return found


def _job(
    recipe: Recipe,
    folder: Path,
    work: Path,
    slurm: Slurm,
    *,
    data: Path | None,
    force: bool,
    budget: float | None = None,
) -> Job:
    """The job of one training. Its recipe is stored now: what happens to the user's file later changes nothing."""
    stored = work / f"{folder.name}.yaml"
    write_atomic(stored, dump_recipe(recipe))
    command = [sys.executable, "-m", "perpixel", "train", str(stored), "--run", str(folder.resolve()), "--resume"]
    command += ["--data", stated_root(recipe.data, data)]
    command += ["--force"] if force else []
    command += ["--budget", f"{budget:.0f}s"] if budget else []
    command += ["--devices", str(slurm.gpus)] if slurm.gpus > 1 else []
    return Job(tuple(command), folder.resolve(), slurm.warning_seconds)


def _processors(recipes: Sequence[Recipe], slurm: Slurm) -> int:
    """One for each process, its threads and its workers; those of a GPU's training mostly wait."""
    sections = [recipe.training for recipe in recipes]
    return max(section.workers + (section.threads or 1) for section in sections) * max(1, slurm.gpus)
