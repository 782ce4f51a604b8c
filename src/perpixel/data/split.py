"""Which samples train, which choose and which are reported: always seeded, always from sorted ids."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from perpixel.data.samples import Sample
from perpixel.errors import DataError
from perpixel.recipe import SplitSection, did_you_mean

SUBSETS = ("train", "val", "test")
_STRATA = 10


def make_split(
    samples: Sequence[Sample], split: SplitSection, stratum_value: Callable[[Sample], float]
) -> tuple[dict[str, str], dict[str, str]]:
    """Assign every sample to a subset.

    Args:
        stratum_value: what the stratified split balances, such as the share of foreground; it is only
            called for that method.

    Returns:
        (subset by id, group by id); the group is empty where each sample stands for itself.

    Raises:
        DataError: a missing column, ids the pattern does not match, or an empty subset.
    """
    ordered = sorted(samples, key=lambda sample: sample.id)
    rng = np.random.default_rng(split.seed)
    if split.method == "given":
        subsets = [_given_subset(sample) for sample in ordered]
        groups = [""] * len(ordered)
    else:
        groups = _groups(ordered, split)
        strata = _strata([stratum_value(sample) for sample in ordered]) if split.method == "stratified" else None
        subsets = _assign(groups, strata, split, rng)
    _refuse_empty(subsets, split)
    ids = [sample.id for sample in ordered]
    return dict(zip(ids, subsets, strict=True)), dict(zip(ids, groups, strict=True))


def groups_of(samples: Sequence[Sample], split: SplitSection) -> dict[str, str]:
    """What belongs together by a split section, by id: scenes, or blocks of neighbours; empty where data do not say."""
    if split.method not in ("grouped", "sorted"):
        return {}
    ordered = sorted(samples, key=lambda sample: sample.id)
    try:
        groups = _groups(ordered, split)
    except DataError:  # other data need not have the column
        return {}
    return dict(zip((sample.id for sample in ordered), groups, strict=True))


def named_subset(sample: Sample) -> str:
    """The subset that the data name for a sample, by its usual short name; empty where they name none."""
    given = (sample.subset or "").lower()
    return {"validation": "val", "valid": "val", "training": "train", "testing": "test"}.get(given, given)


def _given_subset(sample: Sample) -> str:
    name = named_subset(sample)
    if name not in SUBSETS:
        raise DataError(
            f"the subset of this sample is {sample.subset!r}{did_you_mean(name, SUBSETS)}",
            where=sample.image,
            rule="method 'given' takes train, val or test from a {subset} folder or a subset column.",
            cure="correct the template or the column, or choose another split.method.",
        )
    return name


def _groups(samples: Sequence[Sample], split: SplitSection) -> list[str]:
    if split.method == "grouped" and split.group_pattern is not None:
        matches = [re.search(split.group_pattern, sample.id) for sample in samples]
        groups = [(match[1] or "") if match else "" for match in matches]
        unmatched = [sample.id for sample, group in zip(samples, groups, strict=True) if not group]
        if unmatched:
            raise DataError(
                f"the pattern {split.group_pattern!r} finds no group in {len(unmatched)} ids",
                where="split.group_pattern",
                details=unmatched[:8],
            )
        return groups
    if split.method == "grouped":
        return _column(samples, str(split.group_column), "split.group_column")
    if split.method == "sorted":
        return _neighbour_blocks(_column(samples, str(split.order_column), "split.order_column"), split.blocks)
    return [""] * len(samples)


def _column(samples: Sequence[Sample], column: str, key: str) -> list[str]:
    """The values of a table's column; ``id`` is the last part of the ids themselves, such as a frame's number."""
    if column == "id":
        return [sample.id.rpartition("/")[2] for sample in samples]
    known = sorted({name for sample in samples for name in sample.attributes})
    if column not in known:
        raise DataError(
            f"no table has a column {column!r}{did_you_mean(column, known)}",
            where=key,
            rule=f"known columns: {', '.join(known) or 'none'}.",
            cure="name the table in data.tables.",
        )
    absent = [sample.id for sample in samples if not sample.attributes.get(column)]
    if absent:
        raise DataError(f"{len(absent)} samples have no value of {column!r}", where=key, details=absent[:8])
    return [sample.attributes[column] for sample in samples]


def _neighbour_blocks(values: Sequence[str], blocks: int) -> list[str]:
    """Blocks of neighbours in the order of a column; equal values never part."""
    unordered = [value for value in dict.fromkeys(values) if not _is_number(value)]
    if unordered:
        raise DataError("this column does not hold numbers alone", where="split.order_column", details=unordered[:8])
    numbers = np.array([float(value) for value in values])
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    # Position of the first sample with this value, as a fraction of all: blocks hold about equally many samples.
    before = np.cumsum(counts) - counts
    block = np.minimum(before * blocks // len(numbers), blocks - 1)
    return [f"{number:0{len(str(blocks - 1))}d}" for number in block[inverse]]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _strata(values: Sequence[float]) -> list[int]:
    """Ten classes of equal width over the range of values, and the smallest value (often none at all) for itself."""
    array = np.asarray(values, dtype=float)
    low, high = array.min(), array.max()
    if high == low:
        return [0] * len(array)
    inner = 1 + np.minimum(((array - low) / (high - low) * _STRATA).astype(int), _STRATA - 1)
    return [int(stratum) for stratum in np.where(array == low, 0, inner)]


def _assign(
    groups: Sequence[str], strata: Sequence[int] | None, split: SplitSection, rng: np.random.Generator
) -> list[str]:
    """Give every group, in random order, to the subset that lacks most of its share."""
    fractions = _fractions(split)
    names = list(fractions)
    units: dict[tuple[int, str], list[int]] = {}
    for index, group in enumerate(groups):
        stratum = strata[index] if strata is not None else 0
        units.setdefault((stratum, group or f"#{index}"), []).append(index)
    keys = list(units)
    keys = [keys[position] for position in rng.permutation(len(keys))]
    keys.sort(key=lambda key: (key[0], -len(units[key])))
    wanted = np.array([fractions[name] for name in names])
    held = np.zeros(len(names))
    part = [""] * len(groups)
    for key in keys:
        after = held.sum() + len(units[key])
        choice = int(np.argmax(wanted * after - held))
        held[choice] += len(units[key])
        for index in units[key]:
            part[index] = names[choice]
    return ["val" if name == f"fold{split.fold}" else "train" if name.startswith("fold") else name for name in part]


def _fractions(split: SplitSection) -> dict[str, float]:
    if split.folds is None:
        parts = {"train": 1 - split.validation - split.test, "val": split.validation}
    else:
        parts = {f"fold{fold}": (1 - split.test) / split.folds for fold in range(split.folds)}
    return {name: share for name, share in {**parts, "test": split.test}.items() if share > 0}


def _refuse_empty(subsets: Sequence[str], split: SplitSection) -> None:
    needed = ["train", "val"] + (["test"] if split.test > 0 and split.method != "given" else [])
    empty = [name for name in needed if name not in subsets]
    if empty:
        raise DataError(
            f"the split leaves {' and '.join(empty)} empty ({len(subsets)} samples)",
            where="split",
            rule="train and val each need a sample: best epochs are chosen on val.",
            cure="change split.validation or split.test, or use data with more samples or groups.",
        )
