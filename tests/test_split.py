"""Splits: seeded, from sorted ids, in the shares asked for, and nothing that belongs together is parted."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpixel.data.samples import Sample
from perpixel.data.split import make_split
from perpixel.errors import DataError
from perpixel.recipe import SplitSection


def samples_of(count: int, **attributes: list[Any]) -> list[Sample]:
    return [
        Sample(
            f"s{index:04d}",
            Path(f"s{index:04d}.png"),
            None,
            attributes={name: str(values[index]) for name, values in attributes.items()},
        )
        for index in range(count)
    ]


def never(sample: Sample) -> float:
    raise AssertionError("only the stratified split asks for this")


def split(samples: list[Sample], **keys: Any) -> dict[str, str]:
    return make_split(samples, SplitSection(**keys), never)[0]


def error_of(samples: list[Sample], **keys: Any) -> str:
    with pytest.raises(DataError) as caught:
        split(samples, **keys)
    return caught.value.text()


def test_golden() -> None:
    """Were this to change, every split of every user would."""
    subsets = split(samples_of(20), validation=0.2, test=0.1, seed=42)
    assert [id_ for id_, subset in subsets.items() if subset == "val"] == ["s0003", "s0011", "s0013", "s0014"]
    assert [id_ for id_, subset in subsets.items() if subset == "test"] == ["s0004", "s0010"]


METHODS: list[dict[str, Any]] = [
    {"method": "random"},
    {"method": "grouped", "group_column": "site"},
    {"method": "grouped", "group_pattern": "(.)$"},
    {"method": "sorted", "order_column": "z"},
    {"method": "stratified"},
]


@pytest.mark.parametrize("keys", METHODS)
def test_a_function_of_ids_and_seed_alone(keys: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    samples = samples_of(60, site=list(rng.integers(0, 12, 60)), z=list(rng.integers(0, 900, 60)))

    def stratum(sample: Sample) -> float:
        return float(sample.attributes["z"])

    whole = SplitSection(folds=4, seed=3, **keys)
    first = make_split(samples, whole, stratum)
    mixed = [samples[index] for index in rng.permutation(60)]
    assert make_split(mixed, whole, stratum) == first
    assert list(first[0]) == list(first[1]) == sorted(first[0])
    assert any(make_split(samples, SplitSection(folds=4, seed=seed, **keys), stratum) != first for seed in (4, 5, 6))
    folds = [make_split(samples, SplitSection(folds=4, fold=fold, seed=3, **keys), stratum)[0] for fold in range(4)]
    held_out = [id_ for fold in folds for id_, subset in fold.items() if subset == "val"]
    assert sorted(held_out) == sorted(first[0]), "the folds partition the data"


@given(
    count=st.integers(5, 300),
    validation=st.floats(0.05, 0.45),
    test=st.one_of(st.just(0.0), st.floats(0.05, 0.45)),
    seed=st.integers(0, 2**32 - 1),
)
def test_shares_are_kept_to_a_sample(count: int, validation: float, test: float, seed: int) -> None:
    if count * min(validation, test or 1) < 2:
        count = 60
    counts = Counter(split(samples_of(count), validation=validation, test=test, seed=seed).values())
    for name, share in (("val", validation), ("test", test), ("train", 1 - validation - test)):
        assert abs(counts[name] - share * count) <= 1


@given(count=st.integers(20, 200), folds=st.integers(2, 6), test=st.sampled_from([0.0, 0.25]), seed=st.integers(0, 99))
def test_folds_are_equal_and_share_the_test_subset(count: int, folds: int, test: float, seed: int) -> None:
    parts = [split(samples_of(count), folds=folds, fold=fold, test=test, seed=seed) for fold in range(folds)]
    tests = {frozenset(id_ for id_, subset in part.items() if subset == "test") for part in parts}
    assert len(tests) == 1
    held_out = [{id_ for id_, subset in part.items() if subset == "val"} for part in parts]
    assert sum(map(len, held_out)) == len(set.union(*held_out)) == count - len(next(iter(tests)))
    assert max(map(len, held_out)) - min(map(len, held_out)) <= 1


@given(st.lists(st.integers(0, 25), min_size=30, max_size=120), st.integers(0, 50))
def test_groups_are_never_parted(sites: list[int], seed: int) -> None:
    samples = samples_of(len(sites), site=sites)
    try:
        subsets, groups = make_split(
            samples, SplitSection(method="grouped", group_column="site", folds=3, seed=seed), never
        )
    except DataError as error:
        assert len(set(sites)) < 3 and "empty" in error.what
        return
    found = defaultdict(set)
    for sample in samples:
        assert groups[sample.id] == sample.attributes["site"]
        found[sample.attributes["site"]].add(subsets[sample.id])
    assert all(len(parts) == 1 for parts in found.values())
    largest = max(Counter(sites).values())
    assert abs(Counter(subsets.values())["val"] - len(sites) / 3) <= largest


def test_groups_from_the_id() -> None:
    samples = [Sample(f"{mosaic}_{tile}", Path("x"), None) for mosaic in "abcdefgh" for tile in range(5)]
    _, groups = make_split(samples, SplitSection(method="grouped", group_pattern="^([a-z])_"), never)
    assert groups["a_3"] == "a" and set(groups.values()) == set("abcdefgh")


def test_strata_are_balanced() -> None:
    """Half the images hold no salt, as in the competition: each fold gets its share of these and of each tenth."""
    rng = np.random.default_rng(1)
    share = np.where(rng.random(1000) < 0.4, 0.0, rng.random(1000))
    value = {f"s{index:04d}": share[index] for index in range(1000)}
    part = make_split(
        samples_of(1000), SplitSection(method="stratified", validation=0.2, test=0.1), lambda sample: value[sample.id]
    )[0]
    for low, high in [(0, 0), *((tenth / 10 + 1e-9, (tenth + 1) / 10) for tenth in range(10))]:
        inside = [part[id_] for id_, coverage in value.items() if low <= coverage <= high]
        assert abs(Counter(inside)["val"] - 0.2 * len(inside)) <= 2
        assert abs(Counter(inside)["test"] - 0.1 * len(inside)) <= 2


def test_strata_of_equal_values() -> None:
    subsets = make_split(samples_of(10), SplitSection(method="stratified"), lambda _: 0.5)[0]
    assert Counter(subsets.values()) == {"train": 8, "val": 2}


@given(
    st.lists(st.one_of(st.integers(0, 40), st.floats(-5, 5).map(lambda z: round(z, 1))), min_size=40, max_size=150),
    st.integers(0, 20),
)
def test_sorted_keeps_neighbours_together(depths: list[float], seed: int) -> None:
    samples = samples_of(len(depths), z=depths)
    try:
        subsets, groups = make_split(samples, SplitSection(method="sorted", order_column="z", seed=seed), never)
    except DataError as error:
        assert len(set(depths)) < 8 and "empty" in error.what
        return
    in_order = sorted(samples, key=lambda sample: float(sample.attributes["z"]))
    subset_of = defaultdict(set)
    for sample in in_order:
        subset_of[float(sample.attributes["z"])].add(subsets[sample.id])
    assert all(len(parts) == 1 for parts in subset_of.values()), "equal depths are never parted"
    blocks = [groups[sample.id] for sample in in_order]
    assert blocks == sorted(blocks), "a block is a stretch of neighbours"
    assert len(set(blocks)) <= 50


def test_sorted_is_by_number_and_not_by_letter() -> None:
    depths = [index * 7 for index in range(200)]
    _, groups = make_split(samples_of(200, z=depths), SplitSection(method="sorted", order_column="z"), never)
    assert list(groups.values()) == sorted(groups.values()) and Counter(Counter(groups.values()).values()) == {4: 50}


def test_frames_are_ordered_by_their_number_in_as_many_blocks_as_asked() -> None:
    samples = [Sample(f"train/{number}", Path("x"), None) for number in range(0, 200, 2)]
    section = SplitSection(method="sorted", order_column="id", blocks=10, validation=0.2, test=0.1)
    subsets, groups = make_split(samples, section, never)
    assert Counter(groups.values()) == {str(block): 10 for block in range(10)}
    assert Counter(subsets.values()) == {"train": 70, "val": 20, "test": 10}
    frames = [number for number in range(0, 200, 2) if groups[f"train/{number}"] == "3"]
    assert frames == list(range(60, 80, 2))


def test_equal_numbers_that_are_written_differently_are_equal() -> None:
    depths = ["1", "1.0", "1e0", *range(2, 30)]
    _, groups = make_split(samples_of(len(depths), z=depths), SplitSection(method="sorted", order_column="z"), never)
    assert groups["s0000"] == groups["s0001"] == groups["s0002"]


def test_given() -> None:
    names = ["train", "Training", "val", "valid", "validation", "test", "testing"]
    samples = [Sample(f"s{index}", Path("x"), None, subset=name) for index, name in enumerate(names)]
    assert list(split(samples, method="given").values()) == ["train", "train", "val", "val", "val", "test", "test"]


def test_given_without_test_is_fine_and_without_val_is_not() -> None:
    samples = [dataclasses.replace(sample, subset="train") for sample in samples_of(3)]
    assert "leaves val empty (3 samples)" in error_of(samples, method="given")
    samples[0] = dataclasses.replace(samples[0], subset="val")
    assert set(split(samples, method="given", test=0.3).values()) == {"train", "val"}


@pytest.mark.parametrize(("subset", "says"), [(None, "is None"), ("vall", "'vall'; did you mean 'val'?"), ("x", "'x'")])
def test_given_names_what_it_does_not_know(subset: str | None, says: str) -> None:
    text = error_of([Sample("a", Path("dir/a.png"), None, subset=subset)], method="given")
    assert says in text and "dir/a.png" in text and "{subset}" in text


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"method": "grouped", "group_column": "sight"}, "no table has a column 'sight'; did you mean 'site'?"),
        ({"method": "grouped", "group_column": "sight"}, "known columns: hole, site, word, z"),
        ({"method": "sorted", "order_column": "depth"}, "split.order_column: no table has a column 'depth'"),
        ({"method": "grouped", "group_column": "hole"}, "1 samples have no value of 'hole'\n  - s0003"),
        ({"method": "sorted", "order_column": "hole"}, "1 samples have no value of 'hole'\n  - s0003"),
        ({"method": "sorted", "order_column": "word"}, "does not hold numbers alone\n  - w0"),
        ({"method": "grouped", "group_pattern": "s...([0-4])"}, "finds no group in 5 ids\n  - s0005"),
        ({"method": "grouped", "group_pattern": "s...([0-4])?"}, "finds no group in 5 ids\n  - s0005"),
        ({"method": "grouped", "group_pattern": "s...([0-4]*)"}, "finds no group in 5 ids\n  - s0005"),
        ({"method": "grouped", "group_pattern": "^(s)"}, "the split leaves val empty (10 samples)"),
        ({"method": "sorted", "order_column": "z"}, "the split leaves val empty"),
        ({"method": "random", "validation": 0.0}, "the split leaves val empty"),
        ({"method": "random", "validation": 0.1, "test": 0.01}, "the split leaves test empty"),
    ],
)
def test_errors(keys: dict[str, Any], says: str) -> None:
    samples = samples_of(
        10,
        site=list(range(10)),
        z=[5] * 10,
        hole=["1", "2", "3", "", *"456789"],
        word=[f"w{index}" for index in range(10)],
    )
    assert says in error_of(samples, **keys)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1,5", "12 m"])
def test_what_has_no_place_in_an_order_is_no_number(value: str) -> None:
    text = error_of(samples_of(10, z=[*range(9), value]), method="sorted", order_column="z")
    assert f"\n  - {value}" in text
