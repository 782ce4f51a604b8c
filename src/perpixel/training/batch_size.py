"""``training.batch_size: auto``: real steps at doubling sizes, as large as memory allows and as gains speed.

Memory is never filled to find its end: there the system of a processor ends processes without a word. A step of twice
the images takes at most twice the memory, so a size is tried only where that much is there.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from perpixel.console import Console
from perpixel.data.dataset import Batch, batch_length
from perpixel.inference.predictor import default_device, to_network
from perpixel.memory import drop, is_out_of_memory, release
from perpixel.models import PixelModel
from perpixel.recipe import Recipe
from perpixel.tasks import TaskLoss
from perpixel.training.optimization import build_optimizer
from perpixel.training.processes import Processes
from perpixel.training.trial import MemoryMeter, random_state_kept

USUAL = 8  # below it batch statistics are noisy: only memory makes a batch smaller
_LARGEST = 64  # a larger batch mostly costs steps; who wants one gives its number
_STEPS_AN_EPOCH = 8  # at least: an epoch of few steps learns little
_FASTER = 1.1  # images a second; a larger batch that gains less only costs steps
_STEPS = 3  # the first one allocates and tunes; of the others the faster one counts


@dataclass(frozen=True)
class _Found:
    """What one process saw of a size: seconds a step, bytes taken, and their share of those that may be taken."""

    seconds: float
    taken: int
    share: float


def find_batch_size(
    recipe: Recipe,
    model: PixelModel,
    loss: TaskLoss,
    first_batch: Callable[[int], Batch],
    samples: int,
    console: Console,
    processes: Processes,
) -> int:
    """A batch size for this model, input and device, the same on all processes. Model and random states stay.

    Args:
        recipe: with its precision settled.
        first_batch: this process's share of the first batch of an epoch in batches of a size.
        samples: that train.

    Raises:
        MemoryError: not even the smallest batch fits.
    """
    smallest = min(2 * processes.world_size, samples)  # batch normalisation needs two images
    meter = MemoryMeter(default_device(), processes.local_size)
    measured = not processes.any(meter.room is None)[0]
    largest = max(smallest, min(_LARGEST if measured else USUAL, samples // _STEPS_AN_EPOCH))
    console.say("batch size auto: steps are tried" + ("" if measured else "; free memory is not known here"))
    size, best, speed, why = smallest, 0, 0.0, f"no larger one is tried with {samples} samples"
    with random_state_kept():
        trial = _Trial(recipe, model, loss, processes)
        while size <= largest:
            told = processes.gather(trial.steps(first_batch, size, meter))
            found = [each for each in told if each is not None]
            if len(found) < len(told) or max(each.share for each in found) > 1:
                why = "more does not fit into memory"
                break
            images_a_second = batch_length(samples, size, 0) / max(each.seconds for each in found)
            taken = max(each.taken for each in found) / 2**20
            console.say(f"  {size} images: {images_a_second:.1f} a second, {taken:.0f} MiB")
            if size > USUAL and images_a_second < _FASTER * speed:
                why = "a larger one is hardly faster"
                break
            best, speed, size = size, images_a_second, 2 * size
            if 2 * max(each.share for each in found) > 1:
                why = "more might not fit into memory"
                break
    del trial
    release()
    if not best:
        raise MemoryError(f"not even {smallest} images fit")
    rate = f"optimizer.learning_rate stays {recipe.optimizer.learning_rate:g}"
    console.say(f"batch size {best}: {why}; {rate}, whatever the size")
    return best


class _Trial:
    """Training steps of a copy of a model."""

    def __init__(self, recipe: Recipe, model: PixelModel, loss: TaskLoss, processes: Processes) -> None:
        self._recipe, self._model, self._loss, self._others = recipe, model, loss, processes.world_size - 1
        self._device = default_device()

    def steps(self, first_batch: Callable[[int], Batch], size: int, meter: MemoryMeter) -> _Found | None:
        """Take some; None: memory did not suffice. No process waits for another one in between."""
        meter.reset()
        try:
            seconds = self._time(first_batch(size))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            drop(error)
            return None
        weights = sum(value.numel() * value.element_size() for value in self._model.state_dict().values())
        taken = meter.taken() + (weights if self._recipe.training.ema_decay else 0)
        return _Found(seconds, taken, taken / meter.room if meter.room else 0.0)

    def _time(self, batch: Batch) -> float:
        section, device = self._recipe.model, self._device
        model: PixelModel = copy.deepcopy(self._model).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        most = len(section.unfreeze_epochs) if section.freeze_encoder else None
        if most is not None:
            model.set_trainable_stages(most)
        optimizer = build_optimizer(model, self._recipe.optimizer.model_copy(update={"learning_rate": 0.0}), most)
        image_bchw, target_bhw = to_network(batch.image_bchw, device), batch.target_bhw.to(device)
        seconds = []
        for _ in range(_STEPS):
            began = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=self._recipe.training.precision == "bf16"):
                output_bkhw = model(image_bchw)
            self._whole_loss(output_bkhw.float(), target_bhw).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return min(seconds[1:])

    def _whole_loss(self, output_bkhw: torch.Tensor, target_bhw: torch.Tensor) -> torch.Tensor:
        """Every process computes the loss of the whole batch; here the others' images are its own once more."""
        outputs_bkhw = torch.cat([output_bkhw, *[output_bkhw.detach()] * self._others])
        return self._loss(0, outputs_bkhw, torch.cat([target_bhw] * (1 + self._others)))
