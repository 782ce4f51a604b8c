"""The tab of many images: progress with time left, a gallery in order, a ZIP."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from perpixel.app import html
from perpixel.app.files import write_files, write_zip
from perpixel.app.page_one import truth_upload
from perpixel.app.prediction import Prediction
from perpixel.app.service import Service
from perpixel.errors import PerpixelError, RequestError
from perpixel.images import write_image

__all__ = ["add_many"]

_SURE, _WORST, _GIVEN = "least confident first", "worst figure first", "as given"
_START = html.empty("Give several images, or a folder of them.", "Truths belong to the images of the same names.")
_THUMBNAIL = 480

Entry = dict[str, Any]


def add_many(service: Service, run: gr.Dropdown) -> None:
    """Add the tab's parts."""
    with gr.Row():
        images = gr.File(label="Images", file_count="multiple", elem_id="many-images", height=180)
        truths = truth_upload("many-truths", "multiple")
    whole = gr.UploadButton("Upload a folder", file_count="directory", size="sm", elem_id="many-upload")
    folder = gr.Textbox(
        label="Or a folder on the server",
        placeholder="a path below the folder that was opened with --images",
        visible=service.images is not None,
        elem_id="many-folder",
    )
    with gr.Row():
        start = gr.Button("Predict all", variant="primary", elem_id="many-start")
        stop = gr.Button("Stop", elem_id="many-stop")
        order = gr.Dropdown([_GIVEN, _SURE, _WORST], value=_SURE, label="Order", elem_id="many-order")
    told = gr.HTML(_START, elem_id="many-told")
    gallery = gr.Gallery(label="Predictions", columns=4, object_fit="contain", elem_id="many-gallery", visible=False)
    entries = gr.State([])
    whole.upload(lambda files: files, whole, images, api_visibility="private", show_progress="hidden")
    working = start.click(
        _predict_all(service),
        [run, images, truths, folder, order],
        [told, gallery, entries],
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=2,
    )
    stop.click(_stopped, None, told, cancels=[working], api_visibility="private", show_progress="hidden")
    order.input(_gallery, [entries, order], gallery, api_visibility="private", show_progress="hidden")


def _stopped() -> str:
    return "<p>Stopped. What was predicted until then is shown below.</p>"


def _predict_all(service: Service) -> Any:
    def work(
        name: str | None, images: list[str] | None, truths: list[str] | None, folder: str | None, order: str
    ) -> Iterator[tuple[Any, Any, list[Entry]]]:
        hidden = gr.Gallery(value=[], visible=False)
        if not name or not (images or (folder or "").strip()):
            yield _START, hidden, []
            return
        entries: list[Entry] = []
        try:
            paths = [Path(path) for path in images] if images else service.folder_images(folder or "")
            out, problems, files, began = service.results.new(), [], [], time.monotonic()
            monitor = service.library.recipe(name).training.monitor
            for image, found in service.predict_many(name, paths, [Path(path) for path in truths or ()]):
                if isinstance(found, Prediction):
                    entries.append(_entry(out, found, monitor))
                    files += write_files(out, found)
                else:
                    problems.append(f"{image.name}: {found.what}")
                done = len(entries) + len(problems)
                every = gr.skip() if done % 8 and done < len(paths) else _gallery(entries, order)
                yield _progress(done, len(paths), began), every, entries
            yield (
                _finished(out, files, problems, len(paths), time.monotonic() - began),
                _gallery(entries, order),
                entries,
            )
        except PerpixelError as problem:
            yield html.error(problem), _gallery(entries, order) if entries else hidden, entries

    return work


def _entry(out: Path, found: Prediction, monitor: str) -> Entry:
    picture_hwc = found.task.panels(found.image_hwc, found.prediction_hw)["prediction"]
    step = max(1, -(-max(picture_hwc.shape[:2]) // _THUMBNAIL))
    path = out / f"{found.stem}_thumbnail.png"
    write_image(path, picture_hwc[::step, ::step].copy())
    infos = found.task.metrics().infos()
    sign = -1 if monitor in infos and infos[monitor].direction == "lower" else 1
    value = found.figures.get(monitor, math.nan)
    return {
        "path": str(path),
        "name": found.stem,
        "confidence": found.mean_confidence,
        "figure": sign * value if math.isfinite(value) else None,
        "monitor": monitor,
        "told": f"{value:.3f}" if math.isfinite(value) else "",
    }


def _gallery(entries: list[Entry], order: str) -> Any:
    """Pictures in the order that was asked for; where nothing is known of one, it comes last."""
    key = {_SURE: "confidence", _WORST: "figure"}.get(order)
    if key is not None:
        entries = sorted(entries, key=lambda entry: math.inf if entry[key] is None else entry[key])
    pictures = []
    for entry in entries:
        sure = "" if entry["confidence"] is None else f"sure {entry['confidence']:.2f}"
        pictures.append((entry["path"], "  ".join(filter(None, [entry["told"], sure, entry["name"]]))))
    told = next((f", {entry['monitor']}" for entry in entries if entry["told"]), "")
    sure = ", sure: mean confidence" if any(entry["confidence"] is not None for entry in entries) else ""
    return gr.Gallery(value=pictures, visible=bool(pictures), label=f"Predictions{told}{sure}, name")


def _progress(done: int, total: int, began: float) -> str:
    left = (time.monotonic() - began) / done * (total - done)
    return (
        f'<p><progress max="{total}" value="{done}" aria-label="progress"></progress>'
        f" {done} of {total}, about {max(1, round(left))} s left</p>"
    )


def _finished(out: Path, files: list[Path], problems: list[str], total: int, seconds: float) -> str:
    said = f"<p>{total - len(problems)} of {total} images predicted in {seconds:.1f} s.</p>"
    if problems:
        said += html.error(RequestError(f"{len(problems)} files cannot be read", details=problems[:20]))
    return said + (html.downloads([write_zip(out / "predictions.zip", files)]) if files else "")
