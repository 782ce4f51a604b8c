"""What the machine decides when a run starts: threads, precision, batch size. Written into its recipe, it stays."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from perpixel.console import Console
from perpixel.data.dataset import Batch
from perpixel.inference.predictor import default_device, to_network
from perpixel.models import PixelModel
from perpixel.recipe import Recipe
from perpixel.tasks import TaskLoss
from perpixel.training.batch_size import USUAL, find_batch_size
from perpixel.training.precision import choose_precision
from perpixel.training.processes import Processes, shares
from perpixel.training.trial import costliest_epoch


def settle(
    recipe: Recipe,
    model: PixelModel,
    loss: TaskLoss,
    loader_of: Callable[[Recipe], Callable[[int, int], Iterable[Any]]],
    samples: int,
    console: Console,
    processes: Processes,
) -> Recipe:
    """The recipe without ``auto`` and ``null`` in its training section, the same on all processes.

    Args:
        loader_of: what gives the rest of an epoch, or this process's share of it, of a recipe.
        samples: that train.
    """
    recipe = processes.from_first(lambda: _settle_arithmetic(recipe, model, console, processes))
    torch.set_num_threads(recipe.training.threads or 1)
    if recipe.training.batch_size != "auto":
        return recipe
    epoch = costliest_epoch(recipe)

    def first_batch(size: int) -> Batch:
        tried = recipe.with_training(batch_size=size, workers=0)
        batch: Batch = next(iter(loader_of(tried)(epoch, 0)))
        return batch

    size = find_batch_size(recipe, model, loss, first_batch, samples, console, processes)
    return recipe.with_training(batch_size=size)


def _settle_arithmetic(recipe: Recipe, model: PixelModel, console: Console, processes: Processes) -> Recipe:
    section = recipe.training
    threads = section.threads or max(1, torch.get_num_threads() // processes.local_size)
    torch.set_num_threads(threads)
    precision: str = section.precision
    if precision == "auto":
        device = default_device()
        size = USUAL if section.batch_size == "auto" else section.batch_size
        images = max(1, len(shares(range(size), processes.world_size)[0]))
        image_bchw = torch.zeros(images, 3, *recipe.input.size, dtype=torch.uint8)
        precision = choose_precision(model.to(device), to_network(image_bchw, device), console)
    return recipe.with_training(threads=threads, precision=precision)
