"""Axes of a grid, the recipes of its cells, and the folders they go to. Needs no torch."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from perpixel.errors import RequestError
from perpixel.recipe import Recipe, load_recipe

SEED = "training.seed"


def axis_options(axis: str, option: str) -> tuple[str, list[str]]:
    """Key and values of ``key=value,value``; a list in brackets is one value.

    Raises:
        RequestError: it is written otherwise; ``option`` is the command line's name for it.
    """
    key, separator, values = axis.partition("=")
    options = [value.strip() for value in re.split(r",(?![^\[]*\])", values) if value.strip()]
    if not separator or not key.strip() or not options:
        raise RequestError("an axis is written key=value,value", where=f"{option} {axis}")
    return key.strip(), options


def grid_cells(vary: Sequence[str], own_seed: int | None = None) -> dict[str, list[str]]:
    """Settings of each combination, by a name made of its values; a list in brackets is one value.

    The recipe's own seed, ``own_seed``, is not in a name: so a grid takes further seeds later, and keeps what it has.
    """
    parsed = [axis_options(axis, "--vary") for axis in vary]
    axes = [[(key, option) for option in options] for key, options in parsed]
    keys = [key for key, _ in parsed]
    if not keys or len(set(keys)) < len(keys):
        raise RequestError("a grid has one axis or more, each key once", where=" ".join(vary) or "--vary")
    cells = {}
    for combination in itertools.product(*axes):
        parts = [f"seed{value}" if key == SEED else _file_name(value) for key, value in combination]
        unsaid = [key == SEED and value == str(own_seed) and len(keys) > 1 for key, value in combination]
        name = "-".join(part for part, skipped in zip(parts, unsaid, strict=True) if not skipped)
        cells[name] = [f"{key}={value}" for key, value in combination]
    if len(cells) != len(list(itertools.product(*axes))):
        raise RequestError("two cells of this grid are the same", where=" ".join(vary))
    return cells


def grid_recipes(
    recipe: str | Path, vary: Sequence[str], overrides: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, Recipe]]:
    """Settings and recipe of each cell, by name; raises what `grid_cells` and `load_recipe` raise."""
    cells = grid_cells(vary, load_recipe(recipe, overrides).training.seed)
    return cells, {name: load_recipe(recipe, [*overrides, *settings]) for name, settings in cells.items()}


def grid_command(
    recipe: str | Path, vary: Sequence[str], folder: Path, *, data: Path | None, overrides: Sequence[str]
) -> list[str]:
    """What was typed, in words of the command line; typed again with ``--resume``, it continues."""
    words = ["perpixel", "grid", str(recipe)]
    words += [word for axis in vary for word in ("--vary", axis)]
    words += [word for setting in overrides for word in ("--set", setting)]
    words += ["--data", str(data)] if data else []
    return [*words, "--run", str(folder)]


def require_free(folder: Path) -> None:
    """Raise RequestError if a folder holds something, which only a continuation may."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(
            "this folder is not empty", where=folder, cure="continue it with --resume, or name another --run."
        )


def _file_name(value: str) -> str:
    return "".join(char if char.isalnum() or char in "._" else "_" for char in value)
