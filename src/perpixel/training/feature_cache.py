"""The features of a frozen encoder, computed once: epochs then cost only what stands behind it.

They are cached when that pays: the encoder is frozen to the end, what it sees repeats (augmentation chooses at most
among the eight orientations of a picture), and there are more epochs than orientations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from perpixel.console import Console
from perpixel.data.augment import draw_orientation, orient, orientations, random_changes, sample_generator
from perpixel.data.cache_folder import cache_folder
from perpixel.data.dataset import EpochOrder, stack_images
from perpixel.data.fit import fit_image, fit_target, plan_fit
from perpixel.inference.predictor import default_device, to_network
from perpixel.models import PixelModel
from perpixel.recipe import Recipe
from perpixel.run import Run
from perpixel.tasks import Task
from perpixel.training.feature_store import FeatureStore, Keep, build_store, open_store
from perpixel.training.material import Material

_FORMAT = 1


@dataclass(frozen=True)
class FeatureBatch:
    """A batch behind the encoder: ``features`` of fitted images of ``size`` (height, width), with their targets."""

    features: list[Tensor]
    size: tuple[int, int]
    target_bhw: Tensor
    ids: tuple[str, ...]

    def to(self, device: torch.device) -> FeatureBatch:
        """The same on a device."""
        moved = [feature.to(device, non_blocking=True) for feature in self.features]
        return FeatureBatch(moved, self.size, self.target_bhw.to(device), self.ids)


class OrientedSamples:
    """The fitted training samples in all their orientations; row = index of the sample * orientations + orientation."""

    def __init__(self, recipe: Recipe, task: Task, material: Material) -> None:
        self.recipe, self.fill, self.decoded = recipe, task.fill, material.decoded
        self.positions = material.positions("train")
        self.ids = [material.samples[position].id for position in self.positions]
        self.orientations = orientations(recipe.augmentation)

    def __len__(self) -> int:
        return len(self.positions) * len(self.orientations)

    def row(self, index: int, epoch: int) -> int:
        """That of a sample as augmentation lays it down in an epoch."""
        if len(self.orientations) == 1:
            return index
        generator = sample_generator(self.recipe.training.seed, epoch, self.ids[index])
        chosen = draw_orientation(self.recipe.augmentation, generator)
        return index * len(self.orientations) + self.orientations.index(chosen)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """image_bchw, uint8, and target_bhw in the task's values."""
        images, targets = zip(*(self._pair(*divmod(row, len(self.orientations))) for row in rows), strict=True)
        return stack_images(images), torch.from_numpy(np.stack(targets))

    def _pair(self, index: int, number: int) -> tuple[NDArray[Any], NDArray[Any]]:
        position, orientation = self.positions[index], self.orientations[number]
        image_hwc, target_hw = self.decoded.image(position), self.decoded.target(position)
        fit = plan_fit(image_hwc.shape[:2], self.recipe.input)
        fitted_hwc, fitted_hw = fit_image(image_hwc, fit), fit_target(target_hw, fit, self.fill)
        return orient(fitted_hwc, orientation), orient(fitted_hw, orientation)


class CachedEpoch:
    """The rest of an epoch: the samples of the plain loop's batches, behind the encoder.

    A step reads so little that worker processes would cost more than they could take over.
    """

    def __init__(
        self,
        samples: OrientedSamples,
        store: FeatureStore,
        epoch: int,
        first_batch: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.samples, self.store, self.epoch = samples, store, epoch
        training = samples.recipe.training
        self.order = EpochOrder(
            len(samples.positions),
            training.images_a_step,
            seed=training.seed,
            epoch=epoch,
            first_batch=first_batch,
            share=share,
        )

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[FeatureBatch]:
        height, width = self.samples.recipe.input.size
        for indices in self.order:
            rows = [self.samples.row(index, self.epoch) for index in indices]
            *features, target_bhw = self.store.read(rows)
            ids = tuple(self.samples.ids[index] for index in indices)
            yield FeatureBatch(features, (height, width), target_bhw, ids)


def cache_features(
    recipe: Recipe,
    task: Task,
    model: PixelModel,
    material: Material,
    run: Run,
    console: Console,
    *,
    half: bool = True,
) -> Callable[..., CachedEpoch] | None:
    """What yields the rest of an epoch, given the epoch, its first batch, and the share of each batch as `EpochOrder`
    takes it; None where nothing is cached.

    Says what was done, or why not, and keeps it in the manifest. Damaged features are computed anew.

    Args:
        half: round the features to half precision.
    """
    if not recipe.model.freeze_encoder:
        return None
    samples = OrientedSamples(recipe, task, material)
    sharded = material.chunks("train") is not None  # more of them than a machine holds
    why_not, store = _reason_against(recipe, task, model, len(samples.orientations), sharded=sharded), None
    if why_not is None:
        keep = _kept(model, recipe.input.size, half)
        folder = cache_folder() / f"features-{_key(samples, model, material.fingerprint, keep)}"
        store = open_store(folder)
        if store is None:
            why_not = build_store(folder, len(samples), lambda: _encoded(samples, model, console), keep)
            store = open_store(folder)
    console.say(_savings(samples, store) if store else f"the encoder is frozen, yet runs in every step: {why_not}")
    before, features = run.manifest.get("features"), "cached" if store else "computed anew"
    if before not in (None, features):
        console.say(f"  before the interruption its features were {before}: the weights may differ by rounding")
    run.update_manifest(features=features)
    return None if store is None else partial(CachedEpoch, samples, store)


def _reason_against(
    recipe: Recipe, task: Task, model: PixelModel, variants: int, *, sharded: bool = False
) -> str | None:
    changes = random_changes(recipe.augmentation)
    if recipe.model.unfreeze_epochs:
        return "it begins to train later (model.unfreeze_epochs)"
    if recipe.data.also:
        return "pairs of other recipes train too (data.also)"
    if recipe.input.fit == "crop" or task.image_scale is not None:
        return "its input never repeats (random crops)"
    if changes:
        return f"its input never repeats ({', '.join(f'augmentation.{name}' for name in changes)})"
    if not model.can_split:
        return f"{recipe.model.architecture} does not come in two halves"
    if sharded:
        return "the data are shards"
    if recipe.data.cache == "off":
        return "data.cache is off"
    if recipe.training.epochs <= variants:
        return f"training.epochs={recipe.training.epochs} does not exceed the orientations of a sample ({variants})"
    return None


def _kept(model: PixelModel, size: Sequence[int], half: bool) -> list[Keep]:
    """What the store keeps of the features, and, last, of the targets."""
    features: list[Keep] = [("half" if half else "exact") if used else "shape" for used in used_features(model, size)]
    return [*features, "exact"]


def used_features(model: PixelModel, size: Sequence[int]) -> list[bool]:
    """Of each of the encoder's features, whether the output depends on it: many decoders leave some out."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            features = model.encode(torch.zeros(1, 3, *size, device=model.normalization_mean.device))
        features = [feature.requires_grad_() for feature in features]
        output_bkhw = model.decode(features, (size[0], size[1]))
        gradients = torch.autograd.grad(output_bkhw.sum(), features, allow_unused=True)
    finally:
        model.train(was_training)
    return [gradient is not None for gradient in gradients]


def _key(samples: OrientedSamples, model: PixelModel, data: str, keep: Sequence[Keep]) -> str:
    """A name for the features: data, encoder, what it sees, and what is kept of what it yields."""
    recipe = samples.recipe
    said = {
        "format": _FORMAT,
        "versions": [metadata.version(name) for name in ("torch", "timm", "segmentation-models-pytorch")],
        "data": data,
        "ids": samples.ids,
        "input": recipe.input.model_dump(mode="json"),
        "orientations": samples.orientations,
        "network": [recipe.model.architecture, recipe.model.encoder, model.divisor, model.minimum_size],
        "precision": recipe.training.precision,
        "kept": [samples.fill, *keep],
    }
    digest = hashlib.blake2b(json.dumps(said).encode(), digest_size=12)
    weights = model.encoder.state_dict() | {"mean": model.normalization_mean, "std": model.normalization_std}
    for name, value in sorted(weights.items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _encoded(samples: OrientedSamples, model: PixelModel, console: Console) -> Iterator[list[Tensor]]:
    """Features and targets of all rows, in batches of the training's size, computed as its steps would."""
    device, training = default_device(), samples.recipe.training
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for start in range(0, len(samples), training.images_a_step):
        rows = range(start, min(start + training.images_a_step, len(samples)))
        levels_bchw, target_bhw = samples.batch(rows)
        image_bchw = to_network(levels_bchw, device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16"):
            features = model.encode(image_bchw)
        yield [*features, target_bhw]
        console.progress("encoder", rows.stop, len(samples))


def _savings(samples: OrientedSamples, store: FeatureStore) -> str:
    variants = len(samples.orientations)
    repeats = "" if variants == 1 else f" in {variants} orientations"
    return (
        f"the encoder is frozen and its input repeats: features of {len(samples.positions)} samples{repeats}"
        f" ({store.bytes / 2**20:.1f} MiB with their targets) were computed once, in {store.seconds:.1f} s;"
        f" each epoch saves about {store.seconds / variants:.2g} s"
    )
