"""SLURM through submitit: the script, the submission, and what the queue says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpixel.errors import RequestError, RunError
from perpixel.launching.job import Job
from perpixel.launching.request import Slurm

if TYPE_CHECKING:
    from submitit import SlurmExecutor


def sbatch_script(work: Path, name: str, slurm: Slurm, *, jobs: int, processors: int) -> str:
    """The script that a submission would hand to sbatch; nothing is submitted, and no SLURM is needed here."""
    executor = _executor(work, name, slurm, processors, here=False)
    if jobs > 1:
        executor.parameters["map_count"] = jobs
    return str(executor._make_submission_file_text(executor._submitit_command_str, ""))


def submit(work: Path, name: str, slurm: Slurm, jobs: Sequence[Job], *, processors: int) -> list[tuple[str, Path]]:
    """Submit one job, or an array of several.

    Args:
        work: a folder for scripts and logs, which all machines of the cluster see.
        name: of the job, as the queue shows it.
        processors: of each job.

    Returns:
        id and log file of each job.

    Raises:
        RequestError: there is no SLURM here.
        RunError: it refused the jobs.
    """
    executor = _executor(work, name, slurm, processors, here=True)
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        with executor.batch():
            submitted = [executor.submit(job) for job in jobs]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise RunError(
            "SLURM did not take this job", details=said[-3:], cure="see the partitions with sinfo."
        ) from None
    return [(job.job_id, Path(job.paths.stdout)) for job in submitted]


def _executor(work: Path, name: str, slurm: Slurm, processors: int, *, here: bool) -> SlurmExecutor:
    try:
        from submitit import SlurmExecutor
    except ImportError:
        raise RequestError(
            "submitit is not installed", where="--launcher slurm", cure='pip install "perpixel[slurm]"'
        ) from None

    class Elsewhere(SlurmExecutor):
        """Makes scripts on a machine that has no SLURM."""

        @classmethod
        def affinity(cls) -> int:
            return 1

    if here and SlurmExecutor.affinity() < 0:
        raise RequestError(
            "there is no SLURM on this machine",
            where="--launcher slurm",
            cure="run this where srun is found, such as the cluster's login node; --dry-run shows the script anywhere.",
        )
    executor = (SlurmExecutor if here else Elsewhere)(folder=work)
    resources: dict[str, Any] = {"cpus_per_task": processors}
    resources |= {"partition": slurm.partition} if slurm.partition else {}
    resources |= {"gpus_per_node": slurm.gpus} if slurm.gpus else {}
    executor.update_parameters(
        job_name=name,
        time=slurm.minutes,
        nodes=1,
        ntasks_per_node=1,
        signal_delay_s=slurm.warning_seconds,
        stderr_to_stdout=True,
        srun_args=[f"--cpus-per-task={processors}"],  # since SLURM 22.05 srun no longer takes it from the script
        additional_parameters={"requeue": True},
        wckey=None,
        **resources,
    )
    return executor


def queue_states(ids: Sequence[str]) -> dict[str, str] | None:
    """What squeue says of those jobs that are not over, such as ``RUNNING`` or ``PENDING (Priority)``.

    None: it did not answer, as a busy controller does at times.
    """
    mains = sorted({job_id.partition("_")[0] for job_id in ids})
    states: dict[str, str] = {}
    for main in mains:
        command = ["squeue", "--noheader", "--array", f"--jobs={main}", "--format=%i|%T|%r"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"LC_ALL": "C"})
        if done.returncode and "Invalid job id" not in done.stderr:
            return None
        for line in done.stdout.splitlines():
            job_id, state, reason = line.strip().split("|", 2)
            if job_id in ids:
                states[job_id] = state if reason in ("None", "") else f"{state} ({reason})"
    return states
