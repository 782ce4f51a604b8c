"""What predicts images: a trained network, or an exported file. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perpixel.images import read_image
from perpixel.inference.tiles import plan_tiles
from perpixel.recipe import InferenceSection
from perpixel.tasks import Decision, Task


class Clock(Protocol):
    """Seconds that the network ran inside a ``with`` block."""

    @property
    def seconds(self) -> float:
        """Until now."""


class ImagePredictor(ABC):
    """From images to scores at their own sizes, and to predictions."""

    task: Task
    inference: InferenceSection
    decision: Decision
    precision: str

    @property
    @abstractmethod
    def device_name(self) -> str:
        """What the network runs on, for a person."""

    @property
    @abstractmethod
    def threads(self) -> int:
        """How many threads the network has."""

    @abstractmethod
    def clock(self) -> AbstractContextManager[Clock]:
        """Counts the seconds of the network inside a ``with`` block."""

    @abstractmethod
    def scores(self, images: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Scores of each image_hwc at its original size (or, of images, at the output's), scores_khw."""

    def read(self, path: Path) -> NDArray[Any]:
        """The image_hwc of a file, with 16 bits where these are kept; raises DataError."""
        return read_image(path, keep_16_bits=self.task.image_scale is not None).pixels_hwc

    def takes(self, image_hwc: NDArray[Any]) -> bool:
        """Whether images of this size can be predicted."""
        return True

    def finalize(self, scores_khw: NDArray[np.float32]) -> NDArray[Any]:
        """The prediction of one image from its scores."""
        return self.task.finalize(scores_khw, self.decision)

    def calibrated(self, scores_khw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores for confidences, after the temperature that validation data asked for; not for `finalize`."""
        return self.task.calibrated(scores_khw, self.decision)

    def confidence(self, scores_khw: NDArray[np.float32], prediction_hw: NDArray[Any]) -> NDArray[np.float32]:
        """How sure the model is of each pixel of a prediction, confidence_hw in 0..1, calibrated."""
        return self.task.confidence(self.calibrated(scores_khw), prediction_hw)

    def predict(self, images: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Predictions at the images' original sizes."""
        return [self.finalize(scores_khw) for scores_khw in self.scores(images)]

    def doubts(self, images: Sequence[NDArray[Any]]) -> list[str]:
        """What makes predictions unbelievable whatever their figures are, a sentence each, looked for in a few
        images."""
        return []

    @abstractmethod
    def _batch(self, images: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """scores_bkhw of images of one size, as the network gives them."""

    def _tiled(self, image_hwc: NDArray[Any], context: int | None, step: int) -> NDArray[np.float32]:
        """Scores of a fitted image that is larger than a tile: only they and the tiles of a batch are in memory."""
        assert self.inference.tile is not None
        height, width = image_hwc.shape[:2]
        tiles = plan_tiles((height, width), self.inference.tile, context=context, step=step)
        scale = self.task.image_scale or 1
        total_khw = np.zeros((self.task.out_channels, scale * height, scale * width), dtype=np.float32)
        for size in dict.fromkeys(tile.size for tile in tiles):
            alike = [tile for tile in tiles if tile.size == size]
            for start in range(0, len(alike), self.inference.batch_size):
                batch = alike[start : start + self.inference.batch_size]
                batch_scores = self._batch([tile.cut(image_hwc) for tile in batch])
                for tile, scores_khw in zip(batch, batch_scores, strict=True):
                    tile.add(scores_khw, total_khw, scale)
        return total_khw
