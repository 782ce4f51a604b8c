"""What a file says of itself: everything that somebody without its run must know."""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata as package
from typing import Any

from perpixel.inference.predictor import Predictor
from perpixel.recipe import Recipe


def describe(
    reference: Predictor, recipe: Recipe, fixed_size: tuple[int, int] | None, precision: str
) -> dict[str, Any]:
    """The metadata of a file; the folder of the data is nobody's business."""
    task, inference = reference.task, recipe.inference.model_dump(mode="json")
    values = recipe.to_dict()
    values["data"]["root"] = None
    in_graph = ("flip", "self_ensemble", "scales", "tile", "threshold")  # what --set cannot change any more
    left = task.left_out_of_graph(reference.decision)
    if inference["tile"]:
        left.append(
            f"images longer than {inference['tile']} pixels are predicted in overlapping tiles (inference.tile)"
        )
    side = "height width" if task.image_scale in (None, 1) else f"{task.image_scale}*height {task.image_scale}*width"
    return {
        "perpixel": package.version("perpixel"),
        "name": recipe.name,
        "tensors": {
            "image": {"type": "uint8", "shape": "batch height width 3", "meaning": "RGB, sRGB, 0 to 255"},
            "prediction": task.graph_output(f"batch {side}"),
            "scores": {
                "type": "float32",
                "shape": f"batch {task.out_channels} {side}",
                "meaning": "what the prediction is decided from",
            },
        },
        "view": asdict(task.view()),
        "inference": inference,
        "decision": reference.decision,
        "precision": precision,
        "fixed_size": list(fixed_size) if fixed_size else None,
        "left_to_caller": left,
        "in_graph": list(in_graph),
        "tiles": {"context": reference.model.context, "step": reference.model.tile_step},
        "recipe": values,
    }
