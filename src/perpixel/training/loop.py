"""The loop, on Lightning's Trainer, written so that a continuation is exact.

Lightning drives devices, precision, accumulation and clipping. Where the training stands is ours: the
position (epoch, batch) chooses the rest of an epoch's batches, the learning rate and the random numbers,
so nothing of Lightning's own progress has to be saved or restored.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from safetensors.torch import save

from perpixel.console import Console
from perpixel.data.dataset import Batch, batch_length, batches_per_epoch
from perpixel.errors import RunError
from perpixel.evaluation.evaluate import Evaluation
from perpixel.inference.predictor import to_network
from perpixel.models import PixelModel
from perpixel.recipe import Recipe
from perpixel.run import Run, write_atomic
from perpixel.tasks import TaskLoss
from perpixel.training.feature_cache import FeatureBatch
from perpixel.training.optimization import ExponentialAverage, Plateau, build_optimizer, schedule_factor
from perpixel.training.packing import load_tree, save_tree
from perpixel.training.parallel import deal_out, dealt_like, is_dealt_out, put_together
from perpixel.training.processes import Processes

_MOST_BAD_STEPS = 20
_CURE_OF_BAD_STEPS = "lower optimizer.learning_rate, set optimizer.gradient_clip, or training.precision=fp32."


class Interrupted(Exception):  # noqa: N818 - it is a request, not a fault
    """The user asked to stop; the state is saved."""


@dataclass
class Progress:
    """Where the training stands; with weights, optimiser and average it is all that a continuation needs."""

    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    best: float | None = None
    best_epoch: int = -1
    seconds: float = 0.0
    stopped: bool = False
    plateau_scale: float = 1.0
    plateau_waited: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class TrainingModule(LightningModule):
    """One training; ``make_loader(epoch, first_batch)`` gives the rest of an epoch, or this process's share of it.

    Several processes take the steps that one would take: the loss is that of the whole batch, on all of them, and each
    follows its derivative into its own images.
    """

    def __init__(
        self,
        model: PixelModel,
        loss: TaskLoss,
        recipe: Recipe,
        run: Run,
        *,
        make_loader: Callable[[int, int], Iterable[Any]],
        samples: int,
        validate: Callable[[PixelModel], Evaluation],
        console: Console,
        stop_asked: Callable[[], bool],
        processes: Processes,
    ) -> None:
        super().__init__()
        self.model = model
        self.loss, self.recipe, self.run_folder = loss, recipe, run
        self.make_loader, self.samples, self.validate_model = make_loader, samples, validate
        self.batches_per_epoch = batches_per_epoch(samples, recipe.training.images_a_step)
        self.console, self.stop_asked, self.processes = console, stop_asked, processes
        self.progress = Progress()
        schedule = recipe.schedule
        self.plateau = Plateau(schedule.factor, schedule.patience) if schedule.name == "plateau" else None
        decay = recipe.training.ema_decay
        self.average = ExponentialAverage(model, decay) if decay else None
        # Not a submodule of the training: it is scored, never trained.
        self.scored = [copy.deepcopy(model)]
        self._optimizer_state: Any = None
        self._saved_at = self._clock = time.monotonic()
        self._steps_seen = 0
        self.tell_history: Callable[[list[dict[str, float]]], None] = lambda rows: None  # after every epoch
        self._ids: tuple[str, ...] = ()  # samples of the running batch
        self._skipped = False  # the loss of the running batch was no number

    # What Lightning asks for

    def train_dataloader(self) -> Iterable[Any]:
        return self.make_loader(self.progress.epoch, self.progress.batch)

    def configure_model(self) -> None:
        if self.processes.several and self.recipe.training.strategy == "fsdp":
            deal_out(self.model, self.processes)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        section = self.recipe.model
        most = len(section.unfreeze_epochs) if section.freeze_encoder else None
        return build_optimizer(self.model, self.recipe.optimizer, most)

    def transfer_batch_to_device(
        self, batch: Batch | FeatureBatch, device: torch.device, dataloader_idx: int
    ) -> Batch | FeatureBatch:
        if isinstance(batch, FeatureBatch):
            return batch.to(device)
        return Batch(to_network(batch.image_bchw, device), batch.target_bhw.to(device), batch.ids)

    def on_train_start(self) -> None:
        if self._optimizer_state is not None:
            load_optimizer_state(self.trainer.optimizers[0], self._optimizer_state)
            self._optimizer_state = None
        if self.average is not None:
            state = self.model.state_dict()
            shadow = {name: kept.to(self.device) for name, kept in self.average.shadow.items()}
            self.average.shadow = {name: dealt_like(kept, state[name]) for name, kept in shadow.items()}
        self._saved_at = self._clock = time.monotonic()

    def on_train_epoch_start(self) -> None:
        stages = self.recipe.model.trainable_stages(self.progress.epoch)
        if stages is None:
            return
        before = self.model.parameter_counts()
        self.model.set_trainable_stages(stages)
        counts = self.model.parameter_counts()
        if counts != before:
            self.console.say(
                f"epoch {self.progress.epoch + 1}: {stages} of {len(self.model.encoder_stages())} encoder stages train;"
                f" {counts['trained']:,} parameters train, {counts['frozen']:,} are frozen"
            )

    def on_train_batch_start(self, batch: Batch | FeatureBatch, batch_idx: int) -> None:
        seed_everything([*self._step_seed(), *([self.processes.rank] if self.processes.rank else [])])
        rate = self.learning_rate()
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate * group["factor"]

    def training_step(self, batch: Batch | FeatureBatch, batch_idx: int) -> torch.Tensor | None:
        if isinstance(batch, FeatureBatch):
            output_bkhw = self.model.decode(batch.features, batch.size)
        else:
            output_bkhw = self.model(batch.image_bchw)
        count = batch_length(self.samples, self.recipe.training.images_a_step, self.progress.batch)
        loss = self._loss_of_all(output_bkhw, batch.target_bhw, count)
        value = float(loss.detach())
        self._ids, self._skipped = batch.ids, not np.isfinite(value)
        if self._skipped:
            self._count_bad_step(f"the loss is {value}")
            # Lightning lets a single process skip a step; of several each must take part.
            return output_bkhw.nan_to_num(0.0, 0.0, 0.0).mul(0.0).sum() if self.processes.several else None
        self.progress.loss_sum += value * count
        self.progress.loss_count += count
        # Lightning averages the derivatives of the processes, each of which has its own images' part of a sum.
        return loss * self.processes.world_size if self.processes.several else loss

    def _loss_of_all(self, output_bkhw: torch.Tensor, target_bhw: torch.Tensor, count: int) -> torch.Tensor:
        """The loss of the whole batch of ``count`` images, whoever holds them."""
        with torch.autocast(self.device.type, enabled=False):
            if not self.processes.several:
                return self.loss(self.progress.epoch, output_bkhw.float(), target_bhw)
            outputs_bkhw = self.processes.whole_batch(output_bkhw, count).float()
            targets_bhw = self.processes.whole_batch(target_bhw, count)
            seed_everything(self._step_seed())  # what a loss draws is one for all
            return self.loss(self.progress.epoch, outputs_bkhw, targets_bhw)

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> None:
        # Lightning's own clipping refuses fused optimisers for the sake of fp16 scaling, which is not used here.
        trained = [parameter for parameter in self.model.parameters() if parameter.grad is not None]
        if not trained:  # the step was skipped already
            return
        if self._skipped:
            for parameter in trained:
                parameter.grad = None
            return
        norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in trained if parameter.grad is not None])
        if not torch.isfinite(put_together(norm)):
            # The loss may be finite all the same; a step would spoil all weights, for good.
            self._count_bad_step("a derivative of the loss is not finite")
            for parameter in trained:
                parameter.grad = None
            return
        self.progress.bad_in_a_row = 0
        if self.recipe.optimizer.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.recipe.optimizer.gradient_clip, norm)

    def on_train_batch_end(self, outputs: Any, batch: Batch | FeatureBatch, batch_idx: int) -> None:
        position = self.progress
        position.batch += 1
        if self.average is not None and self.trainer.global_step > self._steps_seen:
            self.average.update(self.model)
        self._steps_seen = self.trainer.global_step
        mean = position.loss_sum / max(1, position.loss_count)
        label = f"epoch {position.epoch + 1}/{self.recipe.training.epochs}"
        self.console.progress(label, position.batch, self.batches_per_epoch, f"loss {mean:.4f}")
        if position.batch < self.batches_per_epoch and position.batch % self.recipe.optimizer.accumulate == 0:
            due = time.monotonic() - self._saved_at > self.recipe.training.checkpoint_seconds
            asked, due = self.processes.any(self.stop_asked(), due)
            if asked or due:
                self.save()
            if asked:
                raise Interrupted

    def on_train_epoch_end(self) -> None:
        self._finish_epoch()
        if self.processes.any(self.stop_asked())[0] and not self.done:
            raise Interrupted
        self.trainer.should_stop = self.done

    # What a training is

    @property
    def done(self) -> bool:
        """Whether no epoch is left."""
        return self.progress.stopped or self.progress.epoch >= self.recipe.training.epochs

    def learning_rate(self) -> float:
        """The decoder's learning rate at the present position."""
        accumulate = self.recipe.optimizer.accumulate
        per_epoch = -(-self.batches_per_epoch // accumulate)
        step = self.progress.epoch * per_epoch + self.progress.batch // accumulate
        factor = schedule_factor(
            self.recipe.schedule, step, steps_per_epoch=per_epoch, epochs=self.recipe.training.epochs
        )
        return self.recipe.optimizer.learning_rate * factor * (self.plateau.scale if self.plateau else 1.0)

    def scored_model(self) -> PixelModel:
        """A copy with the weights that are scored and kept: the average if there is one."""
        state = self.average.shadow if self.average is not None else self.model.state_dict()
        self.scored[0].load_state_dict(put_together(state))
        # Each process keeps its own running statistics of batch normalisation; those of the first are the model's.
        self.processes.copy_first(self.scored[0].state_dict().values())
        return self.scored[0]

    def _finish_epoch(self) -> None:
        if not self.progress.loss_count:
            raise RunError(
                f"every step of epoch {self.progress.epoch + 1} had to be skipped",
                where=self.run_folder.path,
                rule="a step needs a finite loss with finite derivatives.",
                cure=_CURE_OF_BAD_STEPS,
            )
        position, section = self.progress, self.recipe.training
        rate = self.learning_rate()
        scored = self.scored_model()
        evaluation = self.validate_model(scored)
        figure = evaluation.figures[section.monitor]
        higher = evaluation.infos[section.monitor].direction == "higher"
        gained = bool(np.isfinite(figure)) and (
            position.best is None or (figure > position.best if higher else figure < position.best)
        )
        if gained:
            position.best, position.best_epoch = figure, position.epoch
            if self.processes.first:
                write_atomic(self.run_folder.best_path, model_bytes(scored))
        if self.plateau is not None:
            self.plateau.update(gained)
        mean_loss = position.loss_sum / position.loss_count if position.loss_count else float("nan")
        self._tick()
        row = {"epoch": position.epoch + 1, "train_loss": mean_loss, "learning_rate": rate}
        row |= {"seconds": round(position.seconds, 1), "bad_steps": position.bad_steps}
        row |= {f"val_{name}": value for name, value in evaluation.figures.items()}
        position.history.append(row)
        self.console.say(
            f"epoch {position.epoch + 1}/{section.epochs}: loss {mean_loss:.4f}, val {section.monitor} {figure:.4f}"
            f"{' (best so far)' if gained else ''}, learning rate {rate:.2g}"
        )
        position.epoch, position.batch = position.epoch + 1, 0
        position.loss_sum, position.loss_count = 0.0, 0
        patience = section.early_stopping_epochs
        if patience is not None and position.epoch - 1 - position.best_epoch >= patience:
            position.stopped = True
            self.console.say(f"stopped early: no gain of {section.monitor} in {patience} epochs")
        self.save()
        self.run_folder.write_history(position.history)
        self.tell_history(position.history)

    def _count_bad_step(self, what: str) -> None:
        position = self.progress
        position.bad_steps += 1
        position.bad_in_a_row += 1
        where = f"epoch {position.epoch + 1}, batch {position.batch + 1}"
        self.console.say(f"{what} at {where}: this step is skipped (samples {', '.join(self._ids[:4])}, ...)")
        if position.bad_in_a_row >= _MOST_BAD_STEPS:
            raise RunError(
                f"{what} in the last of {_MOST_BAD_STEPS} steps in a row that had to be skipped",
                where=where,
                rule="a step needs a finite loss with finite derivatives.",
                cure=_CURE_OF_BAD_STEPS,
            )

    # What a continuation needs

    def save(self) -> None:
        """Write checkpoints/last.safetensors."""
        self._tick()
        if self.plateau is not None:
            self.progress.plateau_scale, self.progress.plateau_waited = self.plateau.scale, self.plateau.waited
        tree = {
            "progress": asdict(self.progress),
            "model": self.model.state_dict(),
            "optimizer": self.trainer.optimizers[0].state_dict(),
            "average": None if self.average is None else {"steps": self.average.steps, "shadow": self.average.shadow},
        }
        tree = put_together(tree)
        if self.processes.first:
            save_tree(self.run_folder.last_path, tree)
        self._saved_at = time.monotonic()

    def restore(self) -> None:
        """Take up the state of checkpoints/last.safetensors, if there is one."""
        if not self.run_folder.last_path.is_file():
            return
        tree = load_tree(self.run_folder.last_path)
        self.progress = Progress(**tree["progress"])
        self.model.load_state_dict(tree["model"])
        self._optimizer_state = tree["optimizer"]
        if self.plateau is not None:
            self.plateau.scale, self.plateau.waited = self.progress.plateau_scale, self.progress.plateau_waited
        if self.average is not None:
            self.average.steps, self.average.shadow = tree["average"]["steps"], tree["average"]["shadow"]
        self.run_folder.write_history(self.progress.history)  # a kill may have come just before it was written

    def _step_seed(self) -> list[int]:
        return [self.recipe.training.seed & 0xFFFFFFFF, self.progress.epoch, self.progress.batch]

    def _tick(self) -> None:
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now


def seed_everything(numbers: list[int]) -> None:
    """Every global random state as a function of these numbers; so none has to be saved."""
    state = np.random.SeedSequence(numbers).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed(int(state[2]))


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Any) -> None:
    """Restore an optimiser whose parameters may lie channels-last.

    A checkpoint holds plain contiguous tensors; fused optimisers walk parameter and moments side by side in
    memory, so that moments of another layout would meet the wrong weights, without any error.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                dealt = is_dealt_out(parameter)
                values[name] = dealt_like(value, parameter) if dealt else torch.empty_like(parameter).copy_(value)


def model_bytes(model: PixelModel) -> bytes:
    """The weights as safetensors."""
    state: Mapping[str, torch.Tensor] = model.state_dict()
    return save({name: value.detach().cpu().contiguous().clone() for name, value in state.items()})
