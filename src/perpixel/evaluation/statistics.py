"""How sure a difference between two models on the same images is: paired, and by group where images come in groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "PairedDifference",
    "TrainedDifference",
    "holm",
    "mean_interval",
    "paired_difference",
    "trained_difference",
]

RESAMPLES = 10_000
_CHUNK = 1_000
_LEVEL = 0.05
_FEWEST = 5  # images that an interval is told of
_FEWEST_GROUPS = 4  # of two or three no interval is worth telling
_STUDENT_BELOW = 10  # groups
_POWER_Z = 1.959964 + 0.841621  # two-sided level 5 %, power 80 %


@dataclass(frozen=True)
class PairedDifference:
    """The mean of (second - first) over images.

    Attributes:
        mean: over the images that both have a figure for.
        low, high: 95 % confidence interval (bootstrap-t over groups); nan with fewer than two groups.
        p_value: of a sign-flip permutation test over groups; nan with fewer than two groups.
        effect_size: mean over the standard deviation of the images' differences (Cohen's d_z).
        images, groups: what was compared; ``groups`` equals ``images`` where each image stands for itself.
        left_out: images for which one of the two has no figure.
        images_to_decide: about how many images in all would show a difference of this size four times in five, if it
            is real; infinite where there is none.
        error: the standard error of the mean, linearised; nan with fewer than two groups.
    """

    mean: float
    low: float
    high: float
    p_value: float
    effect_size: float
    images: int
    groups: int
    left_out: int
    images_to_decide: float
    error: float

    @property
    def decided(self) -> bool:
        """Whether the difference can be told from chance at the 5 % level."""
        return self.p_value < _LEVEL


def paired_difference(
    first_n: Sequence[float], second_n: Sequence[float], groups: Sequence[str] | None = None, *, seed: int = 0
) -> PairedDifference:
    """Compare two models by a figure of each image.

    Images of one group (scene, mosaic, drive) are no independent witnesses: they are resampled, and change sign,
    together. The interval is the bootstrap-t of Efron and Tibshirani (1993, ch. 12) with the linearised standard error
    of a ratio of group sums; the test flips the signs of group sums (Good 2005, ch. 3).

    Args:
        first_n, second_n: the figure of each image, in the same order; nan where an image has none.
        groups: the group of each image; an empty text is an image by itself.

    Raises:
        ValueError: the lengths differ.
    """
    first, second = np.asarray(first_n, dtype=float), np.asarray(second_n, dtype=float)
    names = list(groups) if groups is not None else [""] * len(first)
    if not len(first) == len(second) == len(names):
        raise ValueError(f"{len(first)} and {len(second)} figures and {len(names)} groups are no pairs")
    keep = np.isfinite(first) & np.isfinite(second)
    difference_n = (second - first)[keep]
    sums_g, sizes_g = _group_sums(difference_n, [name for name, kept in zip(names, keep, strict=True) if kept])
    images, left_out = len(difference_n), int((~keep).sum())
    mean = float(difference_n.mean()) if images else math.nan
    if len(sums_g) < 2:
        nan = math.nan
        return PairedDifference(mean, nan, nan, nan, nan, images, len(sums_g), left_out, nan, nan)
    error = float(_standard_error(sums_g, sizes_g))
    rng = np.random.default_rng(seed)
    low, high = _bootstrap_t(sums_g, sizes_g, mean, error, rng)
    spread = float(difference_n.std(ddof=1))
    return PairedDifference(
        mean=mean,
        low=low,
        high=high,
        p_value=_sign_flip(sums_g, rng),
        effect_size=mean / spread if spread else 0.0,
        images=images,
        groups=len(sums_g),
        left_out=left_out,
        images_to_decide=images * (_POWER_Z * error / mean) ** 2 if mean else math.inf,
        error=error,
    )


@dataclass(frozen=True)
class TrainedDifference:
    """How sure a difference between two configurations is when images and trainings could both have been others.

    Attributes:
        first_spread, second_spread: standard deviation, over the runs of a configuration, of their means over images;
            nan of one run.
        first_runs, second_runs: how many there are.
        low, high: 95 % confidence interval.
        p_value: two-sided.
        images_to_decide: as of `PairedDifference`; infinite where the spread of the trainings alone is too large.
        runs_to_decide: about how many runs of each configuration would show the difference on these images four times
            in five; infinite where the images alone are too few.
    """

    first_spread: float
    second_spread: float
    first_runs: int
    second_runs: int
    low: float
    high: float
    p_value: float
    images_to_decide: float
    runs_to_decide: float


def trained_difference(
    difference: PairedDifference, first_kn: NDArray[np.float64], second_mn: NDArray[np.float64]
) -> TrainedDifference | None:
    """Add the variance of training to that of data; None where each has one run, or the images no interval.

    Images and trainings are crossed random effects: the variance of the difference of means is that over images (of
    the runs' mean, as `paired_difference` has it) plus that over runs, s^2 (1/k + 1/m), where s^2 is pooled over both
    configurations. Degrees of freedom after Satterthwaite (1946), "An approximate distribution of estimates of
    variance components". What an image means to one training alone is in both terms, so that the sum is rather too
    large than too small; and the result is never surer than that over images alone.

    Args:
        difference: of the means over the runs, image by image.
        first_kn, second_mn: the figure of each image (columns) in each run (rows); nan where an image has none.
    """
    freedom = len(first_kn) + len(second_mn) - 2
    if freedom < 1 or math.isnan(difference.error):
        return None
    from scipy.stats import t

    keep_n = np.isfinite(first_kn).all(axis=0) & np.isfinite(second_mn).all(axis=0)
    means = [values[:, keep_n].mean(axis=1) for values in (first_kn, second_mn)]
    pooled = sum(float(((each - each.mean()) ** 2).sum()) for each in means) / freedom
    data, training = difference.error**2, pooled * sum(1 / len(each) for each in means)
    error = math.sqrt(data + training)
    reach, p_value = 0.0, 0.0 if difference.mean else 1.0
    if error:
        degrees = error**4 / (data**2 / (difference.groups - 1) + training**2 / freedom)
        reach = float(t.ppf(1 - _LEVEL / 2, degrees)) * error
        p_value = float(2 * t.sf(abs(difference.mean) / error, degrees))
    wanted = (difference.mean / _POWER_Z) ** 2  # the variance at which the difference would show
    first_spread, second_spread = (float(each.std(ddof=1)) if len(each) > 1 else math.nan for each in means)
    return TrainedDifference(
        first_spread,
        second_spread,
        len(means[0]),
        len(means[1]),
        min(difference.low, difference.mean - reach),
        max(difference.high, difference.mean + reach),
        max(difference.p_value, p_value),
        difference.images * data / (wanted - training) if wanted > training else math.inf,
        2 * pooled / (wanted - data) if wanted > data else math.inf,
    )


def mean_interval(
    values_n: Sequence[float] | NDArray[np.float64], groups: Sequence[str] | None = None, *, level: float = _LEVEL
) -> tuple[float, float, float] | None:
    """(mean, low, high) of a figure of each image, with its 95 % interval.

    None of fewer than five images or four groups.

    Arguments and interval are those of `paired_difference`, but of fewer than ten groups, whose resamples hardly
    vary at times, the interval is Student's. nan counts nowhere. ``level`` is the share of intervals that miss.
    """
    values = np.asarray(values_n, dtype=float)
    keep = np.isfinite(values)
    if keep.sum() < _FEWEST:
        return None
    names = list(groups) if groups is not None else [""] * len(values)
    sums_g, sizes_g = _group_sums(values[keep], [name for name, kept in zip(names, keep, strict=True) if kept])
    mean, count = float(values[keep].mean()), len(sums_g)
    if count < _FEWEST_GROUPS:
        return None
    error = float(_standard_error(sums_g, sizes_g))
    if count < _STUDENT_BELOW:
        from scipy.stats import t

        reach = float(t.ppf(1 - level / 2, count - 1)) * error
        return mean, mean - reach, mean + reach
    return mean, *_bootstrap_t(sums_g, sizes_g, mean, error, np.random.default_rng(0), level)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the same order; nan stays nan and does not count."""
    known = [index for index, value in enumerate(p_values) if not math.isnan(value)]
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(known, key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(known) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def _group_sums(
    difference_n: NDArray[np.float64], names: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    keys = [name or f"\0{number}" for number, name in enumerate(names)]
    _, group_n = np.unique(np.array(keys, dtype=object).astype(str), return_inverse=True)
    return np.bincount(group_n, weights=difference_n).astype(np.float64), np.bincount(group_n).astype(np.float64)


def _standard_error(sums_g: NDArray[np.float64], sizes_g: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of sum(sums) / sum(sizes), over the last axis (Cochran 1977, 6.13)."""
    count = sums_g.shape[-1]
    total = sizes_g.sum(axis=-1)
    residual_g = sums_g - (sums_g.sum(axis=-1) / total)[..., None] * sizes_g
    error: NDArray[np.float64] = np.sqrt(count / (count - 1) * (residual_g**2).sum(axis=-1)) / total
    return error


def _bootstrap_t(
    sums_g: NDArray[np.float64],
    sizes_g: NDArray[np.float64],
    mean: float,
    error: float,
    rng: np.random.Generator,
    level: float = _LEVEL,
) -> tuple[float, float]:
    if error == 0:
        return mean, mean
    pivots = []
    for _ in range(RESAMPLES // _CHUNK):
        drawn = rng.integers(len(sums_g), size=(_CHUNK, len(sums_g)))
        sums_rg, sizes_rg = sums_g[drawn], sizes_g[drawn]
        error_r = _standard_error(sums_rg, sizes_rg)
        shift_r = sums_rg.sum(axis=1) / sizes_rg.sum(axis=1) - mean
        pivots.append(shift_r[error_r > 0] / error_r[error_r > 0])
    lower, upper = np.quantile(np.concatenate(pivots), [level / 2, 1 - level / 2])
    return mean - float(upper) * error, mean - float(lower) * error


def _sign_flip(sums_g: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Two-sided; all sign patterns where there are few of them, else random ones and the one that was seen."""
    observed = abs(sums_g.sum())
    tolerance = 1e-12 * np.abs(sums_g).sum()  # sums in another order are the same sum
    count = len(sums_g)
    if 2**count <= RESAMPLES:
        patterns = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        return float((np.abs((2 * patterns - 1) @ sums_g) >= observed - tolerance).mean())
    as_large = 1
    for _ in range(RESAMPLES // _CHUNK):
        signs_rg = rng.integers(0, 2, size=(_CHUNK, count), dtype=np.int8) * 2 - 1
        as_large += int((np.abs(signs_rg @ sums_g) >= observed - tolerance).sum())
    return as_large / (RESAMPLES // _CHUNK * _CHUNK + 1)
