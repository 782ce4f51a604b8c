"""Figures of depth, from metres at the images' original sizes.

Every figure comes twice: ``abs_rel`` from sums over all valid pixels of the subset, ``abs_rel_per_image`` as the mean
over its images, which is what most papers report. Raw figures come first; those with a prefix are of predictions that
were fitted to the truth image by image, which a user of the model cannot do: ``median_aligned/`` by a scale,
``affine_aligned/`` by scale and shift in depth, ``disparity_aligned/`` by scale and shift in 1 / depth.

Rules, the same for every figure:

- Only truth between the caps counts, the caps left out, inside the crop; predictions are clamped to the caps, after
  alignment where there is any. So a prediction of 0 m is a bad one, not a missing one.
- A prediction at a valid pixel that is not finite is an error: it counts neither as far nor as near.
- Beside the figures stand the scale, shift and sign that alignment needed, and what guards look at: the share of
  predictions on a clamp, the rank correlation, the ratio of the medians.
- How much predictions vary inside an image and from one to the next says whether the model looks at its input.
- An image without a counted pixel counts nowhere; every figure of its row is nan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perpixel.metrics.alignment import Alignment, affine_alignment, median_alignment
from perpixel.metrics.depth_edges import THRESHOLDS, depth_edge_counts, depth_edge_f1
from perpixel.metrics.depth_facts import ALIGNED, IMAGES, PIXELS, RangeAtPlaces, fact_infos
from perpixel.metrics.info import Curve, Detail, MetricInfo

__all__ = ["CROPS", "DepthMetrics", "crop_mask"]

Direction = Literal["higher", "lower"]

CROPS: Mapping[str, tuple[float, float, float, float]] = {
    "none": (0.0, 1.0, 0.0, 1.0),
    # Garg et al. 2016 and Eigen et al. 2014, of KITTI; the fractions are those of Monodepth's code, which all use.
    "garg": (0.40810811, 0.99189189, 0.03594771, 0.96405229),
    "eigen": (0.3324324, 0.91351351, 0.0359477, 0.96405229),
    # Eigen et al. 2014, of NYU Depth v2: rows 45 to 471 and columns 41 to 601 of 480 x 640.
    "eigen_nyu": (45 / 480, 471 / 480, 41 / 640, 601 / 640),
}
"""Share of the height where the crop starts and ends, then of the width; the end is left out."""

_FIGURES: Mapping[str, tuple[str, str, Direction, str]] = {
    "d1": ("d1", "", "higher", "Share of pixels with max(p/t, t/p) < 1.25 (Eigen et al. 2014)."),
    "d2": ("d2", "", "higher", "Share of pixels with max(p/t, t/p) < 1.25^2 (Eigen et al. 2014)."),
    "d3": ("d3", "", "higher", "Share of pixels with max(p/t, t/p) < 1.25^3 (Eigen et al. 2014)."),
    "abs_rel": ("absolute relative error", "", "lower", "Mean of |p - t| / t (Eigen et al. 2014)."),
    "sq_rel": ("squared relative error", "m", "lower", "Mean of (p - t)^2 / t (Eigen et al. 2014)."),
    "rmse": ("RMSE", "m", "lower", "Root of the mean of (p - t)^2."),
    "mae": ("MAE", "m", "lower", "Mean of |p - t|."),
    "rmse_log": ("RMSE of logarithms", "", "lower", "Root of the mean of (ln p - ln t)^2 (Eigen et al. 2014)."),
    "log10": ("log10 error", "", "lower", "Mean of |log10 p - log10 t|."),
    "silog": (
        "SILog",
        "",
        "lower",
        "100 sqrt(mean(g^2) - mean(g)^2), g = ln p - ln t: the form of KITTI and ZoeDepth; 100 times the deviation.",
    ),
}
_BOUNDARY: tuple[str, str, Direction, str] = (
    "boundary F1",
    "",
    "higher",
    "F1 of the jumps between neighbours by more than 1.05 to 1.25 times (Depth Pro, Bochkovskii et al. 2024; counts "
    "of the four directions added up). Scale changes nothing; nan, and left out, where neither map has an edge.",
)
_DISTANCES = 20  # bins of the error by distance
_RANKED = 10_000  # pixels an image that the rank correlation looks at


class DepthMetrics:
    """Accumulates images; every figure comes from sums over the data set, or is a mean over its images.

    Args:
        maximum_m: cap: truth from there on does not count, predictions are clamped to it. Published: 10 of NYU Depth
            v2, 80 of KITTI.
        minimum_m: the cap at the near end, above 0.
        crop: a key of `CROPS`.
        predicts: ``metres``, or ``disparity`` up to scale and shift, larger where it is nearer; of the latter only
            the figures of ``disparity_aligned/`` mean anything, and there are no others.
        clamp_m: nearest and farthest metres that the model can put out, for the share of predictions that sit there;
            None: the caps.

    Raises:
        ValueError: caps that are not 0 < minimum_m < maximum_m, finite, or no such crop.
    """

    def __init__(
        self,
        *,
        maximum_m: float,
        minimum_m: float = 1e-3,
        crop: str = "none",
        predicts: Literal["metres", "disparity"] = "metres",
        clamp_m: tuple[float, float] | None = None,
    ) -> None:
        if not 0 < minimum_m < maximum_m < math.inf:
            raise ValueError(f"caps must be finite, 0 < minimum_m < maximum_m; they are {minimum_m} and {maximum_m}")
        if crop not in CROPS:
            raise ValueError(f"no crop is named {crop!r}; there are {', '.join(CROPS)}")
        self.minimum_m, self.maximum_m, self.crop, self.predicts = minimum_m, maximum_m, crop, predicts
        self.clamp_m = (minimum_m, maximum_m) if clamp_m is None else clamp_m
        self._prefixes = ["disparity_aligned/"] if predicts == "disparity" else list(ALIGNED)
        # Every image's own sums, not theirs together: math.fsum then gives the same digits in any order.
        self._sums: dict[str, list[list[float]]] = {prefix: [] for prefix in self._prefixes}
        self._edges: list[NDArray[np.int64]] = []
        self._facts: list[dict[str, float]] = []
        self._by_distance_2b = np.zeros((2, _DISTANCES))  # pixels, and the sum of their relative errors
        self._range = RangeAtPlaces()
        self._fact_infos = fact_infos(predicts)

    @property
    def protocol(self) -> dict[str, Any]:
        """What must be said beside the figures."""
        return {
            "minimum_m": self.minimum_m,
            "maximum_m": self.maximum_m,
            "crop": self.crop,
            "predicts": self.predicts,
        }

    def update(
        self,
        predicted_hw: NDArray[Any],
        target_hw: NDArray[Any],
        valid_hw: NDArray[np.bool_],
        confidence_hw: NDArray[np.float32] | None = None,
    ) -> dict[str, float]:
        """Add one image.

        Args:
            predicted_hw: what ``predicts`` says; anything where ``valid_hw`` is False.
            target_hw: metres; anything where ``valid_hw`` is False.
            valid_hw: where there is truth.
            confidence_hw: not looked at; here because all tasks' metrics are called alike.

        Returns:
            This image's own figures: the keys of `compute`.

        Raises:
            ValueError: the shapes differ, or a valid pixel holds a prediction or a truth that is not finite.
        """
        if not predicted_hw.shape == target_hw.shape == valid_hw.shape or predicted_hw.ndim != 2:
            shapes = f"{predicted_hw.shape}, {target_hw.shape} and {valid_hw.shape}"
            raise ValueError(f"prediction, target and valid must be (H, W) of one size; they are {shapes}")
        if valid_hw.dtype != np.bool_:
            raise ValueError(f"valid must be bool; it is {valid_hw.dtype}")
        _check_finite("prediction", predicted_hw, valid_hw)
        _check_finite("target", target_hw, valid_hw)
        counted_hw = valid_hw & crop_mask(valid_hw.shape, self.crop)
        counted_hw &= (target_hw > self.minimum_m) & (target_hw < self.maximum_m)
        single = DepthMetrics(
            maximum_m=self.maximum_m,
            minimum_m=self.minimum_m,
            crop=self.crop,
            predicts=self.predicts,
            clamp_m=self.clamp_m,
        )
        if counted_hw.any():
            single._add(predicted_hw, target_hw, counted_hw)
            self.merge(single)
        return single.compute()

    def merge(self, other: DepthMetrics) -> None:
        """Add what another accumulator of the same protocol has seen, as if its images had been added here.

        Raises:
            ValueError: the other one has another protocol.
        """
        if (other.protocol, other.clamp_m) != (self.protocol, self.clamp_m):
            raise ValueError("only figures of the same protocol can be merged")
        for prefix, rows in self._sums.items():
            rows.extend(other._sums[prefix])
        self._edges.extend(other._edges)
        self._facts.extend(other._facts)
        self._by_distance_2b += other._by_distance_2b
        self._range.merge(other._range)

    def compute(self) -> dict[str, float]:
        """All figures so far; before the first image all are nan."""
        figures: dict[str, float] = {}
        for prefix, rows in self._sums.items():
            pooled = _figures([math.fsum(column) for column in zip(*rows, strict=True)])
            each = [_figures(row) for row in rows]
            for key in _FIGURES:
                figures[f"{prefix}{key}"] = pooled[key]
                figures[f"{prefix}{key}_per_image"] = _mean([row[key] for row in each])
            if prefix == self._prefixes[0]:
                edges = sum(self._edges, start=np.zeros((3, len(THRESHOLDS)), dtype=np.int64))
                figures[f"{prefix}boundary_f1"] = depth_edge_f1(edges)
                figures[f"{prefix}boundary_f1_per_image"] = _mean([depth_edge_f1(counts) for counts in self._edges])
        return figures | self._fits_and_signs()

    def _fits_and_signs(self) -> dict[str, float]:
        """What alignment had to do, and what guards look at."""
        found = {key: _mean([row[key] for row in self._facts if key in row]) for key in self._fact_infos}
        if self.predicts == "metres":
            pixels = math.fsum(row["pixels"] for row in self._facts)
            at_clamp = math.fsum(row["at_clamp"] for row in self._facts)
            found["share_at_clamp"] = at_clamp / pixels if pixels else math.nan
            ratios = [row["median_ratio"] for row in self._facts]
            found["median_ratio"] = float(np.median(ratios)) if ratios else math.nan
        return found | {"variation_between": self._range.compute()}

    def infos(self) -> dict[str, MetricInfo]:
        """What each figure of `compute` is, in the same order."""
        crop = "" if self.crop == "none" else f" inside the crop {self.crop}"
        protocol = f" Truth between {self.minimum_m:g} and {self.maximum_m:g} m{crop}; predictions clamped to that."
        infos = {}
        for prefix in self._prefixes:
            kinds = dict(_FIGURES) | ({"boundary_f1": _BOUNDARY} if prefix == self._prefixes[0] else {})
            for key, (name, unit, direction, formula) in kinds.items():
                title = f"{name}, {prefix[:-1].replace('_', ' ')}" if prefix else name
                text = f"{formula} {ALIGNED[prefix]}{protocol}"
                infos[f"{prefix}{key}"] = MetricInfo(title, unit, direction, PIXELS, text)
                infos[f"{prefix}{key}_per_image"] = MetricInfo(f"{title}, an image", unit, direction, IMAGES, text)
        return infos | self._fact_infos

    def details(self) -> list[Detail]:
        """The relative error by distance."""
        edges = np.linspace(self.minimum_m, self.maximum_m, _DISTANCES + 1)
        pixels_b, errors_b = self._by_distance_2b
        seen = pixels_b > 0
        centres = (edges[:-1] + edges[1:]) / 2
        return [
            Curve(
                "Error by distance",
                "true distance (m)",
                f"mean {self._prefixes[0]}abs_rel",
                centres[seen].tolist(),
                (errors_b[seen] / pixels_b[seen]).tolist(),
                pixels_b[seen].astype(int).tolist(),
            )
        ]

    def _error_by_distance(
        self, predicted_n: NDArray[np.float64], target_n: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        edges = np.linspace(self.minimum_m, self.maximum_m, _DISTANCES + 1)
        bin_n = np.digitize(target_n, edges[1:-1])
        relative_n = np.abs(predicted_n - target_n) / target_n
        return np.stack([np.bincount(bin_n, weights, _DISTANCES) for weights in (np.ones_like(relative_n), relative_n)])

    def _add(self, predicted_hw: NDArray[Any], target_hw: NDArray[Any], counted_hw: NDArray[np.bool_]) -> None:
        predicted_n = predicted_hw[counted_hw].astype(np.float64)
        target_n = target_hw[counted_hw].astype(np.float64)
        log_target_n = np.log(target_n)
        facts = self._signs_of_trouble(predicted_n, target_n)
        self._range.add(predicted_hw, counted_hw)
        for prefix in self._prefixes:
            aligned_n, alignment = self._aligned(prefix, predicted_n, target_n)
            aligned_n = aligned_n.clip(self.minimum_m, self.maximum_m)
            log_error_n = np.log(aligned_n) - log_target_n
            self._sums[prefix].append(_sums(aligned_n - target_n, log_error_n, target_n))
            if prefix == self._prefixes[0]:
                self._by_distance_2b += self._error_by_distance(aligned_n, target_n)
                # Zeros elsewhere are never looked at.
                log_target_hw = np.zeros(counted_hw.shape)
                log_target_hw[counted_hw] = log_target_n
                log_predicted_hw = log_target_hw.copy()
                log_predicted_hw[counted_hw] += log_error_n
                self._edges.append(depth_edge_counts(log_predicted_hw, log_target_hw, counted_hw))
            if prefix:
                facts |= {f"{prefix}scale": alignment.scale}
                facts |= {f"{prefix}shift": alignment.shift, f"{prefix}sign": alignment.sign}
        self._facts.append(facts)

    def _aligned(
        self, prefix: str, predicted_n: NDArray[np.float64], target_n: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], Alignment]:
        """Predictions in metres, not clamped yet, and how they were aligned."""
        if prefix == "median_aligned/":
            alignment = median_alignment(predicted_n, target_n)
            return alignment(predicted_n), alignment
        if prefix == "affine_aligned/":
            alignment = affine_alignment(predicted_n, target_n)
            return alignment(predicted_n), alignment
        if prefix == "disparity_aligned/":
            disparity_n = predicted_n
            if self.predicts == "metres":
                disparity_n = 1 / predicted_n.clip(self.minimum_m, self.maximum_m)
            alignment = affine_alignment(disparity_n, 1 / target_n)
            # A disparity of 0 or less is farther than anything.
            return 1 / np.maximum(alignment(disparity_n), 1 / self.maximum_m), alignment
        return predicted_n, Alignment(1.0)

    def _signs_of_trouble(self, predicted_n: NDArray[np.float64], target_n: NDArray[np.float64]) -> dict[str, float]:
        step = -(-len(target_n) // _RANKED)
        nearer = -1 if self.predicts == "disparity" else 1
        found = {"rank_correlation": _rank_correlation(nearer * predicted_n[::step], target_n[::step])}
        if self.predicts == "metres":
            near, far = self.clamp_m
            # Float32 of a clamp may lie beside it.
            at_clamp_n = (predicted_n <= near * (1 + 1e-6)) | (predicted_n >= far * (1 - 1e-6))
            found["at_clamp"] = float(np.count_nonzero(at_clamp_n))
            found["median_ratio"] = float(np.median(predicted_n) / np.median(target_n))
        level = float(np.abs(predicted_n).mean())
        found["variation_inside"] = float(predicted_n.std()) / level if level else 0.0
        return found | {"pixels": float(len(target_n))}


def crop_mask(shape: tuple[int, ...], crop: str) -> NDArray[np.bool_]:
    """mask_hw of the pixels inside a crop of `CROPS`; edges are cut to whole pixels, as the published code does."""
    height, width = shape
    top, bottom, left, right = CROPS[crop]
    mask_hw = np.zeros((height, width), dtype=bool)
    # 471 / 480 * 480 may come out just below 471.
    rows = slice(int(top * height + 1e-9), int(bottom * height + 1e-9))
    mask_hw[rows, int(left * width + 1e-9) : int(right * width + 1e-9)] = True
    return mask_hw


def _check_finite(what: str, depth_hw: NDArray[Any], valid_hw: NDArray[np.bool_]) -> None:
    wrong_hw = valid_hw & ~np.isfinite(depth_hw)
    if wrong_hw.any():
        row, column = np.argwhere(wrong_hw)[0]
        raise ValueError(
            f"{what} holds {depth_hw[row, column]} at the valid pixel in row {row}, column {column}, "
            f"and at {int(wrong_hw.sum())} valid pixels in all"
        )


def _sums(error_n: NDArray[np.float64], log_error_n: NDArray[np.float64], target_n: NDArray[np.float64]) -> list[float]:
    """What every figure is made of, in the order that `_figures` reads."""
    distance_n = np.abs(log_error_n)
    columns: list[Any] = [len(error_n)]
    columns += [np.count_nonzero(distance_n < power * math.log(1.25)) for power in (1, 2, 3)]
    columns += [(np.abs(error_n) / target_n).sum(), (error_n**2 / target_n).sum()]
    columns += [(error_n**2).sum(), np.abs(error_n).sum()]
    columns += [(log_error_n**2).sum(), distance_n.sum() / math.log(10), log_error_n.sum()]
    return [float(column) for column in columns]


def _figures(sums: list[float]) -> dict[str, float]:
    if not sums:
        return dict.fromkeys(_FIGURES, math.nan)
    count = sums[0]
    d1, d2, d3, abs_rel, sq_rel, square, mae, log_square, log10, log_mean = (value / count for value in sums[1:])
    return {
        "d1": d1,
        "d2": d2,
        "d3": d3,
        "abs_rel": abs_rel,
        "sq_rel": sq_rel,
        "rmse": math.sqrt(square),
        "mae": mae,
        "rmse_log": math.sqrt(log_square),
        "log10": log10,
        "silog": 100 * math.sqrt(max(log_square - log_mean**2, 0.0)),
    }


def _rank_correlation(first_n: NDArray[np.float64], second_n: NDArray[np.float64]) -> float:
    """Spearman's: Pearson's of the ranks, ties at their mean; nan when one of both is flat."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (first_n, second_n)]
    first_n, second_n = (rank - rank.mean() for rank in ranks)
    size = math.sqrt(float((first_n**2).sum()) * float((second_n**2).sum()))
    return float((first_n * second_n).sum()) / size if size else math.nan


def _mean(values: list[float]) -> float:
    """Mean of what is no nan; nan of nothing."""
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan
