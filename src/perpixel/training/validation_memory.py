"""Validation of a model whose encoder never changes: of images that it has seen, only the rest is computed."""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from perpixel.data.cache_folder import cache_folder
from perpixel.models import PixelModel
from perpixel.recipe import Recipe
from perpixel.training.feature_cache import used_features
from perpixel.training.feature_store import Feature, room


class EncoderMemory:
    """Features of batches by the content of the batch, exactly as the encoder gave them.

    They lie in a file of the cache folder that has no name, so that it is gone with the process, however that ends.
    What does not fit is not remembered; raises OSError where there can be no such file.

    Args:
        used: of each feature, whether the decoder needs it.
    """

    def __init__(self, used: Sequence[bool]) -> None:
        self.used = used
        self._places: dict[bytes, list[tuple[Feature, int]]] = {}
        cache_folder().mkdir(parents=True, exist_ok=True)
        self._most = room(cache_folder())
        self._file = tempfile.TemporaryFile(dir=cache_folder())  # noqa: SIM115 - it lives as long as the memory
        weakref.finalize(self, self._file.close)

    def features(self, image_bchw: Tensor, encode: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """What ``encode`` makes of the images, computed the first time only."""
        key = _digest(image_bchw)
        if key in self._places:
            return [self._read(*place, len(image_bchw)).to(image_bchw.device) for place in self._places[key]]
        features = encode(image_bchw)
        self._keep(key, features)
        return features

    def _keep(self, key: bytes, features: list[Tensor]) -> None:
        kinds = [
            Feature.of(feature, "exact" if used else "shape") for feature, used in zip(features, self.used, strict=True)
        ]
        needed = sum(kind.bytes for kind in kinds) * len(features[0])
        if needed > self._most:
            return
        places = []
        try:
            for kind, feature in zip(kinds, features, strict=True):
                places.append((kind, self._file.seek(0, 2)))
                if kind.stored:
                    self._file.write(kind.pack(feature).data)
            self._file.flush()
        except OSError:  # the disk became full
            self._most = 0
            return
        self._most -= needed
        self._places[key] = places

    def _read(self, kind: Feature, start: int, count: int) -> Tensor:
        if not kind.stored:
            return kind.blank(count)
        self._file.seek(start)
        rows = np.fromfile(self._file, np.uint8, count * kind.bytes)
        return kind.unpack(rows.reshape(count, kind.bytes))


class RememberingModel(PixelModel):
    """A model that asks the memory before it asks its encoder; the two share all weights."""

    def __init__(self, model: PixelModel, memory: EncoderMemory) -> None:
        super().__init__(
            model.network,
            mean=model.normalization_mean.flatten().tolist(),
            std=model.normalization_std.flatten().tolist(),
            divisor=model.divisor,
            minimum_size=model.minimum_size,
        )
        self.memory = memory

    def forward(self, image_bchw: Tensor) -> Tensor:
        """As `PixelModel.forward`, bit for bit."""
        height, width = image_bchw.shape[-2:]
        return self.decode(self.memory.features(image_bchw, self.encode), (height, width))


def validation_memory(recipe: Recipe, model: PixelModel) -> EncoderMemory | None:
    """A memory where the encoder is frozen to the end and more than one validation comes; else None."""
    frozen = recipe.model.freeze_encoder and not recipe.model.unfreeze_epochs
    if not frozen or not model.can_split or recipe.data.cache == "off" or recipe.training.epochs < 2:
        return None
    try:
        return EncoderMemory(used_features(model, recipe.input.size))
    except OSError:  # no cache folder to be had: nothing is lost but time
        return None


def _digest(image_bchw: Tensor) -> bytes:
    pixels = image_bchw.permute(0, 2, 3, 1).contiguous().cpu()
    content = hashlib.blake2b(pixels.view(torch.uint8).numpy().data, digest_size=16)
    content.update(str(tuple(image_bchw.shape)).encode())
    return content.digest()
