"""The tab of data: what a folder holds, and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr

from perpixel.app import html
from perpixel.app.service import Service
from perpixel.console import Console
from perpixel.errors import PerpixelError

__all__ = ["add_inspect"]

_START = html.empty("Name a folder with images and their targets.", "It is read as `perpixel inspect` reads it.")
_CLOSED = html.empty(
    "No folder of data is opened to visitors.",
    "Start the page with one, `perpixel page --images FOLDER`, or look at it with `perpixel inspect FOLDER`.",
)

_PROGRESS = gr.Progress()  # as a default value it tells Gradio to show progress


def add_inspect(service: Service) -> None:
    """Add the tab's parts."""
    if service.images is None:
        gr.HTML(_CLOSED)
        return
    folder = gr.Textbox(
        label="Folder of a data set",
        info=f"On the server, below {service.images.name}; empty: that folder itself.",
        elem_id="inspect-folder",
    )
    start = gr.Button("Inspect", variant="primary", elem_id="inspect-start")
    told = gr.HTML(_START, elem_id="inspect-told")
    gr.on(
        [start.click, folder.submit],
        _inspect(service),
        folder,
        told,
        api_visibility="private",
        concurrency_limit=1,
    )


def _inspect(service: Service) -> Any:
    def look(folder: str | None, progress: Any = _PROGRESS) -> str:
        try:
            found, page = service.inspect(folder or "", _Shown(progress))
        except PerpixelError as problem:
            return html.error(problem)
        address = html.address(page)
        return (
            f'<p role="status"><b>{escape(found.verdict())}</b>'
            f' <a href="{address}" target="_blank">Open the page alone</a></p>'
            f'<iframe class="pp-frame" title="Inspection" src="{address}"></iframe>'
        )

    return look


class _Shown(Console):
    """Progress on the page."""

    def __init__(self, progress: Any) -> None:
        super().__init__()
        self._progress = progress

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        self._progress((done, total), desc=label)
