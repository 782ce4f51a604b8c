"""Fifty kills: any process, any phase, however it was started; each run continues and ends as if nothing had been."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import perpixel
from perpixel.run import Run
from ranks import SHARED
from tiny import assert_same_weights, tiny_recipe, write_tiny

RANKS = str(Path(__file__).with_name("ranks.py"))
WAYS = ("one", "devices", "nodes")
# How often a process comes to a place of each phase at most, in the three epochs below.
PHASES = {"step": 9, "loading": 12, "validation": 9, "writing": 40, "written": 40, "cache": 20, "shards": 30}


@dataclass(frozen=True)
class Case:
    """A training as it is started, and where it is struck."""

    way: str
    workers: int
    phase: str
    rank: int
    count: int

    @property
    def order(self) -> str:
        return f"strike {self.phase} {self.rank} {self.count}"

    @property
    def alike(self) -> tuple[bool, bool]:
        """What its weights depend on: whether one process trains, and whether the data are shards."""
        return self.way == "one", self.phase == "shards"


def draw(chance: random.Random) -> Case:
    way, phase = chance.choice(WAYS), chance.choice(list(PHASES))
    # The first process reads and writes for all.
    rank = chance.randrange(2) if way != "one" and phase in ("step", "loading", "validation", "shards") else 0
    return Case(way, chance.randrange(2), phase, rank, chance.randint(1, PHASES[phase]))


def start(case: Case, recipe: Path, run: Path, order: str = "") -> tuple[list[int], str]:
    """Train to the end, or to the strike: the exit statuses and what was said as errors."""
    command = [sys.executable, RANKS, "train", str(recipe), "--run", str(run), "--resume"]
    places: list[dict[str, str]] = [{}]
    if case.way == "devices":
        command += ["--devices", "2"]
    elif case.way == "nodes":
        command += ["--nodes", "2"]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
        places = [shared | {"RANK": rank, "LOCAL_RANK": "0", "GROUP_RANK": rank} for rank in ("0", "1")]
    environment = os.environ | {
        "PERPIXEL_TEST": order,
        "PERPIXEL_CACHE": str(run.parent / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(command, env=environment | place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for place in places
    ]
    errors = [process.communicate(timeout=600)[1] for process in started]
    return [process.returncode for process in started], "\n".join(errors)


def recipe_file(data: Path, case: Case, folder: Path) -> Path:
    settings = (
        "model.freeze_encoder=true",  # its batch normalisation cannot train on one image of 32x32
        "model.decoder_norm=false",
        f"training.workers={case.workers}",
        "training.checkpoint_seconds=1e-6",
        *((f"data.root=local:{data / 'shards'}",) if case.phase == "shards" else ()),
    )
    Run(folder / "asked").write_recipe(tiny_recipe(data / "files", *SHARED, *settings))
    return Run(folder / "asked").recipe_path


def figures(run: Run) -> str:
    """Its history but for the time it took, and its evaluation."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in run.read_history()]
    return repr(rows) + (run.evaluation_dir("val") / "per_image.csv").read_text()


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_fifty_kills(tmp_path: Path) -> None:
    data = tmp_path / "data"
    perpixel.shard("salt", data / "shards", data=write_tiny(data / "files"), overrides=SHARED[:3], size_mb=0.01)
    chance = random.Random(int(os.environ.get("PERPIXEL_KILLS_SEED", "0")))
    wanted = int(os.environ.get("PERPIXEL_KILLS", "50"))
    straight: dict[tuple[bool, bool], Run] = {}
    for case in [Case(way, 0, phase, 0, 0) for way in ("one", "devices") for phase in ("step", "shards")]:
        folder = tmp_path / f"straight-{case.way}-{case.phase}"
        statuses, said = start(case, recipe_file(data, case, folder), folder / "run")
        assert statuses == [0], said
        straight[case.alike] = Run(folder / "run")
    struck: list[Case] = []
    for number in range(4 * wanted):
        case, folder = draw(chance), tmp_path / f"{number}"
        recipe = recipe_file(data, case, folder)
        statuses, said = start(case, recipe, folder / "run", case.order)
        assert "Traceback" not in said, f"{case}\n{said}"
        if any(statuses):  # else its count was beyond what there was to do
            before = Run(folder / "run").read_history() if (folder / "run" / "history.csv").exists() else []
            statuses, said = start(case, recipe, folder / "run")
            assert not any(statuses), f"{case}\n{said}"
            assert Run(folder / "run").read_history()[: len(before)] == before, case
            struck.append(case)
        assert_same_weights(straight[case.alike].best_path, Run(folder / "run").best_path)
        assert figures(straight[case.alike]) == figures(Run(folder / "run")), case
        print(len(struck), case, "" if any(statuses) or case in struck else "not struck", flush=True)
        if len(struck) == wanted:
            break
    assert len(struck) == wanted
    if wanted >= 50:
        assert {case.way for case in struck} == set(WAYS) and {case.phase for case in struck} == set(PHASES)
