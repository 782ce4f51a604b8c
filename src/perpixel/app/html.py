"""Pieces of the page as HTML. Every text that comes from outside goes through `escape`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from perpixel.app.cards import Card
from perpixel.app.prediction import Prediction
from perpixel.app.service import Published
from perpixel.errors import PerpixelError
from perpixel.evaluation.tables import headline_keys, number
from perpixel.metrics import MetricInfo
from perpixel.tasks.view import ClassView

__all__ = ["address", "card", "cloud", "downloads", "empty", "error", "figures", "outcome", "table", "viewer"]


def empty(*lines: str) -> str:
    """What to do where there is nothing yet; a part between backticks is code."""
    shown = "".join(f"<p>{_code(line)}</p>" for line in lines)
    return f'<div class="pp-empty">{shown}</div>'


def error(problem: PerpixelError) -> str:
    """What happened, the rule, and what to do."""
    where = f"{escape(problem.where)}: " if problem.where else ""
    rest = [f"<p>{escape(detail)}</p>" for detail in problem.details]
    rest += [f"<p>{escape(text[:1].upper() + text[1:])}</p>" for text in (problem.rule, problem.cure) if text]
    return f'<div class="pp-error" role="alert"><p><b>{where}{escape(problem.what)}.</b></p>{"".join(rest)}</div>'


def viewer(folder: Path) -> str:
    """The viewer of a folder of results."""
    return f'<perpixel-viewer src="/results/{quote(folder.name)}"></perpixel-viewer>'


def cloud(file: Path) -> str:
    """A point cloud to turn."""
    return f'<perpixel-cloud src="{address(file)}"></perpixel-cloud>'


def address(file: Path) -> str:
    """Where a file of a folder of results is found."""
    return f"/results/{quote(file.parent.name)}/{quote(file.name)}"


def card(told: Card) -> str:
    """A model in short."""
    count = f", {told.parameters / 1e6:.2f} million parameters" if told.parameters else ""
    facts = [("Model", f"{told.model}{count}, {told.megabytes:.1f} MB"), ("Speed", told.speed)]
    facts += [("Trained", told.trained), ("On", told.data)]
    facts += [(f"{told.monitor} ({name})", _figure(told, name)) for name in told.figures]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    if isinstance(told.view, ClassView):
        rows += f"<dt>Classes</dt><dd>{_swatches(told.view)}</dd>"
    warnings = "".join(f'<p class="pp-warning">Beware: {escape(text)}</p>' for text in told.warnings)
    ready = "" if told.ready else '<p class="pp-warning">This run has no trained model here: it predicts nothing.</p>'
    return (
        f'<section class="pp-card"><h2>{escape(told.name)}</h2>'
        f"<p>{escape(told.view.title)} ({escape(told.form)})</p>"
        f"{ready}{warnings}<details><summary>Description</summary><p>{escape(told.description)}</p></details>"
        f"<dl>{rows}</dl>{_all_figures(told)}</section>"
    )


def _figure(told: Card, name: str) -> str:
    """The monitored figure of an evaluation, with the interval of its mean over images."""
    value, interval = told.figures[name].get(told.monitor), told.intervals.get(name)
    if interval is None:
        return number(value)
    mean, low, high = interval
    over = "" if value is not None and abs(mean - value) < 5e-5 else f"; mean over images {number(mean)}"
    return f"{number(value)}{over}, 95 % interval {number(low)} to {number(high)}"


def _all_figures(told: Card) -> str:
    if not told.figures:
        return "<p>Not evaluated yet: no figure says how good it is.</p>"
    keys = dict.fromkeys(key for values in told.figures.values() for key in headline_keys(values, told.monitor))
    rows = [[key, *(number(values.get(key)) for values in told.figures.values())] for key in keys]
    return f"<details><summary>All figures</summary>{table(['figure', *told.figures], rows)}</details>"


def outcome(published: Published) -> str:
    """What is told below the viewer: confidence, times, figures, classes, files."""
    prediction = published.prediction
    told = []
    if prediction.mean_confidence is not None:
        told.append(f"Mean confidence {prediction.mean_confidence:.3f}.")
    seconds = prediction.seconds
    told.append(
        f"{1000 * seconds['network']:.0f} ms in the network, {1000 * seconds['all']:.0f} ms in all"
        f" (warm; {prediction.device})."
    )
    ignored = prediction.ignored()
    if ignored:
        told.append(f"{ignored:.1%} of the truth is marked as unknown and counts in no figure; it is shown grey.")
    if published.camera:
        told.append(published.camera)
    told += [f"{note[:1].upper()}{note[1:]}." for note in prediction.notes]
    parts = [f"<p>{escape(' '.join(told))}</p>"]
    parts += [figures([prediction]), classes(prediction), downloads(published.files)]
    return "".join(parts)


def figures(predictions: Sequence[Prediction]) -> str:
    """The figures of one image, a column a model."""
    first = predictions[0].figures
    named = set(predictions[0].shares())
    leading = [*headline_keys(first), *(key for key in first if "/" in key and key.partition("/")[2] not in named)]
    # Of one image, the mean over images is the figure itself.
    keys = [key for key in leading if not _said_already(key, first)]
    if not any(math.isfinite(first[key]) for key in keys):
        return ""
    infos: Mapping[str, MetricInfo] = predictions[0].task.metrics().infos()
    names = [prediction.run for prediction in predictions] if len(predictions) > 1 else ["value"]
    rows = [
        [key, *(number(prediction.figures.get(key)) for prediction in predictions), _better(infos.get(key))]
        for key in keys
    ]
    return table(
        ["figure", *names, "meaning"], rows, "Figures of this image alone, as `perpixel evaluate` has them", words=1
    )


def _said_already(key: str, values: Mapping[str, float]) -> bool:
    whole = key.removesuffix("_per_image")
    return whole != key and values.get(whole) == values[key]


def classes(prediction: Prediction) -> str:
    """A row a class: share, confidence and figures."""
    rows = prediction.class_rows()
    if not rows:
        return ""
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "class"))
    cells = [[row["class"], *(number(row.get(column)) for column in columns)] for row in rows]
    headings = ["class", *(column.replace("_", " ") for column in columns)]
    return table(headings, cells, "By class; a dash where there is nothing to measure")


def downloads(files: Iterable[Path]) -> str:
    """Links to files of a folder of results."""
    links = "".join(f'<li><a download href="{address(file)}">{escape(file.name)}</a></li>' for file in files)
    return f'<ul class="pp-downloads" aria-label="downloads">{links}</ul>' if links else ""


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "", words: int = 0) -> str:
    """A table; its last ``words`` columns hold text."""
    head = "".join(
        f'<th scope="col"{_words(index, len(headings), words)}>{escape(str(name))}</th>'
        for index, name in enumerate(headings)
    )
    body = ""
    for row in rows:
        cells = [f"<td{_words(index, len(row), words)}>{escape(str(cell))}</td>" for index, cell in enumerate(row)]
        body += f"<tr>{''.join(cells)}</tr>"
    title = f"<caption>{_code(caption)}</caption>" if caption else ""
    return f'<div class="pp-table"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _words(index: int, count: int, words: int) -> str:
    return ' class="words"' if index >= count - words else ""


def _better(info: MetricInfo | None) -> str:
    if info is None:
        return ""
    better = {"higher": "higher is better", "lower": "lower is better", "neither": "no better or worse"}[info.direction]
    return f"{info.name}{f' [{info.unit}]' if info.unit else ''}; {better}"


def _swatches(view: Any) -> str:
    if not isinstance(view, ClassView):
        return ""
    return " ".join(
        f'<span style="white-space:nowrap"><span class="pp-swatch" style="background:rgb{color}"></span>'
        f"{escape(name)}</span>"
        for name, color in zip(view.names, view.colors, strict=True)
    )


def _code(text: str) -> str:
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
