"""What a fine-tuning changed: the original scored, fine-tuned, scored again on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perpixel.console import Console
from perpixel.data.cache import decode_samples
from perpixel.data.samples import data_root, list_samples
from perpixel.errors import RequestError
from perpixel.evaluation.compare import Comparison, compare_runs, comparison_table
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.evaluation.gallery import sheet
from perpixel.evaluation.guards import run_warnings
from perpixel.images import write_image
from perpixel.inference.predictor import Predictor
from perpixel.recipe import Recipe, load_recipe
from perpixel.reporting.curves import plot_curves
from perpixel.run import Run, read_rows, write_atomic, write_json
from perpixel.training.first_look import FirstLook
from perpixel.training.train import train

_ROWS = 8


def run_before_after(
    recipe: str | Path,
    folder: Path,
    *,
    data: Path | None,
    others: Sequence[Path],
    overrides: Sequence[str],
    resume: bool,
    force: bool = False,
    console: Console,
) -> dict[str, list[Comparison]]:
    """Train ``folder/before`` for no epoch and ``folder/after`` as the recipe says, and compare them on their test
    subset and on ``others``.

    Writes ``before_after.md`` and ``.json`` (figures with their intervals), ``curves.png`` and ``panels.png`` (input,
    truth, before and after with one range of colours, of test images evenly spread over the ranking by what changed).

    Raises:
        RequestError: the folder is not empty, or the split leaves no test images.
    """
    chosen = load_recipe(recipe, overrides)
    original = chosen.model_copy(update={"training": chosen.training.model_copy(update={"epochs": 0})})
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise RequestError(
            "this folder is not empty", where=folder, cure="continue it with --resume, or name another --run."
        )
    look = FirstLook(force=force)
    before = train(original, folder / "before", data=data, resume=resume, look=look, console=console)
    if "test" not in before.read_split()[0].values():
        raise RequestError(
            "the split leaves no test images, and on val the epoch was chosen",
            where="split.test",
            cure="set split.test=0.1, or give test files.",
        )
    after = train(chosen, folder / "after", data=data, resume=resume, look=look, console=console)
    found = compare_runs([before, after], subset="test", data=others, console=console)
    _write(folder, found, chosen, [before, after], console)
    _panels(folder / "panels.png", before, after, chosen.training.monitor)
    return found


def _write(
    folder: Path, found: dict[str, list[Comparison]], recipe: Recipe, runs: Sequence[Run], console: Console
) -> None:
    after = runs[-1]
    write_json(
        folder / "before_after.json", {name: [item.as_dict() for item in items] for name, items in found.items()}
    )
    parts = ["# Before and after", ""]
    warned = [f"- {run.path.name}, {line}" for run in runs for line in _warnings(run, list(found))]
    if warned:
        parts += [*warned, ""]
        console.say("\n".join(warned))
    for name, items in found.items():
        parts += [f"## {name}", "", "```", comparison_table(items), "```", ""]
    write_atomic(folder / "before_after.md", "\n".join(parts))
    monitor = recipe.training.monitor
    plot_curves(
        folder / "curves.png",
        {"after": after.read_history()},
        f"val_{monitor}",
        f"{monitor} on validation data",
        higher=_direction(after, monitor) == "higher",
    )


def _warnings(run: Run, names: Sequence[str]) -> list[str]:
    """Why the figures of a run should not be believed, by evaluation; then why none of them should."""
    stored = {name: read_evaluation(run, name) or {} for name in names}
    found = [f"{name}: {line}" for name, each in stored.items() for line in each.get("warnings", ())]
    return [*found, *run_warnings(run)]


def _panels(path: Path, before: Run, after: Run, monitor: str) -> None:
    """Test images evenly spread over the change of the monitored figure, from what lost most to what gained most."""
    sign = 1 if _direction(after, monitor) == "higher" else -1
    values = [
        {row["sample"]: float(row[monitor] or "nan") for row in read_rows(run.evaluation_dir("test") / "per_image.csv")}
        for run in (before, after)
    ]
    gains = {id_: sign * (values[1][id_] - values[0][id_]) for id_ in values[0]}
    ranked = sorted((id_ for id_ in gains if np.isfinite(gains[id_])), key=gains.__getitem__)
    if not ranked:
        return
    spread = np.linspace(0, len(ranked) - 1, min(_ROWS, len(ranked))).round().astype(int)
    recipe = after.recipe
    by_id = {sample.id: sample for sample in list_samples(recipe.data, data_root(recipe.data))}
    predictors = [Predictor.from_run(run) for run in (before, after)]
    task = predictors[0].task
    rows = []
    for id_ in (ranked[place] for place in spread):
        decoded = decode_samples([by_id[id_]], task.decode_target, key=None, image_scale=task.image_scale)
        image_hwc, target_hw = decoded.image(0), decoded.target(0)
        panels = [task.panels(image_hwc, each.predict([image_hwc])[0], target_hw) for each in predictors]
        tiles = [panels[0]["input"], panels[0]["truth"], panels[0]["prediction"], panels[1]["prediction"]]
        rows.append((f"{id_}  {monitor} {values[0][id_]:.3f} -> {values[1][id_]:.3f}", tiles))
    half = -(-len(rows) // 2)
    columns = ("input", "truth", "before", "after")
    groups = [("gained least", rows[:half]), ("gained most", rows[half:])]
    write_image(path, sheet([group for group in groups if group[1]], columns))


def _direction(run: Run, figure: str) -> str:
    stored = read_evaluation(run, "test")
    assert stored is not None  # both runs were scored on it just now
    return str(stored["meaning"][figure]["direction"])
