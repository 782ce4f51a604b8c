"""The one declaration of what raw label values mean, read without loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpixel.data.problems import ValuesError
from perpixel.errors import DataError
from perpixel.images import LabelFile, read_label_map, write_image, write_label_map
from perpixel.recipe import SegmentationTarget
from perpixel.tasks.hints import MOST_VALUES, hint_of_colors, hint_of_values

IGNORED = 255

_SHOWN = 12
_KEPT = 256  # values of a file that an error remembers: the commonest
_SMEAR = 8  # levels that JPEG moves a value by, away from edges


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

    def read(self, path: Path, notes: list[str] | None = None) -> NDArray[np.uint8]:
        """Class indices target_hw of a label file. What had to be done to read it is added to ``notes``.

        Raises:
            DataError: the file is not readable, is of the wrong kind, was saved with loss, or (`ValuesError`) holds
                a value that the map does not name.
        """
        label = read_label_map(path)
        if label.lossy:
            raise self._saved_with_loss(label, path)
        said = [f"label file: {note}" for note in label.notes]
        if self.by_color:
            if label.colors_hwc is None:
                raise DataError(
                    f"this is a {label.kind} label map, and target.classes names colours",
                    where=path,
                    rule="single-channel files have classes by single values, RGB files and palettes by colours too.",
                    cure="write each class's value in the files as a whole number in target.classes.",
                )
            raw_hw = _color_keys(label.colors_hwc)
        elif label.values_hw is None:
            assert label.colors_hwc is not None  # a label file has one of the two
            raise ValuesError(_counts(_color_keys(label.colors_hwc)), self._explain_colors, where=path)
        else:
            raw_hw = label.values_hw.astype(np.int64)
            if label.kind.endswith("rgb"):
                said.append("label file: three equal channels, read as one")
        if notes is not None:
            notes += said
        return self._encode(raw_hw, path)

    def _encode(self, raw_hw: NDArray[np.int64], path: Path) -> NDArray[np.uint8]:
        position = np.minimum(np.searchsorted(self._keys, raw_hw), len(self._keys) - 1)
        if (self._keys[position] != raw_hw).any():
            raise ValuesError(_counts(raw_hw), self._explain_unknown, where=path)
        return self._indices[position]

    def _explain_unknown(self, counts: Mapping[int, int]) -> DataError:
        named = set(self._keys[self._indices != IGNORED].tolist())
        ignored = set(self._keys[self._indices == IGNORED].tolist())
        unknown = {value: count for value, count in counts.items() if value not in named | ignored}
        foreground = self.target.classes[1].name if len(self.target.classes) == 2 else ""
        cure = (
            hint_of_colors(counts.keys() - ignored, named)
            if self.by_color
            else hint_of_values(counts.keys(), named, ignored, foreground)
        )
        number = f"more than {MOST_VALUES}" if len(unknown) > MOST_VALUES else len(unknown)
        rest = f" and {len(self._keys) - _SHOWN} more" if len(self._keys) > _SHOWN else ""
        return DataError(
            f"{number} raw value{'s' if len(unknown) > 1 else ''} not in the class map:"
            f" {_shown(unknown, self.by_color)}",
            rule=f"target.classes and target.ignore name"
            f" {', '.join(_name(key, self.by_color) for key in self._keys[:_SHOWN].tolist())}{rest}.",
            cure=cure,
        )

    def _explain_colors(self, counts: Mapping[int, int]) -> DataError:
        return DataError(
            "this label map holds colours, and target.classes names single values:" + f" {_shown(counts, True)}",
            cure=hint_of_colors(counts, ())
            if len(counts) > MOST_VALUES
            else "write each class's values as colours, [[red, green, blue]], or give single-channel label files.",
        )

    def _saved_with_loss(self, label: LabelFile, path: Path) -> DataError:
        """JPEG: how much of it could be recovered is said, and left to the user."""
        near = 0.0
        if self.by_color and label.colors_hwc is not None:
            keys_k3 = np.stack([self._keys >> 16, self._keys >> 8 & 255, self._keys & 255], axis=1)
            near = _share_near(label.colors_hwc, keys_k3)
        elif label.values_hw is not None:
            near = _share_near(label.values_hw[..., None], self._keys[:, None])
        cure = "use the original label files. "
        if near >= 0.9:
            cure += (
                f"If they are lost: {near:.1%} of the pixels lie within {_SMEAR} levels of a named value, so round each"
                " to the nearest one, give those farther off an ignored value, and save as PNG."
            )
        else:
            cure += "If these are the photographs, data.images and data.targets look swapped."
        return DataError(
            "this label map was saved as JPEG, which smears its values along every edge",
            where=path,
            rule="label files are stored without loss, as PNG or TIFF.",
            cure=cure,
        )

    def write(self, path: Path, index_hw: NDArray[np.uint8]) -> None:
        """Write class indices as the first raw value, or colour, of each class."""
        raw = self.raw_values(index_hw)
        if self.by_color:
            write_image(path, raw.astype(np.uint8))
        else:
            write_label_map(path, raw)

    def raw_values(self, index_hw: NDArray[np.uint8]) -> NDArray[Any]:
        """The first raw value, or colour (a further axis of 3), of each pixel's class."""
        firsts = np.array([spec.values[0] for spec in self.target.classes])
        raw: NDArray[Any] = firsts[index_hw]
        return raw


def _color_key(color: Any) -> int:
    red, green, blue = color
    return int(red) << 16 | int(green) << 8 | int(blue)


def _color_keys(colors_hwc: NDArray[np.uint8]) -> NDArray[np.int64]:
    keys_hw: NDArray[np.int64] = colors_hwc.astype(np.int64) @ np.array([65536, 256, 1])
    return keys_hw


def _counts(raw_hw: NDArray[np.int64]) -> dict[int, int]:
    """Pixels of the commonest values."""
    values, counts = np.unique(raw_hw, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_KEPT]
    return dict(zip(values[order].tolist(), counts[order].tolist(), strict=True))


def _share_near(levels_hwc: NDArray[Any], keys_kc: NDArray[np.int64]) -> float:
    """Share of the pixels that lie within `_SMEAR` of one of the keys in every channel."""
    near_hw = np.zeros(levels_hwc.shape[:2], dtype=bool)
    for key_c in keys_kc:
        near_hw |= (np.abs(levels_hwc.astype(np.int64) - key_c) <= _SMEAR).all(axis=-1)
    return float(near_hw.mean())


def _shown(counts: Mapping[int, int], by_color: bool) -> str:
    """The commonest values with their pixels."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = ", ..." if len(ordered) > _SHOWN else ""
    return ", ".join(f"{_name(value, by_color)} ({count} px)" for value, count in ordered[:_SHOWN]) + rest


def _name(key: int, by_color: bool) -> str:
    return str([key >> 16, key >> 8 & 255, key & 255]) if by_color else str(key)
