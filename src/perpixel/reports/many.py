"""The report of a comparison, and what reports of several runs have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perpixel.evaluation.compare import Comparison, compare_stored
from perpixel.evaluation.configurations import configurations, shared_title
from perpixel.evaluation.fronts import pareto_plot
from perpixel.evaluation.guards import run_warnings
from perpixel.evaluation.tables import number
from perpixel.reporting.curves import curves_png
from perpixel.reporting.document import Block, Document, Figure, Folded, Section, Table, Text
from perpixel.reports.run_report import Scored, decided_afterwards, scored_subsets
from perpixel.run import Run
from perpixel.tasks import build_task

__all__ = ["comparison_document", "comparison_section", "curve_blocks"]

_FEW_PAIRS = 3  # up to which the figures beside the leading one are shown unfolded


def comparison_document(runs: Sequence[Run], subset: str) -> Document:
    """The report of a comparison of stored evaluations.

    Raises:
        RequestError: as `compare_stored`.
    """
    comparisons = compare_stored(runs, subset)
    monitor = runs[0].recipe.training.monitor
    leading = [item.sentence() for item in comparisons if item.figure == comparisons[0].figure]
    found = [{item.name: item for item in scored_subsets(run)}[subset] for run in runs]
    sections = [
        comparison_section(comparisons, subset),
        Section("The runs", [_runs_table(runs, found, monitor), *_front(runs, subset, monitor)]),
        Section("Curves", curve_blocks(runs, monitor)),
    ]
    names = list(dict.fromkeys(name for item in comparisons for name in (item.first, item.second)))
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    warnings = [warning for run, scored in zip(runs, found, strict=True) for warning in _warnings(run, scored)]
    return Document(
        f"Comparison: {' and '.join(names[:4])}{more}", leading, warnings, [each for each in sections if each.blocks]
    )


def _warnings(run: Run, scored: Scored) -> list[str]:
    said = [*scored.stored.get("warnings", ()), *run_warnings(run)]
    return [f"{run.path.name}: {sentence.removeprefix('WARNING: ')}" for sentence in said]


def _runs_table(runs: Sequence[Run], found: Sequence[Scored], monitor: str) -> Table:
    """Figure and cost of each run."""
    costs = [_cost(run) for run in runs]
    known = [name for name in costs[0] if any(cost[name] for cost in costs)]
    rows = [
        [run.path.name, run.recipe.name, str(run.recipe.training.seed), scored.shown(monitor), *map(cost.get, known)]
        for run, scored, cost in zip(runs, found, costs, strict=True)
    ]
    cells = [[cell or "" for cell in row] for row in rows]
    caption = f"In brackets the 95 % interval of {monitor} over images, where it is a mean over images."
    return Table(["run", "recipe", "seed", monitor, *known], cells, caption, left=2)


def _cost(run: Run) -> dict[str, str]:
    manifest = run.manifest
    cost = manifest.get("cost") or {}
    parameters = sum(int(value) for value in (manifest.get("parameters") or {}).values())
    operations, latency, memory = (
        cost.get(key) for key in ("operations_per_image", "latency_ms_per_image", "peak_memory_mib")
    )
    return {
        "parameters": f"{parameters:,}" if parameters else "",
        "billion operations an image": f"{operations / 1e9:.2f}" if operations else "",
        "milliseconds an image": f"{latency:.1f}" if latency else "",
        "memory, MiB": f"{memory:.0f}" if memory else "",
        "minutes of training": f"{manifest.get('training_seconds', 0.0) / 60:.1f}",
    }


def comparison_section(comparisons: Sequence[Comparison], subset: str) -> Section:
    """Every pair by the leading figure; of few pairs by the others too; figures of parts are folded."""
    title = "Are they different?"
    if not comparisons:
        return Section(title, [])
    leading = comparisons[0].figure
    pairs = sum(item.figure == leading for item in comparisons)
    shown = [item for item in comparisons if item.figure == leading or (pairs <= _FEW_PAIRS and "/" not in item.figure)]
    rest = [item for item in comparisons if item not in shown]
    first = comparisons[0].difference
    over = " The spread of seeds is added to that of images (Satterthwaite)." if _several(comparisons) else ""
    text = (
        f"The same {first.images} images of {subset}, paired"
        + (f", in {first.groups} groups that are drawn together" if first.groups < first.images else "")
        + f"; intervals by bootstrap, p-values by sign flips.{over}"
        + " Effect size: the difference in standard deviations of the images' differences."
        + (" p is corrected for the number of pairs (Holm)." if pairs > 1 else "")
    )
    blocks: list[Block] = [Text(text), _table(shown, pairs)]
    if not _several(comparisons):
        blocks.append(Text("This is about these trainings: what another seed alone would change is not in it."))
    if rest:
        count = len({item.figure for item in rest})
        blocks.append(Folded(f"{count} further figures", [_table(rest, pairs)]))
    return Section(title, blocks)


def _several(comparisons: Sequence[Comparison]) -> bool:
    return any(item.trained for item in comparisons)


def _table(comparisons: Sequence[Comparison], pairs: int) -> Table:
    """A row a figure and pair, the verdict first; of one pair the headings name it."""
    one, several, item = pairs == 1, _several(comparisons), comparisons[0]
    names = ["figure", f"{item.second} is"] if one else ["figure", "first", "second", "the second is"]
    values = [item.first, item.second] if one else ["first's", "second's"]
    headings = [*names, *values, "difference", "95 % interval", "effect size"]
    headings += ["over images alone", "spread of seeds"] if several else []
    return Table([*headings, "p"], [_row(each, one, several) for each in comparisons], left=len(names))


def _row(item: Comparison, one: bool, several: bool) -> list[str]:
    found, trained = item.difference, item.trained
    row = [item.figure, *([] if one else [item.first, item.second]), item.verdict]
    row += [number(item.first_value), number(item.second_value), f"{found.mean:+.4f}", _range(item.interval)]
    row.append(f"{found.effect_size:+.2f}")
    if several:
        spreads = (trained.first_spread, trained.second_spread) if trained else ()
        row += [_range((found.low, found.high)), " and ".join(map(number, spreads))]
    return [*row, number(item.corrected_p)]


def _range(interval: tuple[float, float]) -> str:
    return f"{number(interval[0])} to {number(interval[1])}"


def curve_blocks(runs: Sequence[Run], monitor: str) -> list[Block]:
    """The monitored figure of all runs by epoch, and why the tables say otherwise."""
    histories = {run.path.name: run.read_history() for run in runs}
    key = f"val_{monitor}"
    known: Mapping[str, list[dict[str, float]]] = {
        name: rows for name, rows in histories.items() if rows and key in rows[0]
    }
    if not known:
        return []
    higher = build_task(runs[0].recipe).metrics().infos()[monitor].direction == "higher"
    png = curves_png(known, key, f"{monitor} on validation data", higher=higher)
    told = next((f"{note} ({run.path.name})." for run in runs if (note := decided_afterwards(run, monitor))), "")
    return [Figure(png, f"{monitor} of {len(known)} runs by epoch", told)]


def _front(runs: Sequence[Run], subset: str, monitor: str) -> list[Block]:
    places = configurations(runs)
    titles = [shared_title([runs[place].path.name for place in own]) for own in places]
    png = pareto_plot([[runs[place] for place in own] for own in places], titles, [subset] * len(places), monitor)
    return [Figure(png, f"{monitor} against operations an image", "The line is the Pareto front.")] if png else []
