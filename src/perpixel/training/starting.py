"""Weights that a training begins with: those of another run, or what the recipe names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.models import WeightsReport
from perpixel.run import Run

_SHOWN = 4


@dataclass(frozen=True)
class StartingRun:
    """The run whose best weights a training begins with, and what its data were; kept in the manifest."""

    path: str
    recipe: str
    best_epoch: int
    data: str | None
    data_fingerprint: str | None
    split: str


def starting_weights(weights: str) -> tuple[str, StartingRun | None]:
    """``model.weights`` as the models know it: ``none``, ``imagenet`` or a file; of a run folder the best weights.

    Raises:
        RequestError: the folder holds no run, or one that is not finished.
    """
    if weights in ("none", "imagenet") or not Path(weights).is_dir() or (Path(weights) / "config.json").is_file():
        return weights, None  # a folder with config.json is a model as the transformers library writes it
    run = Run.open(weights)
    if not run.finished:
        best = f" or take what it has so far: --set model.weights={run.best_path}." if run.best_path.is_file() else ""
        raise RequestError(
            "this run is not finished, so its best weights are not known",
            where=f"model.weights = {weights}",
            rule="a training begins with the best weights of a finished run.",
            cure=f"finish it with perpixel train --resume --run {run.path}{',' if best else '.'}{best}",
        )
    manifest, recipe = run.manifest, run.recipe
    data = manifest.get("data", {})
    source = StartingRun(
        path=str(run.path.resolve()),
        recipe=recipe.name,
        best_epoch=manifest["best_epoch"],
        data=data.get("root"),
        data_fingerprint=data.get("fingerprint"),
        split=recipe.split.method,
    )
    return str(run.best_path), source


def weights_facts(report: WeightsReport, source: StartingRun | None) -> dict[str, Any]:
    """The manifest's entry: what was loaded, and of which run."""
    return asdict(report) | {"run": asdict(source) if source else None}


def say_weights(report: WeightsReport, source: StartingRun | None, console: Console) -> None:
    """What was loaded, and by name what keeps its random start."""
    if source is not None:
        console.say(f"weights of the run {source.path} (recipe {source.recipe}), best epoch {source.best_epoch}")
    console.say(
        f"weights {report.source}: {report.loaded} tensors loaded, {len(report.missing)} missing,"
        f" {len(report.unexpected)} unexpected"
    )
    if report.missing:
        more = len(report.missing) - _SHOWN
        names = [*report.missing[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        console.say(f"  not in the file, or of another shape there, so random: {', '.join(names)}")
