"""Several processes take the steps of one, count every image once, end together, and continue exactly."""

from __future__ import annotations

import os
import queue
import random
import socket
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perpixel
from perpixel.console import Console
from perpixel.data.dataset import EpochOrder, batch_length
from perpixel.errors import RecipeError, RequestError, RunError
from perpixel.recipe import Recipe
from perpixel.run import Run
from perpixel.training import launch
from perpixel.training.launch import train_with
from perpixel.training.processes import Place, Processes, place_in, shares
from perpixel.training.train import train
from ranks import SHARED, exercised, record_steps
from tiny import assert_same_weights, tiny_recipe, write_tiny

RANKS = str(Path(__file__).with_name("ranks.py"))
# No batch normalisation, and an optimiser that does not blow rounding up: Adam divides a small derivative by itself.
PLAIN = (*SHARED, "model.freeze_encoder=true", "model.decoder_norm=false", "optimizer.name=sgd")
STEPS = (*PLAIN, "optimizer.learning_rate=0.01", "training.batch_size=3", "training.epochs=10")

SAVE_ALWAYS = "training.checkpoint_seconds=1e-6"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "WORKER", (sys.executable, RANKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def steps_recipe(data: Path, *settings: str) -> Recipe:
    return tiny_recipe(data, *STEPS, *settings)


@pytest.fixture(scope="module")
def pair(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, np.ndarray]:
    """A run of two processes, and what `record_steps` saw of it."""
    folder = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "WORKER", (sys.executable, RANKS))
        patch.setenv("PERPIXEL_TEST", f"record {folder / 'steps.npy'}")
        run = perpixel.train(steps_recipe(data), run=folder / "run", devices=2)
    return run, np.load(folder / "steps.npy")


def two_nodes(data: Path, run: Path, order: str = "", *settings: str) -> list[subprocess.Popen[str]]:
    """The processes of two machines with one each, as torchrun starts them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    recipe_file = run.with_suffix(".yaml")
    Run(run.with_suffix(".d")).write_recipe(steps_recipe(data, *settings))
    recipe_file.write_text(Run(run.with_suffix(".d")).recipe_path.read_text())
    command = [sys.executable, RANKS, "train", str(recipe_file), "--run", str(run), "--resume", "--nodes", "2"]
    place = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            command,
            env=os.environ | place | {"RANK": str(rank), "GROUP_RANK": str(rank), "PERPIXEL_TEST": order},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def figures(run: Run) -> str:
    """Its history but for the time it took."""
    return repr([{key: value for key, value in row.items() if key != "seconds"} for row in run.read_history()])


@given(count=st.integers(1, 90), size=st.integers(1, 30), world=st.integers(1, 5), seed=st.integers(0, 99))
def test_processes_share_the_batches_of_one(count: int, size: int, world: int, seed: int) -> None:
    whole = list(EpochOrder(count, size, seed=seed, epoch=2))
    dealt = [list(EpochOrder(count, size, seed=seed, epoch=2, share=(rank, world))) for rank in range(world)]
    assert [list(chain(*parts)) for parts in zip(*dealt, strict=True)] == whole
    assert [batch_length(count, size, batch) for batch in range(len(whole))] == [len(batch) for batch in whole]
    for batch, parts in zip(whole, zip(*dealt, strict=True), strict=True):
        assert [list(share) for share in shares(batch, world)] == list(parts)


def test_a_place_is_what_torchrun_or_srun_says() -> None:
    assert place_in({}) is None
    torchrun = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    assert place_in(torchrun | {"MASTER_ADDR": "a", "MASTER_PORT": "1"}) == Place(5, 6, 1, 2, "env://")
    assert place_in(torchrun | {"WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}) is None
    srun = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
    srun |= {"SLURM_JOB_ID": "100", "SLURM_STEP_ID": "2", "SLURM_STEP_NODELIST": "gpu[07-08,11]"}
    assert place_in(srun) == Place(3, 4, 1, 2, "tcp://gpu07:15702")
    assert place_in(srun | {"SLURM_STEP_NUM_TASKS": "1"}) is None


def test_what_cannot_be_started_says_how(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe(data, *SHARED)
    with pytest.raises(RequestError, match="torchrun --nnodes 2 --nproc-per-node 4"):
        perpixel.train(recipe, run=tmp_path / "run", devices=4, nodes=2)
    with pytest.raises(RequestError, match="--devices is 0"):
        perpixel.train(recipe, run=tmp_path / "run", devices=0)
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "x", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RequestError, match="4 processes were started"):
        train_with(recipe, lambda: tmp_path / "run", devices=2)
    with pytest.raises(RecipeError, match="no unfreeze_epochs"):
        tiny_recipe(data, "training.strategy=fsdp", "model.freeze_encoder=true", "model.unfreeze_epochs=[1]")


def test_what_processes_share_is_what_one_has(data: Path, tmp_path: Path) -> None:
    meeting = (tmp_path / "meeting").as_uri()
    commands = [
        [sys.executable, RANKS, "exercise", str(rank), meeting, str(data), str(tmp_path / f"{rank}.npz")]
        for rank in range(2)
    ]
    for process in [subprocess.Popen(command) for command in commands]:
        assert process.wait() == 0
    one = exercised(data, Processes())
    ranks = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    for rank in ranks:
        assert rank["told"].tolist() == [7, 0, 1, 1, 0, 1]
        np.testing.assert_array_equal(rank["whole"], one["whole"])
        np.testing.assert_array_equal(rank["figures"], one["figures"])  # to the last bit
    for name in ("gradient", "normalized", "through"):
        np.testing.assert_allclose(np.concatenate([rank[name] for rank in ranks]), one[name], rtol=1e-4, atol=2e-6)
    for name in [name for name in one if name.startswith(("0.", "1.")) or name == "used"]:
        for rank in ranks:
            np.testing.assert_allclose(rank[name], one[name], rtol=2e-5, atol=1e-5, err_msg=name)


def test_two_processes_take_the_steps_of_one(
    data: Path, pair: tuple[Run, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, two = pair
    from perpixel.training.loop import TrainingModule

    for method in ("on_train_batch_end", "on_train_epoch_end"):  # given back when the test ends
        monkeypatch.setattr(TrainingModule, method, getattr(TrainingModule, method))
    record_steps(tmp_path / "steps.npy")
    alone = perpixel.train(steps_recipe(data), run=tmp_path / "run")
    one = np.load(tmp_path / "steps.npy")
    assert one.shape == two.shape and len(one) >= 50
    moved = np.abs(one[-1, 1:] - one[0, 1:]).max()
    assert moved > 0.02
    np.testing.assert_allclose(two[:, 0], one[:, 0], rtol=1e-4)
    assert np.abs(two[:, 1:] - one[:, 1:]).max() < 1e-3 * moved
    log = run.log_path.read_text()
    assert "the effective batch is 3, as with one process, so the learning rate 0.01 stays" in log
    assert (run.manifest["processes"], alone.manifest["processes"]) == (2, 1)
    assert log.count("epoch 10/10:") == 1  # the first process alone writes


def test_a_killed_process_ends_all_and_the_run_continues_exactly(
    data: Path, pair: tuple[Run, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = steps_recipe(data, "training.workers=1", SAVE_ALWAYS)
    with monkeypatch.context() as patch:
        patch.setenv("PERPIXEL_TEST", "kill 1 1 2")
        with pytest.raises(RunError, match="process 1 of 2 was ended by SIGKILL"):
            perpixel.train(recipe, run=tmp_path / "run", devices=2)
    assert len(Run(tmp_path / "run").read_history()) == 1
    run = perpixel.train(recipe, run=tmp_path / "run", devices=2, resume=True)
    assert_same_weights(pair[0].best_path, run.best_path)
    assert figures(pair[0]) == figures(run)


def test_the_error_of_the_process_that_died_is_told(data: Path, tmp_path: Path) -> None:
    first, second = two_nodes(data, tmp_path / "run", "raise 1 0 1")
    _, error = second.communicate(timeout=300)
    died = time.monotonic()
    assert "ValueError: a process of its own mind" in error
    _, error = first.communicate(timeout=60)
    assert time.monotonic() - died < 30
    assert "another process of this training has ended" in error and "Traceback" not in error
    assert (first.returncode, second.returncode) == (1, 1)


def test_an_end_that_nobody_explains_tells_what_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_GRACE_SECONDS", 0.0)
    noticed = {"what": "it has ended", "where": None, "rule": None, "cure": None, "details": ["reset by peer"]}
    events: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
    events.put((1, {"exit": 0}))
    events.put((0, {"error": {"kind": "LostProcessError", "lost": True} | noticed}))
    events.put((0, {"exit": 1}))
    with pytest.raises(RunError, match="it has ended") as raised:
        launch._follow(events, 3, Console(), tmp_path)
    states = ["process 0 had ended with status 1", "process 1 had ended with status 0", "process 2 still ran"]
    assert raised.value.details == ["reset by peer", *states]


@pytest.mark.slow
def test_two_nodes_equal_two_devices(data: Path, pair: tuple[Run, np.ndarray], tmp_path: Path) -> None:
    for process in two_nodes(data, tmp_path / "run"):
        _, error = process.communicate(timeout=600)
        assert process.returncode == 0, error
    assert_same_weights(pair[0].best_path, Run(tmp_path / "run").best_path)


@pytest.mark.slow
def test_random_kills_change_no_weight(
    data: Path, pair: tuple[Run, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = steps_recipe(data, SAVE_ALWAYS)
    chance, position = random.Random(8), 0
    while (position := position + chance.randint(1, 12)) < 50:
        monkeypatch.setenv("PERPIXEL_TEST", f"kill {chance.randint(0, 1)} {position // 5} {position % 5}")
        with pytest.raises(RunError, match="SIGKILL"):
            perpixel.train(recipe, run=tmp_path / "run", devices=2, resume=True)
    monkeypatch.delenv("PERPIXEL_TEST")
    run = perpixel.train(recipe, run=tmp_path / "run", devices=2, resume=True)
    assert_same_weights(pair[0].best_path, run.best_path)


@pytest.mark.slow
def test_cached_features_are_shared_too(data: Path, tmp_path: Path) -> None:
    still = [f"augmentation.{name}=0" for name in ("affine", "photometric", "quarter_turns", "vertical_flip")]
    recipe = steps_recipe(data, "training.epochs=4", *still)
    two = perpixel.train(recipe, run=tmp_path / "two", devices=2)
    assert two.manifest["features"] == "cached"
    one = train(recipe, tmp_path / "one")
    for row, other in zip(two.read_history(), one.read_history(), strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [(), ("training.ema_decay=0.9",)])
def test_dealt_out_weights_are_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    """FSDP, and its continuation."""
    recipe = steps_recipe(data, "training.epochs=2", "training.strategy=fsdp", SAVE_ALWAYS, *settings)
    straight = perpixel.train(recipe, run=tmp_path / "straight", devices=2)
    with monkeypatch.context() as patch:
        patch.setenv("PERPIXEL_TEST", "kill 0 1 2")
        with pytest.raises(RunError, match="SIGKILL"):
            perpixel.train(recipe, run=tmp_path / "run", devices=2)
    run = perpixel.train(recipe, run=tmp_path / "run", devices=2, resume=True)
    assert_same_weights(straight.best_path, run.best_path)
    alone = train(recipe, tmp_path / "alone")
    for two, one in zip(straight.read_history(), alone.read_history(), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_another_number_of_processes_continues(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = steps_recipe(data, "training.epochs=2", SAVE_ALWAYS)
    straight = train(recipe, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setenv("PERPIXEL_TEST", "kill 0 1 2")
        with pytest.raises(RunError, match="SIGKILL"):
            perpixel.train(recipe, run=tmp_path / "run", devices=2)
    run = perpixel.train(recipe, run=tmp_path / "run", resume=True)
    assert "trained by 2 processes so far, now by 1" in run.log_path.read_text()
    for two, one in zip(run.read_history(), straight.read_history(), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_skipped_by_all(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERPIXEL_TEST", "poison 2")
    run = perpixel.train(steps_recipe(data, "training.epochs=2"), run=tmp_path / "run", devices=2)
    assert run.manifest["bad_steps"] == 2
    assert run.log_path.read_text().count("the loss is nan") == 2
