"""Restoration: a clean image from a degraded one, at the same size or ``scale`` times as high and as wide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perpixel.errors import DataError, RequestError
from perpixel.images import read_image, write_image
from perpixel.luma import luma_full
from perpixel.metrics import RestorationMetrics
from perpixel.metrics.restoration_baselines import bicubic, clahe, gamma_corrected, histogram_matched
from perpixel.recipe import InferenceSection, LossSection, RestorationTarget, parse_loss
from perpixel.tasks.base import Decision, Task, TaskLoss

if TYPE_CHECKING:
    import torch

    from perpixel.losses import PerceptualLoss

_QUANTILES = np.linspace(0, 1, 65)
_DARKER, _BRIGHTER = 0.8, 1.25  # mean luma of predictions over that of truths; beyond, brightness is what is wrong
_CLOSE = 192  # pixels of the side of a close-up, nearly
_WORST = 0.25  # of the full range, after brightening: the brightest colour of the picture of errors


class RestorationTask(Task):
    """The network puts out an image, near [0, 1]; targets are images, target_hwc, of 8 or 16 bits.

    A prediction is an image of the targets' bits, prediction_hwc, ``scale`` times as high and as wide as the input.
    """

    fill = 0
    out_channels = 3
    error_legend = "|prediction - truth|, black 0 to bright 0.25; all pictures brightened alike"
    prediction_files = (".png",)

    def __init__(self, target: RestorationTarget, loss: LossSection, inference: InferenceSection) -> None:
        self.target, self.loss_section, self.inference = target, loss, inference
        self.image_scale = target.scale
        self.dtype: np.dtype[Any] = np.dtype(f"uint{target.bits}")
        self._white: int = (1 << target.bits) - 1

    @property
    def meaning(self) -> str:
        return self.target.model_dump_json(exclude={"border"})

    def decode_target(self, path: Path, notes: list[str] | None = None) -> NDArray[Any]:
        loaded = read_image(path, keep_16_bits=True)
        if loaded.pixels_hwc.dtype != self.dtype:
            bits = 8 * loaded.pixels_hwc.dtype.itemsize
            raise DataError(
                f"the clean image has {bits} bits a channel, and target.bits is {self.target.bits}",
                where=path,
                rule="clean images have the bits that predictions are written in.",
                cure=f"--set target.bits={bits}, or save them with {self.target.bits} bits.",
            )
        if notes is not None:
            notes += [f"clean image: {note}" for note in loaded.notes]
        return loaded.pixels_hwc

    def valid(self, target_hw: NDArray[Any]) -> NDArray[np.bool_]:
        """Everywhere."""
        return np.ones(target_hw.shape[:2], dtype=bool)

    def stratum_value(self, target_hw: NDArray[Any]) -> float:
        """Mean luma."""
        return float(luma_full(target_hw).mean()) / self._white

    def describe(self, targets: Iterable[NDArray[Any]]) -> dict[str, Any]:
        levels = self._white + 1
        counts_cn = np.zeros((3, levels), dtype=np.int64)
        lumas = []
        for target_hwc in targets:
            lumas.append(self.stratum_value(target_hwc))
            for channel in range(3):
                counts_cn[channel] += np.bincount(target_hwc[..., channel].reshape(-1), minlength=levels)
        total = max(1, int(counts_cn[0].sum()))
        quantiles_cq = [np.searchsorted(counts_n.cumsum() / total, _QUANTILES - 1e-12) for counts_n in counts_cn]
        return {
            "images": len(lumas),
            "mean_luma": round(float(np.mean(lumas)), 5) if lumas else 0.0,
            "quantiles": np.round(np.stack(quantiles_cq, axis=1) / self._white, 5).tolist(),
        }

    def facts_table(self, facts: Mapping[str, Any]) -> str:
        middle, bright = (np.mean(facts["quantiles"][index]) for index in (len(_QUANTILES) // 2, -2))
        return (
            f"training targets: {facts['images']} clean images of {self.target.bits} bits, mean luma"
            f" {facts['mean_luma']:.3f} of 1; half of the values are below {middle:.3f}, 98 % below {bright:.3f}"
        )

    def loss(self, facts: Mapping[str, Any]) -> TaskLoss:
        from perpixel.data.dataset import to_unit
        from perpixel.losses import WeightedRestorationLoss

        section = self.loss_section
        expressions = [parse_loss(name) for name in (section.warm_start or section.name, section.name)]
        seen = any(name == "perceptual" for terms in expressions for _, name in terms)
        perceptual = _perceptual(section.perceptual_encoder) if seen else None
        weighted = [WeightedRestorationLoss(terms, perceptual=perceptual) for terms in expressions]

        def compute(epoch: int, output_bkhw: torch.Tensor, target_bhwc: torch.Tensor) -> torch.Tensor:
            if perceptual is not None:
                perceptual.to(output_bkhw.device)
            chosen = weighted[epoch >= section.warm_start_epochs]
            return chosen(output_bkhw, to_unit(target_bhwc).permute(0, 3, 1, 2))

        return compute

    def scores(self, output_bkhw: torch.Tensor) -> torch.Tensor:
        """RGB, near [0, 1], not limited to it yet."""
        return output_bkhw.float()

    def finalize(self, scores_khw: NDArray[np.float32], decision: Decision) -> NDArray[Any]:
        """RGB of the targets' bits; what is no number becomes black."""
        prediction_hwc = np.empty((*scores_khw.shape[1:], 3), dtype=self.dtype)
        for channel, plane_hw in enumerate(scores_khw):  # one by one: images may be large
            unit_hw = np.nan_to_num(plane_hw, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
            prediction_hwc[..., channel] = np.rint(unit_hw * self._white)
        return prediction_hwc

    def graph_prediction(self, scores_bkhw: torch.Tensor, decision: Decision) -> torch.Tensor:
        """RGB, prediction_bhwc: uint8, or int32 where targets have 16 bits, for few runtimes know uint16."""
        unit_bkhw = scores_bkhw.masked_fill(scores_bkhw.isnan(), 0).clamp(0, 1)
        levels_bhwc = (unit_bkhw * self._white).round().permute(0, 2, 3, 1)
        return levels_bhwc.byte() if self._white == 255 else levels_bhwc.int()

    def graph_output(self, size: str) -> dict[str, str]:
        kind = "uint8" if self._white == 255 else "int32"
        return {"type": kind, "shape": f"{size} 3", "meaning": f"RGB, 0 to {self._white}"}

    def confidence(self, scores_khw: NDArray[np.float32], prediction_hw: NDArray[Any]) -> NDArray[np.float32]:
        """1 everywhere: a network of restoration says nothing of how sure it is."""
        return np.ones(prediction_hw.shape[:2], dtype=np.float32)

    def pixel_error(self, prediction_hw: NDArray[Any], target_hw: NDArray[Any]) -> NDArray[np.float32]:
        """Mean over the channels, 0 to 1."""
        error_hw: NDArray[np.float32] = np.abs(_unit(prediction_hw) - _unit(target_hw)).mean(axis=2)
        return error_hw

    def properties(self, target_hw: NDArray[Any]) -> dict[str, float]:
        return {"brightness of the truth": self.stratum_value(target_hw)}

    def first_decision(self) -> Decision:
        return {}

    def metrics(self) -> RestorationMetrics:
        from perpixel.models.lpips import lpips_at_hand

        return RestorationMetrics(border=self.target.border, distance=lpips_at_hand())

    def baselines(self, facts: Mapping[str, Any]) -> dict[str, Callable[[NDArray[Any]], NDArray[Any]]]:
        """The input itself, enlarged where targets are larger; and after it was brought to the brightness, or to the
        distribution of values, of the training targets, or its own contrast was raised (in 8 bits)."""
        scale, mean_luma = self.target.scale, float(facts["mean_luma"])
        quantiles_qc = np.asarray(facts["quantiles"], dtype=np.float64)
        return {
            "input" if scale == 1 else "bicubic": lambda image_hwc: bicubic(image_hwc, scale),
            "gamma correction": lambda image_hwc: bicubic(gamma_corrected(image_hwc, mean_luma), scale),
            "histogram matching": lambda image_hwc: bicubic(histogram_matched(image_hwc, quantiles_qc), scale),
            "CLAHE": lambda image_hwc: bicubic(clahe(_brightened(image_hwc, 1.0)), scale),
        }

    def guards(self, figures: Mapping[str, float]) -> list[str]:
        """A wrong brightness, and predictions that are too good to be made."""
        found = []
        ratio = figures["brightness_ratio"]
        if ratio < _DARKER or ratio > _BRIGHTER:
            found.append(
                f"the predictions are {'darker' if ratio < 1 else 'brighter'} than the truth: their mean luma is"
                f" {ratio:.2f} of it; brightness alone makes the difference between PSNR {figures['psnr']:.2f} and"
                f" {figures['brightness_matched/psnr']:.2f} dB"
            )
        if figures["identical_images"] > 0:
            found.append(
                f"{figures['identical_images']:.0f} predictions equal their truth in every pixel: look whether these"
                " inputs are degraded at all"
            )
        return found

    def paint(self, prediction_hw: NDArray[Any]) -> NDArray[np.uint8]:
        """The image as it is, in 8 bits."""
        return _brightened(prediction_hw, 1.0)

    def panels(
        self, image_hwc: NDArray[Any], prediction_hw: NDArray[Any], target_hw: NDArray[Any] | None = None
    ) -> dict[str, NDArray[np.uint8]]:
        """All brightened by the same factor, which makes the truth (else the prediction) well exposed; the input is
        enlarged by bicubic interpolation."""
        scale = self.target.scale
        shown = {"input": bicubic(image_hwc, scale), "prediction": prediction_hw}
        if target_hw is not None:
            shown["truth"] = target_hw
        gain = _gain(shown.get("truth", prediction_hw))
        panels = {name: _brightened(picture_hwc, gain) for name, picture_hwc in shown.items()}
        if target_hw is not None:
            error_hw = gain * np.abs(_unit(prediction_hw) - _unit(target_hw)).mean(axis=2)
            level_hw = np.rint(255 * (error_hw / _WORST).clip(0, 1)).astype(np.uint8)
            panels["error"] = np.asarray(cv2.applyColorMap(level_hw, cv2.COLORMAP_INFERNO)[..., ::-1])
        return panels

    def close_up(
        self, image_hwc: NDArray[Any], prediction_hw: NDArray[Any], target_hw: NDArray[Any]
    ) -> dict[str, NDArray[np.uint8]]:
        """A square of the image as it came, enlarged by bicubic interpolation, as predicted, and as it should be."""
        scale, gain = self.target.scale, _gain(target_hw)
        side = max(1, min(96, min(target_hw.shape[:2]) // 4) // scale) * scale
        top, left = _worst_square(self.pixel_error(prediction_hw, target_hw), side, scale)
        window = np.s_[top : top + side, left : left + side]
        own = np.s_[top // scale : (top + side) // scale, left // scale : (left + side) // scale]
        framed_hwc = _brightened(target_hw, gain)
        cv2.rectangle(framed_hwc, (left, top), (left + side - 1, top + side - 1), (255, 0, 0), 2)
        shown = {"input": image_hwc[own]} | ({"bicubic": bicubic(image_hwc, scale)[window]} if scale > 1 else {})
        shown |= {"prediction": prediction_hw[window], "truth": target_hw[window]}
        size = (max(_CLOSE, side) // side * side,) * 2
        pictures = {name: _brightened(picture_hwc, gain) for name, picture_hwc in shown.items()}
        enlarged = {
            name: np.asarray(cv2.resize(picture_hwc, size, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
            for name, picture_hwc in pictures.items()
        }
        return {"where": framed_hwc} | enlarged

    def write_prediction(
        self,
        stem: Path,
        image_hwc: NDArray[Any],
        scores_khw: NDArray[np.float32],
        prediction_hw: NDArray[Any],
        source: Path | None = None,
    ) -> list[Path]:
        """The image as PNG of the targets' bits."""
        path = stem.with_name(stem.name + self.prediction_files[0])
        write_image(path, prediction_hw)
        return [path]

    def require_same_maps(self, other: Task, where: Path) -> None:
        """The factor must be the same."""
        factor = other.target.scale if isinstance(other, RestorationTask) else None
        if factor == self.target.scale:
            return
        raise RequestError(
            "this recipe's targets are no clean images, as the run's are"
            if factor is None
            else f"this recipe's targets are {factor} times as large as the images, the run's {self.target.scale}",
            where=where,
            rule="predictions are compared with clean images of their own size.",
        )

    def submission_map(self, prediction_hw: NDArray[Any]) -> NDArray[np.uint8]:
        """Luma of ITU-R BT.601, full range, as whole numbers of 8 bits."""
        luma_hw = luma_full(prediction_hw) * (255 / self._white)
        return np.asarray(np.floor(luma_hw + 0.5), dtype=np.uint8)


def _unit(image_hwc: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 or uint16 as float32 in [0, 1]."""
    return image_hwc.astype(np.float32) / np.float32(255 if image_hwc.dtype == np.uint8 else 65535)


def _gain(image_hwc: NDArray[Any]) -> float:
    """The factor that makes an image well exposed."""
    return float(np.clip(0.95 / max(float(np.quantile(_unit(image_hwc), 0.99)), 1e-3), 1, 20))


def _worst_square(error_hw: NDArray[np.float32], side: int, step: int) -> tuple[int, int]:
    """Row and column, multiples of ``step``, of the square with the largest sum of errors."""
    sums_hw = cv2.integral(error_hw)
    squares_hw = sums_hw[side:, side:] - sums_hw[:-side, side:] - sums_hw[side:, :-side] + sums_hw[:-side, :-side]
    squares_hw = squares_hw[::step, ::step]
    row, column = np.unravel_index(int(squares_hw.argmax()), squares_hw.shape)
    return int(row) * step, int(column) * step


def _perceptual(encoder: str) -> PerceptualLoss:
    from perpixel.losses import PerceptualLoss
    from perpixel.models import EncoderLevels

    levels = EncoderLevels(encoder)
    return PerceptualLoss(levels, mean=levels.mean, std=levels.std)


def _brightened(image_hwc: NDArray[Any], gain: float) -> NDArray[np.uint8]:
    return np.asarray(np.rint(255 * (gain * _unit(image_hwc)).clip(0, 1)), dtype=np.uint8)
