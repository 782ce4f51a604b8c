"""Several runs on several data sets in one table, with the drop of each against the run's own data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perpixel.console import Console
from perpixel.errors import RequestError
from perpixel.evaluation.evaluate import Evaluation, finite
from perpixel.evaluation.pairs import Pairs, evaluation_name, open_pairs
from perpixel.evaluation.session import cautions, score_pairs
from perpixel.evaluation.tables import by_class, headline_keys, number, text_table
from perpixel.inference.base import ImagePredictor
from perpixel.inference.opening import run_predictor
from perpixel.reporting.markdown import markdown_table
from perpixel.run import Run, write_atomic, write_json

_WIDTH = 120  # characters of a line on the terminal


@dataclass(frozen=True)
class _Row:
    """One run on one data set; ``drop`` is how much worse each figure is than on the run's source."""

    run: str
    title: str
    name: str
    pairs: Pairs
    monitor: str
    evaluation: Evaluation
    protocol: dict[str, Any]
    drop: dict[str, float]
    notes: list[str]


def evaluate_several(runs: Sequence[Run], *, subset: str, data: Sequence[Path], console: Console) -> dict[str, Any]:
    """Score each run on its own ``subset`` (its source) and on each of ``data``, all by one protocol.

    Where one of ``data`` is another run's own, every run is scored on that run's ``subset`` of it: runs that stand in
    one table are held against the same pairs. Data of the list that are a run's own are its source, and are not scored
    twice. Each evaluation is written as `evaluate_run` writes it; the table of all goes to evaluation/several.md and
    several.json of every run.

    Returns:
        ``table`` (the text for a person) and ``rows``: what several.json holds.

    Raises:
        RequestError, DataError: as `open_pairs`; before anything is scored.
    """
    titles = _run_titles(runs)
    # All is opened before anything is scored: a mistake is told at once.
    opened = _same_pairs(runs, [_open(run, subset, data, console) for run in runs])
    rows = [
        row
        for run, (predictor, pairs) in zip(runs, opened, strict=True)
        for row in _rows_of(run, titles[run.path], predictor, pairs, console)
    ]
    common = [key for key in rows[0].evaluation.figures if all(key in row.evaluation.figures for row in rows)]
    infos = rows[0].evaluation.infos
    keys = [key for key in headline_keys(common) if infos[key].direction != "neither"]
    monitor = rows[0].monitor
    if monitor not in common:
        raise RequestError(
            "these runs have no figure in common that is monitored",
            where=", ".join(titles.values()),
            cure="compare runs of one task and the same classes.",
        )
    keys = [monitor, *(key for key in keys if key != monitor)]
    notes = _notes(rows, monitor)
    stored = [_stored(row) for row in rows]
    document = _document(rows, keys, notes)
    for run in runs:
        folder = run.evaluation_dir("several").parent
        write_json(folder / "several.json", {"subset": subset, "monitor": monitor, "rows": stored})
        write_atomic(folder / "several.md", document)
    where = runs[0].evaluation_dir("several").parent / "several.md"
    table = "\n".join([*_narrow(rows, keys), *notes, f"all figures with their drops, and the classes: {where}"])
    return {"table": table, "rows": stored}


def _run_titles(runs: Sequence[Run]) -> dict[Path, str]:
    """Folder names, or whole paths where two are called alike."""
    names = [run.path.resolve().name for run in runs]
    alike = len(set(names)) < len(names)
    return {run.path: str(run.path) if alike else name for run, name in zip(runs, names, strict=True)}


def _open(run: Run, subset: str, data: Sequence[Path], console: Console) -> tuple[ImagePredictor, list[Pairs]]:
    """The source leads: one of ``data``, if that is the run's own, else what the run's recipe names."""
    predictor = run_predictor(run)
    opened = [open_pairs(run, predictor.task, subset=subset, data=path, console=console) for path in data]
    sources = [pairs for pairs in opened if pairs.own]
    source = sources[0] if sources else open_pairs(run, predictor.task, subset=subset, data=None, console=console)
    return predictor, [source, *(pairs for pairs in opened if not pairs.own)]


def _same_pairs(
    runs: Sequence[Run], opened: Sequence[tuple[ImagePredictor, list[Pairs]]]
) -> list[tuple[ImagePredictor, list[Pairs]]]:
    """Of data that are another run's source, the pairs of that source."""
    owners = {source.root: (run, source) for run, (_, (source, *_)) in reversed(list(zip(runs, opened, strict=True)))}

    def same(pairs: Pairs) -> Pairs:
        if pairs.own or pairs.root not in owners:
            return pairs
        owner, source = owners[pairs.root]
        ids = {sample.id for sample in source.samples}
        samples = [sample for sample in pairs.samples if sample.id in ids]
        return (
            replace(pairs, samples=samples, subset=source.subset, split_of=owner.path.resolve()) if samples else pairs
        )

    return [(predictor, [same(pairs) for pairs in of_run]) for predictor, of_run in opened]


def _rows_of(run: Run, title: str, predictor: ImagePredictor, opened: Sequence[Pairs], console: Console) -> list[_Row]:
    rows: list[_Row] = []
    for pairs in opened:
        name = evaluation_name(run, pairs, [row.name for row in rows])
        evaluation, protocol = score_pairs(run, predictor, pairs, name, console)
        rows.append(
            _Row(
                run=title,
                title=f"{pairs.title} (source)" if pairs.own else pairs.title,
                name=name,
                pairs=pairs,
                monitor=run.recipe.training.monitor,
                evaluation=evaluation,
                protocol=protocol,
                drop=_drop(rows[0].evaluation, evaluation) if rows else {},
                notes=cautions(run, pairs, evaluation),
            )
        )
    return rows


def _drop(source: Evaluation, other: Evaluation) -> dict[str, float]:
    """How much worse ``other`` is, figure by figure, in the figure's unit; negative where it is better."""
    signs = {"higher": 1, "lower": -1}
    return {
        key: signs[info.direction] * (source.figures[key] - other.figures[key])
        for key, info in source.infos.items()
        if info.direction in signs
    }


def _narrow(rows: Sequence[_Row], keys: Sequence[str]) -> list[str]:
    """The table for a terminal: the first figure with its drop, then as many others as a line holds."""
    headings = ["run", "data", "pairs", "images", keys[0], "drop"]
    cells = [[*_head(row), number(row.evaluation.figures[keys[0]]), _signed(row.drop.get(keys[0]))] for row in rows]
    lines = text_table(headings, cells, left=3)
    for key in keys[1:]:
        headings = [*headings, key]
        cells = [[*line, number(row.evaluation.figures[key])] for line, row in zip(cells, rows, strict=True)]
        wider = text_table(headings, cells, left=3)
        if max(map(len, wider)) > _WIDTH:
            break
        lines = wider
    return lines


def _head(row: _Row) -> list[str]:
    return [row.run, row.title, row.pairs.part, str(len(row.pairs.samples))]


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}" if math.isfinite(value) else number(value)


def _notes(rows: Sequence[_Row], monitor: str) -> list[str]:
    averaging = rows[0].evaluation.infos[monitor].averaging
    notes = [f"drop: how much worse {monitor} ({averaging}) is than on the run's source; negative is better"]
    chosen = dict.fromkeys(what for row in rows for what in row.protocol["chosen_on_this_subset"])
    if chosen:
        notes.append(
            f"note: {', '.join(chosen)} chosen on the source's very images, which makes drops look larger;"
            " a test subset (--subset test) has no such advantage"
        )
    return [*notes, *(f"{row.run} on {row.title}: {note}" for row in rows for note in row.notes)]


def _document(rows: Sequence[_Row], keys: Sequence[str], notes: Sequence[str]) -> str:
    """Every headline figure with its drop in brackets; then the first figure of the classes, a row a class."""
    cells = [[*_head(row), *(_with_drop(row, key) for key in keys)] for row in rows]
    lines = ["# Several data sets", "", *markdown_table(["run", "data", "pairs", "images", *keys], cells, left=3)]
    lines += ["", "In brackets the drop against the run's source, in the figure's unit; negative is better.", ""]
    lines += [f"- {note}" for note in notes] + ["", "Data:", ""]
    lines += [f"- {row.run} on {row.title}: {row.protocol['data']}, evaluation/{row.name}" for row in rows]
    classes = [by_class(row.evaluation.figures) for row in rows]
    shared = [name for name in classes[0] if all(name in each for each in classes)]
    if shared:
        figure = next(iter(classes[0][shared[0]]))
        key = f"{figure}/{{}}".format
        table = [[name, *(_with_drop(row, key(name)) for row in rows)] for name in shared]
        headings = ["class", *(f"{row.run} on {row.title}" for row in rows)]
        lines += ["", f"## {figure} of each class", "", *markdown_table(headings, table)]
    return "\n".join([*lines, ""])


def _with_drop(row: _Row, key: str) -> str:
    value = number(row.evaluation.figures.get(key))
    return f"{value} ({_signed(row.drop[key])})" if math.isfinite(row.drop.get(key, math.nan)) else value


def _stored(row: _Row) -> dict[str, Any]:
    return {
        "run": row.run,
        "data": row.pairs.title,
        "source": row.pairs.own,
        "evaluation": row.name,
        "protocol": row.protocol,
        "notes": row.notes,
        "figures": finite(row.evaluation.figures),
        "drop": finite(row.drop),
    }
