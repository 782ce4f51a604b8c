"""The verbs of perpixel. The command line, the page and a notebook all call these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.recipe import Recipe, builtin_names, load_recipe
from perpixel.run import Run

if TYPE_CHECKING:
    from perpixel.inspection import Inspection

RUNS = Path("runs")


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
    if "source" in takes and "source" not in given:
        raise RequestError(f"{kind} is made from photographs", cure="Name their folder: --from DIR.")
    reports = {"progress": lambda done, total: console.progress("images", done, total), "say": console.say}
    given |= {name: report for name, report in reports.items() if name in takes}
    write(Path(out), count=count, seed=seed, **given)
    return Path(out)


SYNTHESES = ("salt", "desert", "night", "objects")  # the keys of WRITERS, which would take long to import


def _option(name: str) -> str:
    """How an argument is called on the command line."""
    return "--from" if name == "source" else f"--{name}"


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
        source, data=_path(data), report=_path(report), fix_recipe=_path(fix_recipe), console=console or Console()
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


def train(
    recipe: str | Path | Recipe,
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Run:
    """Train a recipe (a name, a file or a `Recipe`) into a run folder, by default the next free ``runs/NAME``.

    Some of the data are inspected first; errors stop the training, unless ``force`` is asked.
    """
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    folder = Path(run) if run is not None else _default_run(resolved.name, resume)
    from perpixel.training.first_look import FirstLook
    from perpixel.training.train import train as train_recipe

    look = FirstLook(force=force)
    return train_recipe(resolved, folder, data=_path(data), resume=resume, look=look, console=console)


def grid(
    recipe: str | Path,
    vary: Sequence[str],
    *,
    data: str | Path | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Train every combination of ``key=value,value`` axes; returns the grid's folder."""
    load_recipe(recipe, overrides)
    folder = Path(run) if run is not None else _default_run(f"{Path(recipe).stem}-grid", resume)
    from perpixel.experiments.grid import run_grid

    run_grid(
        recipe,
        vary,
        folder,
        data=_path(data),
        overrides=overrides,
        resume=resume,
        force=force,
        console=console or Console(),
    )
    return folder


def evaluate(
    run: str | Path | Iterable[str | Path],
    *,
    subset: str = "val",
    data: str | Path | Iterable[str | Path] | None = None,
    uncertainty: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Figures of a run on one of its subsets, or on other data: a folder, or a recipe file that describes one.

    Of other data the pairs of ``subset`` are scored where the data name one of this name, else all pairs. Several
    runs or several data make one table, in which each run's own subset leads. ``uncertainty`` (one run of depth or
    images, one data set): whether the pixels at which views of an image disagree are those that are wrong.

    Returns:
        ``table`` (text); of one run on one data set also ``figures`` and ``protocol``, of several ``rows``.
    """
    runs = list({opened.path.resolve(): opened for opened in map(Run.open, _paths(run))}.values())
    places = list({path.resolve(): path for path in _paths(data)}.values())
    console = console or Console()
    if len(runs) == 1 and len(places) <= 1:
        from perpixel.evaluation.session import evaluate_run

        place = places[0] if places else None
        return evaluate_run(runs[0], subset=subset, data=place, console=console, uncertainty=uncertainty)
    if uncertainty:
        raise RequestError("the uncertainty is told of one run on one data set", cure="leave out --uncertainty.")
    from perpixel.evaluation.several import evaluate_several

    return evaluate_several(runs, subset=subset, data=places, console=console)


def compare(
    runs: Iterable[str | Path],
    *,
    subset: str = "val",
    data: str | Path | Iterable[str | Path] | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Which of some runs is better on the same images, with 95 % intervals and paired tests.

    Returns:
        ``table`` (text), and ``comparisons``: by name of the data, a dictionary for each pair of runs and figure.
    """
    opened = [Run.open(run) for run in runs]
    from perpixel.evaluation.compare import compare_runs, comparison_table

    found = compare_runs(opened, subset=subset, data=_paths(data), console=console or Console())
    return {
        "table": "\n\n".join(f"{name}:\n{comparison_table(items)}" for name, items in found.items()),
        "comparisons": {name: [item.as_dict() for item in items] for name, items in found.items()},
    }


def report(
    runs: str | Path | Iterable[str | Path], out: str | Path, *, subset: str = "test", console: Console | None = None
) -> Path:
    """Write what a person reads of a run, a grid, a before-and-after folder, or several runs side by side.

    ``out`` is an HTML file that holds everything, or a Markdown file with pictures in a folder beside it. Figures are
    those that evaluations have left; ``subset`` is the one that several runs are compared on.
    """
    from perpixel.reports import report as write_report

    return write_report(_paths(runs), Path(out), subset=subset, console=console or Console())


def before_after(
    recipe: str | Path,
    *,
    data: str | Path | None = None,
    others: str | Path | Iterable[str | Path] | None = None,
    overrides: Sequence[str] = (),
    run: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    console: Console | None = None,
) -> Path:
    """Score a recipe's starting weights, fine-tune them, score again, and say what changed and how sure that is."""
    name = load_recipe(recipe, overrides).name
    folder = Path(run) if run is not None else _default_run(f"{name}-before-after", resume)
    from perpixel.experiments.before_after import run_before_after

    run_before_after(
        recipe,
        folder,
        data=_path(data),
        others=_paths(others),
        overrides=overrides,
        resume=resume,
        force=force,
        console=console or Console(),
    )
    return folder


def ensemble(
    runs: Iterable[str | Path], out: str | Path | None = None, *, console: Console | None = None
) -> dict[str, Any]:
    """Average several runs, or the folds of one recipe, into a folder that predicts and is evaluated as a run is.

    ``out`` is the folder to write, by default the next free ``runs/NAME-ensemble``.

    Returns:
        ``run``, and ``table`` (text): the ensemble beside its members, on what none of them trained on.
    """
    opened = [Run.open(run) for run in runs]
    if not opened:
        raise RequestError("no run is named", rule="an ensemble holds two different runs or more.")
    folder = Path(out) if out is not None else _default_run(f"{opened[0].recipe.name}-ensemble", False)
    from perpixel.experiments.ensemble import run_ensemble

    table = run_ensemble(opened, folder, console=console or Console())
    return {"run": Run(folder), "table": table}


def predict(
    run: str | Path,
    images: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> list[Path]:
    """Predict images (files or folders) at their original sizes, with a run or with a file that `export` wrote.

    ``overrides`` change the run's inference section: ``inference.flip=true``, ``inference.point_cloud=ply``.

    Of ``photo.jpg`` a segmentation writes ``photo.png`` (the data set's own values), ``photo_color.png``,
    ``photo_overlay.png`` and ``photo_confidence.png`` (8 bits: 255 is confidence 1) into ``out``, whose
    ``timing.json`` says how long an image took. Returns the first of each.
    """
    from perpixel.inference.files import predict_files
    from perpixel.inference.opening import open_predictor

    predictor = open_predictor(Path(run), overrides)
    return predict_files(predictor, _paths(images), Path(out), console=console or Console())


def export(
    run: str | Path,
    out: str | Path,
    *,
    form: str = "onnx",
    int8: bool = False,
    calibrate: str | Path | None = None,
    data: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write a run as one file, from pixels to prediction, that needs no torch, and check it against the run.

    Beside ``out`` stand ``<out>.json`` (metadata, differences, figures, times) and ``<out>.md`` (model card).

    Args:
        form: ``onnx`` (a file ``.onnx``) or ``openvino`` (``.xml``, with ``.bin`` beside it).
        int8: the network in whole numbers of 8 bits; ``calibrate`` is a folder of images to learn their ranges from.
        data: where the run's data lie now.

    Returns:
        What the JSON holds.
    """
    opened = Run.open(run)
    from perpixel.exporting.export import export_run

    console = console or Console()
    return export_run(
        opened, Path(out), form=form, int8=int8, calibrate=_path(calibrate), data=_path(data), console=console
    )


def submit(run: str | Path, out: str | Path, *, data: str | Path | None = None, console: Console | None = None) -> Path:
    """Predict the data set's unlabelled images and write the competition's ``id,rle_mask`` file."""
    opened = Run.open(run)
    from perpixel.evaluation.session import submit_run

    submit_run(opened, Path(out), data=_path(data), console=console or Console())
    return Path(out)


def pack(run: str | Path, out: str | Path) -> Path:
    """Zip models and results of a run or a grid, without the state that only a continuation needs."""
    folder = Path(run)
    if not ((folder / "recipe.yaml").is_file() or (folder / "grid.json").is_file()):
        Run.open(folder)
    from perpixel.evaluation.packing import pack_folder

    return pack_folder(folder, Path(out))


def _default_run(name: str, resume: bool) -> Path:
    """The next free ``runs/NAME``, ``runs/NAME-2``, ...; with resume, the last that exists."""
    last, number = RUNS / name, 2
    if not last.exists():
        return last
    while (following := RUNS / f"{name}-{number}").exists():
        last, number = following, number + 1
    return last if resume else following


def _paths(values: str | Path | Iterable[str | Path] | None) -> list[Path]:
    if values is None:
        return []
    return [Path(value) for value in ([values] if isinstance(values, str | Path) else values)]


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
