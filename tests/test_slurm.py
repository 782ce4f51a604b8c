"""Trainings on SLURM: what is asked and told without one, and the same results on a real one (slow)."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perpixel import api
from perpixel.console import Console
from perpixel.errors import RequestError, RunError
from perpixel.launching import Slurm, follow
from perpixel.launching.job import Job
from perpixel.launching.slurm import queue_states
from perpixel.run import Run
from slurm_cluster import PARTITION, reason_it_cannot_run, slurm_cluster
from tiny import TINY_SETTINGS, assert_same_weights

pytest.importorskip("submitit", reason="needs the extra perpixel[slurm]")


class Listener(Console):
    """Remembers what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def program(folder: Path, name: str, script: str) -> None:
    """A program that the tests find instead of SLURM's."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


# What is asked


@pytest.mark.parametrize(
    ("time_", "minutes"),
    [("90", 90), ("1:30", 2), ("2:00:00", 120), ("1:00:01", 61), ("2-12", 3600), ("1-0:30", 1470), ("1-1:1:1", 1502)],
)
def test_time_limits_are_read_as_sbatch_reads_them(time_: str, minutes: int) -> None:
    assert Slurm(time_).minutes == minutes


@pytest.mark.parametrize("time_", ["", "0", "0:00", "x", "1:2:3:4", "-5", "1.5"])
def test_a_time_that_is_none(time_: str) -> None:
    with pytest.raises(RequestError, match="--time"):
        Slurm(time_)


def test_the_warning_comes_in_time() -> None:
    assert [Slurm(time_).warning_seconds for time_ in ("1", "3", "6", "1-0")] == [20, 60, 120, 120]


def test_options_without_the_launcher_are_refused() -> None:
    assert Slurm.asked("local") is None
    assert Slurm.asked("slurm", time="5") == Slurm("5", None, 1)
    assert Slurm.asked("slurm", time="5", partition="a100", gpus=0) == Slurm("5", "a100", 0)
    with pytest.raises(RequestError, match="--time and --dry-run"):
        Slurm.asked("local", time="5", dry_run=True)
    with pytest.raises(RequestError, match="time limit"):
        Slurm.asked("slurm")
    with pytest.raises(RequestError, match="no such launcher"):
        Slurm.asked("pbs")


def test_a_dry_run_shows_the_script_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no SLURM
    slurm, settings = Slurm("1-0", "a100", 4), ["training.workers=3"]
    script = api.sbatch_script("salt", slurm=slurm, overrides=settings, run=tmp_path / "run").splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH")}
    assert {"partition=a100", "time=1440", "gpus-per-node=4", "requeue", "signal=USR2@120", "job-name=run"} <= asked
    assert {"nodes=1", "ntasks-per-node=1", "cpus-per-task=16"} <= asked
    assert not any(line.startswith("array") for line in asked)
    assert script[-1].startswith("srun ")
    cells = api.sbatch_script("salt", ["loss.name=bce,dice,focal"], slurm=Slurm("9", gpus=0), run=tmp_path / "grid")
    assert "#SBATCH --array=0-2%3\n" in cells
    assert "gpus" not in cells
    assert "partition" not in cells
    assert list(tmp_path.iterdir()) == []


def test_without_slurm_nothing_is_submitted(tmp_path: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RequestError, match="no SLURM on this machine"):
        api.train("salt", data=tiny_data, run=tmp_path / "run", slurm=Slurm("5"))


# What the queue says


def test_states_of_jobs_and_of_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    answer = "7_0|RUNNING|None\\n7_1|PENDING|Priority\\n7_2|COMPLETING|None\\n"
    program(
        tmp_path,
        "squeue",
        f"case \"$*\" in *--jobs=7*) printf '{answer}';; *) echo 'Invalid job id' >&2; exit 1;; esac",
    )
    assert queue_states(["7_0", "7_1", "7_3", "9"]) == {"7_0": "RUNNING", "7_1": "PENDING (Priority)"}
    program(tmp_path, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert queue_states(["7_0"]) is None


def test_jobs_are_followed_until_they_leave_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(follow, "_ASK_SECONDS", 0.0)
    log, run = tmp_path / "log", Run(tmp_path / "run")
    log.write_text("of an earlier start\n")
    job = follow.Submitted(run, "7", log, log, "cell")

    def answers() -> Iterator[dict[str, str] | None]:
        yield {"7": "PENDING (Priority)"}
        yield None  # the controller is busy
        with log.open("a") as file:
            file.write("one\ntwo\nhal")
        yield {"7": "RUNNING"}
        yield {"7": "RUNNING"}
        with log.open("a") as file:
            file.write("f\n")
        yield {}

    following = answers()
    monkeypatch.setattr(follow, "queue_states", lambda ids: next(following))
    console = Listener()
    follow.follow([job], console)
    told = ["job 7 cell: PENDING (Priority)", "job 7 cell: RUNNING", "cell: one", "cell: two", "cell: half"]
    assert console.said == told
    assert follow.failure(log).splitlines()[-1] == "half"
    log.write_text("say\nError: it broke\n  Cure: mend it.\nsrun: error: n1: task 0: Exited with exit code 1\n")
    assert follow.failure(log) == "it broke\n  Cure: mend it."


def test_ctrl_c_leaves_the_jobs_and_they_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, memory = tmp_path / "log", tmp_path / "jobs.json"
    job = follow.Submitted(Run(tmp_path / "run"), "7", log, log)
    follow.remember(memory, [job])

    def interrupt(ids: object) -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(follow, "queue_states", interrupt)
    with pytest.raises(RunError, match="scancel 7"):
        follow.follow([job], Console())
    monkeypatch.setattr(follow, "queue_states", lambda ids: {"7": "RUNNING"})
    assert follow.still_queued(memory) == {"run": ("7", log)}
    monkeypatch.setattr(follow, "queue_states", lambda ids: {})
    assert follow.still_queued(memory) == {}


# What runs in a job: here a process of its own, whose signals are those of SLURM

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
SAVES = """
import pathlib, signal, sys, time
def save(*_):
    path = pathlib.Path(sys.argv[1]) / "checkpoints" / "last.safetensors"
    path.parent.mkdir(parents=True); path.write_text("x"); sys.exit(1)
signal.signal(signal.SIGTERM, save); print('on', flush=True); time.sleep(60)
"""


def run_job(tmp_path: Path, code: str, *, warn: bool, warning_seconds: float = 120) -> tuple[int, str, str]:
    """Exit status of the job, its output, and what scontrol was asked."""
    program(tmp_path / "bin", "scontrol", f'echo "$@" >> {tmp_path}/asked')
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "42"}
    command = (sys.executable, "-c", code, str(tmp_path / "run"))
    starter = (
        "from pathlib import Path\nfrom perpixel.launching.job import Job\n"
        f"Job({command!r}, Path({str(tmp_path / 'run')!r}), {warning_seconds})()"
    )
    process = subprocess.Popen([sys.executable, "-c", starter], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.readline() + (process.stdout.readline() if warn else "")
    if warn:
        subprocess.run(["kill", "-USR2", str(process.pid)], check=True)
    output += process.stdout.read()
    process.stdout.close()
    asked = tmp_path / "asked"
    return process.wait(), output, asked.read_text() if asked.exists() else ""


def test_a_job_that_is_warned_saves_and_goes_back_to_the_queue(tmp_path: Path) -> None:
    status, output, asked = run_job(tmp_path, SAVES, warn=True)
    assert (status, asked) == (0, "requeue 42\n")
    assert "goes back to the queue" in output


def test_a_job_that_saved_nothing_does_not_go_round_for_ever(tmp_path: Path) -> None:
    status, output, asked = run_job(tmp_path, STUBBORN, warn=True, warning_seconds=15.5)  # half a second of patience
    assert (status, asked) == (1, "")
    assert "too short to save anything" in output


def test_a_job_ends_as_its_command_does(tmp_path: Path) -> None:
    assert run_job(tmp_path, "pass", warn=False)[::2] == (0, "")
    assert run_job(tmp_path, "raise SystemExit(2)", warn=False)[::2] == (1, "")


# On a real SLURM

needs_slurm = pytest.mark.skipif(bool(reason_it_cannot_run()), reason=reason_it_cannot_run() or "")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    with slurm_cluster(folder, nodes=2) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(follow, "_ASK_SECONDS", 1.0)
        yield
        shutil.rmtree(folder, ignore_errors=True)


MEASURED = {"seconds", "latency_ms", "memory_mib"}  # what differs from one time to the next


@pytest.mark.slow
@needs_slurm
def test_the_salt_grid_gives_the_same_table_here_and_there(cluster: None, tiny_data: Path, tmp_path: Path) -> None:
    tables = []
    for place, slurm in (("here", None), ("there", Slurm("10", PARTITION, gpus=0))):
        vary = ["loss.name=bce_dice,lovasz", "optimizer.learning_rate=0.001,0.003"]
        settings = [*TINY_SETTINGS, "training.epochs=2"]
        folder = api.grid("salt", vary, data=tiny_data, overrides=settings, run=tmp_path / place, slurm=slurm)
        with (folder / "table.csv").open(newline="") as file:
            tables.append([{key: row[key] for key in row if key not in MEASURED} for row in csv.DictReader(file)])
    assert len(tables[0]) == 4
    assert tables[0] == tables[1]
    for cell in (row["cell"] for row in tables[0]):
        assert_same_weights(Run(tmp_path / "here" / cell).last_path, Run(tmp_path / "there" / cell).last_path)


@pytest.mark.slow
@needs_slurm
def test_the_error_of_a_job_is_told(cluster: None, tiny_data: Path, tmp_path: Path) -> None:
    settings = [*TINY_SETTINGS, "model.encoder=nonsense"]
    with pytest.raises(RunError, match="no such encoder"):
        api.train("salt", data=tiny_data, overrides=settings, run=tmp_path / "run", slurm=Slurm("10", gpus=0))
    with pytest.raises(RunError, match="SLURM did not take this job"):
        api.train("salt", data=tiny_data, run=tmp_path / "other", slurm=Slurm("10", "nowhere", gpus=0))


def train_in_pieces(data: Path, settings: list[str], folder: Path, slurm: Slurm, console: Listener) -> tuple[Run, int]:
    """The finished run, and how often its job was started."""
    over = threading.Event()
    helper = threading.Thread(target=start_at_once, args=(over,))
    helper.start()
    try:
        run = api.train("salt", data=data, overrides=settings, run=folder, slurm=slurm, console=console)
    finally:
        over.set()
        helper.join()
    starts = sum(bool(re.match(r"start \d+ of job", line)) for line in console.said)
    assert run.manifest["resumed"] == starts - 1
    return run, starts


def assert_same_training(run: Run, whole: Run) -> None:
    assert_same_weights(run.best_path, whole.best_path)
    assert_same_weights(run.last_path, whole.last_path)
    assert timeless(run.read_history()) == timeless(whole.read_history())


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: row[key] for key in row if key not in MEASURED} for row in history]


class Warner(Listener):
    """Sends the job what SLURM sends before the time limit, once, in the second epoch."""

    def say(self, text: str) -> None:
        super().say(text)
        if text.startswith("epoch 1/") and "val" in text and not any("goes back" in line for line in self.said):
            job_id = next(re.findall(r"job (\d+)", line)[0] for line in self.said if line.startswith("start 1"))
            subprocess.run(["scancel", "--signal=USR2", f"{job_id}.0"], check=True)


@pytest.mark.slow
@needs_slurm
def test_a_job_that_slurm_signals_goes_on_and_ends_with_the_same_weights(
    cluster: None, tiny_data: Path, tmp_path: Path
) -> None:
    settings = [*TINY_SETTINGS, "training.epochs=6"]
    run, starts = train_in_pieces(tiny_data, settings, tmp_path / "there", Slurm("10", gpus=0), Warner())
    assert starts == 2
    assert_same_training(run, api.train("salt", data=tiny_data, overrides=settings, run=tmp_path / "here"))


class Ender(Listener):
    """Ends the job in the first epoch of its second start."""

    def say(self, text: str) -> None:
        super().say(text)
        if text.startswith("epoch ") and "val" in text and any(line.startswith("start 2") for line in self.said):
            subprocess.run(["scancel", "--name=there"], check=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_slurm
def test_a_job_at_its_time_limit_goes_on_as_if_there_were_none(cluster: None, tiny_data: Path, tmp_path: Path) -> None:
    """SLURM's own warning; how many epochs that takes differs from machine to machine, so the training has no end."""
    settings = [*TINY_SETTINGS, "schedule.name=constant", "optimizer.learning_rate=0.001"]
    endless, console = [*settings, "training.epochs=100000"], Ender()
    with pytest.raises(RunError, match="ended before the training did"):
        train_in_pieces(tiny_data, endless, tmp_path / "there", Slurm("4", gpus=0), console)
    assert any("goes back to the queue" in line for line in console.said)
    history = Run(tmp_path / "there").read_history()
    ended = [*settings, f"training.epochs={len(history)}"]
    whole = api.train("salt", data=tiny_data, overrides=ended, run=tmp_path / "here").read_history()
    assert timeless(history) == timeless(whole)


def start_at_once(over: threading.Event) -> None:
    """SLURM lets a requeued job wait for two minutes; a test does not."""
    while not over.wait(2):
        waiting = subprocess.run(
            ["squeue", "-h", "-t", "PENDING", "-o", "%i"], capture_output=True, text=True, check=False
        )
        for job_id in waiting.stdout.split():
            subprocess.run(
                ["scontrol", "update", f"JobId={job_id}", "StartTime=now"], capture_output=True, check=False, timeout=30
            )


def test_a_job_survives_its_pickle() -> None:
    import pickle

    job = Job(("perpixel", "train"), Path("run"), 120)
    assert pickle.loads(pickle.dumps(job)) == job
