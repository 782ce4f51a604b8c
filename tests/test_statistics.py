"""Paired comparisons: intervals that cover, tests that keep their level, groups that count once."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from perpixel.evaluation.statistics import holm, mean_interval, paired_difference, trained_difference


def test_a_clear_difference_is_decided() -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0.5, 0.9, 200)
    found = paired_difference(first, first + 0.02 + rng.normal(0, 0.02, 200))
    assert found.decided
    assert found.low < 0.02 < found.high
    assert found.mean == pytest.approx(0.02, abs=0.005)


def test_the_interval_agrees_with_the_t_interval_of_normal_data() -> None:
    difference = np.random.default_rng(1).normal(0.1, 1, 400)
    found = paired_difference(np.zeros(400), difference)
    low, high = stats.ttest_1samp(difference, 0).confidence_interval()
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)
    assert found.p_value == pytest.approx(stats.ttest_1samp(difference, 0).pvalue, abs=0.02)
    assert found.effect_size == pytest.approx(difference.mean() / difference.std(ddof=1))


def test_few_groups_are_tested_exactly() -> None:
    difference = [0.3, 0.1, -0.05, 0.2, 0.15, 0.4]
    seen = abs(sum(difference))
    patterns = itertools.product((-1, 1), repeat=6)
    expected = np.mean([abs(np.dot(signs, difference)) >= seen - 1e-12 for signs in patterns])
    assert paired_difference([0.0] * 6, difference).p_value == pytest.approx(expected)


def test_repeated_images_of_a_group_bring_no_certainty() -> None:
    difference = np.random.default_rng(2).normal(0.2, 1, 30)
    alone = paired_difference(np.zeros(30), difference)
    names = [f"scene{index // 20}" for index in range(600)]
    grouped = paired_difference(np.zeros(600), np.repeat(difference, 20), names)
    assert grouped.groups == 30
    assert grouped.images == 600
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.05)
    careless = paired_difference(np.zeros(600), np.repeat(difference, 20))
    assert careless.high - careless.low < 0.4 * (grouped.high - grouped.low)


def test_the_level_is_kept_and_the_interval_covers() -> None:
    """Groups of unequal size with effects of their own, no difference in truth: 5 % are found, 95 % covered."""
    rng = np.random.default_rng(3)
    found = []
    for trial in range(200):
        sizes = rng.integers(1, 8, 25)
        names = np.repeat([f"g{group}" for group in range(25)], sizes)
        difference = np.repeat(rng.normal(0, 1, 25), sizes) + rng.normal(0, 0.5, len(names))
        found.append(paired_difference(np.zeros(len(names)), difference, list(names), seed=trial))
    false_alarms = np.mean([one.decided for one in found])
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.01 <= false_alarms <= 0.10
    assert 0.89 <= covered <= 0.99


def test_images_to_decide_is_enough() -> None:
    rng = np.random.default_rng(4)
    needed = paired_difference(np.zeros(400), rng.normal(0.1, 1, 400)).images_to_decide
    assert needed == pytest.approx((2.8016 / 0.1) ** 2, rel=1.2)  # the mean of 400 is itself uncertain
    power = np.mean([stats.ttest_1samp(rng.normal(0.2, 1, 196), 0).pvalue < 0.05 for _ in range(400)])
    assert power == pytest.approx(0.8, abs=0.06)  # (2.8 / 0.2) ** 2 = 196


def test_images_without_a_figure_are_counted() -> None:
    found = paired_difference([0.1, math.nan, 0.3, 0.2], [0.2, 0.5, math.nan, 0.1])
    assert (found.images, found.left_out) == (2, 2)
    assert found.mean == pytest.approx(0.0)
    assert found.images_to_decide == math.inf or found.images_to_decide > 1e6


def test_one_image_decides_nothing() -> None:
    found = paired_difference([0.1], [0.9])
    assert not found.decided
    assert math.isnan(found.low)


def test_equal_models_are_equal() -> None:
    found = paired_difference([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert (found.mean, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([0.1], [0.1, 0.2])


def test_holm_against_its_definition() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6])[1] == 1.0
    corrected = holm([0.02, math.nan])
    assert corrected[0] == 0.02
    assert math.isnan(corrected[1])


def test_the_interval_of_few_groups_is_students() -> None:
    """Of groups of one size it is that of the groups' means."""
    means = np.array([0.5, 0.7, 0.65, 0.9])
    low, high = stats.ttest_1samp(means, 0).confidence_interval()
    values = np.repeat(means, 3) + np.tile([-0.01, 0.0, 0.01], 4)
    found = mean_interval(values, [f"g{number}" for number in np.repeat(range(4), 3)])
    assert found == pytest.approx((means.mean(), low, high))


def test_the_interval_of_many_images_is_that_of_a_difference_from_zero() -> None:
    values = np.random.default_rng(2).uniform(0, 1, 50)
    difference = paired_difference(np.zeros(50), values)
    assert mean_interval(values) == pytest.approx((difference.mean, difference.low, difference.high), abs=0.003)
    assert mean_interval(values[:4]) is None
    assert mean_interval([math.nan] * 9) is None
    assert mean_interval(values[:9], ["one"] * 9) is None


def test_two_groups_have_no_interval() -> None:
    assert mean_interval(np.arange(20.0), ["one"] * 10 + ["two"] * 10) is None


def test_one_training_each_leaves_the_spread_of_trainings_unknown() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.5, 0.1, (1, 50)), rng.normal(0.5, 0.1, (1, 50))
    assert trained_difference(paired_difference(first[0], second[0]), first, second) is None


def test_on_very_many_images_the_seeds_are_compared_as_two_samples() -> None:
    """Where images leave no doubt, what is left is Student's test of the runs' means (scipy's)."""
    rng = np.random.default_rng(1)
    image = rng.uniform(0.2, 0.9, 3_000)
    first = image + np.array([[0.00], [0.03], [0.01]]) + rng.normal(0, 0.001, (3, 3_000))
    second = image + np.array([[0.05], [0.06], [0.02], [0.08]]) + rng.normal(0, 0.001, (4, 3_000))
    found = trained_difference(paired_difference(first.mean(axis=0), second.mean(axis=0)), first, second)
    assert found is not None
    expected = stats.ttest_ind(second.mean(axis=1), first.mean(axis=1))
    low, high = expected.confidence_interval()
    assert found.p_value == pytest.approx(expected.pvalue, rel=0.01)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-4)
    assert found.second_spread == pytest.approx(second.mean(axis=1).std(ddof=1))
    assert found.runs_to_decide < 10


def test_seeds_that_agree_leave_the_interval_of_the_images() -> None:
    rng = np.random.default_rng(2)
    image, gain = rng.uniform(0.2, 0.8, 60), rng.normal(0.02, 0.05, 60)
    first, second = np.repeat(image[None], 3, axis=0), np.repeat((image + gain)[None], 3, axis=0)
    alone = paired_difference(first[0], second[0])
    found = trained_difference(alone, first, second)
    assert found is not None
    assert found.p_value >= alone.p_value
    assert found.low <= alone.low < alone.high <= found.high
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert found.images_to_decide == pytest.approx(alone.images_to_decide)


def test_images_that_a_training_has_no_figure_for_count_nowhere() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.5, 0.1, (2, 30)), rng.normal(0.6, 0.1, (2, 30))
    short = trained_difference(
        paired_difference(first[:, :25].mean(0), second[:, :25].mean(0)), first[:, :25], second[:, :25]
    )
    second[1, 25:] = math.nan
    assert trained_difference(paired_difference(first.mean(0), second.mean(0)), first, second) == short


def test_two_configurations_that_are_the_same_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for trial in range(200):
        image = rng.uniform(0.3, 0.9, 40)
        runs = [image + rng.normal(0, 0.02, (3, 1)) + rng.normal(0, 0.05, (3, 40)) for _ in range(2)]
        alone = paired_difference(runs[0].mean(0), runs[1].mean(0), seed=trial)
        result = trained_difference(alone, *runs)
        assert result is not None
        found += result.p_value < 0.05
    assert found <= 20, "5 % of 200 are 10, and 20 are three standard deviations more"


def test_a_figure_that_no_image_has_is_no_trained_difference() -> None:
    none_kn = np.full((2, 6), np.nan)
    nothing = paired_difference([math.nan] * 6, [math.nan] * 6)
    assert trained_difference(nothing, none_kn, none_kn) is None
    assert trained_difference(nothing, none_kn[:1], none_kn[:1]) is None
