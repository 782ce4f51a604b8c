"""What may be wrong with label files whose values the class map does not name."""

from __future__ import annotations

from collections.abc import Collection

MOST_VALUES = 64
"""More unknown values than these are no classes: a photograph, a depth map, numbers of instances."""


def hint_of_values(seen: Collection[int], named: Collection[int], ignored: Collection[int], foreground: str) -> str:
    """The likeliest cure, as a sentence.

    Args:
        seen: raw values in the files.
        named: raw values of the classes.
        ignored: raw values without a class.
        foreground: name of the second class of two; "" where there are more.
    """
    values, classes = set(seen) - set(ignored), set(named)
    unknown = values - classes
    if len(unknown) > MOST_VALUES:
        return (
            "so many values are no classes. If these are the photographs, data.images and data.targets look swapped;"
            " if they are numbers of instances or depths, give label maps of classes."
        )
    if {value - 1 for value in values} <= classes:
        return _off_by_one("more", "write each value in target.classes one higher.")
    if {value + 1 for value in values} <= classes:
        return _off_by_one("less", "write each value in target.classes one lower.")
    counted = classes == set(range(len(classes)))
    if counted and unknown == {len(classes)}:
        return (
            f"{len(classes)} is one more than the last class: the files may count their classes from 1, with 0 for"
            " 'no label'. Then write each value in target.classes one higher, and 0 in target.ignore."
        )
    if len(unknown) == 1 and unknown <= {255, 65535}:
        other = f"; or for the foreground: then add it to the values of {foreground}" if foreground else ""
        return f"{max(unknown)} often stands for 'no label': then write it in target.ignore{other}."
    if not counted and values - {255} <= set(range(len(classes) + 1)):
        return (
            "these look like class indices, counted from 0, and target.classes names the raw values of other files."
            " If they are, write the indices there, and make sure of their order."
        )
    if counted:
        return (
            f"target.classes names the indices 0 to {len(classes) - 1}, and these look like raw values. Write the raw"
            " value of each class there: perpixel counts the classes by itself."
        )
    return "name these values in target.classes, or in target.ignore if they stand for no class."


def _off_by_one(direction: str, cure: str) -> str:
    return f"every value is one {direction} than one that is named: the files look off by one. If they are, {cure}"


def hint_of_colors(seen: Collection[int], named: Collection[int]) -> str:
    """The same for colours, each as red * 65536 + green * 256 + blue."""
    if len(set(seen) - set(named)) > MOST_VALUES:
        return (
            "so many colours are no classes. If these are the photographs, data.images and data.targets look swapped;"
            " if edges are smeared, the files were resized or saved with loss: use the original ones."
        )
    exchanged = {(color & 255) << 16 | color & 0xFF00 | color >> 16 for color in seen}
    if exchanged <= set(named):
        return "red and blue are exchanged: target.classes gives each colour as [red, green, blue]."
    return "name these colours in target.classes, or in target.ignore if they stand for no class."
