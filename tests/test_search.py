"""A search: its axes, its trials, what ends early, and what a kill leaves."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from perpixel.console import Console
from perpixel.errors import RecipeError, RequestError, RunError
from perpixel.evaluation.evaluate import read_evaluation
from perpixel.experiments import search as room
from perpixel.experiments.axes import Alternatives, Range, search_axes
from perpixel.experiments.search import run_search
from perpixel.run import Run
from tiny import TINY_SETTINGS

pytest.importorskip("optuna", reason="needs the extra perpixel[search]")

OVER = ("optimizer.learning_rate=1e-4..1e-2 log", "loss.name=bce_dice,lovasz")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Trainings that are played: a trial's figure is a curve of its learning rate, an epoch costs nothing.


def curve(rate: float, epochs: int) -> list[float]:
    """Best at a rate of 0.001; rises from epoch to epoch."""
    from math import log10

    return [1 / (1 + abs(log10(rate) + 3)) * (epoch + 1) / epochs for epoch in range(epochs)]


class PlayedTraining:
    """Writes what a training writes; ``break_at`` ends it as a kill would, in the middle of a trial's epochs."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.break_at: tuple[str, int] | None = None

    def __call__(self, recipe: Any, folder: Path, *, stop: Any, resume: bool, **options: Any) -> Run:
        assert resume
        self.calls.append(folder.name)
        run = Run(folder)
        run.write_recipe(recipe)
        history: list[dict[str, float]] = list(run.read_history())
        figures = curve(recipe.optimizer.learning_rate, recipe.training.epochs)
        for epoch in range(len(history), recipe.training.epochs):
            if self.break_at == (folder.name, epoch):
                raise _Killed
            history.append({"epoch": epoch + 1, "seconds": 1.0, "val_iou_per_image": figures[epoch]})
            run.write_history(history)
            if stop() and epoch + 1 < recipe.training.epochs:
                run.update_manifest(status="interrupted")
                raise RunError("interrupted", where=folder)
        run.update_manifest(status="finished", best_epoch=1, training_seconds=1.0, parameters={"trained": 1})
        return run


class _Killed(BaseException):
    pass


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> PlayedTraining:
    training = PlayedTraining()
    monkeypatch.setattr(room, "train", training)
    monkeypatch.setattr(
        room,
        "read_evaluation",
        lambda run, subset: {"figures": {"iou_per_image": run.read_history()[-1]["val_iou_per_image"]}},
    )
    monkeypatch.setattr(room, "write_results", lambda *results: None)
    return training


def played_search(folder: Path, *, trials: int = 16, resume: bool = False, **options: Any) -> list[dict[str, str]]:
    overrides = [*TINY_SETTINGS, "training.epochs=10", "data.root=nowhere"]
    run_search("salt", OVER, folder, trials=trials, overrides=overrides, resume=resume, console=Console(), **options)
    return rows(folder / "trials.csv")


def test_poor_trials_end_early_and_the_best_do_not(tmp_path: Path, played: PlayedTraining) -> None:
    found = played_search(tmp_path / "search")
    assert len(found) == 16
    assert {row["state"] for row in found} == {"complete", "pruned"}
    final = {row["trial"]: curve(float(row["optimizer.learning_rate"]), 10)[-1] for row in found}
    for number, row in enumerate(found):
        earlier = [final[other["trial"]] for other in found[:number] if other["state"] == "complete"]
        if row["state"] == "pruned":
            assert 2 < int(row["epochs"]) < 10
            assert final[row["trial"]] < median(earlier)
            assert Run(tmp_path / "search" / row["trial"]).manifest["status"] == "pruned"
        else:
            assert int(row["epochs"]) == 10
    best = max(found, key=lambda row: final[row["trial"]])
    assert best["state"] == "complete"
    assert 2e-4 < float(best["optimizer.learning_rate"]) < 5e-3


def test_a_search_that_is_killed_proposes_what_it_would_have_proposed(tmp_path: Path, played: PlayedTraining) -> None:
    whole = played_search(tmp_path / "whole", trials=14)
    played.break_at = ("trial-011", 4)
    with pytest.raises(_Killed):
        played_search(tmp_path / "killed", trials=14)
    played.break_at, played.calls = None, []
    continued = played_search(tmp_path / "killed", trials=14, resume=True)
    assert played.calls == ["trial-011", "trial-012", "trial-013"]
    assert continued == whole


def test_two_processes_never_share_a_trial(tmp_path: Path, played: PlayedTraining) -> None:
    """While one trains, another process is given the next trial."""
    folder = tmp_path / "search"
    inner: list[str] = []
    original = played.__call__

    def training(recipe: Any, path: Path, **options: Any) -> Run:
        if path.name == "trial-001" and not inner:
            inner.append("started")
            rows_inside = played_search(folder, trials=4, resume=True)
            inner.extend(row["state"] for row in rows_inside)
        return original(recipe, path, **options)

    room.train = training  # type: ignore[assignment]  # the fixture takes it back
    found = played_search(folder, trials=4)
    assert inner == ["started", "complete", "running", "complete", "complete"]
    assert [row["state"] for row in found] == ["complete"] * 4
    assert sorted(played.calls) == [f"trial-{number:03d}" for number in range(4)]


def test_a_budget_in_hours_begins_no_further_trial(tmp_path: Path, played: PlayedTraining) -> None:
    with pytest.raises(RunError, match="no trial"):
        run_search("salt", OVER, tmp_path / "search", hours=0.0, overrides=["data.root=nowhere"], console=Console())
    assert played.calls == []


def test_hyperband_gives_most_trials_few_epochs(tmp_path: Path, played: PlayedTraining) -> None:
    epochs = [int(row["epochs"]) for row in played_search(tmp_path / "search", pruner="hyperband")]
    assert max(epochs) == 10
    assert sum(count < 10 for count in epochs) >= 4


def test_another_search_is_refused_in_this_folder(tmp_path: Path, played: PlayedTraining) -> None:
    played_search(tmp_path / "search", trials=2)
    with pytest.raises(RequestError, match="not empty"):
        played_search(tmp_path / "search", trials=3)
    with pytest.raises(RequestError, match="differs in pruner"):
        played_search(tmp_path / "search", trials=3, resume=True, pruner="none")
    assert len(played_search(tmp_path / "search", trials=3, resume=True)) == 3


def test_a_failed_trial_is_told_and_the_others_go_on(
    tmp_path: Path, played: PlayedTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = played.__call__

    def failing(recipe: Any, path: Path, **options: Any) -> Run:
        if path.name == "trial-000":
            raise RunError("the loss was not finite")
        return original(recipe, path, **options)

    monkeypatch.setattr(room, "train", failing)
    assert [row["state"] for row in played_search(tmp_path / "search", trials=3)] == ["fail", "complete", "complete"]


# Axes


def test_axes() -> None:
    assert search_axes(
        ["optimizer.learning_rate=1e-4..1e-2 log", "training.batch_size = 4..32", "loss.name=bce, dice"]
    ) == [
        Range("optimizer.learning_rate", 1e-4, 1e-2, log=True, whole=False),
        Range("training.batch_size", 4, 32, log=False, whole=True),
        Alternatives("loss.name", ("bce", "dice")),
    ]
    (axis,) = search_axes(["schedule.power=.5..2"])
    assert axis.examples == ["schedule.power=0.5", "schedule.power=2.0"]
    (axis,) = search_axes(["input.size=[64, 64],[96,96]"])
    assert axis.examples == ["input.size=[64, 64]", "input.size=[96,96]"]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (["a"], "key=value,value"),
        (["a=1..x"], "no range"),
        (["a=2..1"], "range is empty"),
        (["a=0..1 log"], "range is empty"),
        (["a=1"], "two different values"),
        (["a=1,1"], "two different values"),
        (["a=1..2", "a=3..4"], "each key once"),
        ([], "one axis or more"),
    ],
)
def test_a_bad_axis(over: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        search_axes(over)


def test_both_ends_are_tried_on_the_recipe_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        run_search("salt", ["training.ema_decay=0.5..1.5"], tmp_path / "search", trials=2, console=Console())
    assert "training.ema_decay = 1.5" in caught.value.text()
    with pytest.raises(RequestError, match="needs a budget"):
        run_search("salt", OVER, tmp_path / "search", console=Console())
    with pytest.raises(RequestError, match="no pruner"):
        run_search("salt", OVER, tmp_path / "search", trials=1, pruner="luck", console=Console())
    assert not (tmp_path / "search" / "study.journal").exists()


# A real one, killed


@pytest.mark.slow
def test_a_real_search_survives_a_kill(tmp_path: Path, tiny_data: Path) -> None:
    folder = tmp_path / "search"
    settings = [word for setting in (*TINY_SETTINGS, "training.checkpoint_seconds=0.01") for word in ("--set", setting)]
    over = [word for axis in OVER for word in ("--over", axis)]
    command = [sys.executable, "-m", "perpixel", "search", "salt", "--data", str(tiny_data), "--trials", "2"]
    process = subprocess.Popen(
        [*command, *settings, *over, "--run", str(folder)], stderr=subprocess.PIPE, text=True, env=os.environ
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/3"):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    overrides = [*TINY_SETTINGS, "training.checkpoint_seconds=0.01"]
    said: list[str] = []

    class Listener(Console):
        def say(self, text: str) -> None:
            said.append(text)

        def with_log(self, log_file: Path) -> Console:
            return self

    run_search("salt", OVER, folder, trials=2, data=tiny_data, overrides=overrides, resume=True, console=Listener())
    assert Run(folder / "trial-000").manifest["resumed"] == 1
    assert said[-1] == "2 trials: 2 complete"
    table = rows(folder / "table.csv")
    assert sorted(row["cell"] for row in table) == ["trial-000", "trial-001"]
    best = json.loads((folder / "grid.json").read_text())["best"]
    assert Run.open(folder).path.name == best == table[0]["cell"]
    evaluation = read_evaluation(Run.open(folder), "val")
    assert evaluation is not None
    assert float(table[0]["val iou_per_image"]) == round(evaluation["figures"]["iou_per_image"], 4)
    shutil.rmtree(folder)
