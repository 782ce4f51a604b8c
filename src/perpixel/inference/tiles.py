"""Large images in overlapping tiles: where they lie, and how much each of them counts in the whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import RequestError

_RAMP = 8  # pixels over which one tile goes over into the next, where both are right


@dataclass(frozen=True)
class Span:
    """A tile along one axis: where it lies, and the weight of each of its pixels; those of all tiles add up to 1."""

    place: slice
    weight_n: NDArray[np.float32]


@dataclass(frozen=True)
class Tile:
    """A part of an image."""

    rows: Span
    columns: Span

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return len(self.rows.weight_n), len(self.columns.weight_n)

    def cut(self, image_hwc: NDArray[np.generic]) -> NDArray[np.generic]:
        """The tile of an image."""
        return image_hwc[self.rows.place, self.columns.place]

    def add(self, scores_khw: NDArray[np.float32], total_khw: NDArray[np.float32], scale: int) -> None:
        """Add the tile's scores to those of the whole image; both are ``scale`` times as large as the image."""
        rows, columns = (slice(scale * span.place.start, scale * span.place.stop) for span in (self.rows, self.columns))
        weight_h, weight_w = (np.repeat(span.weight_n, scale) for span in (self.rows, self.columns))
        total_khw[:, rows, columns] += scores_khw * weight_h[:, None] * weight_w


def plan_tiles(size_hw: tuple[int, int], side: int, *, context: int | None, step: int) -> list[Tile]:
    """Tiles of at most ``side`` pixels that cover an image, row by row.

    What lies nearer than ``context`` to an edge of a tile that is no edge of the image counts nothing: the whole of
    the tiles is then what the network makes of the whole image. Where the context is not known, a sixteenth of the
    tile counts nothing, and over the next eighth the tiles go over into each other.

    Args:
        context: how many pixels on each side an output pixel depends on; None: unknown, or the whole image.
        step: with a known context, tiles begin at multiples of it.

    Raises:
        RequestError: the tiles are too small for the context.
    """
    if context is None:
        margin, ramp, step = side // 16, side // 8, 1
    else:
        margin, ramp = context, _RAMP
    overlap = 2 * margin + ramp + 2 * step
    if side < overlap + step and max(size_hw) > side:
        raise RequestError(
            f"tiles of {side} pixels are too small for this network",
            where="inference.tile",
            rule=f"an output pixel depends on {margin} pixels on each side, so that {overlap + step} are the least.",
            cure=f"set inference.tile={max(128, 4 * margin)}, or to null: no tiles.",
        )
    rows, columns = (_spans(length, side, overlap, margin, ramp, step) for length in size_hw)
    return [Tile(row, column) for row in rows for column in columns]


def _spans(length: int, side: int, overlap: int, margin: int, ramp: int, step: int) -> list[Span]:
    if length <= side:
        return [Span(slice(0, length), np.ones(length, dtype=np.float32))]
    gaps = math.ceil((length - side) / (side - overlap))
    starts = [(number * (length - side) // gaps) // step * step for number in range(gaps)]
    places = [slice(start, start + side) for start in starts]
    places.append(slice(-(-(length - side) // step) * step, length))
    weights = [_weights(place, length, margin, ramp) for place in places]
    total_n = np.zeros(length)
    for place, weight_n in zip(places, weights, strict=True):
        total_n[place] += weight_n
    return [
        Span(place, (weight_n / total_n[place]).astype(np.float32))
        for place, weight_n in zip(places, weights, strict=True)
    ]


def _weights(place: slice, length: int, margin: int, ramp: int) -> NDArray[np.float64]:
    """0 next to an edge inside the image, then rising to 1."""
    at_n = np.arange(place.start, place.stop)
    before_n = at_n - place.start if place.start > 0 else np.full(len(at_n), np.inf)
    behind_n = place.stop - 1 - at_n if place.stop < length else np.full(len(at_n), np.inf)
    return np.asarray(((np.minimum(before_n, behind_n) - margin + 1) / (ramp + 1)).clip(0, 1))
