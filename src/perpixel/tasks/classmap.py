"""The one declaration of what raw label values mean, read without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.errors import DataError
from perpixel.images import read_label_map, write_image, write_label_map
from perpixel.recipe import SegmentationTarget

IGNORED = 255


class ClassMap:
    """Raw values or colours to class indices and back; index 255 is ignored by every loss and metric."""

    def __init__(self, target: SegmentationTarget) -> None:
        self.target = target
        pairs = [(value, index) for index, spec in enumerate(target.classes) for value in spec.values]
        pairs += [(value, IGNORED) for value in target.ignore]
        self.by_color = not isinstance(pairs[0][0], int)
        keys = np.array([_color_key(value) if self.by_color else value for value, _ in pairs], dtype=np.int64)
        order = np.argsort(keys)
        self._keys = keys[order]
        self._indices = np.array([index for _, index in pairs], dtype=np.uint8)[order]
        self.palette_k3 = np.zeros((256, 3), dtype=np.uint8)
        for index, spec in enumerate(target.classes):
            self.palette_k3[index] = spec.color

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Class indices target_hw of a label file.

        Raises:
            DataError: the file is not readable, is of the wrong kind, or holds a value that the map does not name.
        """
        label = read_label_map(path)
        if self.by_color:
            if label.colors_hwc is None:
                raise DataError(
                    f"this is a {label.kind} label map, and target.classes names colours",
                    where=path,
                    rule="single-channel files have classes by single values, RGB files and palettes by colours too.",
                )
            raw = label.colors_hwc.astype(np.int64) @ np.array([65536, 256, 1])
        elif label.values_hw is None:
            raise DataError(
                "this label map holds colours, and target.classes names single values",
                where=path,
                cure="write each class's values as colours, [[red, green, blue]], or give single-channel label files.",
            )
        else:
            raw = label.values_hw.astype(np.int64)
        return self._encode(raw, path)

    def _encode(self, raw_hw: NDArray[np.int64], path: Path) -> NDArray[np.uint8]:
        position = np.minimum(np.searchsorted(self._keys, raw_hw), len(self._keys) - 1)
        unknown = raw_hw[self._keys[position] != raw_hw]
        if len(unknown):
            values, counts = np.unique(unknown, return_counts=True)
            shown = [f"{self._name(value)} ({count} px)" for value, count in zip(values, counts, strict=True)][:6]
            raise DataError(
                f"{len(values)} raw value{'s' if len(values) > 1 else ''} not in the class map: {', '.join(shown)}",
                where=path,
                rule=f"target.classes and target.ignore name {', '.join(self._name(key) for key in self._keys[:12])}.",
            )
        return self._indices[position]

    def _name(self, key: Any) -> str:
        return str([int(key) >> 16, int(key) >> 8 & 255, int(key) & 255]) if self.by_color else str(int(key))

    def write(self, path: Path, index_hw: NDArray[np.uint8]) -> None:
        """Write class indices as the first raw value, or colour, of each class."""
        firsts = np.array([spec.values[0] for spec in self.target.classes])
        if self.by_color:
            write_image(path, firsts.astype(np.uint8)[index_hw])
        else:
            write_label_map(path, firsts[index_hw])


def _color_key(color: Any) -> int:
    red, green, blue = color
    return int(red) << 16 | int(green) << 8 | int(blue)
