"""What a file says of itself: everything that somebody without its run must know."""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata as package
from typing import Any

from perpixel.evaluation.choices import best_of_a_grid
from perpixel.inference.predictor import Predictor
from perpixel.run import Run

_IMAGE = {"type": "uint8", "shape": "batch height width 3", "meaning": "RGB, sRGB, 0 to 255"}
_IN_GRAPH = ("flip", "self_ensemble", "scales", "tile", "threshold")  # what --set cannot change any more


def describe(reference: Predictor, run: Run, fixed_size: tuple[int, int] | None, precision: str) -> dict[str, Any]:
    """The metadata of a file that holds a graph."""
    task, tile = reference.task, reference.inference.tile
    left = task.left_out_of_graph(reference.decision)
    if tile:
        left.append(f"images longer than {tile} pixels are predicted in overlapping tiles (inference.tile)")
    side = "height width" if task.image_scale in (None, 1) else f"{task.image_scale}*height {task.image_scale}*width"
    return _common(reference, run) | {
        "tensors": {"image": _IMAGE} | output_tensors(reference, side),
        "precision": precision,
        "fixed_size": list(fixed_size) if fixed_size else None,
        "left_to_caller": left,
        "in_graph": list(_IN_GRAPH),
        "tiles": {"context": reference.model.context, "step": reference.model.tile_step},
    }


def describe_weights(reference: Predictor, run: Run) -> dict[str, Any]:
    """The metadata of a file of weights: perpixel does with them all that it does with the run."""
    common: dict[str, Any] = {"tensors": {}, "precision": reference.precision, "fixed_size": None, "left_to_caller": []}
    return _common(reference, run) | common


def output_tensors(reference: Predictor, side: str) -> dict[str, dict[str, str]]:
    """Type, shape and meaning of each output of the graph; ``side`` names the axes of a map."""
    task = reference.task
    outputs = {
        "prediction": task.graph_output(f"batch {side}"),
        "scores": {
            "type": "float32",
            "shape": f"batch {task.out_channels} {side}",
            "meaning": "what the prediction is decided from",
        },
    }
    if task.right_or_wrong:
        temperature = reference.decision.get("temperature", 1.0)
        meaning = f"how sure the model is of the prediction, 0 to 1, after its temperature of {temperature:.3g}"
        outputs["confidence"] = {"type": "float32", "shape": f"batch {side}", "meaning": meaning}
    return outputs


def _common(reference: Predictor, run: Run) -> dict[str, Any]:
    """The folder of the data, and the names of what the run was trained on, are nobody's business."""
    recipe, manifest = run.recipe, run.manifest
    values = recipe.to_dict()
    values["data"]["root"] = None
    data = manifest.get("data", {})
    return {
        "perpixel": package.version("perpixel"),
        "name": recipe.name,
        "view": asdict(reference.task.view()),
        "inference": recipe.inference.model_dump(mode="json"),
        "decision": reference.decision,
        "recipe": values,
        "run": {
            "data": {key: data[key] for key in ("fingerprint", "training_targets") if key in data},
            "chosen_on": manifest.get("chosen_on", "val"),
            "best_of_a_grid": best_of_a_grid(run),
        },
        "held_out": _held_out(run),
    }


def _held_out(run: Run) -> dict[str, dict[str, str]]:
    """By subset the ids that the run did not train on, with their groups: these an evaluation of the file may score."""
    subsets, groups = run.read_split()
    return {
        subset: {id_: groups.get(id_, "") for id_ in sorted(subsets) if subsets[id_] == subset}
        for subset in sorted(set(subsets.values()) - {"train"})
    }
