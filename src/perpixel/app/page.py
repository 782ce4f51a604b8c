"""The page: Gradio's tabs over the service. Nothing on it is asked of the network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI

from perpixel.app import html
from perpixel.app.page_inspect import add_inspect
from perpixel.app.page_many import add_many
from perpixel.app.page_one import add_one, examples
from perpixel.app.page_runs import add_runs
from perpixel.app.page_two import add_two
from perpixel.app.service import Service
from perpixel.errors import PerpixelError

__all__ = ["build_page", "mount_page"]

_TABS = ("image", "two", "many", "runs", "inspect")
_WAITING = 64  # events that wait in all
_FONTS = ["system-ui", "sans-serif"]
_HEAD = '<script defer src="/perpixel/viewer.js"></script><script defer src="/perpixel/cloud.js"></script>'


def build_page(service: Service) -> gr.Blocks:
    """All tabs; the run and the tab stand in the address."""
    page: gr.Blocks
    with gr.Blocks(title="perpixel", fill_width=True, analytics_enabled=False) as page:
        gr.HTML(
            '<div class="pp-head"><h1>perpixel</h1><p>Look at a model, and at what it does to your images.</p></div>'
        )
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=1, min_width=300):
                run = gr.Dropdown(label="Run", choices=[], elem_id="run", filterable=True)
                # The service knows which runs there are now; Gradio knows those of the visit's beginning.
                setattr(run, "preprocess", _as_sent)  # noqa: B010 - mypy holds methods for fixed
                told = gr.HTML(elem_id="card")
            with gr.Column(scale=3, min_width=320), gr.Tabs(elem_id="tabs") as tabs:
                with gr.Tab("One image", id="image") as first:
                    add_one(service, run)
                with gr.Tab("Two models", id="two") as second:
                    both = add_two(service)
                with gr.Tab("Many images", id="many") as third:
                    add_many(service, run)
                with gr.Tab("Runs", id="runs") as fourth:
                    listed = add_runs(service)
                with gr.Tab("Inspect", id="inspect") as fifth:
                    add_inspect(service)
        for name, tab in zip(_TABS, (first, second, third, fourth, fifth), strict=True):
            tab.select(None, js=_remember("tab", f"'{name}'"), api_visibility="private")
        run.change(_card(service), run, told, api_visibility="private", show_progress="hidden")
        run.change(None, run, None, js=_remember("run", "value"), api_visibility="private")
        started = page.load(_start(service), None, [run, told, tabs, *both, listed], api_visibility="private")
        # Until then Gradio selects its first tab by itself, which must not replace the tab of the address.
        started.then(None, js="() => { window.perpixelStarted = true; }", api_visibility="private")
    page.queue(default_concurrency_limit=4, max_size=_WAITING)
    return page


def mount_page(api: FastAPI, service: Service) -> FastAPI:
    """The page at /, beside the HTTP service."""
    gr.mount_gradio_app(
        api,
        build_page(service),
        path="/",
        server_name="127.0.0.1",
        max_file_size=service.limits.upload_bytes,
        allowed_paths=examples(service),
        theme=gr.themes.Default(primary_hue="blue", font=_FONTS, font_mono=["ui-monospace", "monospace"]),
        css_paths=Path(__file__).parent / "static" / "page.css",
        head=_HEAD,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        pwa=False,
    )
    return api


def _as_sent(value: Any) -> Any:
    return value


def _card(service: Service) -> Any:
    def show(name: str | None) -> str:
        if not name:
            return _no_runs(service)
        try:
            return html.card(service.library.card(name))
        except PerpixelError as problem:
            return html.error(problem)

    return show


def _start(service: Service) -> Any:
    """What a visit begins with: the runs there are now, and the run and tab of the address."""

    def start(request: gr.Request) -> list[Any]:
        names = service.library.names()
        ready, runs = service.library.ready(), service.library.runs()
        asked = dict(request.query_params)
        name = asked.get("run") if asked.get("run") in names else next(iter([*ready, *names]), None)
        tab = asked.get("tab") if asked.get("tab") in _TABS else _TABS[0]
        other = next((another for another in ready if another != name), name)
        return [
            gr.Dropdown(choices=names, value=name, visible=bool(names)),
            _card(service)(name),
            gr.Tabs(selected=tab),
            gr.Dropdown(choices=ready, value=name if name in ready else None),
            gr.Dropdown(choices=ready, value=other if other in ready else None),
            gr.Dropdown(choices=runs, value=[name] if name in runs else []),
        ]

    return start


def _no_runs(service: Service) -> str:
    return html.empty(
        f"No runs below {service.library.root.name}/ yet.",
        "Train one, `perpixel train salt`, or start the page where they are: `perpixel page --runs FOLDER`.",
    )


def _remember(key: str, value: str) -> str:
    """JavaScript that writes a value into the address."""
    return (
        f"(value) => {{ const url = new URL(window.location), now = {value};"
        f" if (now && window.perpixelStarted) url.searchParams.set('{key}', now);"
        " window.history.replaceState(null, '', url); return value; }"
    )
