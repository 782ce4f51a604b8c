"""Stored values of label maps, and the classes that a recipe makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from perpixel.inspection.checks import View
from perpixel.inspection.record import LabelFacts, Record
from perpixel.recipe import SegmentationTarget

__all__ = ["by_color", "class_counts", "class_of", "labelled", "raw_counts", "target_of", "values_of"]


def target_of(view: View) -> SegmentationTarget:
    """The target section of a recipe that names classes."""
    assert isinstance(view.recipe.target, SegmentationTarget)  # checks of labels are of such recipes
    return view.recipe.target


def labelled(view: View) -> Iterator[tuple[Record, LabelFacts]]:
    """Records whose label map could be read."""
    for record in view.records:
        if record.label is not None:
            yield record, record.label


def raw_counts(records: Sequence[Record]) -> tuple[Counter[int], Counter[int]]:
    """Pixels and images of every stored value (of colours red * 65536 + green * 256 + blue)."""
    pixels: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for record in records:
        if record.label is not None:
            pixels.update(record.label.counts)
            images.update(record.label.counts.keys())
    return pixels, images


def class_of(target: SegmentationTarget) -> dict[int, int]:
    """Class index by stored value; -1 of what is ignored."""
    named = {_key(value): index for index, spec in enumerate(target.classes) for value in spec.values}
    return named | {_key(value): -1 for value in target.ignore}


def _key(value: int | tuple[int, int, int]) -> int:
    return value if isinstance(value, int) else value[0] << 16 | value[1] << 8 | value[2]


def by_color(target: SegmentationTarget) -> bool:
    """Whether classes are told by colours."""
    return not isinstance(target.classes[0].values[0], int)


def values_of(label: LabelFacts, target: SegmentationTarget) -> dict[int, int]:
    """Pixels by stored value, or by colour where the target names colours: grey files hold grey colours."""
    if by_color(target) and not label.colored and label.kind.endswith("rgb"):
        return {value * 0x010101: count for value, count in label.counts.items()}
    return label.counts


def class_counts(label: LabelFacts, target: SegmentationTarget) -> Counter[int]:
    """Pixels by class index; -1 is ignored, -2 unknown."""
    known, counts = class_of(target), Counter[int]()
    for value, count in values_of(label, target).items():
        counts[known.get(value, -2)] += count
    return counts
