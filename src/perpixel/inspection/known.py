"""Class maps that are recognised by their values or colours, and the plain ones for all others."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

from perpixel.recipe import SegmentationTarget, builtin_names, load_recipe

__all__ = ["known_classes", "named_palette"]

_VOC = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
_CITYSCAPES = {
    0x804080: "road",
    0xF423E8: "sidewalk",
    0x464646: "building",
    0x66669C: "wall",
    0xBE9999: "fence",
    0x999999: "pole",
    0xFAAA1E: "traffic light",
    0xDCDC00: "traffic sign",
    0x6B8E23: "vegetation",
    0x98FB98: "terrain",
    0x4682B4: "sky",
    0xDC143C: "person",
    0xFF0000: "rider",
    0x00008E: "car",
    0x000046: "truck",
    0x003C64: "bus",
    0x005064: "train",
    0x0000E6: "motorcycle",
    0x770B20: "bicycle",
}
_CAMVID = {
    0x808080: "Sky",
    0x800000: "Building",
    0xC0C080: "Pole",
    0x804080: "Road",
    0x3C28DE: "Pavement",
    0x808000: "Tree",
    0xC08080: "Sign",
    0x404080: "Fence",
    0x400080: "Car",
    0x404000: "Pedestrian",
    0x0080C0: "Bicyclist",
}
_UNLABELLED = (255, 65535)


def known_classes(values: Sequence[int]) -> tuple[dict[str, Any], str]:
    """A target section for raw values, and the sentence that says where it comes from.

    Class maps of built-in recipes are known by their values, if these are no plain counting.
    """
    if not _is_counting(values):
        for name in builtin_names():
            target = load_recipe(name).target
            if isinstance(target, SegmentationTarget) and _fits(target, values):
                said = f"class values (sure): they are those of the built-in recipe {name}, names and colours with them"
                return target.model_dump(mode="json"), said
    if len(values) == 1:
        only = values[0]
        values = [0, only] if only else [0, 255]
    if len(values) == 2:
        return _two(values), f"class values (sure): two, {values[0]} for background and {values[1]} for foreground"
    ignore = [
        value for value in values if value in _UNLABELLED and max(set(values) - set(_UNLABELLED), default=0) < 250
    ]
    classes = [value for value in values if value not in ignore]
    said = f"class values (sure of the values, not of their names): {len(classes)} classes"
    said += f"; {', '.join(map(str, ignore))} taken for 'no label'" if ignore else ""
    colors = distinct_colors(len(classes))
    named = [
        {"name": f"class_{value}", "values": [value], "color": color}
        for value, color in zip(classes, colors, strict=True)
    ]
    return {"kind": "segmentation", "classes": named, "ignore": ignore}, said


def _is_counting(values: Sequence[int]) -> bool:
    """0, 1, 2 ... (and 255): any data set may hold these."""
    plain = [value for value in values if value not in _UNLABELLED]
    return len(plain) > 2 and max(plain) < 64


def _fits(target: SegmentationTarget, values: Sequence[int]) -> bool:
    named = {value for spec in target.classes for value in spec.values}
    held = set(values) & named
    met = sum(bool(set(spec.values) & held) for spec in target.classes)
    unknown = set(values) - named - set(target.ignore)
    return not unknown and met >= max(3, 0.5 * len(target.classes))


def _two(values: Sequence[int]) -> dict[str, Any]:
    names = (("background", [68, 68, 68]), ("foreground", [230, 159, 0]))
    classes = [
        {"name": name, "values": [value], "color": color} for (name, color), value in zip(names, values, strict=True)
    ]
    return {"kind": "segmentation", "classes": classes, "ignore": []}


def named_palette(keys: Sequence[int]) -> tuple[dict[str, Any], str]:
    """A target section for colours (red * 65536 + green * 256 + blue), and where their names come from."""
    voc = {_key(color): name for color, name in zip(voc_colors(), _VOC, strict=True)}
    for said, names in (("Cityscapes", _CITYSCAPES), ("CamVid", _CAMVID), ("PASCAL VOC", voc)):
        if len(set(keys) & set(names)) >= max(2, 0.8 * len(keys) - 1):
            ignore = [_rgb(key) for key in keys if key not in names]
            classes = [_color_class(name, key) for key, name in names.items()]
            return {
                "kind": "segmentation",
                "classes": classes,
                "ignore": ignore,
            }, f"class colours (sure): those of {said}"
    ignored = [0] if 0 in keys and len(keys) > 3 else []
    classes = [_color_class(f"color_{key:06x}", key) for key in keys if key not in ignored]
    said = f"class colours (sure of the colours, not of their names): {len(classes)} classes"
    said += "; black taken for 'no label'" if ignored else ""
    return {"kind": "segmentation", "classes": classes, "ignore": [_rgb(key) for key in ignored]}, said


def _color_class(name: str, key: int) -> dict[str, Any]:
    return {"name": name, "values": [_rgb(key)], "color": _rgb(key)}


def voc_colors(count: int = 21) -> list[list[int]]:
    """The colour map of PASCAL VOC: the bits of the index, dealt to red, green and blue from the highest bit down."""
    colors = []
    for index in range(count):
        color = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                color[channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
        colors.append(color)
    return colors


def distinct_colors(count: int) -> list[list[int]]:
    """Colours that differ: hues by the golden angle, in three brightnesses."""
    colors = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.75, (0.95, 0.7, 0.5)[index % 3])
        colors.append([round(255 * red), round(255 * green), round(255 * blue)])
    return colors


def _key(color: Sequence[int]) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _rgb(key: int) -> list[int]:
    return [key >> 16, key >> 8 & 255, key & 255]
