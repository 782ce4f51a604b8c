"""Guards against depth figures that should not be believed: each returns a sentence, or None when all is well."""

from __future__ import annotations

import math

__all__ = ["inverted", "predictions_on_a_clamp", "predictions_that_do_not_vary", "wrong_unit"]

_LARGEST_SHARE_AT_CLAMP = 0.05
_SMALLEST_VARIATION = 1e-3
_UNITS = {
    10: "centimetres for decimetres, or a range of 10 m counted twice",
    100: "centimetres for metres",
    256: "a scale of 1/256, as KITTI's, applied or left out once too often",
    1000: "millimetres for metres",
}
_NEAR = 1.1  # a ratio within a tenth of a unit factor


def predictions_on_a_clamp(share_at_clamp: float) -> str | None:
    """More than 5 % of the predictions sit at the nearest or the farthest value that there can be.

    Args:
        share_at_clamp: share of the counted pixels, 0 to 1; nan: not known.
    """
    if not share_at_clamp > _LARGEST_SHARE_AT_CLAMP:
        return None
    return (
        f"{share_at_clamp:.1%} of the predictions sit on a clamp: their figures are those of a constant there. "
        "Look whether predictions are scaled twice, and whether the range fits the data."
    )


def inverted(rank_correlation: float) -> str | None:
    """Predictions fall where the truth rises.

    Args:
        rank_correlation: Spearman's of prediction and truth, -1 to 1; nan: not known.
    """
    if not rank_correlation < 0:
        return None
    return (
        f"The rank correlation of prediction and truth is {rank_correlation:.2f}: far is predicted near. "
        "Look whether one of them is disparity or inverse depth and is read as depth."
    )


def wrong_unit(median_ratio: float) -> str | None:
    """Predictions are 10, 100, 256 or 1000 times too large or too small, within a tenth.

    Args:
        median_ratio: of predicted to true depth, in the middle; nan: not known.
    """
    if not 0 < median_ratio < math.inf:
        return None
    for factor, meaning in _UNITS.items():
        for wanted, name in ((float(factor), f"{factor}"), (1 / factor, f"1/{factor}")):
            if wanted / _NEAR < median_ratio < wanted * _NEAR:
                return (
                    f"Predictions are {median_ratio:.4g} times the truth in the middle, which is near {name}: "
                    f"{meaning}. Look at the scale of the targets and of the predictions."
                )
    return None


def predictions_that_do_not_vary(inside: float, between: float) -> str | None:
    """The model puts out the same whatever it sees, or each of its maps is flat.

    Args:
        inside: standard deviation inside an image over the mean size, the mean of the images; nan: not known.
        between: range over the images at one place over its middle; nan: not known, as of a single image.
    """
    if inside < _SMALLEST_VARIATION:
        return "Every predicted map is flat: each of its pixels has the same depth."
    if between < _SMALLEST_VARIATION:
        return "The predictions of different images are the same: the model does not look at its input."
    return None
