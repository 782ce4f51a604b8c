"""What the targets of a bare folder are (label maps, depth maps, clean pictures), and the section that says so."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perpixel.data.samples import Sample
from perpixel.errors import DataError
from perpixel.inspection.known import known_classes, named_palette
from perpixel.inspection.layout import Layout
from perpixel.inspection.measure import Reading, measure_all, spread
from perpixel.inspection.metres import depth_target
from perpixel.inspection.record import LabelFacts, Record

__all__ = ["Meaning", "find_meaning"]

_LOOKED_AT = 40
_MOST_CLASSES = 64
_DEPTH_WORDS = ("depth", "disp", "range", "distance")


@dataclass(frozen=True)
class Meaning:
    """What targets are, with the sentences that say why and how sure that is.

    Attributes:
        target: the target section of a recipe.
        facts: sentences.
        swapped: the files of the layout's targets are the images.
        records: of the pairs that were looked at, for sizes.
    """

    target: dict[str, Any]
    facts: list[str]
    swapped: bool = False
    records: list[Record] = field(default_factory=list)


def find_meaning(layout: Layout) -> Meaning:
    """Look at some pairs, evenly spread, and say what their targets are."""
    samples = [_sample(layout, key) for key in spread(layout.keys, _LOOKED_AT)]
    flipped = [Sample(sample.id, sample.target, sample.image) for sample in samples if sample.target is not None]
    forward, backward = (measure_all(side, _LABELS) for side in (samples, flipped))
    sides = [_side(records) for records in (forward, backward)]
    swapped = sides[1] == "labels" and sides[0] == "photo"
    if sides == ["photo", "photo"]:
        return _pictures(layout, samples, forward)
    if swapped:
        samples, forward = flipped, backward
        layout = layout.swapped()
    what = "labels" if "labels" in sides else "depth"
    if what == "depth" or (any(word in layout.targets.template.lower() for word in _DEPTH_WORDS) and not swapped):
        records = measure_all(samples, Reading("depth", "depth"))
        readable = [record for record in records if record.depth is not None]
        if readable:
            target, facts = depth_target(readable, layout.images.template, layout.targets.template)
            return Meaning(target, facts, swapped, forward)
    return _labels(forward, swapped)


_LABELS = Reading("labels", "labels")


def _sample(layout: Layout, key: tuple[str, str]) -> Sample:
    return Sample("/".join(filter(None, key)), layout.images.files[key], layout.targets.files[key], key[0] or None)


def _side(records: Sequence[Record]) -> str:
    """What the target files of most records are: ``labels``, ``photo`` (colours without number) or ``numbers``."""
    kinds = Counter(_kind(record) for record in records)
    return kinds.most_common(1)[0][0]


def _kind(record: Record) -> str:
    label = record.label
    if label is None:
        return "numbers"
    if label.values > _MOST_CLASSES and label.colored:
        return "photo"
    if label.values <= _MOST_CLASSES or (label.lossy and _near_few(label)):
        return "labels"
    if label.lossy:
        return "photo"
    return "photo" if _looks_like_photo(record) else "numbers"


def _near_few(label: LabelFacts) -> bool:
    """A JPEG of a label map: nearly all pixels lie around few values."""
    pixels = sum(label.counts.values())
    tops = sorted(label.counts, key=lambda value: -label.counts[value])[:4]
    near = sum(count for value, count in label.counts.items() if min(abs(value - top) for top in tops) <= 4)
    return near > 0.9 * pixels


def _looks_like_photo(record: Record) -> bool:
    """A grey photograph of 8 bits: noise and texture everywhere, which neither depth maps nor instances have."""
    label = record.label
    assert label is not None  # the caller looked
    return label.kind == "8-bit" and float(label.edges_hw.mean()) > 0.6 * 255 and label.values > 100


def _labels(records: Sequence[Record], swapped: bool) -> Meaning:
    counts: Counter[int] = Counter()
    images: Counter[int] = Counter()
    colored = False
    for record in records:
        if record.label is not None:
            counts.update(record.label.counts)
            images.update(record.label.counts.keys())
            colored |= record.label.colored
    values = sorted(value for value in counts if counts[value])
    if not values:
        raise _unreadable(records)
    if any(record.label is not None and record.label.lossy for record in records):
        values = sorted(value for value, _ in counts.most_common(2))
    if colored:
        values = _as_colors(records)
        target, said = named_palette(values)
    else:
        target, said = known_classes(values)
    shown = ", ".join(f"{value} in {images[value]}" for value in values[:16]) + (" ..." if len(values) > 16 else "")
    held = f"the targets hold {len(values)} different values ({shown} of {len(records)} files looked at)"
    facts = [f"task: segmentation (sure): {held}", said]
    return Meaning(target, facts, swapped, list(records))


def _unreadable(records: Sequence[Record]) -> DataError:
    said = [f"{file.said}: {record.sample.target}" for record in records if (file := record.target_file) is not None]
    return DataError("none of the targets can be read", details=said[:8], cure="fetch or save them again.")


def _as_colors(records: Sequence[Record]) -> list[int]:
    """Colours as keys; of a file that is grey all over the colour that its grey value is."""
    keys: set[int] = set()
    for record in records:
        if record.label is not None:
            grey = not record.label.colored
            keys |= {value * 0x010101 if grey else value for value in record.label.counts}
    return sorted(keys)


# ---------------------------------------------------------------- pictures


def _pictures(layout: Layout, samples: Sequence[Sample], records: Sequence[Record]) -> Meaning:
    """Both sides are photographs. The clean side is the larger one; of equal ones the one that the names call so, then
    the one with less noise."""
    looked = measure_all(samples, Reading("picture", "picture"))
    both = [record for record in looked if record.image is not None and record.picture is not None]
    factors = Counter(_factor(record) for record in both if record.target_file is not None)
    factor = factors.most_common(1)[0][0] if factors else 1.0
    cleaner = statistics.median(
        [record.image.noise - record.picture.noise for record in both if record.image and record.picture] or [0]
    )
    swapped = factor < 1 or (factor == 1 and layout.words == 0 and cleaner < 0)
    sure = "sure" if factor != 1 or layout.words else "by the noise alone: make sure"
    scale = round(1 / factor if factor < 1 else factor)
    side = "picture" if not swapped else "image"
    bits = max((_bits(record, side) for record in both), default=8)
    facts = [
        f"task: restoration ({sure}): both sides are photographs; the clean ones are"
        f" {f'{scale} times as high and wide' if scale > 1 else 'as large as the others'}, of {bits} bits",
    ]
    target = {"kind": "restoration", "scale": scale if scale in (1, 2, 3, 4) else 1, "bits": bits}
    return Meaning(target, facts, swapped, looked)


def _factor(record: Record) -> float:
    file = record.target_file
    assert file is not None  # the caller looked
    return round(file.height / max(1, record.image_file.height), 3)


def _bits(record: Record, side: str) -> int:
    file = record.target_file if side == "picture" else record.image_file
    return 16 if file is not None and file.bits == 16 else 8
