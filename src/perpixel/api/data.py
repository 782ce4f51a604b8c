"""Verbs over data: make them, look at them, describe them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpixel.api._arguments import as_path
from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.recipe import builtin_names, load_recipe

if TYPE_CHECKING:
    from perpixel.inspection import Inspection


@dataclass(frozen=True)
class RecipeLine:
    """A built-in recipe in one line."""

    name: str
    description: str


def recipes() -> list[RecipeLine]:
    """The built-in recipes."""
    return [RecipeLine(name, load_recipe(name).description) for name in builtin_names()]


def synthesize(
    kind: str, out: str | Path, *, count: int, seed: int = 0, console: Console | None = None, **options: Any
) -> Path:
    """Write a synthetic data set; ``kind`` is ``salt``, ``desert``, ``night`` or ``objects``.

    ``options`` are the further arguments of `perpixel.synthesis.synthesize_salt` and its siblings; None is not given.
    """
    console = console or Console()
    if kind not in SYNTHESES:
        raise RequestError(f"nothing is synthesized under the name {kind!r}", rule=f"known: {', '.join(SYNTHESES)}.")
    if count < 1:
        raise RequestError(f"--count is {count}", rule="at least 1 image is made.")
    from perpixel.synthesis import WRITERS

    write = WRITERS[kind]
    takes = signature(write).parameters
    given = {name: value for name, value in options.items() if value is not None}
    if foreign := [name for name in given if name not in takes]:
        raise RequestError(
            f"{kind} has no {' and no '.join(map(_option, foreign))}", cure="Leave out what it does not have."
        )
    reports = {"progress": lambda done, total: console.progress("images", done, total), "say": console.say}
    given |= {name: report for name, report in reports.items() if name in takes}
    write(Path(out), count=count, seed=seed, **given)
    return Path(out)


SYNTHESES = ("salt", "desert", "night", "objects")  # the keys of WRITERS, which would take long to import


def _option(name: str) -> str:
    """How an argument is called on the command line."""
    return "--from" if name == "source" else f"--{name}"


def shard(
    recipe: str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    size_mb: float = 64.0,
    to: str = "litdata",
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Write a recipe's pairs as shards to train on, or (``to="webdataset"``) its files as tars.

    Args:
        data: the data folder; or tars in the layout of WebDataset, which become shards.
        size_mb: megabytes of a shard.
        force: in spite of errors in the data.
    """
    from perpixel.sharding import shard as write

    return write(
        load_recipe(recipe, overrides),
        Path(out),
        data=as_path(data),
        size_mb=size_mb,
        form=to,
        force=force,
        console=console or Console(),
    )


def inspect(
    source: str | Path,
    *,
    data: str | Path | None = None,
    report: str | Path | None = None,
    fix_recipe: str | Path | None = None,
    console: Console | None = None,
) -> Inspection:
    """Look at a data set before training: a bare folder, which is understood from its files, or a recipe's data.

    Args:
        source: a folder, a built-in recipe, or a recipe file.
        data: the data folder of a recipe.
        report: an HTML page to write, with pictures.
        fix_recipe: a file to write a recipe to: of a folder the proposed one, of a recipe the same with the cures that
            are lines of a recipe.
    """
    from perpixel.inspection.session import inspect_source

    return inspect_source(
        source, data=as_path(data), report=as_path(report), fix_recipe=as_path(fix_recipe), console=console or Console()
    )


def init(
    folder: str | Path,
    out: str | Path,
    *,
    ask: Callable[[str, str], str] | None = None,
    console: Console | None = None,
) -> Inspection:
    """Write a recipe for a bare folder; ``ask`` (question, what was found) lets a person correct what was found."""
    from perpixel.inspection.session import init_recipe

    return init_recipe(Path(folder), Path(out), ask=ask, console=console or Console())
