"""What the viewer in the browser shows: layers as lossless PNG files, and `scene.json` that says what they mean.

Numbers (metres, say) travel as 16 bits in the red and green channels of a PNG, between the ends of a range; blue is
255 where there is no number. Classes travel as grey levels. So the browser can tell values under the pointer, hide
classes and change ranges without asking the server again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.app.prediction import Prediction
from perpixel.images import write_image, write_label_map
from perpixel.run import write_json
from perpixel.tasks.view import ClassView, DistanceView

__all__ = ["write_comparison", "write_scene"]

_COLORMAPS = {"cividis": cv2.COLORMAP_CIVIDIS, "turbo": cv2.COLORMAP_TURBO, "grey": None}
_LEVELS = 65535


def write_scene(folder: Path, prediction: Prediction) -> None:
    """The layers of one prediction: itself, confidence, truth, error."""
    layers = _layers(folder, prediction, "prediction", "Prediction")
    if prediction.sure:
        layers.append(_confidence(folder, prediction))
    target_hw = prediction.target_hw
    if target_hw is not None:
        layers.append(_map_layer(folder, prediction, target_hw, "truth", "Truth"))
        panels = prediction.task.panels(prediction.image_hwc, prediction.prediction_hw, target_hw)
        layers.append(_picture(folder, panels["error"], "error", "Error", prediction.task.error_legend))
    _write(folder, prediction, layers, left="input", right="prediction")


def write_comparison(folder: Path, first: Prediction, second: Prediction) -> float:
    """The layers of two predictions of one image, and where they differ. Returns the share of differing pixels,
    or, of numbers, the mean difference; of pictures, the mean difference of the full range."""
    layers = [
        _map_layer(folder, first, first.prediction_hw, "first", f"A: {first.run}"),
        _map_layer(folder, second, second.prediction_hw, "second", f"B: {second.run}"),
    ]
    picture_hwc, legend, amount = _difference(first, second)
    layers.append(_picture(folder, picture_hwc, "difference", "Where they differ", legend))
    if first.target_hw is not None:
        layers.append(_map_layer(folder, first, first.target_hw, "truth", "Truth"))
    _write(folder, first, layers, left="first", right="second", split=50, shares=False)
    return amount


def _write(
    folder: Path,
    prediction: Prediction,
    layers: list[dict[str, Any]],
    *,
    left: str,
    right: str,
    split: int = 0,
    shares: bool = True,
) -> None:
    height, width = prediction.prediction_hw.shape[:2]
    input_hwc = prediction.image_hwc
    picture = not isinstance(prediction.view, ClassView | DistanceView)
    if picture:
        input_hwc = _resized(input_hwc, (height, width))
        layers.append(_matched(folder, input_hwc, prediction))
    base = _picture(folder, _as_8_bits(input_hwc), "input", "Input")
    scene: dict[str, Any] = {
        "name": prediction.stem,
        "height": height,
        "width": width,
        "layers": [base, *layers],
        "left": left,
        "right": right,
        "split": split or (50 if picture else 0),
        "opacity": 55 if isinstance(prediction.view, ClassView) else 100,
    }
    if isinstance(prediction.view, ClassView):
        scene["classes"] = _classes(prediction.view, prediction.shares() if shares else {})
    if isinstance(prediction.view, DistanceView):
        scene["unit"] = prediction.view.unit
        scene["colormaps"] = {name: _colors(code) for name, code in _COLORMAPS.items()}
    write_json(folder / "scene.json", scene)


def _layers(folder: Path, prediction: Prediction, key: str, label: str) -> list[dict[str, Any]]:
    return [_map_layer(folder, prediction, prediction.prediction_hw, key, label)]


def _map_layer(folder: Path, prediction: Prediction, map_hw: NDArray[Any], key: str, label: str) -> dict[str, Any]:
    """A prediction or a truth."""
    view = prediction.view
    if isinstance(view, ClassView):
        write_label_map(folder / f"{key}.png", map_hw.astype(np.uint8))
        return {"key": key, "label": label, "type": "classes", "file": f"{key}.png"}
    if isinstance(view, DistanceView):
        return _numbers(folder, map_hw, key, label) | {"near_is_large": not view.unit}
    return _picture(folder, prediction.task.paint(map_hw), key, label)


def _numbers(folder: Path, values_hw: NDArray[Any], key: str, label: str) -> dict[str, Any]:
    known_hw = np.isfinite(values_hw)
    known = values_hw[known_hw].astype(np.float64)
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    near, far = (float(value) for value in np.percentile(known, (2, 98))) if known.size else (0.0, 1.0)
    step = (high - low) / _LEVELS or 1.0
    level_hw = np.rint((np.where(known_hw, values_hw, low) - low) / step).clip(0, _LEVELS).astype(np.uint16)
    packed_hwc = np.stack([level_hw >> 8, level_hw & 255, np.where(known_hw, 0, 255)], axis=2).astype(np.uint8)
    write_image(folder / f"{key}.png", packed_hwc)
    return {
        "key": key,
        "label": label,
        "type": "numbers",
        "file": f"{key}.png",
        "low": low,
        "step": step,
        "range": [near, far] if near < far else [low, low + step * _LEVELS],
        "ends": [low, high],
    }


def _picture(folder: Path, picture_hwc: NDArray[np.uint8], key: str, label: str, legend: str = "") -> dict[str, Any]:
    write_image(folder / f"{key}.png", picture_hwc)
    return {"key": key, "label": label, "type": "picture", "file": f"{key}.png", "legend": legend}


def _confidence(folder: Path, prediction: Prediction) -> dict[str, Any]:
    write_label_map(folder / "confidence.png", np.rint(255 * prediction.confidence_hw).astype(np.uint8))
    return {
        "key": "confidence",
        "label": "Confidence",
        "type": "confidence",
        "file": "confidence.png",
        "legend": "black 0 (unsure) to white 1 (sure)",
    }


def _classes(view: ClassView, shares: Mapping[str, float]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "color": list(color),
            "share": shares.get(name),
            "shown": index != view.background,
        }
        for index, (name, color) in enumerate(zip(view.names, view.colors, strict=True))
    ]


def _matched(folder: Path, input_hwc: NDArray[Any], prediction: Prediction) -> dict[str, Any]:
    """The input brought to the mean brightness of the prediction: what remains is what the model adds."""
    shown_hwc, wanted_hwc = _as_8_bits(input_hwc).astype(np.float32), prediction.task.paint(prediction.prediction_hw)
    gain = float(wanted_hwc.mean()) / max(float(shown_hwc.mean()), 1e-3)
    matched_hwc = np.rint((shown_hwc * gain).clip(0, 255)).astype(np.uint8)
    legend = f"the input times {gain:.3g}: as bright on average as the prediction"
    return _picture(folder, matched_hwc, "matched", "Input, equally bright", legend)


def _difference(first: Prediction, second: Prediction) -> tuple[NDArray[np.uint8], str, float]:
    dim_hwc = (0.35 * _as_8_bits(_resized(first.image_hwc, first.prediction_hw.shape[:2]))).astype(np.uint8)
    if isinstance(first.view, ClassView):
        other_hw = first.prediction_hw != second.prediction_hw
        picture_hwc = np.where(other_hw[..., None], np.uint8(255), dim_hwc)
        return picture_hwc, "white: the two name different classes", float(other_hw.mean())
    gap_hw = np.abs(_unit(first.prediction_hw) - _unit(second.prediction_hw))
    gap_hw = gap_hw.mean(axis=2) if gap_hw.ndim == 3 else gap_hw
    worst = max(float(np.percentile(gap_hw, 99)), 1e-6)
    level_hw = np.rint(255 * (gap_hw / worst).clip(0, 1)).astype(np.uint8)
    picture_hwc = np.asarray(cv2.applyColorMap(level_hw, cv2.COLORMAP_INFERNO)[..., ::-1], dtype=np.uint8)
    unit = f" {first.view.unit}" if isinstance(first.view, DistanceView) else " of the full range"
    return picture_hwc, f"black: equal, bright: they differ by {worst:.3g}{unit} or more", float(gap_hw.mean())


def _unit(map_hw: NDArray[Any]) -> NDArray[np.float32]:
    """Integers as a share of their full range; other numbers as they are."""
    if map_hw.dtype.kind in "ui":
        return map_hw.astype(np.float32) / np.float32(np.iinfo(map_hw.dtype).max)
    return map_hw.astype(np.float32)


def _as_8_bits(image_hwc: NDArray[Any]) -> NDArray[np.uint8]:
    return image_hwc if image_hwc.dtype == np.uint8 else np.rint(255 * _unit(image_hwc)).astype(np.uint8)


def _resized(image_hwc: NDArray[Any], size_hw: tuple[int, ...]) -> NDArray[Any]:
    if image_hwc.shape[:2] == tuple(size_hw):
        return image_hwc
    return np.asarray(cv2.resize(image_hwc, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_CUBIC))


def _colors(code: int | None) -> list[list[int]]:
    """256 colours, the first for what is near."""
    ramp_hw = np.arange(255, -1, -1, dtype=np.uint8)[:, None]
    grey = np.repeat(ramp_hw[..., None], 3, axis=2)
    colors = grey if code is None else cv2.applyColorMap(ramp_hw, code)[..., ::-1]
    return [[int(channel) for channel in color] for color in colors.reshape(-1, 3)]
