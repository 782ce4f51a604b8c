"""Checks of classes and masks: what is nowhere, empty, full, dust, or not what a table says."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterator
from statistics import median

from perpixel.inspection.checks import Check, View
from perpixel.inspection.class_values import class_counts, class_of, labelled, target_of, values_of
from perpixel.inspection.finding import Finding, Severity

__all__ = ["CLASS_CHECKS"]

_MANY = 50  # pairs; among so many a class should be met
_TINY_SHARE, _TINY_COUNT = 0.9, 50
_ALL, _MOST = 0.999, 0.95
_ENOUGH = 20  # images of a subset, to compare the shares of classes
_COMMON, _OTHERWISE = 0.02, 4.0  # a class of so many of the pixels, and so many times commoner


def classes(view: View) -> Iterator[Finding]:
    """Classes that are nowhere, or in no training image."""
    target = target_of(view)
    images: dict[str, Counter[int]] = defaultdict(Counter)
    for record, label in labelled(view):
        held = class_counts(label, target).keys()
        images[view.subsets.get(record.sample.id, "train")].update(held)
        images["all"].update(held)
    sure = len(view.records) >= _MANY and not _partly_unknown(view)
    for index, spec in enumerate(target.classes):
        count, name = images["all"][index], f"the class {spec.name}"
        if not count:
            severity: Severity = "warning" if sure else "note"
            sentence = f"no label map holds {name} ({', '.join(map(str, spec.values))})."
            cure = "take it out of target.classes, or correct its values."
            yield Finding("label-class-absent", severity, sentence, 1, (), cure)
        elif not images["train"][index]:
            sentence, cure = (
                f"{name} is in no training image, but in others.",
                "choose another split, such as stratified.",
            )
            yield Finding("label-class-untrained", "warning", sentence, count, (), cure)
        elif "val" in images and not images["val"][index]:
            sentence = f"{name} is in no validation image: its figure will be empty."
            yield Finding("label-class-unvalidated", "note", sentence)
        elif count < max(3, 0.005 * len(view.records)):
            yield Finding("label-class-rare", "note", f"{name} is in {count} images alone.", count)


def shares(view: View) -> Iterator[Finding]:
    """Classes that are much commoner in one subset than in another."""
    target = target_of(view)
    pixels: dict[str, Counter[int]] = defaultdict(Counter)
    images: Counter[str] = Counter()
    for record, label in labelled(view):
        subset = view.subsets.get(record.sample.id, "train")
        pixels[subset].update({index: count for index, count in class_counts(label, target).items() if index >= 0})
        images[subset] += 1
    for subset in ("val", "test"):
        if min(images["train"], images[subset]) < _ENOUGH:
            continue
        for index, spec in enumerate(target.classes):
            here, there = (pixels[name][index] / max(1, pixels[name].total()) for name in ("train", subset))
            if max(here, there) >= _COMMON and max(here, there) > _OTHERWISE * min(here, there) > 0:
                sentence = (
                    f"the class {spec.name} covers {here:.1%} of the training pixels and {there:.1%} of {subset}."
                )
                yield Finding("split-class-share", "note", sentence, images[subset])


def _partly_unknown(view: View) -> bool:
    """Whether values are unknown, so that classes cannot be missed yet."""
    known = class_of(target_of(view))
    return any(set(values_of(label, target_of(view))) - set(known) for _, label in labelled(view))


def masks(view: View) -> Iterator[Finding]:
    """Two classes: masks that are all empty or all full; more: maps of one class all over."""
    target = target_of(view)
    held = []
    for record, label in labelled(view):
        counts = {index: count for index, count in class_counts(label, target).items() if index >= 0}
        if total := sum(counts.values()):
            held.append((record, max(counts.values()) / total, counts.get(1, 0) / total))
    flat = [record for record, top, _ in held if top >= _ALL]
    empty = [record for record, _, share in held if share == 0]
    two = len(target.classes) == 2
    if two and len(empty) > _MOST * len(held):
        severity: Severity = "error" if len(empty) == len(held) else "warning"
        sentence = f"{len(empty)} of {len(held)} masks are empty."
        cure = "make sure that masks were written, and that their values are those of target.classes."
        yield Finding.of("label-empty", severity, sentence, view.target_names(empty), cure)
    elif len(flat) > (_MOST if two else 0.5) * len(held):
        sentence, cure = (
            f"{len(flat)} of {len(held)} label maps hold one class alone.",
            "look whether the files are right.",
        )
        yield Finding.of("label-one-class", "warning", sentence, view.target_names(flat), cure)
    elif two and empty:
        full = sum(share >= _ALL for _, _, share in held)
        sentence = f"{len(empty)} of {len(held)} masks are empty, {full} are full."
        yield Finding.of("label-some-empty", "note", sentence, view.target_names(empty))


def speckles(view: View) -> Iterator[Finding]:
    """Label maps that fall into dust."""
    known = set(class_of(target_of(view)))  # of what is smeared, other checks speak
    dusty = [
        record
        for record, label in labelled(view)
        if label.tiny >= max(_TINY_COUNT, _TINY_SHARE * label.components)
        and set(values_of(label, target_of(view))) <= known
    ]
    if len(dusty) > 0.1 * max(1, len(view.records)):
        middle = median(record.label.components for record in dusty if record.label)
        sentence = (
            f"{len(dusty)} label maps fall into dust: {middle:.0f} parts each, nearly all of fewer than 5 pixels."
        )
        cure = "clean the maps, or look whether they were resized or compressed."
        yield Finding.of("label-speckles", "warning", sentence, view.target_names(dusty), cure)


def table(view: View) -> Iterator[Finding]:
    """Masks that a table of run-length codes contradicts: their areas differ, or one of them is empty."""
    target = target_of(view)
    areas = {record.sample.id.rpartition("/")[2]: class_counts(label, target)[1] for record, label in labelled(view)}
    for path in sorted(view.root.glob("*.csv")):
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [row for row in csv.DictReader(file) if "rle_mask" in row]
        except (csv.Error, UnicodeDecodeError, OSError):
            continue
        coded = {row.get("id", ""): sum(map(int, _lengths(row["rle_mask"] or ""))) for row in rows}
        wrong = {name for name in areas.keys() & coded.keys() if areas[name] != coded[name]}
        if wrong:
            empty = sum(not areas[name] for name in wrong)
            sentence = (
                f"{len(wrong)} masks have another area than their codes in {path.name}; {empty} of them are empty."
            )
            cure = "write the masks again from the codes: a missing mask is never an empty one."
            names = [
                view.target_name(record) for record, _ in labelled(view) if record.sample.id.rpartition("/")[2] in wrong
            ]
            yield Finding.of("label-table", "error", sentence, names, cure)


def _lengths(code: str) -> list[str]:
    """The lengths in ``start length start length ...``; nothing of what is no such code."""
    return [number for number in code.split()[1::2] if number.isdigit()]


CLASS_CHECKS: tuple[Check, ...] = (classes, shares, masks, speckles, table)
