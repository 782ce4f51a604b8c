"""Verbs over what a training left: figures, predictions, files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpixel.api._arguments import as_path, as_paths
from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.run import Run

if TYPE_CHECKING:
    from perpixel.evaluation.compare import Compared


def evaluate(
    run: str | Path | Iterable[str | Path],
    *,
    subset: str = "val",
    data: str | Path | Iterable[str | Path] | None = None,
    uncertainty: bool = False,
    console: Console | None = None,
) -> dict[str, Any]:
    """Figures of a run on one of its subsets, or on other data: a folder, or a recipe file that describes one.

    A file that `export` wrote may stand for its run; where its data lie, ``data`` says.

    Of other data the pairs of ``subset`` are scored where the data name one of this name, else all pairs. Several
    runs or several data make one table, in which each run's own subset leads. ``uncertainty`` (one run of depth or
    images, one data set): whether the pixels at which views of an image disagree are those that are wrong.

    Returns:
        ``table`` (text); of one run on one data set also ``figures`` and ``protocol``, of several ``rows``.
    """
    from perpixel.inference.opening import open_run

    runs = list({opened.path.resolve(): opened for opened in map(open_run, as_paths(run))}.values())
    places = list({path.resolve(): path for path in as_paths(data)}.values())
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
) -> Compared:
    """Which of some runs is better on the same images, with 95 % intervals and paired tests.

    Returns:
        By name of the data: a `Comparison` for each pair of runs and figure; ``table()`` is all of it as text, and a
        notebook shows it.
    """
    opened = [Run.open(run) for run in runs]
    from perpixel.evaluation.compare import compare_runs

    return compare_runs(opened, subset=subset, data=as_paths(data), console=console or Console())


def report(
    runs: str | Path | Iterable[str | Path],
    out: str | Path,
    *,
    subset: str = "test",
    figures: bool = False,
    console: Console | None = None,
) -> Path:
    """Write what a person reads of a run, a grid, a before-and-after folder, or several runs side by side.

    ``out`` is an HTML file that holds everything, or a Markdown file with pictures in a folder beside it; with
    ``figures`` a folder for the pictures and plots alone. Figures are those that evaluations have left; ``subset`` is
    the one that several runs are compared on.
    """
    from perpixel.reports import report as write_report

    return write_report(as_paths(runs), Path(out), subset=subset, figures=figures, console=console or Console())


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
    return predict_files(predictor, as_paths(images), Path(out), console=console or Console())


def export(
    run: str | Path,
    out: str | Path,
    *,
    form: str = "onnx",
    int8: bool = False,
    calibrate: str | Path | None = None,
    fastest: bool = False,
    data: str | Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write a run as one file, from pixels to prediction, and check it against the run.

    Beside ``out`` stand ``<out>.json`` (metadata, differences, figures, times) and ``<out>.md`` (model card). No torch
    is needed to use ``onnx`` and ``openvino``.

    Args:
        form: ``onnx`` (a file ``.onnx``), ``openvino`` (``.xml``, with ``.bin`` beside it), ``torch-export``
            (``.pt2``), or ``safetensors``: weights of which perpixel builds the network again.
        int8: the network in whole numbers of 8 bits; ``calibrate`` is a folder of images to learn their ranges from.
        fastest: measure what this machine has (with ``calibrate`` int8 too) and write the fastest way that gives what
            the run gives; its ending is added to ``out``, ``form`` is not asked.
        data: where the run's data lie now.

    Returns:
        What the JSON holds; ``file`` is the name of the file.
    """
    opened = Run.open(run)
    from perpixel.exporting.export import export_fastest, export_run

    console = console or Console()
    if fastest and int8:
        raise RequestError("--int8 is of one format", cure="leave it out: with --calibrate, --fastest tries int8 too.")
    if fastest:
        return export_fastest(opened, Path(out), calibrate=as_path(calibrate), data=as_path(data), console=console)
    return export_run(
        opened, Path(out), form=form, int8=int8, calibrate=as_path(calibrate), data=as_path(data), console=console
    )


def submit(run: str | Path, out: str | Path, *, data: str | Path | None = None, console: Console | None = None) -> Path:
    """Predict the data set's unlabelled images and write the competition's ``id,rle_mask`` file."""
    opened = Run.open(run)
    from perpixel.evaluation.session import submit_run

    submit_run(opened, Path(out), data=as_path(data), console=console or Console())
    return Path(out)


def pack(run: str | Path, out: str | Path) -> Path:
    """Zip models and results of a run or a grid, without the state that only a continuation needs."""
    folder = Path(run)
    if not ((folder / "recipe.yaml").is_file() or (folder / "grid.json").is_file()):
        Run.open(folder)
    from perpixel.evaluation.packing import pack_folder

    return pack_folder(folder, Path(out))
