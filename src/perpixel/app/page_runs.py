"""The tab of runs: curves of several in one plot, who is better and how sure that is, tables of grids."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from perpixel.app import html
from perpixel.app.curves import curves
from perpixel.app.service import Service, common_subset
from perpixel.errors import PerpixelError
from perpixel.evaluation.compare import compare_stored
from perpixel.evaluation.tables import number
from perpixel.run import Run

__all__ = ["add_runs"]

_START = html.empty("Choose one or more runs to see their curves.")
_LOSS = "train_loss"


def add_runs(service: Service) -> gr.Dropdown:
    """Add the tab's parts; returns the choice of runs."""
    with gr.Row():
        runs = gr.Dropdown(label="Runs", choices=[], multiselect=True, elem_id="runs-chosen", scale=2)
        figure = gr.Dropdown(label="Figure", choices=[], elem_id="runs-figure")
    plot = gr.HTML(elem_id="runs-plot")
    told = gr.HTML(_START, elem_id="runs-told")
    runs.change(_figures(service), [runs, figure], figure, api_visibility="private", show_progress="hidden")
    gr.on(
        [runs.change, figure.change],
        _show(service),
        [runs, figure],
        [plot, told],
        api_visibility="private",
        show_progress="hidden",
        trigger_mode="always_last",
    )
    return runs


def _figures(service: Service) -> Any:
    def choices(names: list[str] | None, chosen: str | None) -> Any:
        found: dict[str, None] = {}
        for _, run in _opened(service, names):
            rows = run.read_history()
            found |= dict.fromkeys(key for key in (rows[0] if rows else {}) if key.startswith("val_") or key == _LOSS)
        wanted = next((f"val_{run.recipe.training.monitor}" for _, run in _opened(service, names)), None)
        value = chosen if chosen in found else wanted if wanted in found else next(iter(found), None)
        return gr.Dropdown(choices=list(found), value=value)

    return choices


def _show(service: Service) -> Any:
    def show(names: list[str] | None, figure: str | None) -> tuple[str, str]:
        if not names:
            return "", _START + _grids(service)
        histories = {
            name: [
                (row["epoch"], row[figure])
                for row in run.read_history()
                if figure in row and math.isfinite(row[figure])
            ]
            for name, run in _opened(service, names)
        }
        plot = curves(histories, figure or "")
        none = "" if plot else html.empty("These runs have no history yet.")
        told = _evaluations(service, names) + _comparison(service, names) + _reports(service, names)
        return plot, none + told + _grids(service)

    return show


def _opened(service: Service, names: list[str] | None) -> Iterator[tuple[str, Run]]:
    for name in names or ():
        try:
            yield name, service.library.run(name)
        except PerpixelError:  # it was removed since the list was made
            continue


def _evaluations(service: Service, names: list[str]) -> str:
    rows = []
    for name, _ in _opened(service, names):
        try:
            card = service.library.card(name)
        except PerpixelError:
            continue
        for subset, values in card.figures.items():
            interval = card.intervals.get(subset)
            told = f"{interval[1]:.4f} to {interval[2]:.4f}" if interval else "-"
            rows.append([name, subset, card.monitor, number(values.get(card.monitor)), told])
    headings = ["run", "subset", "figure", "value", "95 % interval of the mean over images"]
    return html.table(headings, rows, "Evaluations") if rows else ""


def _comparison(service: Service, names: list[str]) -> str:
    """Who is better by what the evaluations of one subset left behind."""
    runs = [run for _, run in _opened(service, names)]
    if len(runs) < 2:
        return ""
    subset = common_subset(runs)
    try:
        found = compare_stored(runs, subset)
    except PerpixelError as problem:
        return f"<p>No comparison: {escape(problem.what)}.</p>"
    first = found[0].figure if found else ""
    said = "".join(f"<li>{escape(item.sentence())}</li>" for item in found if item.figure == first)
    return f"<h3>Comparison on {subset}</h3><ul>{said}</ul>" if said else ""


def _reports(service: Service, names: list[str]) -> str:
    found = [name for name, _ in _opened(service, names)]
    links = [_link(f"Report of {name}", name) for name in found]
    links += [_link("Report of all these beside each other", *found)] if len(found) > 1 else []
    return f'<h3>Reports</h3><ul class="pp-downloads" aria-label="reports">{"".join(links)}</ul>'


def _link(text: str, *names: str) -> str:
    address = escape("/report?" + urlencode([("run", name) for name in names]))
    return f'<li><a href="{address}" target="_blank">{escape(text)}</a></li>'


def _grids(service: Service) -> str:
    return "".join(
        html.table(list(rows[0]), [list(row.values()) for row in rows], f"Grid {name}")
        + f'<ul class="pp-downloads">{_link(f"Report of the grid {name}", name)}</ul>'
        for name, rows in service.library.grids().items()
    )
