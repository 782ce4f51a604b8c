"""What runs inside a job: the command of one training, its end in time, and the job's return to the queue."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from perpixel.run import Run

_SECONDS_TO_REQUEUE = 15.0


@dataclass(frozen=True)
class Job:
    """A ``perpixel`` command that leaves ``run`` behind and that goes on where it stopped when it is run again.

    SLURM sends SIGUSR2 ``warning_seconds`` before the time limit. The command is asked to stop as a person would with
    Ctrl-C, so it saves after the present step; then the job is queued again, and the same command continues. A command
    that does not stop in time, because a validation takes longer, is killed: its last checkpoint serves as well.
    """

    command: tuple[str, ...]
    run: Path
    warning_seconds: float

    def __call__(self) -> None:
        """Run to the end, or to the return to the queue.

        Raises:
            SystemExit: with 0 when the job goes back to the queue; else with 1, and what happened is in the log.
        """
        warned_at: list[float] = []

        def warn(number: int, frame: FrameType | None) -> None:
            warned_at.append(time.monotonic())

        signal.signal(signal.SIGUSR2, warn)
        before = self._saved_at()
        print(f"start {int(os.environ.get('SLURM_RESTART_COUNT', 0)) + 1} of job {_job_id()}", flush=True)
        child = subprocess.Popen(self.command, preexec_fn=_ignore_warning)
        status = _wait(child, warned_at, self.warning_seconds - _SECONDS_TO_REQUEUE)
        if status == 0:
            return
        if not warned_at:
            raise SystemExit(1)  # the command has told why
        if self._saved_at() <= before:
            print(f"Error: {self.run}: the whole job was too short to save anything\n  Cure: ask for more --time.")
            raise SystemExit(1)
        print(f"job {_job_id()} goes back to the queue, and continues from its checkpoint", flush=True)
        subprocess.run(["scontrol", "requeue", _job_id()], check=True)
        raise SystemExit(0)

    def _saved_at(self) -> float:
        paths = [Run(self.run).last_path, *self.run.glob("*/checkpoints/last.safetensors")]
        return max((path.stat().st_mtime for path in paths if path.is_file()), default=0.0)


def _job_id() -> str:
    return os.environ["SLURM_JOB_ID"]


def _ignore_warning() -> None:
    """SLURM signals every process of the job; this one would end of it without saving."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _wait(child: subprocess.Popen[bytes], warned_at: list[float], patience: float) -> int:
    """The exit status; after the warning the child is asked to stop, and killed when its time is over."""
    asked = False
    while True:
        try:
            return child.wait(0.2)
        except subprocess.TimeoutExpired:
            if warned_at and not asked:
                child.terminate()
                asked = True
            elif warned_at and time.monotonic() - warned_at[0] > patience:
                child.kill()
