"""The guided form of a proposed recipe: a few questions, each with the answer that was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from perpixel.recipe import DepthTarget, Recipe, SegmentationTarget, recipe_from_dict

__all__ = ["guided"]

Ask = Callable[[str, str], str]
"""(question, answer where nothing is typed) -> answer."""
_MOST_NAMES = 12


def guided(recipe: Recipe, ask: Ask) -> Recipe:
    """The recipe with the answers of a person. A question is asked again until its answer is of the right kind.

    Raises:
        RecipeError: answers that no recipe can hold together, such as one name for two classes.
    """
    values = recipe.to_dict()
    values["name"] = ask("Name of the experiment", recipe.name)
    target = recipe.target
    if isinstance(target, SegmentationTarget) and len(target.classes) <= _MOST_NAMES:
        _name_classes(values, ask)
    if isinstance(target, DepthTarget):
        for key, question in _open_numbers(target):
            values["target"][key] = _number(ask, question, f"{getattr(target, key):g}")
    values["training"]["epochs"] = round(_number(ask, "Epochs", str(recipe.training.epochs)))
    return recipe_from_dict(values)


def _name_classes(values: dict[str, Any], ask: Ask) -> None:
    for spec in values["target"]["classes"]:
        shown = ", ".join(map(str, spec["values"]))
        spec["name"] = ask(f"Name of the class {shown}", spec["name"])


def _open_numbers(target: DepthTarget) -> Iterator[tuple[str, str]]:
    """What files do not tell."""
    if target.scale is not None:
        yield "scale", "Metres that one unit of the files stands for"
    elif target.quantity == "depth":
        yield "metres_at_zero", "Metres that black stands for"
        yield "metres_at_full", "Metres that white stands for"
    if target.geometry == "radial" and target.vertical_fov_deg is not None:
        yield "vertical_fov_deg", "Vertical field of view of the camera in degrees"
    yield "maximum_m", "Farthest depth in metres that counts"


def _number(ask: Ask, question: str, found: str) -> float:
    """A finite number that is not negative."""
    said = ""
    while True:
        text = ask(said + question, found)
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if 0 <= number < math.inf:
            return number
        said = f"{text!r} is no number from 0 on. "
