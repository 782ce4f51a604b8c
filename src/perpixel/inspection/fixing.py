"""The cures of findings that are lines of a recipe, put into the recipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from perpixel.errors import RecipeError
from perpixel.inspection.finding import Finding
from perpixel.recipe import Recipe, recipe_from_dict

__all__ = ["with_cures"]


def with_cures(recipe: Recipe, findings: Iterable[Finding]) -> tuple[Recipe, list[str]]:
    """The recipe with every cure of an error or a warning that is a whole line of a recipe; and these cures.

    A cure that is a sentence, or that the recipe cannot hold, is left to a person.
    """
    done: list[str] = []
    for finding in findings:
        change = _change(finding.cure) if finding.severity != "note" and finding.cure not in done else {}
        if not change:
            continue
        values = recipe.to_dict()
        for section, keys in change.items():
            values[section] = values.get(section, {}) | keys
        try:
            recipe = recipe_from_dict(values)
        except RecipeError:
            continue
        done.append(finding.cure)
    return recipe, done


def _change(cure: str) -> dict[str, dict[str, Any]]:
    """``target: {scale: 4}`` as a dictionary; empty of a sentence."""
    try:
        read = yaml.safe_load(cure)
    except yaml.YAMLError:
        return {}
    if not isinstance(read, dict) or not all(isinstance(keys, dict) for keys in read.values()):
        return {}
    return {section: keys for section, keys in read.items() if section in Recipe.model_fields}
