"""``--budget``: the number of epochs that fit into a time, from the real loop, rehearsed.

The rehearsal is a training of its own: a copy of the model, in a folder that is thrown away, takes a few steps and is
validated once. So all that an epoch costs is in what it measures, and nothing of it reaches the training that follows.
"""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perpixel.console import Console, duration
from perpixel.errors import RequestError, RunError
from perpixel.evaluation.evaluate import Evaluation
from perpixel.memory import release
from perpixel.models import PixelModel
from perpixel.recipe import Recipe
from perpixel.run import Run
from perpixel.training.fit import fit
from perpixel.training.loop import TrainingModule
from perpixel.training.processes import Onlooker, Processes
from perpixel.training.trial import costliest_epoch, random_state_kept

MakeModule = Callable[[Recipe, Run, PixelModel], TrainingModule]

_WARM_STEPS = 3  # they allocate and tune
_TIMED_STEPS = 4  # at least
_LEAST_SECONDS, _SHARE = 1.0, 0.01  # of timed steps: a second, or so much of the budget
_KEPT = 0.05  # of the budget, for measurements that drift
_END_SECONDS, _END_IMAGE = 3.0, 1.5  # of the end: drawing and timing, and an image's cost beside that in a validation
_FALLING = ("cosine", "poly")


@dataclass(frozen=True)
class Pace:
    """Seconds that a training takes: of a step, of what an epoch needs beside its steps, and of the end."""

    step: float
    steps_an_epoch: int
    beside: float
    end: float

    @property
    def epoch(self) -> float:
        return self.steps_an_epoch * self.step + self.beside


def fit_to_budget(
    recipe: Recipe,
    seconds: float,
    started: float,
    model: PixelModel,
    make_module: MakeModule,
    scored: tuple[int, int],
    console: Console,
    processes: Processes,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe with as many epochs as fit into ``seconds``, and what the manifest keeps of that.

    Args:
        started: `time.monotonic` when the budget began.
        make_module: builds the loop around a model.
        scored: images that a validation scores, and that the evaluations at the end score.

    Raises:
        RequestError: not even one epoch fits, or none after the warm-up.
    """
    console.say("budget: a few steps and one validation are rehearsed")
    with random_state_kept():
        pace = _rehearse(recipe, seconds, model, make_module, scored, processes)
    pace = processes.from_first(lambda: pace)
    spent = processes.from_first(lambda: time.monotonic() - started)
    left = seconds * (1 - _KEPT) - spent - pace.end
    epochs = math.floor(left / pace.epoch)
    measured = (
        f"a step takes {_told(pace.step)}, an epoch of {pace.steps_an_epoch} steps with its validation"
        f" {_told(pace.epoch)}; {_told(spent)} are spent, about {_told(pace.end)} are kept for the last evaluation"
    )
    least = math.floor(recipe.schedule.warmup_epochs) + 1
    if epochs < least:
        needed = (least * pace.epoch + spent + pace.end) / (1 - _KEPT)
        raise RequestError(
            f"{least} epoch{'s do' if least > 1 else ' does'} not fit into a budget of {duration(seconds)}",
            where=f"--budget {duration(seconds)}",
            details=[measured],
            rule="a training has an epoch at least, and one after schedule.warmup_epochs.",
            cure=f"give --budget {math.ceil(needed * 1.1)}s, or lower input.size, model.encoder or"
            " schedule.warmup_epochs, or take fewer data.",
        )
    console.say(f"  {measured}")
    console.say(f"budget {duration(seconds)}: {epochs} epochs, in place of the recipe's {recipe.training.epochs}")
    if recipe.schedule.name not in _FALLING:
        console.say(f"  schedule.name={recipe.schedule.name} does not fall towards the end; cosine and poly do")
    facts = {"seconds": seconds, "epochs": epochs, "epochs_before": recipe.training.epochs}
    facts |= {"step_seconds": round(pace.step, 6), "epoch_seconds": round(pace.epoch, 3)}
    return recipe.with_training(epochs=epochs), facts


def say_budget(run: Run, seconds: float, console: Console) -> None:
    """How long a training took against its budget, where it had one; kept in the manifest."""
    facts = run.manifest.get("budget")
    if facts is None:
        return
    run.update_manifest(budget=facts | {"took_seconds": round(seconds, 1)})
    console.say(f"the training took {duration(seconds)} of a budget of {duration(facts['seconds'])}")


def _rehearse(
    recipe: Recipe,
    seconds: float,
    model: PixelModel,
    make_module: MakeModule,
    scored: tuple[int, int],
    processes: Processes,
) -> Pace:
    """One short epoch of the real loop."""
    epoch = costliest_epoch(recipe)
    short = recipe.with_training(epochs=epoch + 1)
    with tempfile.TemporaryDirectory(prefix="perpixel-") as folder:
        run = Run(Path(folder)) if processes.first else Onlooker(Path(folder))
        module = make_module(short, run, copy.deepcopy(model))
        module.progress.epoch = epoch
        steps = _TimedSteps(module.make_loader, processes, max(_LEAST_SECONDS, _SHARE * seconds))
        validation = _TimedValidation(module.validate_model)
        module.make_loader, module.validate_model = steps, validation
        try:
            fit(module, short, run, Console())
        except RunError:
            if run.manifest.get("status") == "interrupted":
                raise RunError("interrupted before the first epoch", cure="the same command starts it again.") from None
            raise
        ended = time.monotonic()
    count = module.batches_per_epoch
    del module
    release()
    if steps.timed:
        step = steps.timed_seconds / steps.timed
    else:  # the epoch has few batches: all of it was rehearsed
        step = (validation.began - steps.first_came) / max(1, steps.given)
    beside = (ended - validation.began) + (steps.first_came - steps.began)
    # The first process alone scores all of what is left to score, with baselines and calibration, and draws pictures.
    an_image = validation.seconds * processes.world_size / max(1, scored[0])
    return Pace(step, count, beside, _END_SECONDS + _END_IMAGE * an_image * scored[1])


class _TimedSteps:
    """The batches of an epoch until enough of them are timed; from one to the next the loop takes one step."""

    def __init__(self, make_loader: Callable[[int, int], Iterable[Any]], processes: Processes, enough: float) -> None:
        self._make_loader, self._processes, self._enough = make_loader, processes, enough
        self.began = self.first_came = self.timed_seconds = 0.0
        self.given = self.timed = 0

    def __call__(self, epoch: int, first_batch: int) -> Iterator[Any]:
        self.began = time.monotonic()
        for number, batch in enumerate(self._make_loader(epoch, first_batch)):
            now = time.monotonic()
            if number == 0:
                self.first_came = now
            elif number == _WARM_STEPS:
                warm = now
            elif number > _WARM_STEPS:
                self.timed, self.timed_seconds = number - _WARM_STEPS, now - warm
            enough = self.timed >= _TIMED_STEPS and self.timed_seconds >= self._enough
            if self._processes.any(enough)[0]:
                return
            self.given += 1
            yield batch


class _TimedValidation:
    """A validation, and when it began."""

    def __init__(self, validate: Callable[[PixelModel], Evaluation]) -> None:
        self._validate = validate
        self.began = self.seconds = 0.0

    def __call__(self, model: PixelModel) -> Evaluation:
        self.began = time.monotonic()
        evaluation = self._validate(model)
        self.seconds = time.monotonic() - self.began
        return evaluation


def _told(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
