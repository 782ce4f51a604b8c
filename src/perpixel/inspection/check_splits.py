"""Checks of subsets: what stands on both sides, and what differs between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from perpixel.inspection.checks import Check, View
from perpixel.inspection.finding import Finding
from perpixel.inspection.groups import (
    distance,
    in_sequence,
    is_rich,
    joining_tiles,
    near_copies,
    thumbs,
    trailing_number,
)
from perpixel.inspection.record import ImageFacts, Record
from perpixel.recipe import RestorationTarget

__all__ = ["LEAK_CHECKS", "SPLIT_CHECKS", "separability"]

_LEAKED = 0.2  # of the validation or test samples: figures are then those of images that were trained on
_ALIKE = 0.55
_FEW = 10
_DIFFERENT = 0.8  # area under the curve
_CURE_GROUPED = "split: {method: grouped} with group_pattern or group_column, so that such samples stay together"
_GROUP_COLUMNS = ("scene", "group", "place", "mosaic", "sequence", "video", "drive", "patient", "site", "location")


def exact_copies(view: View) -> Iterator[Finding]:
    """One picture in several samples: across subsets, with different targets, and in the unlabelled images."""
    by_digest: dict[str, list[Record]] = defaultdict(list)
    for record in view.records:
        if record.image_file.digest and is_rich(record):
            by_digest[record.image_file.digest].append(record)
    groups = [group for group in by_digest.values() if len(group) > 1]
    across, inside = _by_sides(view, groups)
    if across:
        sentence = f"{len(across)} samples have the very same picture in different subsets."
        yield Finding.of("split-copies", "error", sentence, view.names(across), "remove the copies.")
    if inside:
        sentence = f"{len(inside)} samples have the same picture as another one of their subset."
        yield Finding.of("split-copies-inside", "note", sentence, view.names(inside))
    torn = [group for group in groups if len({item.target_file.digest for item in group if item.target_file}) > 1]
    if torn:
        names = view.names(record for group in torn for record in group)
        sentence = f"{len(names)} samples have the same picture as another one, and a different target."
        yield Finding.of("split-contradiction", "warning", sentence, names, "decide which target is right.")
    known = [record for record in view.unlabelled if record.image_file.digest in by_digest]
    if known:
        sentence = f"{len(known)} of the unlabelled images are training images too."
        yield Finding.of(
            "split-test-known", "warning", sentence, view.names(known), "a figure on them says nothing of new images."
        )


def _by_sides(view: View, groups: Sequence[Sequence[Record]]) -> tuple[list[Record], list[Record]]:
    """The members of groups that are in several subsets, and of those that are in one."""
    across: list[Record] = []
    inside: list[Record] = []
    for group in groups:
        subsets = {view.subsets.get(record.sample.id) for record in group}
        (across if len(subsets) > 1 else inside).extend(group)
    return across, inside


def clean_copies(view: View) -> Iterator[Finding]:
    """One clean picture, of several degraded ones, on both sides."""
    if not isinstance(view.recipe.target, RestorationTarget):
        return
    by_digest: dict[str, list[Record]] = defaultdict(list)
    for record in view.records:
        if record.target_file is not None and record.target_file.digest:
            by_digest[record.target_file.digest].append(record)
    across, _ = _by_sides(view, list(by_digest.values()))
    held = [record for record in across if view.subsets.get(record.sample.id) != "train"]
    if held:
        sentence = f"the clean images of {len(held)} validation and test samples are those of training samples too."
        yield _leak(view, "split-clean-copies", len(held) / len(_held_out(view)), sentence, held)


def near(view: View) -> Iterator[Finding]:
    """Pictures that are nearly the same on both sides: frames of a video, crops, other compressions."""
    others = _held_out(view)
    if not others:
        return
    pairs = [(view.records[a], view.records[b]) for a, b in near_copies(view.records)]
    pairs = [(a, b) for a, b in pairs if a.image_file.digest != b.image_file.digest]
    leaked = {held.sample.id: held for pair in pairs for held in _across(view, *pair)}
    if leaked:
        share = len(leaked) / len(others)
        sentence = (
            f"{len(leaked)} of {len(others)} validation and test images have a near copy among the training images."
        )
        yield _leak(view, "split-near-copies", share, sentence, list(leaked.values()))


def _across(view: View, left: Record, right: Record) -> list[Record]:
    """The one of two samples that is held out while the other one trains."""
    subsets = [view.subsets.get(record.sample.id) for record in (left, right)]
    if "train" not in subsets or subsets[0] == subsets[1]:
        return []
    return [right if subsets[0] == "train" else left]


def _held_out(view: View) -> list[Record]:
    return [record for record in view.records if view.subsets.get(record.sample.id) not in (None, "train")]


def _leak(view: View, rule: str, share: float, sentence: str, records: Sequence[Record]) -> Finding:
    """A warning where it touches many of the held-out samples; else a note."""
    severe = share >= _LEAKED and len(records) >= 3
    return Finding.of(rule, "warning" if severe else "note", sentence, view.names(records), _CURE_GROUPED)


def frames(view: View) -> Iterator[Finding]:
    """Neighbours by number, which look alike, on both sides."""
    readable = [record for record in view.records if record.image is not None]
    others = [record for record in readable if view.subsets.get(record.sample.id) not in (None, "train")]
    if not others or in_sequence(readable) >= _ALIKE:
        return
    order = sorted(
        range(len(readable)), key=lambda index: trailing_number(readable[index].sample.id.rpartition("/")[2])
    )
    thumbs_nd = thumbs(readable)
    near = distance(thumbs_nd, order[:-1], order[1:])
    usual = float(np.median(distance(thumbs_nd, order, np.random.default_rng(0).permutation(order).tolist())))
    leaked = {
        held.sample.id: held
        for a, b, apart in zip(order[:-1], order[1:], near, strict=True)
        if apart < 0.5 * usual
        for held in _across(view, readable[a], readable[b])
    }
    if leaked:
        share = len(leaked) / len(others)
        sentence = f"{len(leaked)} of {len(others)} validation and test images stand beside a training image that looks"
        sentence += " like them: frames of one sequence are on both sides."
        yield _leak(view, "split-frames", share, sentence, list(leaked.values()))


def tiles(view: View) -> Iterator[Finding]:
    """Tiles that were cut from one picture, on both sides."""
    others = _held_out(view)
    joined = [(view.records[a], view.records[b]) for a, b in joining_tiles(view.records)]
    if len(joined) < _FEW:
        return
    leaked = {held.sample.id: held for pair in joined for held in _across(view, *pair)}
    if leaked:
        share = len(leaked) / len(others)
        sentence = f"at least {len(leaked)} of {len(others)} validation and test images go on where a training image"
        sentence += " ends: tiles of one mosaic are on both sides."
        yield _leak(view, "split-tiles", share, sentence, list(leaked.values()))
    else:
        sentence = (
            f"{len(joined)} pairs of images are neighbouring tiles of one picture; the split keeps them together."
        )
        yield Finding("split-mosaic", "note", sentence, len(joined))


def groups(view: View) -> Iterator[Finding]:
    """Groups that a table names and the split ignores."""
    for column in sorted({name for record in view.records for name in record.sample.attributes}):
        if column.lower() not in _GROUP_COLUMNS:
            continue
        sides: dict[str, set[str]] = defaultdict(set)
        for record in view.records:
            if subset := view.subsets.get(record.sample.id):
                sides[record.sample.attributes.get(column, "")].add(subset)
        torn = [group for group, subsets in sides.items() if group and "train" in subsets and len(subsets) > 1]
        if torn and len(sides) > 2:
            members = [record for record in view.records if record.sample.attributes.get(column) in torn]
            sentence = f"{len(torn)} groups of the column {column!r} are on both sides, such as {torn[0]!r}."
            cure = f"split: {{method: grouped, group_column: {column}}}"
            yield Finding.of("split-groups", "warning", sentence, view.names(members), cure)


def sizes(view: View) -> Iterator[Finding]:
    """Subsets that are too small to say anything."""
    counts = Counter(view.subsets.values())
    for subset in ("val", "test"):
        if 0 < counts[subset] < _FEW:
            sentence = f"the subset {subset} holds {counts[subset]} samples: its figures will be rough."
            yield Finding(f"split-small-{subset}", "note", sentence, counts[subset])


# ---------------------------------------------------------------- distribution


def different(view: View) -> Iterator[Finding]:
    """Subsets that a simple classifier tells apart by colour, brightness, noise and sharpness."""
    features: dict[str, list[list[float]]] = defaultdict(list)
    for record in view.records:
        if record.image is not None:
            features[view.subsets.get(record.sample.id, "")].append(_features(record.image))
    rows = {subset: np.array(features[subset]) for subset in ("train", "val", "test")}
    for subset in ("val", "test"):
        if min(len(rows["train"]), len(rows[subset])) < 2 * _FEW:
            continue
        area = separability(rows["train"], rows[subset])
        if area > _DIFFERENT:
            sentence = f"train and {subset} look different: a simple classifier tells them apart with an area under the"
            sentence += f" curve of {area:.2f} (0.5 is chance)."
            cure = "fine if the difference is what you want to measure; else choose another split."
            yield Finding("split-different", "note", sentence, len(rows[subset]), (), cure)


def _features(image: ImageFacts) -> list[float]:
    return [
        *image.mean_3,
        *image.middle_3,
        np.log(image.noise + 1e-3),
        np.log(image.sharpness + 1e-3),
        image.dark,
        image.bright,
    ]


def separability(left_nd: NDArray[np.float64], right_nd: NDArray[np.float64]) -> float:
    """Area under the curve of Fisher's linear discriminant, each half judged by what the other half was fitted to."""
    areas = []
    for part in (0, 1):
        fit_left, fit_right = left_nd[part::2], right_nd[part::2]
        both = np.vstack([fit_left, fit_right])
        centre, spread = both.mean(axis=0), both.std(axis=0) + 1e-9
        within = np.cov(((fit_left - fit_left.mean(axis=0)) / spread).T) + np.cov(
            ((fit_right - fit_right.mean(axis=0)) / spread).T
        )
        direction = np.linalg.solve(
            within + 0.1 * np.eye(len(centre)), (fit_right.mean(axis=0) - fit_left.mean(axis=0)) / spread
        )
        low, high = (((side[1 - part :: 2] - centre) / spread) @ direction for side in (left_nd, right_nd))
        areas.append(float((high[:, None] > low[None]).mean() + 0.5 * (high[:, None] == low[None]).mean()))
    return float(np.mean(areas))


LEAK_CHECKS: tuple[Check, ...] = (exact_copies, clean_copies, near, frames, tiles, groups)
SPLIT_CHECKS: tuple[Check, ...] = (*LEAK_CHECKS, sizes, different)
