"""The runs that may be looked at: those below one folder, and nothing that a link leads to elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perpixel.app.limits import RefusedError
from perpixel.errors import PerpixelError
from perpixel.evaluation.evaluate import Evaluation, read_evaluation
from perpixel.evaluation.guards import warnings_of
from perpixel.evaluation.statistics import mean_interval
from perpixel.run import Run, read_rows
from perpixel.tasks import Task, build_task
from perpixel.tasks.view import View

__all__ = ["Card", "Library"]

_DEPTH = 3  # folders below the root: a grid holds its cells, and grids may stand in a folder
_SUBSETS = ("test", "val")


@dataclass(frozen=True)
class Card:
    """What is told of a run before it is used.

    Attributes:
        figures: the monitored and other headline figures by subset.
        interval: subset, mean of the monitored figure over the images, and its 95 % interval.
        warnings: guards that failed.
        ready: whether it has a trained model.
    """

    name: str
    description: str
    view: View
    ready: bool
    trained: str
    model: str
    megabytes: float
    parameters: int
    data: str
    monitor: str
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    interval: tuple[str, float, float, float] | None = None
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"view": vars(self.view)}


class Library:
    """Runs by name; a name is the path below the root, with slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def names(self) -> list[str]:
        """Names of all runs with a recipe, in order; grids by their cells."""
        return [path.relative_to(self.root).as_posix() for path in sorted(self._folders(self.root, _DEPTH))]

    def ready(self) -> list[str]:
        """Names of the runs that have a trained model."""
        return [name for name in self.names() if Run(self.root / name).best_path.is_file()]

    def open(self, name: str) -> Run:
        """The run of this name.

        Raises:
            RefusedError: it is not one of `names`, or its weights are a link.
        """
        if name not in self.names():
            raise RefusedError(
                "there is no run of this name here",
                where=name[:200],
                rule="only the runs that are listed can be used.",
                cure="Choose one of the list.",
            )
        run = Run(self.root / name)
        for path in (run.recipe_path, run.best_path, run.decision_path, run.manifest_path):
            if path.exists() and not path.resolve().is_relative_to(self.root):
                raise RefusedError("this run holds a link to elsewhere", where=name, rule="links are not followed.")
        return run

    def card(self, name: str) -> Card:
        """What is told of a run; raises what `open` does, and RecipeError or RunError for a damaged one."""
        run = self.open(name)
        recipe, manifest = run.recipe, run.manifest
        task = build_task(recipe)
        monitor = recipe.training.monitor
        parameters = manifest.get("parameters") or {}
        data = manifest.get("data") or {}
        found = {subset: read for subset in _SUBSETS if (read := read_evaluation(run, subset))}
        leading = next(iter(found), None)
        return Card(
            name=name,
            description=recipe.description,
            view=task.view(),
            ready=run.best_path.is_file(),
            trained=_trained(run, manifest),
            model=f"{recipe.model.architecture}, {recipe.model.encoder}",
            megabytes=run.best_path.stat().st_size / 1e6 if run.best_path.is_file() else 0.0,
            parameters=sum(int(value) for value in parameters.values()),
            data=f"{Path(str(data.get('root', '?'))).name}, {data.get('samples', '?')} pairs",
            monitor=monitor,
            figures={subset: read["figures"] for subset, read in found.items()},
            interval=_interval(run, leading, monitor) if leading else None,
            warnings=_warnings(found[leading], task, monitor) if leading else [],
        )

    def grids(self) -> dict[str, list[dict[str, str]]]:
        """Tables of finished grids by name, a row a cell."""
        places = [self.root, *self._children(self.root)]
        return {
            path.relative_to(self.root).as_posix(): rows
            for path in places
            if (path / "grid.json").is_file() and (rows := read_rows(path / "table.csv"))
        }

    def _folders(self, folder: Path, depth: int) -> Iterator[Path]:
        for path in self._children(folder):
            if (path / "recipe.yaml").is_file():
                yield path
            elif depth > 1:
                yield from self._folders(path, depth - 1)

    def _children(self, folder: Path) -> list[Path]:
        if not folder.is_dir():
            return []
        return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink() and path.name[0] != "."]


def _trained(run: Run, manifest: dict[str, Any]) -> str:
    if not run.best_path.is_file():
        return "not trained yet"
    day = time.strftime("%Y-%m-%d", time.localtime(run.best_path.stat().st_mtime))
    epoch, seconds = manifest.get("best_epoch"), manifest.get("training_seconds")
    told = [day, f"epoch {epoch}" if epoch else "", f"{seconds / 60:.0f} min of training" if seconds else ""]
    state = [] if manifest.get("status") == "finished" else ["training is not finished"]
    return ", ".join([*filter(None, told), *state])


def _interval(run: Run, subset: str, monitor: str) -> tuple[str, float, float, float] | None:
    """The mean over images with its 95 % interval, as `perpixel compare` has it."""
    rows = read_rows(run.evaluation_dir(subset) / "per_image.csv")
    groups = run.read_split()[1] if run.split_path.is_file() else {}
    values = [float(row[monitor]) if row.get(monitor) else math.nan for row in rows]
    found = mean_interval(values, [groups.get(row["sample"], "") for row in rows])
    return None if found is None else (subset, *found)


def _warnings(read: dict[str, Any], task: Task, monitor: str) -> list[str]:
    def numbers(figures: dict[str, float | None]) -> dict[str, float]:
        return {key: math.nan if value is None else value for key, value in figures.items()}

    evaluation = Evaluation(
        figures=numbers(read["figures"]),
        per_image=[],
        infos=task.metrics().infos(),
        baselines={name: numbers(figures) for name, figures in read["baselines"].items()},
    )
    try:
        return [sentence.removeprefix("WARNING: ") for sentence in warnings_of(evaluation, task, monitor)]
    except (KeyError, PerpixelError):  # figures of an older version: they say nothing on these guards
        return []
