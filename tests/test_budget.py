"""A budget: as many epochs as fit into a time, annealed, and kept by a continuation."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import perpixel
from perpixel.api._arguments import as_seconds
from perpixel.errors import RequestError, RunError
from perpixel.recipe import Recipe
from perpixel.training import budget as room
from perpixel.training.budget import Pace
from perpixel.training.loop import TrainingModule
from perpixel.training.train import train
from tiny import Told, assert_same_weights, tiny_recipe

FALLING = ("schedule.name=cosine", "split.method=random", "split.order_column=null")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800.0), ("1h30m", 5400.0), ("45s", 45.0), (" 2h ", 7200.0), (None, None)]
)
def test_how_a_budget_is_written(text: str | None, seconds: float | None) -> None:
    assert as_seconds(text) == seconds


@pytest.mark.parametrize("text", ["30", "", "0m", "m", "1.5h", "-3m", "3m 2h"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(RequestError, match="this is no time"):
        as_seconds(text)


def paced(monkeypatch: pytest.MonkeyPatch, pace: Pace) -> None:
    """Let a rehearsal have measured this."""
    monkeypatch.setattr(room, "_rehearse", lambda *args: pace)


def fitted(recipe: Recipe, seconds: float, console: Told) -> tuple[Recipe, dict[str, Any]]:
    from perpixel.training.processes import Processes

    unused: Any = None
    return room.fit_to_budget(recipe, seconds, time.monotonic(), unused, unused, (1, 1), console, Processes())


def test_the_number_of_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, Pace(step=0.5, steps_an_epoch=10, beside=1.0, end=5.0))
    told = Told()
    recipe, facts = fitted(tiny_recipe(Path("nowhere"), *FALLING), 100.0, told)
    assert recipe.training.epochs == 14  # (100 - 5 kept - 5 at the end) / 6 = 15, less what is spent already
    assert facts["epochs"] == 14
    assert facts["epochs_before"] == 3
    assert told.lines[-1] == "budget 1 min 40 s: 14 epochs, in place of the recipe's 3"
    fitted(tiny_recipe(Path("nowhere")), 100.0, told)
    assert "does not fall" in told.lines[-1]


def test_a_budget_that_is_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    paced(monkeypatch, Pace(step=0.5, steps_an_epoch=10, beside=1.0, end=5.0))
    with pytest.raises(RequestError, match="1 epoch does not fit into a budget of 10 s") as raised:
        fitted(tiny_recipe(Path("nowhere"), *FALLING), 10.0, Told())
    assert "an epoch of 10 steps with its validation 6.0 s" in raised.value.details[0]
    assert raised.value.cure is not None
    assert raised.value.cure.startswith("give --budget 13s, or lower input.size")
    with pytest.raises(RequestError, match="3 epochs do not fit"):
        fitted(tiny_recipe(Path("nowhere"), *FALLING, "schedule.warmup_epochs=2.0"), 20.0, Told())


def three_epochs(monkeypatch: pytest.MonkeyPatch) -> list[Pace]:
    """Rehearse as ever, and let it have measured what gives three epochs of a budget of 1e6 s; returns the truth."""
    rehearse, measured = room._rehearse, list[Pace]()

    def told(*args: Any) -> Pace:
        measured.append(rehearse(*args))
        return Pace(step=0.95e6 / 3.5, steps_an_epoch=1, beside=0.0, end=0.0)

    monkeypatch.setattr(room, "_rehearse", told)
    return measured


def test_a_budget_leaves_the_weights_alone_and_is_kept(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*FALLING, "training.ema_decay=0.9", "training.checkpoint_seconds=1e-6")
    asked, told = tiny_recipe(tiny_data, *settings, "training.epochs=9"), Told()
    measured = three_epochs(monkeypatch)
    finish = TrainingModule._finish_epoch

    def dying(self: TrainingModule) -> None:
        if self.run_folder.path == tmp_path / "run" and self.progress.epoch == 1:
            raise KeyboardInterrupt
        finish(self)

    with monkeypatch.context() as patch, pytest.raises(RunError, match="interrupted after 1 of 3 epochs"):
        patch.setattr(TrainingModule, "_finish_epoch", dying)
        train(asked, tmp_path / "run", budget=1e6, console=told)
    run = train(asked, tmp_path / "run", budget=1e6, resume=True, console=told)
    assert len(measured) == 1
    assert measured[0].steps_an_epoch == 4
    assert 0 < measured[0].step < measured[0].epoch
    assert run.recipe.training.epochs == 3
    assert run.read_history()[-1]["learning_rate"] == 0
    assert run.manifest["budget"]["epochs"] == 3
    assert told.lines[-1].startswith("the training took ")
    assert run.manifest["budget"]["took_seconds"] > run.manifest["training_seconds"]
    given = train(tiny_recipe(tiny_data, *settings, "training.epochs=3"), tmp_path / "given")
    assert_same_weights(run.last_path, given.last_path)
    with pytest.raises(RequestError, match="differs from this run's in training"):
        train(asked, tmp_path / "given", resume=True)


def test_a_rehearsal_that_is_interrupted(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(self: TrainingModule, *args: Any) -> None:
        raise KeyboardInterrupt

    asked = tiny_recipe(tiny_data, *FALLING)
    with monkeypatch.context() as patch, pytest.raises(RunError, match="interrupted before the first epoch"):
        patch.setattr(TrainingModule, "training_step", stopped)
        train(asked, tmp_path / "run", budget=1e6)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["log.txt"]
    (tmp_path / "run" / ".recipe.yaml-x1").touch()  # as a kill would leave it
    three_epochs(monkeypatch)
    assert train(asked, tmp_path / "run", budget=1e6, resume=True).recipe.training.epochs == 3


@pytest.mark.slow
def test_a_training_ends_in_its_budget(tiny_data: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    settings = tuple(f"{text}" for text in (*FALLING, "data.cache=off"))
    run = perpixel.train(tiny_recipe(tiny_data, *settings), run=tmp_path / "run", budget="45s")
    took = time.monotonic() - began
    assert run.manifest["budget"]["took_seconds"] == pytest.approx(took, abs=2)
    assert 0.6 * 45 < took < 1.1 * 45
    assert run.read_history()[-1]["learning_rate"] == 0


@pytest.mark.slow
def test_two_processes_measure_together(tiny_data: Path, tmp_path: Path) -> None:
    settings = (*FALLING, "training.batch_size=auto", "training.workers=1")
    with pytest.raises(RequestError, match="1 epoch does not fit into a budget of 1 s") as raised:
        perpixel.train(tiny_recipe(tiny_data, *settings), run=tmp_path / "run", budget="1s", devices=2)
    assert "an epoch of 4 steps with its validation" in raised.value.details[0]
    said = (tmp_path / "run" / "log.txt").read_text()
    assert said.index("batch size 4:") < said.index("2 processes share each batch of 4") < said.index("budget: ")
