"""`perpixel export`: a run as one file, left behind only when it gives what the run gives."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.console import Console
from perpixel.errors import PerpixelError, RequestError, RunError
from perpixel.exporting.card import fastest_table, figures_line, in_float_line, model_card
from perpixel.exporting.exporter import FORMATS, Exporter, Figures, Way, Written
from perpixel.exporting.onnx_file import openvino_has_bf16
from perpixel.exporting.parity import as_rows, seconds_per_image, tolerances
from perpixel.run import Run, write_atomic, write_json

_CALIBRATION_IMAGES = 64
_INT8_FORMS = ("onnx", "openvino")


def export_run(
    run: Run,
    out: Path,
    *,
    form: str,
    int8: bool = False,
    calibrate: Path | None = None,
    data: Path | None = None,
    console: Console,
) -> dict[str, Any]:
    """Write ``out``, ``<out>.json`` (metadata and parity) and ``<out>.md`` (model card).

    Args:
        form: ``onnx`` (``.onnx``), ``openvino`` (``.xml``, beside it ``.bin``), ``torch-export`` (``.pt2``), or
            ``safetensors``: weights of which perpixel alone can build the network.
        calibrate: of ``int8`` a folder of images that look like those it will see.
        data: where the run's data lie now.

    Returns:
        What the JSON holds.

    Raises:
        RequestError: a request that cannot be followed, or an extra is not installed.
        RunError: the file would not give what the run gives; none is left.
    """
    _check_request(out, form, int8, calibrate)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        exporter = Exporter(run, Path(folder), console, data)
        calibration = read_folder(exporter, calibrate) if calibrate is not None else []
        written = exporter.write(Way(form, "int8" if int8 else "float32"), calibration)
        return _place(exporter, written, out)


def export_fastest(
    run: Run, out: Path, *, calibrate: Path | None = None, data: Path | None = None, console: Console
) -> dict[str, Any]:
    """Try every way that this machine has, and write the fastest of those that give what the run gives.

    Args:
        out: the file without its ending, which the fastest way decides.
        calibrate: a folder of images; given, int8 is tried too.
        data: where the run's data lie now.

    Returns:
        What the JSON holds; ``file`` is what was written, ``fastest`` a row for each way.

    Raises:
        RequestError, RunError: as `export_run`; no way gives what the run gives.
    """
    _check_out(out)
    if out.suffix in FORMATS.values():
        out = out.with_suffix("")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
        exporter = Exporter(run, Path(folder), console, data)
        calibration = read_folder(exporter, calibrate) if calibrate is not None else []
        written, refused = _try(exporter, _ways(int8=calibrate is not None), calibration)
        seconds = seconds_per_image([exporter.reference, *(item.predictor for item in written)], exporter.image_hwc)
        rows = [_row(item, exporter.monitor, own, seconds[0]) for item, own in zip(written, seconds[1:], strict=True)]
        rows.sort(key=lambda row: float(row["seconds"]))
        console.say("\n".join(fastest_table([*rows, *refused], exporter.monitor, seconds[0])))
        best = min(zip(seconds[1:], written, strict=True), key=lambda pair: pair[0])[1]
        file = out.with_name(f"{out.name}{best.way.suffix}")
        console.say(f"fastest on this machine: {best.way}; written to {file}")
        return _place(exporter, best, file, {"fastest": [*rows, *refused]})


def _ways(*, int8: bool) -> list[Way]:
    ways = [Way("onnx"), Way("openvino"), Way("torch-export")]
    if openvino_has_bf16():
        ways.append(Way("openvino", "bf16"))
    return ways + ([Way(form, "int8") for form in _INT8_FORMS] if int8 else [])


def _try(
    exporter: Exporter, ways: Sequence[Way], calibration: Sequence[NDArray[np.uint8]]
) -> tuple[list[Written], list[dict[str, Any]]]:
    written, refused = [], []
    for way in ways:
        try:
            written.append(exporter.write(way, calibration))
        except PerpixelError as error:
            refused.append({"way": str(way), "refused": error.what})
    if not written:
        raise RunError(
            "no format gives what the run gives",
            where=exporter.run.path,
            details=[f"{row['way']}: {row['refused']}" for row in refused],
            cure="use the run itself, or --format safetensors.",
        )
    return written, refused


def _row(written: Written, monitor: str, seconds: float, of_run: float) -> dict[str, Any]:
    return {
        "way": str(written.way),
        "seconds": seconds,
        "times": round(of_run / seconds, 3),
        "largest": max(check.largest for check in written.checks),
        monitor: written.figures[monitor],
        "change": _change(written.before[monitor], written.figures[monitor]),
    }


def _place(exporter: Exporter, written: Written, out: Path, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Move the file where it belongs, with its JSON and its card."""
    sidecar = {"file": out.name, "metadata": written.metadata, "parity": _parity(exporter, written)} | (more or {})
    for path in sorted(written.path.parent.iterdir()):
        os.replace(path, out.with_suffix(path.suffix))
    write_json(out.with_name(f"{out.name}.json"), sidecar)
    write_atomic(out.with_name(f"{out.name}.md"), model_card(exporter.run, out, sidecar))
    return sidecar


def _parity(exporter: Exporter, written: Written) -> dict[str, Any]:
    """Differences, figures and times of a file beside its run."""
    own, before, after, monitor = written.own, written.before, written.figures, exporter.monitor
    compared = {"run": exporter.reference, "float file": written.float_predictor, "file": written.predictor}
    present = {name: item for name, item in compared.items() if item is not None}
    seconds = dict(zip(present, seconds_per_image(list(present.values()), exporter.image_hwc), strict=True))
    say = exporter.console.say
    say(f"largest difference of scores: {max(check.largest for check in written.checks):.2e} of the largest score")
    say(figures_line(exporter.reference.precision, _figures(own, before, after)[monitor], monitor, written.images))
    if written.in_float is not None:
        say(in_float_line(written.in_float))
    say("one image: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items()))
    return {
        "checks": as_rows(written.checks),
        "tolerance": tolerances(monitor),
        "images": written.images,
        "monitor": monitor,
        "precision_of_run": exporter.reference.precision,
        "in_float": written.in_float,
        "figures": _figures(own, before, after),
        "seconds_per_image": seconds,
        "machine": f"{written.predictor.device_name}, threads: {written.predictor.threads}",
    }


def _figures(own: Figures, before: Figures, after: Figures) -> dict[str, dict[str, float | None]]:
    """``reference`` is what the file is held against, the run in the file's arithmetic; ``change`` is from there."""
    return {
        key: {"run": own[key], "reference": before[key], "file": after[key], "change": _change(before[key], after[key])}
        for key in own
    }


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def read_folder(exporter: Exporter, folder: Path) -> list[NDArray[np.uint8]]:
    """Images to calibrate on, evenly taken from a folder."""
    if not folder.is_dir():
        raise RequestError("this is no folder of images", where=f"--calibrate {folder}")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
    if not files:
        raise RequestError("no image is found here", where=f"--calibrate {folder}")
    chosen = sorted({round(place) for place in np.linspace(0, len(files) - 1, min(len(files), _CALIBRATION_IMAGES))})
    return [exporter.reference.read(files[index]) for index in chosen]


def _check_request(out: Path, form: str, int8: bool, calibrate: Path | None) -> None:
    if form == "torchscript":
        raise RequestError(
            "PyTorch has given up TorchScript",
            where="--format torchscript",
            cure="take its successor, --format torch-export, or --format onnx, which needs no PyTorch.",
        )
    if form not in FORMATS:
        raise RequestError(f"there is no format {form!r}", rule=f"formats: {', '.join(FORMATS)}.")
    if out.suffix != FORMATS[form]:
        raise RequestError(f"a file of {form} ends in {FORMATS[form]}", where=f"--out {out}")
    _check_out(out)
    if int8 and form not in _INT8_FORMS:
        raise RequestError(f"there is no int8 in {form}", cure=f"take --format {' or '.join(_INT8_FORMS)}.")
    if int8 and calibrate is None:
        raise RequestError(
            "int8 needs images to learn its ranges from", cure="name a folder of training images: --calibrate DIR."
        )
    if calibrate is not None and not int8:
        raise RequestError("--calibrate is of --int8 and --fastest", cure="add one of them, or leave it out.")


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise RequestError("this is a folder, and an export is a file", where=f"--out {out}")
