"""The Predictor: the one code path from an image to a prediction, in validation, evaluation and use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from perpixel.data.fit import fit_image, plan_fit, unfit_scores
from perpixel.errors import RunError
from perpixel.models import PixelModel, build_model
from perpixel.recipe import InferenceSection, InputSection
from perpixel.run import Run, read_json
from perpixel.tasks import Decision, Task, build_task


class Predictor:
    """Fit, network, test-time flip and scales, scores back at the original size, decision."""

    def __init__(
        self,
        model: PixelModel,
        task: Task,
        *,
        input_section: InputSection,
        inference: InferenceSection,
        decision: Decision,
        precision: str,
        device: torch.device | None = None,
    ) -> None:
        self.model, self.task, self.decision = model, task, decision
        self.input_section, self.inference = input_section, inference
        self.precision = precision
        self.device = device or default_device()
        self.model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @classmethod
    def from_run(cls, run: Run) -> Predictor:
        """The best checkpoint of a run, with what was chosen on its validation data."""
        if not run.best_path.is_file():
            raise RunError(
                "this run has no trained model yet", where=run.path, cure="finish it: perpixel train --resume."
            )
        recipe = run.recipe
        task = build_task(recipe)
        section = recipe.model
        model = build_model(
            architecture=section.architecture,
            encoder=section.encoder,
            weights=str(run.best_path),
            out_channels=task.out_channels,
            decoder_norm=section.decoder_norm,
            decoder_attention=section.decoder_attention,
        )
        decision = task.first_decision()
        if run.decision_path.is_file():
            decision = read_json(run.decision_path)
        return cls(
            model,
            task,
            input_section=recipe.input,
            inference=recipe.inference,
            decision=decision,
            precision=recipe.training.precision,
        )

    def scores(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Scores of each image_hwc at its original size, scores_khw; a batch of each size that they are fitted to."""
        fits = [plan_fit(image_hwc.shape[:2], self.input_section) for image_hwc in images]
        scores: dict[int, NDArray[np.float32]] = {}
        for size in dict.fromkeys(fit.size for fit in fits):
            places = [place for place, fit in enumerate(fits) if fit.size == size]
            stacked = np.stack([fit_image(images[place], fits[place]) for place in places])
            scores_bkhw = self._network(to_network(torch.from_numpy(stacked).permute(0, 3, 1, 2), self.device))
            for place, scores_khw in zip(places, scores_bkhw.cpu().numpy(), strict=True):
                scores[place] = unfit_scores(scores_khw, fits[place])
        return [scores[place] for place in range(len(images))]

    def finalize(self, scores_khw: NDArray[np.float32]) -> NDArray[Any]:
        """The prediction of one image from its scores."""
        return self.task.finalize(scores_khw, self.decision)

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[NDArray[Any]]:
        """Predictions at the images' original sizes."""
        return [self.finalize(scores_khw) for scores_khw in self.scores(images)]

    @torch.inference_mode()
    def _network(self, image_bchw: torch.Tensor) -> torch.Tensor:
        """Scores of the fitted images, averaged over the scales and their mirror images."""
        size = image_bchw.shape[2:]
        views = []
        for scale in self.inference.scales:
            scaled = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
            view_bkhw = self._one_scale(_resize(image_bchw, scaled))
            views.append(_resize(view_bkhw, size))
        return torch.stack(views).mean(dim=0) if len(views) > 1 else views[0]

    def _one_scale(self, image_bchw: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            scores_bkhw = self.task.scores(self.model(image_bchw))
            if self.inference.flip:
                flipped = self.task.scores(self.model(image_bchw.flip(3)))
                scores_bkhw = (scores_bkhw + flipped.flip(3)) / 2
        return scores_bkhw


def _resize(maps_bchw: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear, averaging where it shrinks; nothing is done to maps that have this size."""
    if maps_bchw.shape[2:] == tuple(size):
        return maps_bchw
    return F.interpolate(maps_bchw, tuple(size), mode="bilinear", align_corners=False, antialias=True)


def default_device() -> torch.device:
    """The first CUDA device if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_network(image_bchw: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 RGB to float32 in [0, 1], channels last: the one place that scales pixel values."""
    moved = image_bchw.to(device, non_blocking=True)
    return moved.to(torch.float32).div_(255).contiguous(memory_format=torch.channels_last)
