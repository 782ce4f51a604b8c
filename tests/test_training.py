"""The loop: it learns, it repeats itself, and a continuation after any interruption is exact."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perpixel.data.dataset import TrainingSet
from perpixel.errors import RequestError, RunError
from perpixel.run import Run
from perpixel.training.loop import TrainingModule
from perpixel.training.packing import load_tree, save_tree
from perpixel.training.train import train
from tiny import assert_same_weights, tiny_recipe, weights, write_tiny

STRONG = ("training.ema_decay=0.9", "schedule.warmup_epochs=0.5", "split.method=random", "split.order_column=null")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny_recipe(data, *STRONG), tmp_path_factory.mktemp("straight") / "run")


class Killed(BaseException):
    """Stands for a kill: nothing handles it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, method: str, call: int, *, before: bool) -> None:
    """Let the nth call of a method of the loop die, before or after it did its work."""
    original = getattr(TrainingModule, method)
    calls = {"n": 0}

    def dying(self: TrainingModule, *args: object) -> object:
        calls["n"] += 1
        if before and calls["n"] == call:
            raise Killed
        result = original(self, *args)
        if calls["n"] == call:
            raise Killed
        return result

    monkeypatch.setattr(TrainingModule, method, dying)


def test_learns_and_records(straight: Run) -> None:
    history = straight.read_history()
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    manifest = straight.manifest
    assert manifest["status"] == "finished"
    assert manifest["parameters"]["trained"] > 0
    assert straight.recipe.training.threads == 1
    assert (straight.evaluation_dir("val") / "per_image.csv").is_file()


def test_same_recipe_same_weights(data: Path, straight: Run, tmp_path: Path) -> None:
    again = train(straight.recipe, tmp_path / "again")
    assert_same_weights(straight.last_path, again.last_path)
    assert_same_weights(straight.best_path, again.best_path)


def test_workers_change_nothing(data: Path, straight: Run, tmp_path: Path) -> None:
    run = train(tiny_recipe(data, *STRONG, "training.workers=2"), tmp_path / "run")
    assert_same_weights(straight.best_path, run.best_path)


def test_streaming_equals_the_cache(data: Path, straight: Run, tmp_path: Path) -> None:
    run = train(tiny_recipe(data, *STRONG, "data.cache=off"), tmp_path / "run")
    assert_same_weights(straight.best_path, run.best_path)


@pytest.mark.parametrize(
    ("method", "call", "before", "seconds"),
    [
        ("on_train_batch_end", 2, False, 1e-6),  # mid-epoch, saved after every batch
        ("on_train_batch_end", 6, True, 1e-6),  # a step done, not yet saved
        ("training_step", 3, True, 60.0),  # nothing saved yet at all
        ("_finish_epoch", 1, True, 1e-6),  # all batches of an epoch done, not yet validated
        ("_finish_epoch", 2, False, 60.0),  # between epochs
        ("save", 1, True, 60.0),  # validated, best written, state not yet
    ],
)
def test_continuation_is_exact(
    data: Path,
    straight: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    call: int,
    before: bool,
    seconds: float,
) -> None:
    recipe = tiny_recipe(data, *STRONG, f"training.checkpoint_seconds={seconds}")
    with monkeypatch.context() as patch:
        kill_at(patch, method, call, before=before)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "run")
    torch.rand(7)  # whatever happened to the global random state
    run = train(recipe, tmp_path / "run", resume=True)
    assert_same_weights(straight.best_path, run.best_path)
    first, second = load_tree(straight.last_path), load_tree(run.last_path)
    for part in ("model", "average"):
        assert repr(first[part]) == repr(second[part])
    kept = [[{k: v for k, v in row.items() if k != "seconds"} for row in r.read_history()] for r in (straight, run)]
    assert kept[0] == kept[1]


def test_continuation_with_accumulation_and_plateau(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("optimizer.accumulate=2", "optimizer.gradient_clip=0.5", "training.checkpoint_seconds=1e-6")
    recipe = tiny_recipe(data, "schedule.patience=0", *settings)
    straight = train(recipe, tmp_path / "straight")
    with monkeypatch.context() as patch:
        kill_at(patch, "on_train_batch_end", 7, before=True)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "run")
    run = train(recipe, tmp_path / "run", resume=True)
    assert_same_weights(straight.best_path, run.best_path)
    assert [r["learning_rate"] for r in straight.read_history()] == [r["learning_rate"] for r in run.read_history()]


@pytest.mark.slow
def test_five_kills_at_random_instants(data: Path, tmp_path: Path) -> None:
    settings = [*STRONG, "training.epochs=60", "training.checkpoint_seconds=0.2"]
    straight = train(tiny_recipe(data, *settings), tmp_path / "straight")
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(straight.recipe_path.read_text())
    command = [sys.executable, "-m", "perpixel", "train", str(recipe_file), "--run", str(tmp_path / "run"), "--resume"]
    chance = random.Random(5)
    kills = 0
    while kills < 5:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        # From just after the start to well into the training.
        time.sleep(chance.uniform(4, 8))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    subprocess.run(command, check=True, env=os.environ)
    assert kills == 5, "the run ended before it could be killed often enough: make it longer"
    assert_same_weights(straight.best_path, Run(tmp_path / "run").best_path)


def test_ctrl_c_leaves_a_run_that_continues(
    data: Path, straight: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainingModule.training_step

    def interrupting(self: TrainingModule, batch: object, index: int) -> object:
        if self.progress.epoch == 1 and self.progress.batch == 1:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch, index)  # type: ignore[arg-type]

    recipe = tiny_recipe(data, *STRONG)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingModule, "training_step", interrupting)
        with pytest.raises(RunError, match="--resume continues"):
            train(recipe, tmp_path / "run")
    assert Run(tmp_path / "run").manifest["status"] == "interrupted"
    assert_same_weights(straight.best_path, train(recipe, tmp_path / "run", resume=True).best_path)


def test_non_finite_losses_are_counted_and_end_a_hopeless_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def poisoned(self: TrainingModule, batch: object, index: int) -> object:
        position = self.progress
        original_loss = self.loss
        if position.epoch == 0 and position.batch == 1:
            self.loss = lambda epoch, output, target: original_loss(epoch, output, target) * float("nan")
        try:
            return original(self, batch, index)  # type: ignore[arg-type]
        finally:
            self.loss = original_loss

    original = TrainingModule.training_step
    monkeypatch.setattr(TrainingModule, "training_step", poisoned)
    run = train(tiny_recipe(data), tmp_path / "run")
    assert run.manifest["bad_steps"] == 1
    assert "is skipped" in run.log_path.read_text()

    monkeypatch.setattr(
        TrainingModule, "training_step", lambda self, batch, index: self._count_bad_step("the loss is x")
    )
    with pytest.raises(RunError, match="every step of epoch 1"):
        train(tiny_recipe(data, "training.epochs=20"), tmp_path / "hopeless")
    monkeypatch.setattr("perpixel.training.loop._MOST_BAD_STEPS", 3)
    with pytest.raises(RunError, match="the loss is x in the last of 3 steps in a row"):
        train(tiny_recipe(data, "training.epochs=20"), tmp_path / "soon-hopeless")


@pytest.mark.parametrize("clip", ["null", "1.0"])
def test_a_derivative_that_is_not_finite_changes_no_weight(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: str
) -> None:
    """The root of 0 is finite, its derivative is not: a step along it would make all weights nan."""

    def poisoned(self: TrainingModule, batch: object, index: int) -> object:
        loss = original(self, batch, index)  # type: ignore[arg-type]
        assert loss is not None
        return loss + (0 * loss).sqrt() if self.progress.batch == 1 else loss

    original = TrainingModule.training_step
    monkeypatch.setattr(TrainingModule, "training_step", poisoned)
    run = train(tiny_recipe(data, f"optimizer.gradient_clip={clip}"), tmp_path / "run")
    assert run.manifest["bad_steps"] == 3
    assert run.log_path.read_text().count("a derivative of the loss is not finite") == 3
    assert all(np.isfinite(tensor).all() for tensor in weights(run.best_path).values())


def test_a_frozen_encoder_stays(data: Path, tmp_path: Path) -> None:
    run = train(tiny_recipe(data, "model.freeze_encoder=true", "training.epochs=1"), tmp_path / "run")
    counts = run.manifest["parameters"]
    assert counts["frozen"] > 0
    assert counts["trained"] > 0


def test_a_run_folder_is_not_overwritten(data: Path, straight: Run) -> None:
    with pytest.raises(RequestError, match="--resume"):
        train(tiny_recipe(data), straight.path)
    with pytest.raises(RequestError, match="differs from this run's in loss"):
        train(tiny_recipe(data, *STRONG, "loss.name=lovasz"), straight.path, resume=True)


def test_early_stopping(data: Path, tmp_path: Path) -> None:
    settings = ("optimizer.learning_rate=1e-12", "training.early_stopping_epochs=1", "training.epochs=9")
    run = train(tiny_recipe(data, *settings), tmp_path / "run")
    assert len(run.read_history()) < 9


def test_packed_trees_come_back(tmp_path: Path) -> None:
    tree = {"a": [1, 2.5, None, True, "x", (3,)], 7: {"t": torch.arange(3), "nan": float("inf")}, "e": torch.empty(0)}
    save_tree(tmp_path / "t", tree)
    back = load_tree(tmp_path / "t")
    assert repr(back) == repr(tree)
    content = (tmp_path / "t").read_bytes()
    (tmp_path / "t").write_bytes(content[:-4])
    with pytest.raises(RunError, match="damaged"):
        load_tree(tmp_path / "t")


def test_the_end_of_a_loading_process_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(data, "training.workers=1")
    with monkeypatch.context() as patch:
        patch.setattr(TrainingSet, "__getitem__", lambda self, index: os._exit(1))
        with pytest.raises(RunError, match="a process that loads data has ended") as raised:
            train(recipe, tmp_path / "run")
    assert "--resume continues this one" in str(raised.value)
    train(recipe, tmp_path / "run", resume=True)


def test_a_batch_too_small_for_batch_normalisation_is_told(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, "training.batch_size=1", "model.encoder=resnet18")
    with pytest.raises(RunError, match="cannot learn from one value a channel") as raised:
        train(recipe, tmp_path / "run")
    assert "training.batch_size = 1, input.size = [32, 32]" in str(raised.value)


def test_a_kill_just_before_the_last_row_of_history_loses_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(data)
    with monkeypatch.context() as patch:
        write = Run.write_history

        def struck(self: Run, rows: Sequence[Mapping[str, Any]]) -> None:
            if len(rows) == recipe.training.epochs:
                raise OSError("struck")
            write(self, rows)

        patch.setattr(Run, "write_history", struck)
        with pytest.raises(OSError, match="struck"):
            train(recipe, tmp_path / "run")
    assert len(Run(tmp_path / "run").read_history()) == recipe.training.epochs - 1
    assert len(train(recipe, tmp_path / "run", resume=True).read_history()) == recipe.training.epochs


def test_a_start_that_was_refused_leaves_the_folder_free(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="one value a channel"):
        train(tiny_recipe(data, "training.batch_size=1", "model.encoder=resnet18"), tmp_path / "begun")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").write_text("refused\n")
    run = train(tiny_recipe(data, "training.epochs=1"), tmp_path / "run")
    assert run.finished and run.log_path.read_text().startswith("refused\n")
    with pytest.raises(RequestError, match="holds a run already"):
        train(tiny_recipe(data, "training.epochs=1"), tmp_path / "begun")
