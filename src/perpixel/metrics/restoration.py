"""Figures of restoration, from RGB images at their full size.

Conventions, the same for every figure:

- Values are brought to [0, 1]: uint8 / 255, uint16 / 65535, floats as they are; the peak of PSNR and the range of SSIM
  are 1. Nothing is rounded here: score what is written to files, if figures of files are wanted.
- Every figure comes twice: ``psnr`` from sums over all pixels of the subset, ``psnr_per_image`` as the mean over its
  images, which is what papers report.
- ``_y`` figures are of Y of YCbCr, BT.601 studio range (16 to 235 of 255), not rounded; the peak stays 1 (255).
- PSNR of two equal images is infinite, in the image's own row too. In the mean over images each counts 100 dB at most,
  as in much published code; ``identical_images`` says how many were equal. The PSNR of sums has no cap.
- SSIM is that of Wang et al. 2004 and of MATLAB's ``ssim_index``: Gaussian window 11 x 11 with sigma 1.5, K1 0.01,
  K2 0.03, windows that lie within the image; of RGB the mean over the channels. An image with a side below 11 pixels,
  or without a whole valid window, has none: its SSIM is nan and counts nowhere.
- ``brightness_matched/`` figures multiply the prediction by mean luma of truth / mean luma of prediction, and clip it
  to [0, 1] ("GT-mean", Zhang et al. 2019, KinD). A user of the model cannot do that: never report them alone.
- ``border`` pixels on each side count nowhere. An image without a counted pixel counts nowhere either; its row is nan.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from perpixel.luma import luma_full, luma_studio
from perpixel.metrics.info import Detail, MetricInfo

__all__ = ["PSNR_CAP_DB", "RestorationMetrics", "as_unit", "ssim_map"]

PSNR_CAP_DB = 100.0
"""What an image's PSNR counts at most in the mean over images."""
SSIM_WINDOW = 11
LPIPS_SMALLEST = 32

Distance = Callable[[NDArray[np.float64], NDArray[np.float64]], float]

_PIXELS = "sum over all valid pixels of the subset"
_WINDOWS = "mean over all windows of the subset"
_IMAGES = "mean over images"
_Y = "Y of YCbCr, BT.601 studio range, not rounded"
_FIGURES: dict[str, tuple[str, str, Literal["higher", "lower"], str]] = {
    "psnr": ("PSNR", "dB", "higher", "10 log10(1 / MSE) of RGB in [0, 1]."),
    "psnr_y": ("PSNR of Y", "dB", "higher", f"10 log10(1 / MSE) of {_Y}."),
    "ssim": ("SSIM", "", "higher", "Mean over R, G and B; Gaussian window 11 x 11, sigma 1.5 (Wang et al. 2004)."),
    "ssim_y": ("SSIM of Y", "", "higher", f"Of {_Y}; Gaussian window 11 x 11, sigma 1.5 (Wang et al. 2004)."),
    "mae": ("MAE", "", "lower", "Mean of |p - t| of RGB in [0, 1]."),
}
_MATCHED = "brightness_matched/"
_MATCHED_TEXT = (
    " After the prediction was multiplied by the ratio of the mean lumas of truth and prediction, which needs the "
    "truth: never the only figure to report."
)
_CAP_TEXT = f" An image counts {PSNR_CAP_DB:g} dB at most."
_FACTS = {
    "brightness_ratio": MetricInfo(
        "ratio of brightness", "", "neither", _IMAGES, "Mean luma of the prediction over that of the truth; 1 is right."
    ),
    "identical_images": MetricInfo(
        "identical images", "", "neither", "count over images", "Images that equal their truth in every counted pixel."
    ),
}


_LPIPS = {
    "lpips": MetricInfo(
        "LPIPS",
        "",
        "lower",
        _IMAGES,
        "Distance of features of AlexNet, release 0.1 (Zhang et al. 2018). Images below 32 x 32, and those without"
        " truth everywhere, have none.",
    )
}


class RestorationMetrics:
    """Accumulates images; every figure comes from sums over the data set, or is a mean over its images.

    Args:
        distance: LPIPS of two images_hwc in [0, 1], where its weights are at hand: the figure ``lpips`` is there then.
        border: pixels left out on each side, at the size of the output. Publications on super-resolution leave out as
            many as the factor; those on denoising and low light none.

    Raises:
        ValueError: a negative border.
    """

    def __init__(self, *, border: int = 0, distance: Distance | None = None) -> None:
        if border < 0:
            raise ValueError(f"border must be at least 0; it is {border}")
        self.border, self._distance = border, distance
        self._distances: list[float] = []
        # Every image's own sums, not theirs together: math.fsum then gives the same digits in any order.
        self._sums: dict[str, list[dict[str, float]]] = {"": [], _MATCHED: []}
        self._ratios: list[float] = []

    @property
    def protocol(self) -> dict[str, Any]:
        """What must be said beside the figures."""
        protocol: dict[str, Any] = {"border": self.border, "psnr_cap_db": PSNR_CAP_DB, "y": _Y}
        return protocol | ({"lpips": "AlexNet, release 0.1"} if self._distance else {})

    def update(
        self,
        predicted_hwc: NDArray[Any],
        target_hwc: NDArray[Any],
        valid_hw: NDArray[np.bool_] | None = None,
        confidence_hw: NDArray[np.float32] | None = None,
    ) -> dict[str, float]:
        """Add one image.

        Args:
            predicted_hwc: RGB, uint8, uint16, or float in [0, 1]; anything where ``valid_hw`` is False.
            target_hwc: the same of the truth; the types may differ.
            valid_hw: where there is truth; None: everywhere.
            confidence_hw: not looked at; here because all tasks' metrics are called alike.

        Returns:
            This image's own figures: the keys of `compute`.

        Raises:
            ValueError: the shapes differ, or a valid pixel holds something that is not within [0, 1].
        """
        if predicted_hwc.shape != target_hwc.shape or predicted_hwc.ndim != 3 or predicted_hwc.shape[2] != 3:
            raise ValueError(
                "prediction and target must be RGB (H, W, 3) of one size; they are "
                f"{predicted_hwc.shape} and {target_hwc.shape}"
            )
        if valid_hw is None:
            valid_hw = np.ones(target_hwc.shape[:2], dtype=bool)
        if valid_hw.dtype != np.bool_ or valid_hw.shape != target_hwc.shape[:2]:
            raise ValueError(f"valid must be bool (H, W); it is {valid_hw.dtype} {valid_hw.shape}")
        inside = tuple(slice(self.border, max(side - self.border, self.border)) for side in valid_hw.shape)
        valid_hw = valid_hw[inside]
        predicted_hwc = _unit_where_valid("prediction", predicted_hwc[inside], valid_hw)
        target_hwc = _unit_where_valid("target", target_hwc[inside], valid_hw)
        single = RestorationMetrics(border=self.border, distance=self._distance)
        if valid_hw.any():
            single._add(predicted_hwc, target_hwc, valid_hw)
            self.merge(single)
        return single._compute(cap=math.inf)

    def merge(self, other: RestorationMetrics) -> None:
        """Add what another accumulator of the same protocol has seen, as if its images had been added here.

        Raises:
            ValueError: the other one has another protocol.
        """
        if other.protocol != self.protocol:
            raise ValueError("only figures of the same protocol can be merged")
        for prefix, rows in self._sums.items():
            rows.extend(other._sums[prefix])
        self._ratios.extend(other._ratios)
        self._distances.extend(other._distances)

    def compute(self) -> dict[str, float]:
        """All figures so far; before the first image all are nan, but for the count of identical images."""
        return self._compute(cap=PSNR_CAP_DB)

    def details(self) -> list[Detail]:
        """None: what images differ in is told image by image."""
        return []

    def infos(self) -> dict[str, MetricInfo]:
        """What each figure of `compute` is, in the same order."""
        infos = {}
        for prefix in self._sums:
            for key, (name, unit, direction, text) in _FIGURES.items():
                title = f"{name}, brightness matched" if prefix else name
                text += _MATCHED_TEXT if prefix else ""
                text += f" {self.border} pixels of the border left out." if self.border else ""
                pooled = _WINDOWS if key.startswith("ssim") else _PIXELS
                own = text + (_CAP_TEXT if key.startswith("psnr") else "")
                infos[f"{prefix}{key}"] = MetricInfo(title, unit, direction, pooled, text)
                infos[f"{prefix}{key}_per_image"] = MetricInfo(f"{title}, an image", unit, direction, _IMAGES, own)
        return infos | _FACTS | (_LPIPS if self._distance else {})

    def _compute(self, cap: float) -> dict[str, float]:
        figures: dict[str, float] = {}
        for prefix, rows in self._sums.items():
            total = {key: math.fsum(row[key] for row in rows) for key in _SUM_KEYS}
            pooled, each = _figures(total), [_figures(row) for row in rows]
            for key in _FIGURES:
                figures[f"{prefix}{key}"] = pooled[key]
                limit = cap if key.startswith("psnr") else math.inf
                figures[f"{prefix}{key}_per_image"] = _mean([min(row[key], limit) for row in each])
        figures["brightness_ratio"] = _mean(self._ratios)
        figures["identical_images"] = float(sum(row["square"] == 0 for row in self._sums[""]))
        if self._distance:
            figures["lpips"] = _mean(self._distances)
        return figures

    def _add(
        self, predicted_hwc: NDArray[np.float64], target_hwc: NDArray[np.float64], valid_hw: NDArray[np.bool_]
    ) -> None:
        brightness, wanted = (float(luma_full(image_hwc)[valid_hw].mean()) for image_hwc in (predicted_hwc, target_hwc))
        self._sums[""].append(_sums(predicted_hwc, target_hwc, valid_hw))
        # A black prediction cannot be brightened, and stays what it is.
        factor = wanted / brightness if brightness > 0 else 1.0
        matched_hwc = (predicted_hwc * factor).clip(0, 1)
        self._sums[_MATCHED].append(_sums(matched_hwc, target_hwc, valid_hw))
        self._ratios.append(brightness / wanted if wanted > 0 else math.nan)
        if self._distance:
            large = min(valid_hw.shape) >= LPIPS_SMALLEST and bool(valid_hw.all())
            self._distances.append(self._distance(predicted_hwc, target_hwc) if large else math.nan)


def as_unit(image_hwc: NDArray[Any]) -> NDArray[np.float64]:
    """uint8, uint16 or float values as float64, so that white is 1.

    Raises:
        ValueError: another type.
    """
    if image_hwc.dtype in (np.uint8, np.uint16):
        return image_hwc / float(np.iinfo(image_hwc.dtype).max)
    if image_hwc.dtype.kind != "f":
        raise ValueError(f"an image is uint8, uint16 or float; it is {image_hwc.dtype}")
    return image_hwc.astype(np.float64)


def ssim_map(x_hw: NDArray[np.float64], y_hw: NDArray[np.float64]) -> NDArray[np.float64]:
    """SSIM of each window that lies within the image (Wang et al. 2004): 10 rows and columns fewer; range 1."""
    mean_x, mean_y = _blur(x_hw), _blur(y_hw)
    variances = _blur(x_hw * x_hw) - mean_x**2 + _blur(y_hw * y_hw) - mean_y**2
    covariance = _blur(x_hw * y_hw) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _blur(values_hw: NDArray[np.float64]) -> NDArray[np.float64]:
    import cv2

    margin = SSIM_WINDOW // 2
    blurred_hw = cv2.GaussianBlur(values_hw, (SSIM_WINDOW, SSIM_WINDOW), 1.5)
    return np.asarray(blurred_hw[margin:-margin, margin:-margin], dtype=np.float64)


_SUM_KEYS = ("square", "square_y", "absolute", "pixels", "ssim", "ssim_y", "windows")


def _sums(
    predicted_hwc: NDArray[np.float64], target_hwc: NDArray[np.float64], valid_hw: NDArray[np.bool_]
) -> dict[str, float]:
    """What one image adds: `_SUM_KEYS`. Errors of RGB are summed over the channels, SSIM is averaged over them."""
    error_n3 = (predicted_hwc - target_hwc)[valid_hw]
    predicted_y, target_y = luma_studio(predicted_hwc), luma_studio(target_hwc)
    sums = {
        "square": float(np.square(error_n3).sum()),
        "square_y": float(np.square(predicted_y - target_y)[valid_hw].sum()),
        "absolute": float(np.abs(error_n3).sum()),
        "pixels": float(len(error_n3)),
    }
    whole_hw = _whole_windows(valid_hw)
    if not whole_hw.any():
        return sums | {"ssim": 0.0, "ssim_y": 0.0, "windows": 0.0}
    channels = [ssim_map(predicted_hwc[..., c], target_hwc[..., c])[whole_hw].sum() for c in range(3)]
    luma = ssim_map(predicted_y, target_y)[whole_hw].sum()
    return sums | {"ssim": float(sum(channels) / 3), "ssim_y": float(luma), "windows": float(whole_hw.sum())}


def _whole_windows(valid_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of each window that lies within the image: whether all its pixels are valid."""
    if min(valid_hw.shape) < SSIM_WINDOW:
        return np.zeros((0, 0), dtype=bool)
    void = np.pad((~valid_hw).cumsum(0, dtype=np.int64).cumsum(1), ((1, 0), (1, 0)))
    size = SSIM_WINDOW
    inside: NDArray[np.bool_] = (
        void[size:, size:] - void[:-size, size:] - void[size:, :-size] + void[:-size, :-size] == 0
    )
    return inside


def _figures(sums: dict[str, float]) -> dict[str, float]:
    """The keys of `_FIGURES`."""
    pixels, windows = sums["pixels"], sums["windows"]
    return {
        "psnr": _psnr(sums["square"], 3 * pixels),
        "psnr_y": _psnr(sums["square_y"], pixels),
        "ssim": sums["ssim"] / windows if windows else math.nan,
        "ssim_y": sums["ssim_y"] / windows if windows else math.nan,
        "mae": sums["absolute"] / (3 * pixels) if pixels else math.nan,
    }


def _psnr(square: float, count: float) -> float:
    if not count:
        return math.nan
    return 10 * math.log10(count / square) if square else math.inf


def _unit_where_valid(what: str, image_hwc: NDArray[Any], valid_hw: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values in [0, 1], and 0 where there is no truth."""
    unit_hwc = np.where(valid_hw[..., None], as_unit(image_hwc), 0.0)
    if unit_hwc.size and not (unit_hwc.min() >= 0 and unit_hwc.max() <= 1):
        raise ValueError(f"{what} must be within 0 and 1; it is {unit_hwc.min()} to {unit_hwc.max()}")
    return unit_hwc


def _mean(values: list[float]) -> float:
    """Mean of the values that are there; nan without any."""
    found = [value for value in values if not math.isnan(value)]
    return math.fsum(found) / len(found) if found else math.nan
