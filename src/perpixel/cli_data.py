"""The commands over data: describe them, make them, look at them, write them as shards."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from perpixel import api, console
from perpixel import cli_options as given

LINE_WIDTH = 120


def recipes() -> None:
    """The built-in recipes, one line each."""
    lines = api.recipes()
    width = max(len(line.name) for line in lines)
    for line in lines:
        first = line.description.split(". ")[0].rstrip(".")
        typer.echo(f"{line.name:{width}}  {textwrap.shorten(first, LINE_WIDTH - width - 2, placeholder=' ...')}")


def synthesize(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"one of: {', '.join(api.SYNTHESES)}")],
    out: Annotated[Path, typer.Option("--out", help="the folder to write")],
    count: Annotated[int, typer.Option("--count", help="number of images; of salt, of training images")],
    seed: Annotated[int, typer.Option("--seed", help="the same seed gives the same files")] = 0,
    size: given.Size = None,
    place: given.Place = None,
    spp: given.RaysPerPixel = None,
    processes: given.Processes = None,
    style: given.Style = None,
    encoding: given.Encoding = None,
    captures: given.Captures = None,
    source: given.From = None,
    scale: given.Scale = None,
    truth: given.NightTruth = None,
) -> None:
    """Write a synthetic data set in the layout of the real one; the same call continues a killed one."""
    options: dict[str, Any] = {"size": given.as_size(size), "place": place, "spp": spp, "processes": processes}
    options |= {"source": source, "scale": scale, "truth": truth}
    options |= {"style": style, "encoding": encoding, "captures": captures}
    typer.echo(api.synthesize(kind, out, count=count, seed=seed, console=console.terminal(), **options))


def inspect(
    source: Annotated[
        str, typer.Argument(metavar="DIR|RECIPE", help="a bare folder, a built-in recipe, or a YAML file")
    ],
    data: given.Data = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="HTML", help="a page with pictures")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of sentences")] = False,
    fix_recipe: Annotated[
        Path | None, typer.Option("--fix-recipe", metavar="FILE", help="write the recipe that is proposed or cured")
    ] = None,
) -> None:
    """Look at a data set before training: what it holds, what is wrong with it, and the cure. Status 1 with errors."""
    found = api.inspect(source, data=data, report=report, fix_recipe=fix_recipe, console=console.terminal())
    typer.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if as_json else found.text())
    if found.errors:
        raise typer.Exit(1)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="a folder of images and targets")],
    out: Annotated[Path, typer.Option("--out", help="the recipe to write")] = Path("recipe.yaml"),
) -> None:
    """Write a recipe for a bare folder; on a terminal what was found can be corrected, question by question."""
    ask = (lambda question, found: str(typer.prompt(question, default=found))) if sys.stdin.isatty() else None
    found = api.init(folder, out, ask=ask, console=console.terminal())
    typer.echo(out)
    if found.errors:
        raise typer.Exit(1)


def shard(
    recipe: given.RecipeName,
    out: Annotated[Path, typer.Option("--out", help="the folder to write")],
    data: Annotated[Path | None, typer.Option("--data", help="the data folder, or one of WebDataset tars")] = None,
    size_mb: Annotated[float, typer.Option("--size-mb", help="megabytes of a shard")] = 64.0,
    to: Annotated[str, typer.Option("--to", help="litdata: to train on; webdataset: tars of the files")] = "litdata",
    overrides: given.Overrides = None,
    force: given.Force = False,
) -> None:
    """Write pairs into few large files, to train on data larger than a machine; needs [shards]."""
    shown = console.terminal()
    settings = overrides or ()
    typer.echo(
        api.shard(recipe, out, data=data, overrides=settings, size_mb=size_mb, to=to, force=force, console=shown)
    )
