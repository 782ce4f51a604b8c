"""The tab of one image: prediction, truth, figures, point cloud, downloads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gradio as gr

from perpixel.app import html
from perpixel.app.cards import Card
from perpixel.app.service import Published, Service
from perpixel.errors import PerpixelError
from perpixel.tasks.view import DistanceView, View

__all__ = ["add_one", "examples", "image_upload", "path_of", "truth_upload"]

_EXAMPLES = 6
_START = html.empty(
    "Drop an image above, paste one, or take one with the camera.",
    "With its ground truth beside it you also see where the model is wrong.",
)
_ANGLE = "Give it above, and press Enter."


def image_upload(name: str, label: str = "Image") -> gr.Image:
    """An image that stays the file that was sent: Gradio decodes nothing of it."""
    upload = gr.Image(
        label=label,
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        elem_id=name,
        height=230,
        buttons=[],
    )
    upload.preprocess = path_of  # type: ignore[method-assign]
    return upload


def truth_upload(name: str, count: Any = "single") -> gr.File:
    """A target file of the data set's kind."""
    return gr.File(label="Ground truth (if there is one)", file_count=count, elem_id=name, height=230)


def path_of(payload: Any) -> str | None:
    """The file of an upload; Gradio has made sure that it is one."""
    return payload.path if payload is not None else None


def add_one(service: Service, run: gr.Dropdown) -> None:
    """Add the tab's parts."""
    with gr.Row():
        image = image_upload("one-image")
        truth = truth_upload("one-truth")
    angle = gr.Number(
        label="Horizontal field of view in degrees, for the point cloud",
        info="0: as the image's EXIF data say, else as the training data's camera. A phone's camera sees about 65.",
        value=0,  # what Gradio makes of an empty field
        visible=False,
        elem_id="one-angle",
    )
    if samples := [[path] for path in examples(service)]:
        gr.Examples(samples, inputs=[image], label="Examples", cache_examples=False)
    again = gr.Button("Predict again", size="sm", elem_id="one-predict")
    shown = gr.HTML(_START, elem_id="one-viewer")
    cloud = gr.HTML(elem_id="one-cloud")
    told = gr.HTML(elem_id="one-told")
    run.change(_ask_angle(service), run, angle, api_visibility="private", show_progress="hidden")
    gr.on(
        [again.click, image.change, truth.change, run.change, angle.submit],
        _shown(service),
        [run, image, truth, angle],
        [shown, told, cloud],
        api_visibility="private",
        trigger_mode="always_last",
    )
    gr.Button(visible=False).click(
        _for_programs(service),
        [run, image, truth],
        [gr.File(file_count="multiple", visible=False), gr.JSON(visible=False)],
        api_name="predict",
        api_description="Predict an image with a run or an exported file, by its name; a truth may be None. Gives the"
        " files that `perpixel predict` writes, and figures, classes and times.",
    )


def _ask_angle(service: Service) -> Any:
    """The field of view is asked where the model tells metres."""

    def ask(name: str | None) -> Any:
        card = _card(service, name)
        if card is None or not isinstance(card.view, DistanceView) or not card.view.unit:
            return gr.Number(visible=False)
        return gr.Number(visible=True)

    return ask


def _card(service: Service, name: str | None) -> Card | None:
    try:
        return service.library.card(name) if name else None
    except PerpixelError:
        return None


def _shown(service: Service) -> Any:
    def show(name: str | None, image: str | None, truth: str | None, angle: float | None) -> Any:
        if not name or not image:
            return _START, "", ""
        try:
            prediction = service.predict(name, Path(image), Path(truth) if truth else None)
            valid = angle is not None and math.isfinite(angle) and 0 < angle < 180
            published: Published = service.publish(prediction, horizontal_deg=angle if valid else None)
        except PerpixelError as problem:
            return html.error(problem), "", ""
        cloud = html.cloud(published.cloud) if published.cloud else _unknown_camera(prediction.view)
        return html.viewer(published.folder), html.outcome(published), cloud

    return show


def _unknown_camera(view: View) -> str:
    if not (isinstance(view, DistanceView) and view.unit):
        return ""
    return html.empty("A point cloud needs the camera's field of view: neither the image nor the run tells it.", _ANGLE)


def _for_programs(service: Service) -> Any:
    def predict(name: str | None, image: str | None, truth: str | None) -> tuple[list[str], dict[str, Any]]:
        if not name or not image:
            raise gr.Error("Give the name of a run and an image.")
        try:
            prediction = service.predict(name, Path(image), Path(truth) if truth else None)
            published = service.publish(prediction)
        except PerpixelError as problem:
            raise gr.Error(problem.text()) from None
        return [str(file) for file in published.files], prediction.as_dict()

    return predict


def examples(service: Service) -> list[str]:
    """Some images of the folder that is opened to visitors."""
    if service.images is None:
        return []
    try:
        return [str(path) for path in service.folder_images("")[:_EXAMPLES]]
    except PerpixelError:
        return []
