"""The tab of one image: prediction, truth, figures, point cloud, downloads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import gradio as gr

from perpixel.app import html
from perpixel.app.library import Card
from perpixel.app.service import Published, Service
from perpixel.errors import PerpixelError
from perpixel.tasks.view import DistanceView

__all__ = ["add_one", "examples", "image_upload", "path_of", "truth_upload"]

_EXAMPLES = 6
_START = html.empty(
    "Drop an image above, paste one, or take one with the camera.",
    "With its ground truth beside it you also see where the model is wrong.",
)


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
        info="Of the camera that took the image; a phone's main camera sees about 65.",
        minimum=1,
        maximum=179,
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
        _predict(service),
        [run, image, truth, angle],
        [shown, told, cloud],
        api_name="predict",
        api_description="Predict an image with a run; gives the page's pieces. For maps and figures use /api/predict.",
        trigger_mode="always_last",
    )


def _ask_angle(service: Service) -> Any:
    """The field of view is asked where the model tells metres; what the run's data say stands in it."""

    def ask(name: str | None) -> Any:
        card = _card(service, name)
        if card is None or not isinstance(card.view, DistanceView) or not card.view.unit:
            return gr.Number(visible=False)
        return gr.Number(visible=True, value=card.view.horizontal_fov_deg)

    return ask


def _card(service: Service, name: str | None) -> Card | None:
    try:
        return service.library.card(name) if name else None
    except PerpixelError:
        return None


def _predict(service: Service) -> Any:
    def predict(name: str | None, image: str | None, truth: str | None, angle: float | None) -> Any:
        if not name or not image:
            return _START, "", ""
        try:
            prediction = service.predict(name, Path(image), Path(truth) if truth else None)
            valid = angle is not None and math.isfinite(angle) and 0 < angle < 180
            published: Published = service.publish(prediction, horizontal_deg=angle if valid else None)
        except PerpixelError as problem:
            return html.error(problem), "", ""
        cloud = html.cloud(published.cloud) if published.cloud else ""
        return html.viewer(published.folder), html.outcome(published), cloud

    return predict


def examples(service: Service) -> list[str]:
    """Some images of the folder that is opened to visitors."""
    if service.images is None:
        return []
    try:
        return [str(path) for path in service.folder_images("")[:_EXAMPLES]]
    except PerpixelError:
        return []
