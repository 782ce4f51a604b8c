"""Order and batches of an epoch: functions of (seed, epoch, sample) and of nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perpixel.data.cache import StreamedSamples
from perpixel.data.dataset import Batch, EpochOrder, TrainingSet, batches_per_epoch, training_loader
from perpixel.data.samples import data_root, list_samples
from perpixel.tasks import build_task
from tiny import tiny_recipe

counts = st.integers(1, 300)
sizes = st.integers(1, 64)
seeds = st.integers(0, 2**32 - 1)


@given(count=counts, size=sizes, seed=seeds, epoch=st.integers(0, 1000))
def test_each_sample_comes_once_in_batches_of_nearly_one_size(count: int, size: int, seed: int, epoch: int) -> None:
    batches = list(EpochOrder(count, size, seed=seed, epoch=epoch))
    assert sorted(index for batch in batches for index in batch) == list(range(count))
    lengths = [len(batch) for batch in batches]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1
    assert len(batches) == batches_per_epoch(count, size) == -(-count // size)


@given(count=counts, size=sizes, seed=seeds, first=st.integers(0, 400))
def test_a_continuation_has_the_rest_of_the_same_order(count: int, size: int, seed: int, first: int) -> None:
    whole = list(EpochOrder(count, size, seed=seed, epoch=3))
    rest = EpochOrder(count, size, seed=seed, epoch=3, first_batch=first)
    assert list(rest) == whole[first:]
    assert len(rest) == len(whole[first:])


def test_the_order_changes_with_seed_and_epoch() -> None:
    orders = [list(EpochOrder(50, 8, seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1)]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))
    assert orders[0] == list(EpochOrder(50, 8, seed=1, epoch=0))


def training_set(root: Path, *, epoch: int = 0, fit: str = "pad", size: int = 48) -> TrainingSet:
    recipe = tiny_recipe(root, f"input.size=[{size}, {size}]", f"input.fit={fit}")
    task = build_task(recipe)
    samples = list_samples(recipe.data, data_root(recipe.data))
    return TrainingSet(
        StreamedSamples(samples, task.decode_target),
        [sample.id for sample in samples],
        [9, 2, 11, 4, 0],
        input_section=recipe.input,
        augmentation=recipe.augmentation,
        fill=task.fill,
        seed=7,
        epoch=epoch,
    )


def test_crops_of_images_of_any_size_make_a_batch(tiny_data: Path) -> None:
    first, again = training_set(tiny_data, fit="crop", size=32), training_set(tiny_data, fit="crop", size=32)
    for batch, other in zip(batches(first), batches(again), strict=True):
        assert batch.image_bchw.shape[2:] == batch.target_bhw.shape[1:] == (32, 32)
        assert set(batch.target_bhw.unique().tolist()) <= {0, 1}  # a crop of a 40x40 image has no padding
        assert torch.equal(batch.image_bchw, other.image_bchw) and torch.equal(batch.target_bhw, other.target_bhw)
    wide = training_set(tiny_data, fit="crop", size=64)
    assert all((target_hw == 255).any() for _, target_hw, _ in (wide[index] for index in range(len(wide))))


def batches(dataset: TrainingSet, workers: int = 0) -> list[Batch]:
    return list(training_loader(dataset, EpochOrder(len(dataset), 2, seed=7, epoch=0), workers=workers))


def test_batches_hold_what_they_say(tiny_data: Path) -> None:
    dataset = training_set(tiny_data)
    loaded = batches(dataset)
    assert [len(batch.ids) for batch in loaded] == [2, 2, 1]
    assert {id_ for batch in loaded for id_ in batch.ids} == {dataset.ids[position] for position in dataset.positions}
    for batch in loaded:
        assert batch.image_bchw.shape == (len(batch.ids), 3, 48, 48)
        assert batch.image_bchw.dtype == batch.target_bhw.dtype == torch.uint8
        assert set(batch.target_bhw.unique().tolist()) <= {0, 1, 255}
        assert (batch.target_bhw == 255).any()  # the padding of a 40x40 image has no truth


def test_a_sample_is_augmented_alike_wherever_it_stands(tiny_data: Path) -> None:
    first, other = training_set(tiny_data), training_set(tiny_data)
    other.positions = [4, 9]
    assert np.array_equal(first[0][0], other[1][0])
    assert np.array_equal(first[3][1], other[0][1])
    later = training_set(tiny_data, epoch=1)
    assert not all(np.array_equal(first[index][0], later[index][0]) for index in range(len(first)))


def test_workers_change_nothing(tiny_data: Path) -> None:
    alone, helped = batches(training_set(tiny_data)), batches(training_set(tiny_data), workers=1)
    assert [batch.ids for batch in alone] == [batch.ids for batch in helped]
    for first, second in zip(alone, helped, strict=True):
        assert torch.equal(first.image_bchw, second.image_bchw)
        assert torch.equal(first.target_bhw, second.target_bhw)


@pytest.mark.parametrize("workers", [0, 1])
def test_iterating_takes_nothing_from_the_global_random_state(tiny_data: Path, workers: int) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # type: ignore[union-attr]
    batches(training_set(tiny_data), workers)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()
