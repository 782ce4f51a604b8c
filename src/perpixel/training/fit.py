"""Lightning's Trainer around the loop, and the signals that end it in good order."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer

from perpixel.console import Console
from perpixel.errors import RunError
from perpixel.memory import is_out_of_memory
from perpixel.recipe import Recipe
from perpixel.run import Run
from perpixel.training.loop import Interrupted, TrainingModule
from perpixel.training.parallel import trainer_arguments

_STOP = threading.Event()


def stop_asked() -> bool:
    """Whether a signal asked the present training to stop."""
    return _STOP.is_set()


@contextlib.contextmanager
def _stop_on_signal(console: Console) -> Iterator[Callback]:
    """The first Ctrl-C (or SIGTERM) asks to stop after this step; a second one stops at once.

    Gives what installs this again behind Lightning, whose own handler would talk to the other processes at any instant.
    """
    _STOP.clear()
    if threading.current_thread() is not threading.main_thread():
        yield Callback()
        return

    def ask(number: int, frame: Any) -> None:
        if _STOP.is_set():
            raise KeyboardInterrupt
        _STOP.set()
        console.say("stopping after this step and saving; once more stops at once")

    class Install(Callback):
        def on_train_start(self, *args: Any) -> None:
            signal.signal(signal.SIGTERM, ask)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield Install()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fit(module: TrainingModule, recipe: Recipe, run: Run, console: Console) -> None:
    """Run Lightning's Trainer to the end of the recipe.

    Raises:
        RunError: interrupted; the state is saved.
    """
    if module.done:
        return
    keep_freed_memory()
    processes, dealt = module.processes, recipe.training.strategy == "fsdp" and module.processes.several
    with _quiet_lightning(), _stop_on_signal(console) as install:
        trainer = Trainer(
            **trainer_arguments(processes, recipe, module.model),
            callbacks=[install],
            precision="bf16-mixed" if recipe.training.precision == "bf16" else "32-true",
            max_epochs=recipe.training.epochs - module.progress.epoch,
            accumulate_grad_batches=recipe.optimizer.accumulate,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            if not dealt:  # a part of a weight has no layout
                module.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            trainer.fit(module)
        except (Interrupted, KeyboardInterrupt, SystemExit) as stop:
            run.update_manifest(status="interrupted")
            if isinstance(stop, Interrupted):
                processes.wait()  # for what the first one writes
            done = f"{module.progress.epoch} of {recipe.training.epochs} epochs"
            raise RunError(
                f"interrupted after {done}", where=run.path, cure="the same command with --resume continues it."
            ) from None
        except (RuntimeError, ValueError) as error:
            raise _explained(error, recipe, run) from error


def _explained(error: Exception, recipe: Recipe, run: Run) -> Exception:
    """What a user can cause and PyTorch says in its own words, said in ours; anything else as it is."""
    if "DataLoader worker" in str(error) and not is_out_of_memory(error):
        return RunError(
            "a process that loads data has ended",
            where=run.path,
            cure="too little memory is the usual reason: lower training.workers or training.batch_size in a new run;"
            " the same command with --resume continues this one.",
        )
    if "more than 1 value per channel" in str(error):
        return RunError(
            "batch normalisation cannot learn from one value a channel",
            where=f"training.batch_size = {recipe.training.batch_size}, input.size = {list(recipe.input.size)}",
            rule="each process needs two images, or features larger than one pixel.",
            cure="raise training.batch_size or input.size, start fewer processes, or set"
            " training.sync_batch_norm=true.",
        )
    return error


def keep_freed_memory() -> None:
    """Let glibc keep the memory that a step frees: the next step takes it again.

    By default it goes back to the system and is faulted in anew, which costs a tenth to a fifth of the
    processor time of a step (`benchmarks/allocator.py`). Elsewhere than on glibc this does nothing.
    """
    top_pad, trim_threshold, mmap_threshold = -2, -1, -3  # malloc.h
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in ((mmap_threshold, 2**30), (trim_threshold, 2**31 - 1), (top_pad, 2**28)):
            mallopt(parameter, value)


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's advice does not concern this loop; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
