"""Inspect a folder or a recipe: one pass over the files, then the checks."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perpixel.console import Console
from perpixel.data.samples import Sample, data_root
from perpixel.data.shards import INDEX
from perpixel.data.split import make_split
from perpixel.errors import DataError, RequestError
from perpixel.inspection.check_classes import CLASS_CHECKS
from perpixel.inspection.check_depth import DEPTH_CHECKS
from perpixel.inspection.check_files import FILE_CHECKS
from perpixel.inspection.check_labels import VALUE_CHECKS
from perpixel.inspection.check_pairs import PAIR_CHECKS
from perpixel.inspection.check_restoration import RESTORATION_CHECKS
from perpixel.inspection.check_splits import LEAK_CHECKS, SPLIT_CHECKS
from perpixel.inspection.checks import Check, View
from perpixel.inspection.class_values import class_counts, raw_counts
from perpixel.inspection.finding import Finding, Inspection, in_order
from perpixel.inspection.known import known_classes
from perpixel.inspection.layout import Layout, find_layouts
from perpixel.inspection.listing import Listing, list_pairs
from perpixel.inspection.meaning import find_meaning
from perpixel.inspection.measure import measure_all, reading_of
from perpixel.inspection.propose import data_section, propose
from perpixel.inspection.record import Record
from perpixel.recipe import DataSection, DepthTarget, Recipe, RestorationTarget, SegmentationTarget, SplitSection

__all__ = ["examine", "inspect_folder", "inspect_recipe", "quick_inspection", "split_inspection"]

_QUICK = 400  # pairs that are looked at before a training
_OF_TARGET: dict[type[Any], tuple[Check, ...]] = {
    SegmentationTarget: VALUE_CHECKS + CLASS_CHECKS,
    DepthTarget: DEPTH_CHECKS,
    RestorationTarget: RESTORATION_CHECKS,
}


def inspect_folder(root: Path, console: Console | None = None) -> tuple[Inspection, View]:
    """Find out what a bare folder holds, propose a recipe, and inspect the folder by it.

    Raises:
        DataError: no pictures, or none that belong together by their names.
    """
    console = console or Console()
    _refuse_shards(root)
    layout, *rest = find_layouts(root)
    meaning = find_meaning(layout)
    if meaning.swapped:
        layout = layout.swapped()
    data = data_section(layout, root)
    draft, _ = propose(root.resolve().name, data, meaning.target, meaning.records, root)
    listing = list_pairs(draft.data, root)
    records = _measured(listing.pairs, draft, console)
    target = _of_all_values(meaning.target, records)
    recipe, why = propose(root.resolve().name, data, target, records, root)
    listing = list_pairs(recipe.data, root)  # now with its tables
    by_id = {record.sample.id: record for record in records}
    records = [Record(sample, **_parts(by_id[sample.id])) for sample in listing.pairs]
    facts = [_layout_fact(layout, recipe), *_other_targets(layout, rest), *meaning.facts, *why]
    return examine(recipe, root, listing, records, facts, console, proposed=True)


def inspect_recipe(recipe: Recipe, data: Path | None = None, console: Console | None = None) -> tuple[Inspection, View]:
    """Inspect the data of a recipe.

    Raises:
        DataError: there is no pair at all.
    """
    root = data_root(recipe.data, data)
    _refuse_shards(root)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": str(root.resolve())})})
    listing = list_pairs(recipe.data, root)
    records = _measured(listing.pairs, recipe, console or Console())
    facts = [f"data: {len(records)} pairs in {root} as {recipe.name} declares them"]
    return examine(recipe, root, listing, records, facts, console or Console())


def _refuse_shards(root: Path) -> None:
    if (root / INDEX).is_file():
        source = json.loads((root / INDEX).read_text(encoding="utf-8")).get("source", {}).get("root", "DIR")
        raise RequestError(
            "these are shards: the files that the rules of an inspection are about are not in them",
            where=root,
            rule="perpixel shard looks at the files when it writes the shards.",
            cure=f"inspect what they were written from: perpixel inspect RECIPE --data {source}.",
        )


def examine(
    recipe: Recipe,
    root: Path,
    listing: Listing,
    records: Sequence[Record],
    facts: list[str],
    console: Console,
    *,
    proposed: bool = False,
) -> tuple[Inspection, View]:
    """All checks over records that are there."""
    subsets, groups, findings = _split(recipe.split, records)
    unlabelled = _measured(listing.unlabelled, recipe, console)
    view = View(recipe, root, records, unlabelled, subsets, groups, proposed)
    findings = [*listing.findings, *findings, *_run(view, PAIR_CHECKS + FILE_CHECKS + SPLIT_CHECKS)]
    findings += _run(view, _OF_TARGET[type(recipe.target)])
    inspection = Inspection(str(root), facts, in_order(findings), _figures(view), recipe)
    return inspection, view


def quick_inspection(
    recipe: Recipe,
    samples: Sequence[Sample],
    subsets: dict[str, str] | None = None,
    console: Console | None = None,
    keep: list[Record] | None = None,
) -> list[Finding]:
    """What is wrong with the data of a training that is about to begin: files, pairs and targets of at most 400 pairs.

    Args:
        recipe: with ``data.root``.
        samples: as `perpixel.data.samples.list_samples` lists them.
        subsets: by sample id, where they are known already.
        keep: gets what was measured, for `split_inspection`.
    """
    chosen = sorted(random.Random(0).sample(list(samples), min(_QUICK, len(samples))), key=lambda sample: sample.id)
    records = _measured(chosen, recipe, console or Console())
    if keep is not None:
        keep.extend(records)
    view = View(recipe, data_root(recipe.data), records, (), subsets or {})
    findings = _run(view, PAIR_CHECKS + FILE_CHECKS + _OF_TARGET[type(recipe.target)])
    if len(chosen) < len(samples):  # a class that is nowhere in a part may be in the rest
        findings = [finding for finding in findings if finding.rule != "label-class-absent"]
    return in_order(findings)


def split_inspection(recipe: Recipe, records: Sequence[Record], subsets: Mapping[str, str]) -> list[Finding]:
    """What stands on both sides of a split: copies, frames, tiles, and groups that a table names.

    Args:
        recipe: with ``data.root``.
        records: what `quick_inspection` kept.
        subsets: by sample id.
    """
    if len(records) < 2:
        return []
    view = View(recipe, data_root(recipe.data), records, (), dict(subsets))
    return in_order(finding for finding in _run(view, LEAK_CHECKS) if finding.severity != "note")


def _run(view: View, checks: Iterable[Check]) -> list[Finding]:
    return [finding for check in checks for finding in check(view)]


def _measured(samples: Sequence[Sample], recipe: Recipe, console: Console) -> list[Record]:
    def report(done: int, total: int) -> None:
        console.progress("looking at pairs", done, total)

    return measure_all(samples, reading_of(recipe.target), progress=report)


def _parts(record: Record) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name != "sample"}


def _of_all_values(target: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """The class map of numbers that all files hold, not only those that were looked at first."""
    if "classes" not in target or not isinstance(target["classes"][0]["values"][0], int):
        return target
    pixels, _ = raw_counts([record for record in records if record.label and not record.label.lossy])
    named = {value for spec in target["classes"] for value in spec["values"]} | set(target.get("ignore", ()))
    few = pixels and len(pixels) <= 64 and not set(pixels) <= named
    return known_classes(sorted(pixels))[0] if few else target


def _split(split: SplitSection, records: Sequence[Record]) -> tuple[dict[str, str], dict[str, str], list[Finding]]:
    """Subsets and groups by sample id. Stratified splits are looked at as random ones: no target is read again."""
    if split.method == "stratified":
        split = split.model_copy(update={"method": "random"})
    try:
        subsets, groups = make_split([record.sample for record in records], split, lambda _: 0.0)
    except DataError as error:
        sentence = f"the split cannot be made: {error.what}."
        return {}, {}, [Finding.of("split-impossible", "error", sentence, error.details, error.cure or "", 1)]
    return subsets, groups, []


def _layout_fact(layout: Layout, recipe: Recipe) -> str:
    data: DataSection = recipe.data
    sure = "sure" if layout.share > 0.95 and layout.words > 0 else "fairly sure" if layout.share > 0.8 else "not sure"
    unlabelled = f"; {data.unlabelled} has none" if data.unlabelled else ""
    return f"layout ({sure}): {len(layout.keys)} pairs of {data.images} and {data.targets}{unlabelled}"


def _other_targets(layout: Layout, rest: Sequence[Layout]) -> list[str]:
    """What else the folder holds for the same images."""
    others = {other.targets.template for other in rest if other.images.template == layout.images.template}
    others -= {layout.targets.template}
    return (
        [f"other targets of the same images: {', '.join(sorted(others))}; name one in data.targets"] if others else []
    )


def _figures(view: View) -> dict[str, Any]:
    figures: dict[str, Any] = {"pairs": len(view.records), "subsets": dict(Counter(view.subsets.values()))}
    target = view.recipe.target
    if isinstance(target, SegmentationTarget):
        pixels, images = raw_counts(view.records)
        by_class: Counter[int] = Counter()
        for record in view.records:
            if record.label is not None:
                by_class.update(class_counts(record.label, target))
        figures["values"] = {str(value): [pixels[value], images[value]] for value in sorted(pixels)[:256]}
        figures["classes"] = {spec.name: by_class[index] for index, spec in enumerate(target.classes)}
    if metres := [record.depth.metres_7 for record in view.records if record.depth and record.depth.metres_7]:
        figures["metres"] = [sorted(item[column] for item in metres)[len(metres) // 2] for column in range(7)]
    return figures
