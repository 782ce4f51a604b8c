"""The verbs of perpixel. The command line, the page and a notebook all call these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.recipe import Recipe, builtin_names, load_recipe
from perpixel.run import Run

RUNS = Path("runs")


@dataclass(frozen=True)
class RecipeLine:
    """A built-in recipe in one line."""

    name: str
    description: str


def recipes() -> list[RecipeLine]:
    """The built-in recipes."""
    return [RecipeLine(name, load_recipe(name).description) for name in builtin_names()]


def synthesize(kind: str, out: str | Path, *, count: int, seed: int = 0, console: Console | None = None) -> Path:
    """Write a synthetic data set; ``kind`` is ``salt``."""
    console = console or Console()
    if kind not in SYNTHESES:
        raise RequestError(f"nothing is synthesized under the name {kind!r}", rule=f"known: {', '.join(SYNTHESES)}.")
    if count < 1:
        raise RequestError(f"--count is {count}", rule="at least 1 image is made.")
    from perpixel.synthesis import synthesize_salt

    synthesize_salt(
        Path(out), count=count, seed=seed, progress=lambda done, total: console.progress("tiles", done, total)
    )
    return Path(out)


SYNTHESES = ("salt",)


def train(
    recipe: str | Path | Recipe,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> Run:
    """Train a recipe (a name, a file or a `Recipe`) into a run folder, by default the next free ``runs/NAME``."""
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    folder = Path(run) if run is not None else _default_run(resolved.name, resume)
    from perpixel.training.train import train as train_recipe

    return train_recipe(resolved, folder, data=_path(data), resume=resume, console=console)


def grid(
    recipe: str | Path,
    vary: Sequence[str],
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    console: Console | None = None,
) -> Path:
    """Train every combination of ``key=value,value`` axes; returns the grid's folder."""
    load_recipe(recipe, overrides)
    folder = Path(run) if run is not None else _default_run(f"{Path(recipe).stem}-grid", resume)
    from perpixel.experiments.grid import run_grid

    run_grid(recipe, vary, folder, data=_path(data), overrides=overrides, resume=resume, console=console or Console())
    return folder


def evaluate(
    run: str | Path,
    *,
    subset: str = "val",
    data: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Figures of a run on one of its subsets, or on all pairs of another data folder."""
    opened = Run.open(run)
    from perpixel.evaluation.session import evaluate_run

    return evaluate_run(opened, subset=subset, data=_path(data), console=console or Console())


def predict(
    run: str | Path, images: str | Path | Iterable[str | Path], out: str | Path, *, console: Console | None = None
) -> list[Path]:
    """Predict images (files or folders) at their original sizes; writes maps and overlays into ``out``."""
    opened = Run.open(run)
    from perpixel.evaluation.session import predict_files

    paths = [Path(image) for image in ([images] if isinstance(images, str | Path) else images)]
    return predict_files(opened, paths, Path(out), console=console or Console())


def submit(run: str | Path, out: str | Path, *, data: str | Path | None = None, console: Console | None = None) -> Path:
    """Predict the data set's unlabelled images and write the competition's ``id,rle_mask`` file."""
    opened = Run.open(run)
    from perpixel.evaluation.session import submit_run

    submit_run(opened, Path(out), data=_path(data), console=console or Console())
    return Path(out)


def pack(run: str | Path, out: str | Path) -> Path:
    """Zip models and results of a run or a grid, without the state that only a continuation needs."""
    folder = Path(run)
    if not ((folder / "recipe.yaml").is_file() or (folder / "grid.json").is_file()):
        Run.open(folder)
    from perpixel.evaluation.packing import pack_folder

    return pack_folder(folder, Path(out))


def _default_run(name: str, resume: bool) -> Path:
    """The next free ``runs/NAME``, ``runs/NAME-2``, ...; with resume, the last that exists."""
    last, number = RUNS / name, 2
    if not last.exists():
        return last
    while (following := RUNS / f"{name}-{number}").exists():
        last, number = following, number + 1
    return last if resume else following


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
