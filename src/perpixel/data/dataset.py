"""From decoded samples to batches; the order and the augmentation depend on (seed, epoch, sample) alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from perpixel.data.augment import augment, sample_generator
from perpixel.data.cache import DecodedSamples
from perpixel.data.fit import fit_image, fit_target, paired_crop, plan_crop, plan_fit
from perpixel.recipe import AugmentationSection, InputSection


@dataclass(frozen=True)
class Batch:
    """``image_bchw`` uint8 or uint16; ``target_bhw`` in the task's values (``fill`` where there is none), or, where
    targets are images, target_bhwc."""

    image_bchw: torch.Tensor
    target_bhw: torch.Tensor
    ids: tuple[str, ...]


class TrainingSet(Dataset[tuple[NDArray[np.uint8], NDArray[Any], str]]):
    """Fitted and augmented samples of one epoch; ``augmentations`` are those of positions that have their own."""

    def __init__(
        self,
        decoded: DecodedSamples,
        ids: Sequence[str],
        positions: Sequence[int],
        *,
        input_section: InputSection,
        augmentation: AugmentationSection,
        fill: float,
        seed: int,
        epoch: int,
        zoom_divides: bool = False,
        image_scale: int | None = None,
        augmentations: Mapping[int, AugmentationSection] | None = None,
    ) -> None:
        # Arrays: of lists each worker would make copies of its own, page by page, by counting references.
        self.decoded, self.ids, self.positions = decoded, np.array(ids), np.array(positions)
        self.augmentations = augmentations or {}
        self.input_section, self.augmentation, self.fill = input_section.at_epoch(epoch), augmentation, fill
        self.seed, self.epoch, self.zoom_divides, self.image_scale = seed, epoch, zoom_divides, image_scale

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[Any], str]:
        position = int(self.positions[index])
        id_ = str(self.ids[position])
        image_hwc, target_hw = self.decoded.image(position), self.decoded.target(position)
        generator = sample_generator(self.seed, self.epoch, id_)
        augmentation = self.augmentations.get(position, self.augmentation)
        if self.image_scale is not None:
            size = self.input_section.size
            image_hwc, target_hw = paired_crop(image_hwc, target_hw, size, self.image_scale, generator)
            return *augment(image_hwc, target_hw, augmentation, generator), id_
        if self.input_section.fit == "crop":
            rows, columns, fit = plan_crop(target_hw, self.input_section, augmentation, self.fill, generator)
            image_hwc, target_hw = image_hwc[rows, columns], target_hw[rows, columns]
            if self.zoom_divides:
                target_hw = target_hw / target_hw.dtype.type(fit.zoom)
        else:
            fit = plan_fit(image_hwc.shape[:2], self.input_section)
        image_hwc, target_hw = augment(
            fit_image(image_hwc, fit),
            fit_target(target_hw, fit, self.fill),
            augmentation,
            generator,
            zoom_divides=self.zoom_divides,
        )
        return image_hwc, target_hw, id_


class EpochOrder:
    """Batches of indices of one epoch, from ``first_batch`` on.

    The order is a function of (seed, epoch), and of ``chunks`` where there are some. Batches differ in size by one at
    most, so that none is a remainder too small for batch statistics.

    Args:
        share: (number, of): which of so many consecutive, nearly equal parts of each batch to give, counted from 0.
        chunks: what `windowed_order` takes; None: any sample may follow any other.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        first_batch: int = 0,
        share: tuple[int, int] = (0, 1),
        chunks: tuple[NDArray[np.int64], int] | None = None,
    ) -> None:
        rng = np.random.default_rng([seed & 0xFFFFFFFF, epoch])
        order = windowed_order(*chunks, rng) if chunks is not None else rng.permutation(count)
        batches = np.array_split(order, batches_per_epoch(count, batch_size))
        number, of = share
        self.batches = [np.array_split(batch, of)[number].tolist() for batch in batches[first_batch:]]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)


def windowed_order(chunk_n: NDArray[np.int64], window: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """An order of samples in which those of a chunk are never far apart: a reader needs few chunks at a time.

    The chunks stand in random order, number 0, 1, 2 ...; a sample of number k comes at a random time between k and
    k + window. So at any time the samples of ``window`` chunks are drawn among each other, and one chunk is new.

    Args:
        chunk_n: the chunk of each sample.
    """
    numbers, which_n = np.unique(chunk_n, return_inverse=True)
    return np.argsort(rng.permutation(len(numbers))[which_n] + window * rng.random(len(chunk_n)), kind="stable")


def batches_per_epoch(count: int, batch_size: int) -> int:
    """Number of batches of an epoch: none is larger than ``batch_size``."""
    return -(-count // batch_size)


def batch_length(count: int, batch_size: int, batch: int) -> int:
    """Number of samples in a batch of an epoch, counted from 0."""
    batches = batches_per_epoch(count, batch_size)
    return count // batches + (batch < count % batches)


def training_loader(dataset: TrainingSet, order: EpochOrder, *, workers: int) -> DataLoader[Any]:
    """A loader of `Batch`; its generator is its own, so that it takes nothing from the global random state."""
    return DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_collate,
        generator=torch.Generator().manual_seed(0),
    )


def _collate(items: Sequence[tuple[NDArray[np.uint8], NDArray[Any], str]]) -> Batch:
    images, targets, ids = zip(*items, strict=True)
    return Batch(stack_images(images), torch.from_numpy(np.stack(targets)), tuple(ids))


def stack_images(images: Sequence[NDArray[Any]]) -> torch.Tensor:
    """image_bchw of several image_hwc of one size, uint8, or uint16 if any of them is: 255 becomes 65535."""
    if len({image_hwc.dtype for image_hwc in images}) > 1:
        images = [image if image.dtype == np.uint16 else image.astype(np.uint16) * 257 for image in images]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def to_unit(levels: torch.Tensor) -> torch.Tensor:
    """Levels of uint8 or uint16 as float32 in [0, 1]: the one place that scales pixel values."""
    return levels.to(torch.float32).div_(65535 if levels.dtype == torch.uint16 else 255)
