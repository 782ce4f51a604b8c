"""What is told of a model before it is used."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perpixel.evaluation.guards import run_warnings
from perpixel.evaluation.statistics import mean_interval
from perpixel.recipe import Recipe
from perpixel.reports.run_report import Scored, scored_subsets
from perpixel.run import Run
from perpixel.tasks import build_task
from perpixel.tasks.view import View

__all__ = ["Card", "file_card", "run_card"]


@dataclass(frozen=True)
class Card:
    """A model in short.

    Attributes:
        form: run, ensemble or exported file.
        figures: all figures, by the name of an evaluation.
        intervals: of an evaluation the mean of the monitored figure over the images, and its 95 % interval.
        warnings: guards that failed.
        ready: whether it can predict.
        speed: what an image takes, on which machine; empty where it was not measured.
    """

    name: str
    form: str
    description: str
    view: View
    ready: bool
    trained: str
    model: str
    megabytes: float
    parameters: int
    speed: str
    data: str
    monitor: str
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return vars(self) | {"view": vars(self.view)}


def run_card(name: str, run: Run, recipe: Recipe, megabytes: float, *, ready: bool) -> Card:
    """The card of a run or an ensemble; raises RunError for a damaged one."""
    manifest, task, monitor = run.manifest, build_task(recipe), recipe.training.monitor
    data, members = manifest.get("data") or {}, manifest.get("ensemble")
    scored = scored_subsets(run)
    return Card(
        name=name,
        form=f"ensemble of {len(members)} runs" if members else "run",
        description=recipe.description,
        view=task.view(),
        ready=ready,
        trained=_trained(run, manifest),
        model=_network(recipe),
        megabytes=megabytes,
        parameters=sum(int(value) for value in (manifest.get("parameters") or {}).values()),
        speed=_speed(manifest.get("cost") or {}),
        data=f"{Path(str(data.get('root', '?'))).name}, {data.get('samples', '?')} pairs",
        monitor=monitor,
        figures={item.name: dict(item.stored["figures"]) for item in scored},
        intervals={item.name: found for item in scored if (found := mean_interval(item.values(monitor), item.groups))},
        warnings=_warnings(next(iter(scored), None), run),
    )


def file_card(name: str, path: Path, recipe: Recipe, megabytes: float, sidecar: Mapping[str, Any]) -> Card:
    """The card of an exported file, from the JSON that stands beside it."""
    metadata, parity = sidecar["metadata"], sidecar["parity"]
    size = metadata["fixed_size"]
    only = f" It takes images of {size[1]} x {size[0]} pixels alone." if size else ""
    seconds, machine = parity["seconds_per_image"].get("file"), parity["machine"]
    return Card(
        name=name,
        form=f"exported file, {metadata['precision']}",
        description=recipe.description + only,
        view=build_task(recipe).view(),
        ready=True,
        trained=f"exported {_day(path)}",
        model=_network(recipe),
        megabytes=megabytes,
        parameters=0,
        speed=f"{1000 * seconds:.1f} ms an image ({machine})" if seconds else "",
        data=f"what its run {metadata['name']} was trained on",
        monitor=recipe.training.monitor,
        figures={
            f"{parity['images']} images of val": {key: values["file"] for key, values in parity["figures"].items()}
        },
    )


def _network(recipe: Recipe) -> str:
    """Architecture and encoder; of an encoder in a folder of this machine the folder's name."""
    encoder = recipe.model.encoder
    named = Path(encoder).name if Path(encoder).is_absolute() else encoder
    return ", ".join(name for name in (recipe.model.architecture, named) if name != "none")


def _trained(run: Run, manifest: Mapping[str, Any]) -> str:
    if manifest.get("ensemble"):
        return _day(run.manifest_path)
    if not run.best_path.is_file():
        return "not trained yet"
    epoch, seconds = manifest.get("best_epoch"), manifest.get("training_seconds")
    told = [
        _day(run.best_path),
        f"epoch {epoch}" if epoch else "",
        f"{seconds / 60:.0f} min of training" if seconds else "",
    ]
    state = [] if manifest.get("status") == "finished" else ["training is not finished"]
    return ", ".join([*filter(None, told), *state])


def _day(path: Path) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))


def _speed(cost: Mapping[str, Any]) -> str:
    milliseconds, operations = cost.get("latency_ms_per_image"), cost.get("operations_per_image")
    if milliseconds is None:
        return ""
    size = f" of {cost['image_width']} x {cost['image_height']}" if "image_width" in cost else ""
    where = (
        f" ({cost['device']}, {cost['threads']} {'thread' if cost['threads'] == 1 else 'threads'})"
        if "device" in cost
        else ""
    )
    work = f", {operations / 1e9:.3g} billion operations" if operations else ""
    return f"{milliseconds:.1f} ms an image{size}{where}{work}"


def _warnings(leading: Scored | None, run: Run) -> list[str]:
    said = [*(leading.stored.get("warnings", ()) if leading else ()), *run_warnings(run)]
    return [sentence.removeprefix("WARNING: ") for sentence in said]
