"""Jobs from submission to end: remembered in a file, so that a driver that was ended finds them again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from perpixel.console import Console
from perpixel.errors import RunError
from perpixel.launching.slurm import queue_states
from perpixel.run import Run, read_json, write_json

_LOOK_SECONDS = 1.0
_ASK_SECONDS = 10.0  # the controller serves a whole cluster
_LINES_OF_A_FAILURE = 12


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted: what it trains, its id, its log file, and the file whose lines are shown."""

    run: Run
    job_id: str
    log: Path
    shown: Path
    label: str = ""


def remember(path: Path, jobs: Sequence[Submitted]) -> None:
    """Add jobs to a file, by the folder of their run."""
    known = read_json(path) if path.is_file() else {}
    write_json(path, known | {job.run.path.name: {"job": job.job_id, "log": str(job.log)} for job in jobs})


def still_queued(path: Path) -> dict[str, tuple[str, Path]]:
    """Id and log of the remembered jobs that are not over, by the name of the run's folder.

    Raises:
        RunError: the queue does not answer, so that nobody knows.
    """
    known = read_json(path) if path.is_file() else {}
    if not known:
        return {}
    states = queue_states([entry["job"] for entry in known.values()])
    if states is None:
        raise RunError("squeue does not answer", where=path, cure="try again when the controller is back.")
    return {name: (entry["job"], Path(entry["log"])) for name, entry in known.items() if entry["job"] in states}


def follow(jobs: Sequence[Submitted], console: Console, finished: Callable[[], None] = lambda: None) -> None:
    """Show what the jobs write until none is left; ``finished`` is called whenever one more run is finished.

    Raises:
        RunError: Ctrl-C; the jobs go on.
    """
    tails = [_Tail(job.shown, f"{job.label}: " if job.label else "") for job in jobs]
    states: dict[str, str] = {job.job_id: "" for job in jobs}
    asked, count = -_ASK_SECONDS, 0
    try:
        while states:
            if time.monotonic() - asked >= _ASK_SECONDS:
                found, asked = queue_states([job.job_id for job in jobs]), time.monotonic()
                if found is not None:
                    _say_changes(states, found, jobs, console)
                    states = found
            for tail in tails:
                tail.show(console)
            done = sum(job.run.finished for job in jobs)
            if done > count:
                count = done
                finished()
            if done == len(jobs):
                break
            time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        ids = " ".join(sorted(states))
        raise RunError(
            "the jobs are no longer followed; they go on",
            cure=f"the same command with --resume follows them again; scancel {ids} ends them.",
        ) from None
    for tail in tails:
        tail.show(console)


def failure(log: Path) -> str:
    """Why a job failed: the last error in its log, else the log's last lines."""
    if not log.is_file():
        return f"it left no log {log}; all machines of the cluster have to see this folder"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("srun: error: ")]
    errors = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    last = lines[max(errors, default=-_LINES_OF_A_FAILURE) :][:_LINES_OF_A_FAILURE]
    return "\n".join(last).removeprefix("Error: ")


def _say_changes(before: dict[str, str], now: dict[str, str], jobs: Sequence[Submitted], console: Console) -> None:
    for job in jobs:
        state = now.get(job.job_id, "")
        if state and state != before.get(job.job_id):
            console.say(f"job {job.job_id}{' ' + job.label if job.label else ''}: {state}")


class _Tail:
    """The lines that a growing file has gained."""

    def __init__(self, path: Path, prefix: str) -> None:
        self._path, self._prefix = path, prefix
        self._read = path.stat().st_size if path.is_file() else 0  # what was there before is not shown again

    def show(self, console: Console) -> None:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(newline)
        for line in whole.decode("utf-8", errors="replace").splitlines():
            console.say(self._prefix + line)
