"""A picture of the worst, median and best images of an evaluation: input, truth, prediction, error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from perpixel.data.cache import DecodedSamples
from perpixel.evaluation.evaluate import Evaluation
from perpixel.images import write_image
from perpixel.inference.base import ImagePredictor

_Item = TypeVar("_Item")

_TILE = 150
_GAP = 6
_CAPTION = 18
_EACH = 4
_CLOSE_EACH, _CLOSE_TILE = 2, 200
_COLUMNS = ("input", "truth", "prediction", "error")


def write_gallery(
    path: Path,
    predictor: ImagePredictor,
    decoded: DecodedSamples,
    positions: Sequence[int],
    evaluation: Evaluation,
    figure: str,
) -> None:
    """Write a PNG with four images each of the worst, the median and the best by a per-image figure.

    Args:
        positions: where the rows of ``evaluation.per_image`` stand in ``decoded``.
        figure: a figure that every image has.
    """
    values = np.array([row[figure] for row in evaluation.per_image], dtype=float)
    if evaluation.infos[figure].direction == "lower":
        values = -values
    # Of equal figures, a truth of more than one value is the more telling one: it stands nearer the best.
    varied = [np.ptp(decoded.target(position)) > 0 for position in positions]
    ranked = [int(index) for index in np.lexsort((varied, values)) if np.isfinite(values[index])]
    if not ranked:
        return
    groups = []
    for name, rows in extremes(ranked).items():
        groups.append(
            (name, [_row(predictor, decoded, positions[row], evaluation.per_image[row], figure) for row in rows])
        )
    write_image(path, sheet(groups, (*_COLUMNS[:-1], f"error ({predictor.task.error_legend})")))


def write_close_ups(
    path: Path,
    predictor: ImagePredictor,
    decoded: DecodedSamples,
    positions: Sequence[int],
    evaluation: Evaluation,
    figure: str,
) -> None:
    """Write a PNG with parts of the darkest, the worst and the middle images, enlarged; none where the task has none.

    Args:
        positions: where the rows of ``evaluation.per_image`` stand in ``decoded``.
        figure: a figure that every image has.
    """
    sign = -1 if evaluation.infos[figure].direction == "lower" else 1
    values = sign * np.array([row[figure] for row in evaluation.per_image], dtype=float)
    ranked = [int(index) for index in np.argsort(values) if np.isfinite(values[index])]
    darkest = sorted(ranked, key=lambda row: evaluation.properties[row]["brightness"])
    chosen: dict[int, str] = {}
    for name, rows in (("darkest", darkest), ("worst", ranked), ("middle", extremes(ranked)["median"])):
        for row in rows[:_CLOSE_EACH]:
            chosen.setdefault(row, name)
    entries = []
    for row, name in chosen.items():
        image_hwc, target_hw = decoded.image(positions[row]), decoded.target(positions[row])
        parts = predictor.task.close_up(image_hwc, predictor.predict([image_hwc])[0], target_hw)
        if not parts:
            return
        told = evaluation.per_image[row]
        entries.append((f"{name}: {told['sample']}  {figure} {told[figure]:.3f}", list(parts.values())))
        columns = list(parts)
    if entries:
        write_image(path, sheet([("where the error is largest", entries)], columns, tile=_CLOSE_TILE))


def extremes(ranked: Sequence[_Item]) -> dict[str, list[_Item]]:
    """Some of the worst, the middle and the best of what is ranked, worst first; none of few comes twice."""
    count = min(_EACH, max(1, len(ranked) // 3))
    middle = max(0, len(ranked) // 2 - count // 2)
    return {
        "worst": list(ranked[:count]),
        "median": list(ranked[middle : middle + count]),
        "best": list(ranked[::-1][:count]),
    }


def _row(
    predictor: ImagePredictor, decoded: DecodedSamples, position: int, row: dict[str, Any], figure: str
) -> tuple[str, list[NDArray[np.uint8]]]:
    task = predictor.task
    image_hwc, target_hw = decoded.image(position), decoded.target(position)
    prediction_hw = predictor.predict([image_hwc])[0]
    panels = task.panels(image_hwc, prediction_hw, target_hw)
    tiles = [panels[column] for column in _COLUMNS]
    return f"{row['sample']}  {figure} {row[figure]:.3f}", tiles


def sheet(
    groups: Sequence[tuple[str, Sequence[tuple[str, Sequence[NDArray[np.uint8]]]]]],
    columns: Sequence[str],
    *,
    tile: int = _TILE,
) -> NDArray[np.uint8]:
    """A picture of groups side by side; in each, a row an image: its caption, and a tile a column.

    Tiles are scaled to the area of ``tile`` x ``tile`` pixels, so that wide images are seen as well as square ones.
    """
    scaled = [
        (name, [(caption, [_scaled(tile_hwc, tile) for tile_hwc in tiles]) for caption, tiles in entries])
        for name, entries in groups
    ]
    pictures = [picture for _, entries in scaled for _, tiles in entries for picture in tiles]
    width = max(picture.width for picture in pictures) + _GAP
    height = max(picture.height for picture in pictures) + _CAPTION + _GAP
    group_width = len(columns) * width + 3 * _GAP
    rows = max(len(entries) for _, entries in groups)
    page = Image.new("RGB", (group_width * len(groups), 2 * _CAPTION + rows * height), "white")
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(12)
    for number, (name, lines) in enumerate(scaled):
        left = number * group_width + _GAP
        draw.text((left, 0), f"{name}:  {'  |  '.join(columns)}", "black", font)
        for line, (caption, row) in enumerate(lines):
            top = 2 * _CAPTION + line * height
            draw.text((left, top - 2), caption, "black", font)
            for column, picture in enumerate(row):
                page.paste(picture, (left + column * width, top + _CAPTION - 2))
    return np.asarray(page)


def _scaled(tile_hwc: NDArray[np.uint8], tile: int) -> Image.Image:
    picture = Image.fromarray(tile_hwc)
    factor = tile / (picture.width * picture.height) ** 0.5
    smooth = Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.NEAREST
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))), smooth)
