"""What the verbs ``inspect`` and ``init`` do."""

from __future__ import annotations

from pathlib import Path

from perpixel.console import Console
from perpixel.data.archives import unpack_missing
from perpixel.errors import RequestError
from perpixel.inspection.finding import Inspection
from perpixel.inspection.fixing import with_cures
from perpixel.inspection.guided import Ask, guided
from perpixel.inspection.inspect import inspect_folder, inspect_recipe
from perpixel.inspection.listing import walk
from perpixel.inspection.report import report_html
from perpixel.recipe import builtin_names, did_you_mean, dump_recipe, load_recipe
from perpixel.recipe.schema import Archive
from perpixel.run import write_atomic

__all__ = ["init_recipe", "inspect_source"]


def inspect_source(
    source: str | Path, *, data: Path | None, report: Path | None, fix_recipe: Path | None, console: Console
) -> Inspection:
    """Inspect a bare folder or a recipe's data, and write what is asked; see `perpixel.api.inspect`.

    Raises:
        RequestError: there is no such folder or recipe, or what is asked does not go together.
        DataError: no pairs.
    """
    folder = _is_folder(source)
    if folder and data is not None:
        cure = "leave it out, or name a recipe instead of the folder."
        raise RequestError("--data is the data folder of a recipe", where=source, cure=cure)
    for out in filter(None, (report, fix_recipe)):
        if out.is_dir():  # told before the long look
            raise RequestError("this is a folder, and a file is to be written", where=out, cure="name a file.")
    if folder:
        _unpack(Path(source))
        inspection, view = inspect_folder(Path(source), console)
    else:
        inspection, view = inspect_recipe(load_recipe(source), data, console)
    if report is not None:
        write_atomic(report, report_html(inspection, view))
        console.say(f"written: {report}")
    if fix_recipe is not None:
        _write_fixed(inspection, fix_recipe, console)
    elif folder:
        console.say("--fix-recipe FILE writes the recipe that this look proposes; perpixel train FILE trains it.")
    return inspection


def init_recipe(folder: Path, out: Path, *, ask: Ask | None, console: Console) -> Inspection:
    """Write the recipe of a bare folder, corrected by the answers to some questions.

    Raises:
        RequestError: there is no such folder, or ``out`` exists.
        DataError: no pairs.
    """
    if not _is_folder(folder):
        raise RequestError("this is no folder", where=folder, cure="give the folder of images and targets.")
    if out.exists():
        raise RequestError("this exists already", where=out, cure="name another --out.")
    _unpack(folder)
    inspection, _ = inspect_folder(folder, console)
    console.say(inspection.text())
    recipe = inspection.recipe
    assert recipe is not None  # of a folder there is always one
    write_atomic(out, dump_recipe(guided(recipe, ask) if ask is not None else recipe))
    return inspection


def _is_folder(source: str | Path) -> bool:
    """Whether it is a folder, and not a recipe; an error where it is neither."""
    path = Path(source)
    if path.is_dir() or path.is_file() or str(source) in builtin_names():
        return path.is_dir()
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise RequestError(
        f"no folder, no recipe file and no built-in recipe has this name{did_you_mean(path.name, sorted(beside))}",
        where=source,
        cure="name a folder of images and targets, or a recipe; `perpixel recipes` lists the built-in ones.",
    )


def _unpack(folder: Path) -> None:
    """Competitions ship train.zip and test.zip: they are unpacked where there is no picture yet, as training does."""
    if not walk(folder):
        unpack_missing([Archive(file=path.name, folder=path.stem) for path in sorted(folder.glob("*.zip"))], folder)


def _write_fixed(inspection: Inspection, out: Path, console: Console) -> None:
    recipe = inspection.recipe
    assert recipe is not None  # every inspection has one
    recipe, done = with_cures(recipe, inspection.findings)
    write_atomic(out, dump_recipe(recipe))
    console.say("\n".join([f"written: {out}", *(f"  with {cure}" for cure in done)]))
