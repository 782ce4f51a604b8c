"""Which subset chose what of a run: figures of that subset are too good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perpixel.inference.base import ImagePredictor
from perpixel.run import Run, read_json


def choices(run: Run, predictor: ImagePredictor) -> dict[str, str]:
    """What was chosen by figures or scores of the run's own data, and the subset that chose it."""
    decided = sorted(set(predictor.task.chosen_on_validation) & predictor.decision.keys())
    chosen = [
        *(["model"] if best_of_a_grid(run) else []),
        *(["epoch"] if run.recipe.training.epochs > 1 else []),
        *decided,
    ]
    return dict.fromkeys(chosen, run.manifest.get("chosen_on", "val"))  # of an ensemble of folds: out-of-fold


def choice_lines(protocol: Mapping[str, Any]) -> list[str]:
    """For a person: what was chosen on the very images that are reported, and what on others."""
    here: Sequence[str] = protocol["chosen_on_this_subset"]
    elsewhere: dict[str, list[str]] = {}
    for what, subset in protocol.get("chosen", {}).items():
        if what not in here:
            elsewhere.setdefault(subset, []).append(what)
    lines = [f"chosen on {subset}, not on these images: {', '.join(what)}" for subset, what in elsewhere.items()]
    if here:
        lines.append(f"WARNING: {', '.join(here)} chosen on these very images; expect less on others")
    return lines


def best_of_a_grid(run: Run) -> bool:
    """Whether a run is there because it was the best of several."""
    if run.manifest.get("best_of_a_grid"):  # an exported file, which lies anywhere
        return True
    grid = Run(run.path.resolve().parent).grid_path
    return grid.is_file() and bool(read_json(grid).get("best") == run.path.resolve().name)
