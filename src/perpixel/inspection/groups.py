"""Which samples belong together: frames of a sequence, views of a scene, exact and near copies, tiles that join."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.inspection.record import Record

__all__ = ["Grouping", "distance", "find_grouping", "in_sequence", "joining_tiles", "near_copies", "trailing_number"]

_ALIKE = 0.55  # neighbours differ at most so much of what random pairs differ: a sequence
_LEAST_BLOCKS = 4  # of a sequence
_COPY_DISTANCE = 2.5  # levels of 255, mean over the thumbnail
_COPY_BITS = 6  # of 64 of the difference hash
_TILE_MATCH = 0.92  # correlation of two borders
_TILE_LEAD = 0.1  # over the next best border
_TILE_CHANCE = 3  # times as many joints as chance makes, and ten more: a mosaic
_CHUNK = 1024


@dataclass(frozen=True)
class Grouping:
    """A regular expression of ids whose parentheses hold the group, and what the groups are."""

    pattern: str
    why: str


def thumbs(records: Sequence[Record]) -> NDArray[np.float32]:
    """thumbs_nd of records with an image, 0 to 255."""
    return np.stack([record.image.thumb_hwc.reshape(-1) for record in records if record.image]).astype(np.float32)


def distance(
    thumbs_nd: NDArray[np.float32], left: Sequence[int] | NDArray[Any], right: Sequence[int] | NDArray[Any]
) -> NDArray[np.float32]:
    """Mean absolute difference of thumbnails, pair by pair."""
    return np.asarray(np.abs(thumbs_nd[list(left)] - thumbs_nd[list(right)]).mean(axis=1), dtype=np.float32)


def trailing_number(id_: str) -> tuple[str, int]:
    """What stands before the last number of an id, and that number; -1 where there is none."""
    match = re.fullmatch(r"(.*?)([0-9]+)[^0-9]*", id_)
    return (match[1], int(match[2])) if match else (id_, -1)


def in_sequence(records: Sequence[Record]) -> float:
    """Median difference of neighbours by number, in relation to that of random pairs; 1 where there are no numbers."""
    numbers = [trailing_number(record.sample.id) for record in records]
    if len(records) < 12 or sum(number >= 0 for _, number in numbers) < 0.9 * len(records):
        return 1.0
    order = sorted(range(len(records)), key=lambda index: numbers[index])
    thumbs_nd = thumbs(records)
    near = np.median(distance(thumbs_nd, order[:-1], order[1:]))
    far = np.median(distance(thumbs_nd, order, np.random.default_rng(0).permutation(order).tolist()))
    return float(near / far) if far > 0 else 1.0


def find_grouping(records: Sequence[Record]) -> Grouping | None:
    """How the names tell which samples belong together, where they look alike too; None where they do not."""
    records = [record for record in records if record.image is not None]
    if len(records) < 12:
        return None
    ids = [record.sample.id for record in records]
    for pattern in (r"([^/_\-]+)[_\-][^/]*$", r"(.+)[_\-][^_\-]+$", r"(.+)/[^/]+$"):
        groups = [match[1] if (match := re.search(pattern, id_)) else "" for id_ in ids]
        if all(groups) and _holds_together(records, groups):
            return Grouping(pattern, f"{len(set(groups))} groups by name, such as {groups[0]!r}, look alike inside")
    if in_sequence(records) < _ALIKE:
        return _blocks(ids)
    return None


def _holds_together(records: Sequence[Record], groups: Sequence[str]) -> bool:
    sizes = Counter(groups)
    if not 5 <= len(sizes) <= 0.8 * len(groups) or max(sizes.values()) > 0.5 * len(groups):
        return False
    members: dict[str, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    inside = [(items[0], item) for items in members.values() for item in items[1:4]]
    thumbs_nd = thumbs(records)
    near = np.median(distance(thumbs_nd, [a for a, _ in inside], [b for _, b in inside]))
    mixed = np.random.default_rng(0).permutation(len(groups)).tolist()
    return bool(near < 0.8 * np.median(distance(thumbs_nd, range(len(groups)), mixed)))


def _blocks(ids: Sequence[str]) -> Grouping | None:
    """Blocks of neighbouring numbers, by leaving out their last digits; numbers must have leading zeros."""
    for digits in range(5, 0, -1):
        pattern = rf"^(.*[0-9])[0-9]{{{digits}}}[^0-9]*$"
        groups = [match[1] if (match := re.search(pattern, id_)) else "" for id_ in ids]
        if all(groups) and _LEAST_BLOCKS <= len(set(groups)) <= 0.5 * len(ids):
            return Grouping(
                pattern, f"neighbours by number look alike, so {len(set(groups))} blocks of them stay together"
            )
    return None


# ---------------------------------------------------------------- copies


def near_copies(records: Sequence[Record]) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose pictures are nearly the same: equal hashes but for six bits, and equal thumbnails.

    Flat pictures, which all look alike, are left out.
    """
    usable = [index for index, record in enumerate(records) if record.image is not None and is_rich(record)]
    if len(usable) < 2:
        return
    hashes_nb = np.array([list(bytes.fromhex(records[index].image.hash)) for index in usable], dtype=np.uint8)  # type: ignore[union-attr]
    bits_nk = np.unpackbits(hashes_nb, axis=1).astype(np.float32) * 2 - 1
    thumbs_nd = thumbs([records[index] for index in usable])
    for start in range(0, len(usable), _CHUNK):
        different = (64 - bits_nk[start : start + _CHUNK] @ bits_nk.T) / 2
        rows, columns = np.nonzero(different <= _COPY_BITS)
        rows += start
        keep = rows < columns
        rows, columns = rows[keep], columns[keep]
        for left, right, apart in zip(rows, columns, distance(thumbs_nd, rows, columns), strict=True):
            if apart <= _COPY_DISTANCE:
                yield usable[left], usable[right]


def is_rich(record: Record) -> bool:
    """Whether a picture has enough in it to be told from others."""
    return record.image is not None and float(record.image.thumb_hwc.astype(np.float32).std()) > 6


# ---------------------------------------------------------------- tiles


def joining_tiles(records: Sequence[Record]) -> list[tuple[int, int]]:
    """Pairs of positions where one picture goes on where the other ends: tiles cut from one mosaic.

    Borders of neighbouring tiles are neighbouring lines of pixels: they correlate, and each is by far the best that the
    other one has. How many of such matches chance makes is told by those of ends with ends and beginnings with
    beginnings, which cannot join; of a set with hardly more than these, nothing is returned.
    """
    usable = [index for index, record in enumerate(records) if is_rich(record)]
    if len(usable) < 2:
        return []
    borders_n4k = np.stack([records[index].image.borders_4n for index in usable]).astype(np.float32)  # type: ignore[union-attr]
    found: list[tuple[int, int]] = []
    chance = 0.0
    for end, begin in ((1, 0), (3, 2)):  # bottom to top, right to left
        found += _mutual(borders_n4k[:, end], borders_n4k[:, begin])
        chance += sum(len(_mutual(borders_n4k[:, side], borders_n4k[:, side])) for side in (end, begin)) / 2
    return [(usable[left], usable[right]) for left, right in found] if len(found) > _TILE_CHANCE * chance + 10 else []


def _mutual(ends_nk: NDArray[np.float32], begins_nk: NDArray[np.float32]) -> list[tuple[int, int]]:
    """(position of the end, position of the beginning) of lines that clearly belong to each other."""
    left, right = (_standardised(lines) for lines in (ends_nk, begins_nk))
    count = len(left)
    best_right, best_left = np.zeros(count, dtype=int), np.zeros(count, dtype=int)
    score, lead, column_score = (np.full(count, -1, dtype=np.float32) for _ in range(3))
    for start in range(0, count, _CHUNK):
        scores = left[start : start + _CHUNK] @ right.T
        rows = np.arange(len(scores))
        scores[rows, rows + start] = -1  # a picture does not follow itself
        two_best = np.partition(scores, -2, axis=1)[:, -2:]
        part = np.s_[start : start + _CHUNK]
        best_right[part], score[part], lead[part] = scores.argmax(1), two_best[:, 1], two_best[:, 1] - two_best[:, 0]
        top = scores.max(0)
        better = top > column_score
        column_score[better], best_left[better] = top[better], scores.argmax(0)[better] + start
    likely = np.nonzero((score > _TILE_MATCH) & (lead > _TILE_LEAD) & (best_left[best_right] == np.arange(count)))[0]
    return [(int(index), int(best_right[index])) for index in likely]


def _standardised(lines_nk: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0 and length 1; flat lines become 0, and match nothing."""
    centred = lines_nk - lines_nk.mean(axis=1, keepdims=True)
    spread = np.linalg.norm(centred, axis=1, keepdims=True)
    flat = spread < 4 * np.sqrt(lines_nk.shape[1])
    return np.asarray(np.where(flat, 0, centred / np.maximum(spread, 1e-6)), dtype=np.float32)
