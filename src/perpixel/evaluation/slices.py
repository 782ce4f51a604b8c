"""Slices: on which kind of images a model is worst, by what is known of images beside their figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.evaluation.statistics import mean_interval
from perpixel.luma import luma_full
from perpixel.reporting.markdown import markdown_table
from perpixel.run import write_atomic, write_rows

__all__ = ["RULE", "Slice", "brightness", "slices_of", "worst_lines", "write_slices"]

GROUP = "group"
FEWEST = 5  # images of a slice that is told of
_PARTS = 4  # of the range of a number, equally many images each
_MOST_WORDS = 30  # different words of a column; of more, each would be a slice of its own
_SHOWN = 3
_LEVEL = 0.05
RULE = (
    "A slice is clearly worse when its interval, widened for the number of slices (Bonferroni), lies wholly on the"
    " worse side of the mean of all images."
)


@dataclass(frozen=True)
class Slice:
    """Images that are alike in one property.

    Attributes:
        property, values: what they have in common.
        figure: what is told of them.
        images: how many have the figure.
        mean, low, high: the figure with its 95 % interval (bootstrap over images, or over their groups).
        difference: mean of the slice minus mean of all images.
        clearly_worse: by the rule that slices.md tells.
    """

    property: str
    values: str
    figure: str
    images: int
    mean: float
    low: float
    high: float
    difference: float
    clearly_worse: bool


def brightness(image_hwc: NDArray[Any]) -> float:
    """Mean luma, 0 to 1, of uint8 or uint16."""
    return float(luma_full(image_hwc).mean() / np.iinfo(image_hwc.dtype).max)


def slices_of(
    value_n: Sequence[float],
    properties: Mapping[str, Sequence[float | str]],
    groups: Sequence[str],
    *,
    figure: str,
    higher: bool,
) -> list[Slice]:
    """Slices of at least five images, the worst first.

    Numbers are cut into four parts of equally many images; words are taken as they are, where there are few of them.
    An empty text, and nan, belong to no slice, and neither do images without the figure.

    Args:
        value_n: the figure of each image; nan where it has none.
        properties: by name, a value for each image.
        groups: the group of each image; an empty text is an image by itself. Groups are slices too.
        figure: its name.
        higher: whether a higher figure is better.
    """
    values = np.asarray(value_n, dtype=float)
    known = np.isfinite(values)
    if not known.any():
        return []
    parts = [
        (name, label, members, [] if name == GROUP else [groups[index] for index in members])
        for name, column in [*properties.items(), (GROUP, groups)]
        for label, members in _parts(column, known, few=name != GROUP).items()
    ]
    whole = float(values[known].mean())
    sign = 1 if higher else -1
    found = []
    for name, label, members, own_groups in parts:
        if np.isfinite(values[members]).sum() < FEWEST:
            continue
        unknown = (float(np.nanmean(values[members])), math.nan, math.nan)
        interval = mean_interval(values[members], own_groups or None) or unknown
        worse = _wholly_worse(interval, whole, sign)
        if worse and len(parts) > 1:
            wider = mean_interval(values[members], own_groups or None, level=_LEVEL / len(parts))
            worse = wider is not None and _wholly_worse(wider, whole, sign)
        found.append(Slice(name, label, figure, len(members), *interval, interval[0] - whole, worse))
    return sorted(found, key=lambda item: (sign * item.mean, item.property, item.values))


def write_slices(folder: Path, slices: Sequence[Slice]) -> None:
    """Write slices.csv and slices.md, or remove them where there are no slices."""
    table, page = folder / "slices.csv", folder / "slices.md"
    if not slices:
        table.unlink(missing_ok=True)
        page.unlink(missing_ok=True)
        return
    write_rows(table, [asdict(item) for item in slices])
    figure = slices[0].figure
    headings = ["property", "values", "images", figure, "from", "to", "against all", "clearly worse"]
    rows = [
        [
            item.property,
            item.values,
            str(item.images),
            *(f"{value:.4f}" for value in (item.mean, item.low, item.high)),
            f"{item.difference:+.4f}",
            "yes" if item.clearly_worse else "",
        ]
        for item in slices
    ]
    lines = [
        "# Slices, the worst first",
        "",
        f"Mean over images of each image's own {figure}, with its 95 % interval. {RULE} Slices of fewer than {FEWEST}"
        " images are left out; one image is in many slices.",
        "",
        *markdown_table(headings, rows, left=2),
        "",
    ]
    write_atomic(page, "\n".join(lines))


def worst_lines(slices: Sequence[Slice]) -> list[str]:
    """The three worst of the slices that are clearly worse than the whole, and the rule; else one line."""
    if not slices:
        return []
    worse = [item for item in slices if item.clearly_worse][:_SHOWN]
    if not worse:
        return [f"slices: none of {len(slices)} is clearly worse than the whole (slices.md)"]
    whole = worse[0].mean - worse[0].difference
    return [
        f"worst slices, by {worse[0].figure} (an image; mean of all {whole:.4f}):",
        *(
            f"  {item.property} {item.values}: {item.mean:.4f} ({item.low:.4f} to {item.high:.4f}),"
            f" {item.images} images"
            for item in worse
        ),
        f"  {RULE}",
    ]


def _wholly_worse(interval: tuple[float, float, float], whole: float, sign: int) -> bool:
    _, low, high = interval
    return bool(high < whole if sign > 0 else low > whole)


def _parts(column: Sequence[float | str], known: NDArray[np.bool_], *, few: bool) -> dict[str, NDArray[np.int64]]:
    """By the name of each part of a column's values, where its images stand; none where all are alike."""
    places = np.array(
        [place for place, value in enumerate(column) if known[place] and str(value) not in ("", "nan")], dtype=np.int64
    )
    told = [column[place] for place in places]
    numbers = _as_numbers(told) if few else None
    if numbers is None:
        words = sorted({str(value) for value in told})
        if few and len(words) > _MOST_WORDS:
            return {}
        labels = [str(value) for value in told]
    else:
        labels = _quantile_labels(numbers)
    label_n = np.array(labels, dtype=object)
    parts = {label: places[label_n == label] for label in dict.fromkeys(labels)}
    if len(parts) < 2:
        return {}
    return {label: members for label, members in parts.items() if len(members) >= FEWEST}


def _as_numbers(values: Sequence[float | str]) -> NDArray[np.float64] | None:
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _quantile_labels(numbers: NDArray[np.float64]) -> list[str]:
    """The range of each number's part; a value that many images share is a part by itself where it is the smallest."""
    if not len(numbers):
        return []
    edges = np.unique(np.quantile(numbers, np.arange(1, _PARTS) / _PARTS, method="inverted_cdf"))
    part_n = np.searchsorted(edges, numbers, side="left")
    names = {}
    for part in np.unique(part_n):
        own = numbers[part_n == part]
        low, high = f"{own.min():.3g}", f"{own.max():.3g}"
        names[part] = low if low == high else f"{low} to {high}"
    if len(set(names.values())) < len(names):  # parts that differ by less than three digits tell
        names = {part: f"{name} (part {part + 1})" for part, name in names.items()}
    return [names[part] for part in part_n]
