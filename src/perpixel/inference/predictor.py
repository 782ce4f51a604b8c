"""The Predictor: the one code path from an image to a prediction, in validation, evaluation and use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from perpixel.data.dataset import stack_images, to_unit
from perpixel.data.fit import fit_image, plan_fit, unfit_scores
from perpixel.errors import RequestError, RunError
from perpixel.inference.base import ImagePredictor
from perpixel.inference.exported import weights_metadata
from perpixel.inference.timing import NetworkClock, device_name
from perpixel.memory import predicting
from perpixel.models import PixelModel, build_model
from perpixel.models.input_check import encoder_input_doubt
from perpixel.recipe import InferenceSection, InputSection, Recipe, recipe_from_dict
from perpixel.run import Run, read_json
from perpixel.tasks import Decision, Task, build_task


class Predictor(ImagePredictor):
    """Fit, tiles, network, test-time views, scores back at the original size, decision."""

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
    def from_run(cls, run: Run, overrides: Sequence[str] = ()) -> Predictor:
        """The best checkpoint of a run, with what was chosen on its validation data.

        Args:
            overrides: ``inference.key=value`` texts: another use of the same model.

        Raises:
            RunError: there is no trained model yet.
            RequestError: an override of another section.
            RecipeError: an override that the recipe does not allow.
        """
        if not run.best_path.is_file():
            raise RunError(
                "this run has no trained model yet", where=run.path, cure="finish it: perpixel train --resume."
            )
        decision = read_json(run.decision_path) if run.decision_path.is_file() else None
        return cls._built(run.recipe, run.recipe_path, overrides, run.best_path, decision)

    @classmethod
    def from_file(cls, path: Path, overrides: Sequence[str] = ()) -> Predictor:
        """Weights that `perpixel export --format safetensors` wrote, with all that is needed to use them.

        Raises:
            RequestError: no such file, or an override of another section.
            RunError: the file is damaged, or was not exported by perpixel.
            RecipeError: an override that the recipe does not allow.
        """
        facts = weights_metadata(path)
        recipe = recipe_from_dict(facts["recipe"], where=str(path))
        return cls._built(recipe, path, overrides, path, facts["decision"])

    @classmethod
    def _built(
        cls, stored: Recipe, where: Path, overrides: Sequence[str], weights: Path, decision: Decision | None
    ) -> Predictor:
        foreign = [text for text in overrides if not text.strip().startswith("inference.")]
        if foreign:
            raise RequestError(
                "a trained model can be used in another way, not made another one",
                where=f"--set {foreign[0]}",
                rule="with a run, --set changes keys of its inference section alone.",
            )
        recipe = recipe_from_dict(stored.to_dict(), overrides, where=str(where))
        task = build_task(recipe)
        section = recipe.model
        model = build_model(
            architecture=section.architecture,
            encoder=section.encoder,
            weights=str(weights),
            out_channels=task.out_channels,
            decoder_norm=section.decoder_norm,
            decoder_attention=section.decoder_attention,
            scale=task.image_scale,
        )
        return cls(
            model,
            task,
            input_section=recipe.input,
            inference=recipe.inference,
            decision=decision or task.first_decision(),
            precision=recipe.training.precision,
        )

    def scores(self, images: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Scores of each image_hwc at its original size (or, of images, at the output's), scores_khw.

        Images that are fitted to one size make a batch. Those that are larger than a tile are predicted by themselves.
        """
        with predicting(self.inference, images):
            return self._scores(images)

    def _scores(self, images: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        fits = [plan_fit(image_hwc.shape[:2], self.input_section) for image_hwc in images]
        scores: dict[int, NDArray[np.float32]] = {}
        for size in dict.fromkeys(fit.size for fit in fits):
            places = [place for place, fit in enumerate(fits) if fit.size == size]
            if max(size) > (self.inference.tile or max(size)):
                for place in places:
                    scores[place] = unfit_scores(
                        self._tiled(fit_image(images[place], fits[place]), self.model.context, self.model.tile_step),
                        fits[place],
                    )
                continue
            batch_scores = self._batch([fit_image(images[place], fits[place]) for place in places])
            for place, scores_khw in zip(places, batch_scores, strict=True):
                scores[place] = unfit_scores(scores_khw, fits[place])
        return [self.task.refine(scores[place], image_hwc) for place, image_hwc in enumerate(images)]

    def doubts(self, images: Sequence[NDArray[Any]]) -> list[str]:
        fits = [plan_fit(image_hwc.shape[:2], self.input_section) for image_hwc in images]
        alike = [fit_image(image, fit) for image, fit in zip(images, fits, strict=True) if fit.size == fits[0].size]
        doubt = encoder_input_doubt(self.model, to_network(stack_images(alike), self.device))
        return [doubt] if doubt else []

    @property
    def device_name(self) -> str:
        return device_name(self.device)

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def clock(self) -> NetworkClock:
        """The model alone, every test-time view of an image included."""
        return NetworkClock(self.model, self.device)

    def _batch(self, images: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """scores_bkhw of images of one size."""
        scores_bkhw: NDArray[np.float32] = self._network(to_network(stack_images(images), self.device)).cpu().numpy()
        return scores_bkhw

    @torch.no_grad()  # not inference_mode: what a network caches there (BEiT does) could never train again
    def _network(self, image_bchw: torch.Tensor) -> torch.Tensor:
        return self.averaged_views(image_bchw)

    def averaged_views(self, image_bchw: torch.Tensor) -> torch.Tensor:
        """scores_bkhw of fitted images (float, [0, 1]), averaged over the scales and their views."""
        size = image_bchw.shape[2:]
        scale_of_output = self.task.image_scale or 1
        size_of_output = [scale_of_output * side for side in size]
        views = []
        for scale in self.inference.scales:
            scaled = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
            view_bkhw = self._one_scale(_resize(image_bchw, scaled))
            views.append(_resize(view_bkhw, size_of_output))
        return torch.stack(views).mean(dim=0) if len(views) > 1 else views[0]

    def _one_scale(self, image_bchw: torch.Tensor) -> torch.Tensor:
        """Averaged over the flips and quarter turns that the recipe asks for."""
        turns = range(4) if self.inference.self_ensemble else range(1)
        flips = (False, True) if self.inference.self_ensemble or self.inference.flip else (False,)
        views = [self._one_view(image_bchw, turn, flip) for turn in turns for flip in flips]
        return sum(views[1:], start=views[0]) / len(views) if len(views) > 1 else views[0]

    def _one_view(self, image_bchw: torch.Tensor, turn: int, flip: bool) -> torch.Tensor:
        """Scores of the image after a flip and quarter turns, brought back to where they belong."""
        view_bchw = torch.rot90(image_bchw.flip(3) if flip else image_bchw, turn, (2, 3))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            scores_bkhw = torch.rot90(self.task.scores(self.model(view_bchw)), -turn, (2, 3))
        return scores_bkhw.flip(3) if flip else scores_bkhw


def _resize(maps_bchw: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear, averaging where it shrinks; nothing is done to maps that have this size."""
    if maps_bchw.shape[2:] == tuple(size):
        return maps_bchw
    return F.interpolate(maps_bchw, tuple(size), mode="bilinear", align_corners=False, antialias=True)


def default_device() -> torch.device:
    """The first CUDA device if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_network(image_bchw: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 or uint16 RGB to float32 in [0, 1], channels last."""
    moved = image_bchw.to(device, non_blocking=True)
    return to_unit(moved).contiguous(memory_format=torch.channels_last)
