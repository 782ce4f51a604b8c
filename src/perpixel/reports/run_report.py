"""The report of a run: the answer first, then all that it rests on."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpixel.console import Console
from perpixel.evaluation.calibration import calibration_line, reliability_plot
from perpixel.evaluation.evaluate import read_evaluation, read_groups
from perpixel.evaluation.guards import run_warnings
from perpixel.evaluation.slices import RULE
from perpixel.evaluation.statistics import mean_interval
from perpixel.evaluation.tables import by_class, headline_keys, number
from perpixel.metrics import Reliability
from perpixel.recipe import Recipe, dump_recipe
from perpixel.reporting.curves import curves_png
from perpixel.reporting.document import Block, Code, Document, Facts, Figure, Folded, Section, Table, Text
from perpixel.reporting.plots import curve_png, matrix_png
from perpixel.reports.pictures import picture_sections
from perpixel.reports.words import recipe_words
from perpixel.run import Run, read_rows
from perpixel.tasks import Task, build_task

__all__ = ["Scored", "decided_afterwards", "run_document", "scored_subsets"]

_SUBSETS = ("test", "val")  # the honest one first
_WORST = 6  # slices that are shown unfolded
_LICENCE = (
    "that of the starting weights and that of the data are not known to perpixel; look both up before the model is"
    " passed on"
)
_SAME = 5e-5  # what four digits do not show


@dataclass(frozen=True)
class Scored:
    """An evaluation that a run left behind.

    Attributes:
        name: of the evaluation: a subset, or other data.
        stored: its metrics.json.
        rows: figures of its images.
        groups: of its images; an empty text is an image by itself.
    """

    name: str
    stored: Mapping[str, Any]
    rows: Sequence[Mapping[str, str]]
    groups: Sequence[str]

    def values(self, figure: str) -> list[float]:
        """The figure of each image; nan where there is none."""
        return [float(row[figure]) if row.get(figure) else math.nan for row in self.rows]

    def interval(self, figure: str) -> tuple[float, float, float] | None:
        """(mean, low, high) over images, of figures that are such a mean."""
        if self.stored["meaning"].get(figure, {}).get("averaging") != "mean over images":
            return None
        return mean_interval(self.values(figure), self.groups)

    def shown(self, figure: str) -> str:
        """The figure with its interval."""
        found = self.interval(figure)
        value = number(self.stored["figures"].get(figure))
        return value if found is None else f"{value} ({found[1]:.4f} to {found[2]:.4f})"


def scored_subsets(run: Run) -> list[Scored]:
    """All evaluations of a run: its test subset, its validation subset, then other data by name."""
    folder = run.path / "evaluation"
    names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    names.sort(key=lambda name: _SUBSETS.index(name) if name in _SUBSETS else len(_SUBSETS))
    found = []
    for name in names:
        stored = read_evaluation(run, name)
        rows = read_rows(run.evaluation_dir(name) / "per_image.csv")
        if stored is not None:
            found.append(Scored(name, stored, rows, read_groups(run, name, rows)))
    return found


def run_document(run: Run, console: Console, *, pictures: bool = True) -> Document:
    """The report of one run; without ``pictures`` its data are not read."""
    recipe, manifest, scored = run.recipe, run.manifest, scored_subsets(run)
    task = build_task(recipe)
    leading = scored[0] if scored else None
    sections = [
        Section("Figures", _figures(scored, recipe)),
        *([_meanings(leading)] if leading else []),
        *(_details(leading) if leading else []),
        *([Section(f"Where it is worst on {leading.name}", _slices(run, leading))] if leading else []),
        *(_pictures(run, leading, console) if leading and pictures else []),
        Section("How it was trained", [Facts(recipe_words(recipe)), *_curves(run, recipe, task)]),
        Section("The data", _data(run, task)),
        Section("Cost", [Facts(_cost(run, manifest))]),
        Section("How to repeat it", _repeat(run, recipe, manifest)),
        Section("The whole recipe", [Code(dump_recipe(recipe).strip())], folded=True),
    ]
    return Document(
        f"{recipe.name}: {task.view().title}",
        _answer(leading, recipe, manifest),
        _warnings(leading, run),
        [section for section in sections if section.blocks],
    )


def _answer(leading: Scored | None, recipe: Recipe, manifest: Mapping[str, Any]) -> list[str]:
    monitor = recipe.training.monitor
    if leading is None:
        return ["This run was not evaluated yet: no figure says how good it is. `perpixel evaluate` makes them."]
    figures, protocol = leading.stored["figures"], leading.stored["protocol"]
    interval = leading.interval(monitor)
    sure = f", with 95 % confidence between {interval[1]:.4f} and {interval[2]:.4f}" if interval else ""
    chosen = protocol.get("chosen_on_this_subset") or []
    honest = (
        f" {', '.join(chosen).capitalize()} {'was' if len(chosen) == 1 else 'were'} chosen on these very images:"
        " expect less on others."
        if chosen
        else f" Nothing was chosen on these images{_elsewhere(protocol)}."
    )
    name = leading.stored["meaning"][monitor]["name"]
    where = f"on the {protocol['images']} images of {leading.name}"
    first = f"{name} (`{monitor}`): {number(figures.get(monitor))} {where}{sure}."
    return [first + honest, *_against_baselines(leading, monitor)]


def _elsewhere(protocol: Mapping[str, Any]) -> str:
    by_subset: dict[str, list[str]] = {}
    for what, subset in (protocol.get("chosen") or {}).items():
        by_subset.setdefault(subset, []).append(what.replace("_", " "))
    return "".join(f"; {', '.join(what)} on those of {subset}" for subset, what in by_subset.items())


def _against_baselines(leading: Scored, monitor: str) -> list[str]:
    baselines = leading.stored["baselines"]
    values = {name: figures.get(monitor) for name, figures in baselines.items()}
    told = ", ".join(f"{name} {number(value)}" for name, value in values.items() if value is not None)
    return [f"Trivial predictions reach: {told}."] if told else []


def _warnings(leading: Scored | None, run: Run) -> list[str]:
    found = [] if run.finished else [f"the training is not finished (status: {run.manifest.get('status', 'none')})."]
    said = [*(leading.stored.get("warnings", ()) if leading else ()), *run_warnings(run)]
    return [*(sentence.removeprefix("WARNING: ") for sentence in said), *found]


def _figures(scored: Sequence[Scored], recipe: Recipe) -> list[Block]:
    """Headlines of all evaluations beside the baselines of the first; then a row a class."""
    if not scored:
        return []
    first, monitor = scored[0], recipe.training.monitor
    keys = headline_keys(first.stored["figures"], monitor)
    baselines = first.stored["baselines"]
    headings = ["figure", *(item.name for item in scored), *(f"{name}, {first.name}" for name in baselines)]
    rows = [
        [
            key,
            *(item.shown(key) for item in scored),
            *(number(figures.get(key)) for figures in baselines.values()),
        ]
        for key in keys
        if key in first.stored["meaning"]
    ]
    caption = "At the images' original size; in brackets the 95 % interval, unless there are fewer than four groups."
    blocks: list[Block] = [Table(headings, rows, caption)]
    classes = by_class(first.stored["figures"])
    if classes:
        columns = list(dict.fromkeys(figure for figures in classes.values() for figure in figures))
        cells = [[name, *(number(figures.get(column)) for column in columns)] for name, figures in classes.items()]
        table = Table([f"on {first.name}", *columns], cells, "Figures in parts, over all pixels together.")
        variants = set(classes) & set(keys)  # headline figures under another rule, not classes
        blocks.append(Folded(f"The same figures after {_words(columns)}", [table]) if variants else table)
    return blocks


def _words(columns: Sequence[str]) -> str:
    return ", ".join(column.replace("_", " ") for column in columns)


def _meanings(leading: Scored) -> Section:
    meaning = leading.stored["meaning"]
    keys = headline_keys(leading.stored["figures"])
    told = [(key, f"{meaning[key]['averaging']}. {meaning[key]['description']}") for key in keys if key in meaning]
    return Section("What the figures are", [Facts(told)], folded=True)


def _details(leading: Scored) -> list[Section]:
    sections = []
    details = leading.stored.get("details", [])
    for detail in details:
        if detail["kind"] == "Reliability":
            continue
        if detail["kind"] == "Matrix":
            png = matrix_png(detail["labels"], detail["counts"])
            alt = f"matrix of {len(detail['labels'])} classes: {_confusions(detail['labels'], detail['counts'])}"
            caption = (
                f"Of the pixels of each true class, what share was predicted as which. {alt[alt.index(':') + 2 :]}"
            )
        else:
            png = curve_png(detail["x_label"], detail["y_label"], detail["x"], detail["y"], detail["pixels"])
            alt = f"{detail['y_label']} against {detail['x_label']}"
            caption = ""
        sections.append(Section(f"{detail['title']} on {leading.name}", [Figure(png, alt, caption)]))
    return [*sections, *_calibration(details, leading)]


def _calibration(details: Sequence[Mapping[str, Any]], leading: Scored) -> list[Section]:
    found = [
        Reliability(**{key: value for key, value in detail.items() if key != "kind"})
        for detail in details
        if detail["kind"] == "Reliability"
    ]
    png = reliability_plot(found)
    if png is None:
        return []
    caption = "Below the dashed line the model believes too much of itself; above, too little."
    told = " ".join(calibration_line(found))
    return [Section(f"Calibration on {leading.name}", [Figure(png, told, f"{told[0].upper()}{told[1:]}. {caption}")])]


def _confusions(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """The largest mistakes, in words."""
    mistakes = [
        (count / sum(row), labels[truth], labels[guess])
        for truth, row in enumerate(counts)
        for guess, count in enumerate(row)
        if truth != guess and count
    ]
    worst = sorted(mistakes, reverse=True)[:3]
    return "; ".join(f"{share:.0%} of {truth} is taken for {guess}" for share, truth, guess in worst) or "no mistakes"


def _pictures(run: Run, leading: Scored, console: Console) -> list[Section]:
    values = leading.values(run.recipe.training.monitor)
    by_id = {row["sample"]: value for row, value in zip(leading.rows, values, strict=True)}
    return picture_sections(run, leading.name, leading.stored, by_id, console)


def _curves(run: Run, recipe: Recipe, task: Task) -> list[Block]:
    history, monitor = run.read_history(), recipe.training.monitor
    if not history or f"val_{monitor}" not in history[0]:
        return []
    higher = task.metrics().infos()[monitor].direction == "higher"
    png = curves_png({run.path.name: history}, f"val_{monitor}", f"{monitor} on validation data", higher=higher)
    best = run.manifest.get("best_epoch")
    note = decided_afterwards(run, monitor)
    caption = f"The dot is the epoch that was kept: {best}." + (f" {note}." if note else "")
    return [Figure(png, f"{monitor} and training loss by epoch", caption)]


def decided_afterwards(run: Run, monitor: str) -> str:
    """Why the curve's best figure is not that of the tables: what was chosen once training was over; else nothing."""
    stored, rows = read_evaluation(run, "val"), run.read_history()
    best = run.manifest.get("best_epoch")
    then = next((row[f"val_{monitor}"] for row in rows if row["epoch"] == best), None)
    now = (stored or {}).get("figures", {}).get(monitor)
    if stored is None or then is None or now is None or abs(now - then) < _SAME:
        return ""
    first, decision = build_task(run.recipe).first_decision(), stored["protocol"]["decision"]
    changed = [key for key, value in first.items() if key in decision and decision[key] != value]
    if not changed:
        return ""
    names = [key.replace("_", " ") for key in changed]
    before = " and ".join(f"{name} {first[key]:g}" for name, key in zip(names, changed, strict=True))
    after = " and ".join(f"{name} {decision[key]:g}" for name, key in zip(names, changed, strict=True))
    return (
        f"Curves are of predictions with {before}; after training {after} {'was' if len(changed) == 1 else 'were'}"
        f" chosen on the same validation images, which makes of {then:.4f} the {now:.4f} of the tables"
    )


def _data(run: Run, task: Task) -> list[Block]:
    manifest = run.manifest
    data = manifest.get("data", {})
    rows = [("Pairs", str(data.get("samples", "unknown")))]
    if run.split_path.is_file():
        subsets, groups = run.read_split()
        counts = Counter(subsets.values())
        rows.append(("Subsets", ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))))
        named = {group for group in groups.values() if group}
        if named:
            rows.append(("Groups that stay together", str(len(named))))
    rows.append(("Fingerprint", str(data.get("fingerprint", "unknown"))))
    if (found := manifest.get("inspection")) is not None:
        rows.append(("Inspection", _inspected(found)))
    facts = data.get("training_targets")
    told = task.facts_table(facts) if facts else ""
    blocks: list[Block] = [Facts(rows)]
    return [*blocks, Text("What the training targets hold:"), Code(told)] if told else blocks


def _inspected(found: Mapping[str, Any]) -> str:
    """What a look at the data found before training, in words."""
    forced = "errors that training was forced past" if found.get("forced") else "errors"
    kinds = {"errors": forced, "warnings": "warnings", "split": "the split"}
    told = [f"{title}: {'; '.join(map(str, said))}" for key, title in kinds.items() if (said := found.get(key))]
    return ". ".join(told) or "nothing was found to be wrong"


def _slices(run: Run, leading: Scored) -> list[Block]:
    """On which kind of images the run is worst."""
    rows = read_rows(run.evaluation_dir(leading.name) / "slices.csv")
    if not rows:
        return []
    clear = [f"{row['property']} {row['values']}" for row in rows if row["clearly_worse"] == "True"]
    figure = rows[0]["figure"]
    worst = (
        f"Clearly worse than the whole: {'; '.join(clear[:5])}." if clear else "None is clearly worse than the whole."
    )
    headings = ["property", "values", "images", figure, "95 % interval", "against all"]
    cells = [
        [row["property"], row["values"], row["images"], number(float(row["mean"])), _between(row), _signed(row)]
        for row in rows
    ]
    caption = f"Mean over images of each image's own {figure}, the worst first; one image is in many slices. {RULE}"
    blocks: list[Block] = [Text(worst), Table(headings, cells[:_WORST], caption, left=2)]
    rest = cells[_WORST:]
    return [*blocks, Folded(f"{len(rest)} further slices", [Table(headings, rest, left=2)])] if rest else blocks


def _between(row: Mapping[str, str]) -> str:
    return f"{number(float(row['low']))} to {number(float(row['high']))}"


def _signed(row: Mapping[str, str]) -> str:
    return f"{float(row['difference']):+.4f}"


def _cost(run: Run, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    parameters = manifest.get("parameters") or {}
    rows = []
    if parameters:
        rows.append(("Parameters", ", ".join(f"{value:,} {name}" for name, value in parameters.items())))
    if run.best_path.is_file():
        rows.append(("Size", f"{run.best_path.stat().st_size / 1e6:.1f} MB"))
    if (seconds := manifest.get("training_seconds")) is not None:
        rows.append(("Training", f"{seconds / 60:.1f} minutes on {manifest.get('machine', {}).get('device', '?')}"))
    cost = manifest.get("cost") or {}
    rows += [
        (key.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
        for key, value in cost.items()
        if isinstance(value, int | float)
    ]
    return rows


def _repeat(run: Run, recipe: Recipe, manifest: Mapping[str, Any]) -> list[Block]:
    versions = manifest.get("versions", {})
    weights = manifest.get("weights", {})
    rows = [
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Starting weights", _weights(weights)),
        ("Seed", str(recipe.training.seed)),
        ("Repository", str(manifest.get("git") or "trained outside of one")),
        ("Licence", _LICENCE),
    ]
    recipe_file = shlex.quote(f"{run.path}/recipe.yaml")
    command = f"perpixel train {recipe_file} --run {shlex.quote(f'{run.path}-again')}"
    return [Code(command), Facts([row for row in rows if row[1]])]


def _weights(weights: Mapping[str, Any]) -> str:
    if not weights:
        return ""
    missing: Iterable[str] = weights.get("missing") or []
    told = f"{weights.get('source', 'none')}, {weights.get('loaded', 0)} tensors loaded"
    return told + (f", {len(list(missing))} missing" if missing else "")
