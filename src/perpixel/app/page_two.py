"""The tab of two models on one image: a line between them, and where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from perpixel.app import html
from perpixel.app.page_one import image_upload, truth_upload
from perpixel.app.service import Comparison, Service
from perpixel.errors import PerpixelError
from perpixel.tasks.view import ClassView, DistanceView

__all__ = ["add_two"]

_START = html.empty("Choose two runs of one task and give an image.", "A line that you can move stands between them.")


def add_two(service: Service) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Add the tab's parts; returns the two choices of runs."""
    with gr.Row():
        first = gr.Dropdown(label="Run A", choices=[], elem_id="two-first")
        second = gr.Dropdown(label="Run B", choices=[], elem_id="two-second")
    with gr.Row():
        image = image_upload("two-image")
        truth = truth_upload("two-truth")
    button = gr.Button("Compare", variant="primary", elem_id="two-compare")
    shown = gr.HTML(_START, elem_id="two-viewer")
    told = gr.HTML(elem_id="two-told")
    gr.on(
        [button.click, image.change, truth.change, first.input, second.input],
        _compare(service),
        [first, second, image, truth],
        [shown, told],
        api_visibility="private",
        trigger_mode="always_last",
    )
    return first, second


def _compare(service: Service) -> Any:
    def compare(first: str | None, second: str | None, image: str | None, truth: str | None) -> tuple[str, str]:
        if not (first and second and image):
            return _START, ""
        try:
            found = service.compare(first, second, Path(image), Path(truth) if truth else None)
        except PerpixelError as problem:
            return html.error(problem), ""
        return html.viewer(found.folder), f"<p>{_amount(found)}</p>{html.figures([found.first, found.second])}"

    return compare


def _amount(found: Comparison) -> str:
    view = found.first.view
    if isinstance(view, ClassView):
        return f"The two name different classes on {found.difference:.2%} of the picture."
    if isinstance(view, DistanceView):
        return f"They differ by {found.difference:.4g} {view.unit} on average."
    return f"They differ by {found.difference:.2%} of the full range on average."
