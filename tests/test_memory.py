"""Out of memory, really provoked: told as what to lower; a grid and a search go on; `auto` finds a batch size."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

import perpixel
from perpixel.console import Console
from perpixel.errors import RunError
from perpixel.experiments.grid import run_grid
from perpixel.experiments.search import run_search
from perpixel.inference.predictor import Predictor
from perpixel.memory import is_out_of_memory, of_inference, of_training, release
from perpixel.recipe import InferenceSection
from perpixel.run import Run, read_rows
from perpixel.training import batch_size as room
from perpixel.training import trial
from perpixel.training.loop import TrainingModule
from perpixel.training.processes import Processes
from perpixel.training.train import train
from tiny import TINY_SETTINGS, Told, assert_same_weights, tiny_recipe

TOO_MUCH = 2**46  # bytes


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some trainings ask for more memory than there is, in their first step."""
    step = TrainingModule.training_step

    def training_step(self: TrainingModule, *args: Any) -> Any:
        if self.run_folder.path.name in ("run", "4", "trial-000"):
            torch.zeros(TOO_MUCH, dtype=torch.uint8)
        return step(self, *args)

    monkeypatch.setattr(TrainingModule, "training_step", training_step)


@pytest.mark.parametrize(
    ("provoke", "expected"),
    [
        (lambda: torch.zeros(TOO_MUCH, dtype=torch.uint8), True),
        (lambda: np.ones(TOO_MUCH, dtype=np.uint8), True),
        (lambda: bytearray(TOO_MUCH), True),
        (lambda: torch.zeros(2, 3) @ torch.zeros(2, 3), False),
        (lambda: cv2.resize(np.zeros((0, 0), np.uint8), (2, 2)), False),
    ],
)
def test_such_an_error_is_recognised(provoke: Any, expected: bool) -> None:
    with pytest.raises(Exception) as raised:
        provoke()
    assert is_out_of_memory(raised.value) is expected


def test_those_of_a_gpu_are_recognised() -> None:
    text = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.77 GiB"
    assert is_out_of_memory(torch.OutOfMemoryError(text))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert is_out_of_memory(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."))
    assert not is_out_of_memory(KeyboardInterrupt())


def test_a_training_names_what_to_lower(greedy: None, tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"too little memory: .*you tried to allocate 70368744177664 bytes") as raised:
        train(tiny_recipe(tiny_data), tmp_path / "run")
    assert raised.value.where == str(tmp_path / "run")
    assert raised.value.details == [
        "training.batch_size from 4 to 2 (a step stays as it is with optimizer.accumulate=2), or auto",
        "model.encoder from mobilenetv3_small_050 to a smaller one",
    ]


def test_what_is_named_suits_the_recipe(tiny_data: Path) -> None:
    large = (
        "input.size=[480, 640]",
        "training.batch_size=1",
        "training.workers=2",
        "model.encoder=resnet34",
        "augmentation.quarter_turns=0.0",
    )
    assert of_training(tiny_recipe(tiny_data, *large)) == [
        "input.size from [480, 640] to [224, 320]",
        "model.encoder from resnet34 to a smaller one",
        "training.workers from 2 to 0",
    ]
    assert of_training(tiny_recipe(tiny_data, "training.batch_size=auto"))[0] == "training.batch_size from auto to 1"
    section = InferenceSection(batch_size=8, tile=512)
    assert of_inference(section, 1, 900) == ["inference.batch_size from 8 to 4", "inference.tile from 512 to 256"]
    whole = InferenceSection(batch_size=1)
    assert of_inference(whole, 1, 900) == ["inference.tile from null (whole images) to 512"]
    assert of_inference(whole, 1, 300) == ["the size of the images"]


def test_a_cell_without_memory_fails_and_the_others_go_on(greedy: None, tiny_data: Path, tmp_path: Path) -> None:
    settings = [*TINY_SETTINGS, "split.method=random", "split.order_column=null", "training.epochs=1"]
    asked: dict[str, Any] = {"data": tiny_data, "overrides": settings, "resume": False, "console": Console()}
    with pytest.raises(RunError, match="1 of 2 cells failed") as raised:
        run_grid("salt", ["training.batch_size=4,2"], tmp_path / "grid", **asked)
    assert "training.batch_size from 4 to 2" in raised.value.details[0]
    assert [Run(tmp_path / "grid" / cell).finished for cell in ("4", "2")] == [False, True]


def test_a_trial_without_memory_fails_and_the_others_go_on(greedy: None, tiny_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed")
    settings = [*TINY_SETTINGS, "split.method=random", "split.order_column=null", "training.epochs=1"]
    asked: dict[str, Any] = {"data": tiny_data, "overrides": settings, "console": Console()}
    run_search("salt", ["training.ema_decay=0.5..0.9"], tmp_path / "search", trials=2, **asked)
    assert [row["state"] for row in read_rows(tmp_path / "search" / "trials.csv")] == ["fail", "complete"]


def test_a_prediction_names_what_to_lower(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor.from_run(tiny_run, ["inference.tile=64"])
    monkeypatch.setattr(predictor, "_network", lambda image_bchw: torch.zeros(TOO_MUCH, dtype=torch.uint8))
    with pytest.raises(RunError, match="predicting 2 images of up to 40 pixels a side: too little memory") as raised:
        predictor.scores([np.zeros((40, 40, 3), np.uint8)] * 2)
    assert raised.value.details == ["inference.batch_size from 4 to 2"]


def test_evaluation_and_files_too(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def finalize(self: Predictor, scores_khw: Any) -> Any:
        return np.ones(TOO_MUCH, dtype=np.uint8)

    monkeypatch.setattr(Predictor, "finalize", finalize)
    image = next((Path(tiny_run.recipe.data.root or "") / "test" / "images").iterdir())
    with pytest.raises(RunError, match="too little memory: Unable to allocate"):
        perpixel.evaluate(tiny_run.path)
    with pytest.raises(RunError, match="too little memory") as raised:
        perpixel.predict(tiny_run.path, image, tmp_path / "out")
    assert "inference.batch_size from 4 to 2" in raised.value.details


LIMITED = """
import resource, sys
from perpixel.cli import main
import perpixel.training.launch
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 400 * 2**20,) * 2)
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_a_process_with_little_memory_ends_with_a_sentence(tiny_data: Path, tmp_path: Path) -> None:
    settings = [f"--set={text}" for text in (*TINY_SETTINGS, "input.size=[1024, 1024]", "training.batch_size=16")]
    command = ["train", "salt", "--data", str(tiny_data), "--run", str(tmp_path / "run"), *settings]
    done = subprocess.run([sys.executable, "-c", LIMITED, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "too little memory" in done.stderr
    assert "input.size from [1024, 1024] to [512, 512]" in done.stderr


# training.batch_size: auto


def found(monkeypatch: pytest.MonkeyPatch, *, room_mib: int | None, speed: Any, taken: Any, samples: int) -> int:
    """The size that is found where sizes have these images a second and MiB."""

    class Meter:
        def __init__(self, *args: Any) -> None:
            self.room = None if room_mib is None else room_mib * 2**20

    class Trial:
        def __init__(self, *args: Any) -> None: ...

        def steps(self, first_batch: Any, size: int, meter: Any) -> Any:
            if taken(size) is None:
                return None
            used = taken(size) * 2**20
            return room._Found(size / speed(size), used, used / meter.room if meter.room else 0.0)

    monkeypatch.setattr(room, "MemoryMeter", Meter)
    monkeypatch.setattr(room, "_Trial", Trial)
    recipe: Any = tiny_recipe(Path("nowhere"))
    unused: Any = None
    return room.find_batch_size(recipe, unused, unused, unused, samples, Console(), Processes())


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"speed": lambda size: size}, 64),  # as fast as it is large
        ({"speed": lambda size: size, "samples": 100}, 8),  # an epoch of 8 steps at least
        ({"speed": lambda size: size, "samples": 3}, 2),
        ({"speed": lambda size: 10.0}, 8),  # gains nothing
        ({"speed": lambda size: min(size, 20.0)}, 32),  # 16 -> 20 gains a quarter, then nothing
        ({"speed": lambda size: size, "room_mib": 300}, 16),  # 160 of 300: twice of it might be too much
        ({"speed": lambda size: size, "taken": lambda size: 10 * size if size < 8 else None}, 4),  # out of memory
        ({"speed": lambda size: size, "room_mib": None}, 8),  # nobody tells how much there is
    ],
)
def test_how_a_size_is_chosen(case: dict[str, Any], expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"room_mib": 10_000, "taken": lambda size: 10 * size, "samples": 10_000} | case
    if expected == 32:
        asked["speed"] = lambda size: {2: 2, 4: 4, 8: 8, 16: 16, 32: 20, 64: 20}[size]
    assert found(monkeypatch, **asked) == expected


def test_not_even_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryError, match="not even 2 images"):
        found(monkeypatch, room_mib=10, speed=float, taken=lambda size: 100, samples=99)


def test_auto_changes_nothing_but_the_size(tiny_data: Path, tmp_path: Path) -> None:
    told = Told()
    settings = ("training.ema_decay=0.9", "training.epochs=1")
    asked = tiny_recipe(tiny_data, "training.batch_size=auto", *settings)
    automatic = train(asked, tmp_path / "auto", console=told)
    size = automatic.recipe.training.batch_size
    assert size == 2  # of 16 that train an eighth
    assert any(line.startswith("  2 images: ") for line in told.lines)
    assert any(line.startswith("batch size 2: ") for line in told.lines)
    given = train(tiny_recipe(tiny_data, "training.batch_size=2", *settings), tmp_path / "given")
    assert_same_weights(automatic.last_path, given.last_path)
    again = train(asked, tmp_path / "auto", resume=True)  # asked for as before: it keeps what was found
    assert again.recipe.training.batch_size == size


def test_a_trial_leaves_model_and_random_states(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]
    with trial.random_state_kept():
        random.random(), np.random.rand(), torch.rand(3)
    assert states == [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_memory_is_measured() -> None:
    meter = trial.MemoryMeter(torch.device("cpu"))
    assert meter.room is not None
    assert 2**26 < meter.room < 2**44
    meter.reset()
    before = meter.taken()
    held = torch.ones(2**26, dtype=torch.uint8)
    del held
    assert 0.98 * 2**26 < meter.taken() - before < 1.25 * 2**26
    release()
    meter.reset()
    assert meter.taken() < 2**25


def test_control_groups_limit_memory(tmp_path: Path) -> None:
    group = tmp_path / "job" / "step"
    group.mkdir(parents=True)
    for folder, limit, used in ((group, "max", "100"), (group.parent, "1000", "900")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text(used + "\n")
        (folder / "memory.stat").write_text("anon 5\ninactive_file 50\nactive_file 7\n")
    names = ("memory.max", "memory.current", "inactive_file")
    assert trial._left(tmp_path, "/job/step", *names) == [150]
    assert trial._left(tmp_path, "/elsewhere", *names) == []


def test_auto_is_typed(tiny_data: Path) -> None:
    section = tiny_recipe(tiny_data).training
    with pytest.raises(ValidationError, match="batch_size"):
        type(section)(batch_size="automatic")
    assert section.images_a_step == 4
