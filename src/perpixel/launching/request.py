"""What is asked of SLURM for a job."""

from __future__ import annotations

import re
from dataclasses import dataclass

from perpixel.errors import RequestError

_LONGEST_WARNING = 120  # seconds
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<rest>\d+(?::\d+){0,2})")


@dataclass(frozen=True)
class Slurm:
    """The resources of one job; each cell of a grid is one.

    Args:
        time: the limit of a job as sbatch takes it: ``90`` (minutes), ``1:30:00``, ``2-12`` (days-hours). A training
            that needs longer saves before it, and its job is queued again.
        partition: None: the cluster's default.
        gpus: of one job, on one machine; with more than one it trains data-parallel. 0: none.

    Raises:
        RequestError: no such time, or no such number of GPUs.
    """

    time: str
    partition: str | None = None
    gpus: int = 1

    def __post_init__(self) -> None:
        if self.minutes < 1:
            raise RequestError("a job has a minute or more", where=f"--time {self.time}")
        if self.gpus < 0:
            raise RequestError("a job has 0 GPUs or more", where=f"--gpus {self.gpus}")

    @staticmethod
    def asked(
        launcher: str,
        *,
        time: str | None = None,
        partition: str | None = None,
        gpus: int | None = None,
        dry_run: bool = False,
    ) -> Slurm | None:
        """What the options of the command line mean; None: train here.

        Raises:
            RequestError: no such launcher, or options that do not belong to it.
        """
        if launcher not in ("local", "slurm"):
            raise RequestError("there is no such launcher", where=f"--launcher {launcher}", rule="local or slurm.")
        given = {"--time": time, "--partition": partition, "--gpus": gpus, "--dry-run": dry_run or None}
        if launcher == "slurm":
            if time is None:
                raise RequestError(
                    "a job needs a time limit",
                    where="--launcher slurm",
                    cure="say --time 2:00:00; what needs longer goes on.",
                )
            return Slurm(time, partition, 1 if gpus is None else gpus)
        if foreign := [option for option, value in given.items() if value is not None]:
            raise RequestError(f"{' and '.join(foreign)} belong to --launcher slurm")
        return None

    @property
    def minutes(self) -> int:
        """The limit in minutes, seconds rounded up."""
        match = _TIME.fullmatch(self.time.strip())
        if match is None:
            raise RequestError(
                "this is no time limit",
                where=f"--time {self.time}",
                rule="minutes, hours:minutes:seconds, or days-hours:minutes, as in 90, 1:30:00 or 2-12.",
            )
        parts = [int(part) for part in match["rest"].split(":")]
        if match["days"] is not None:
            hours, minutes, seconds = [*parts, 0, 0][:3]
            return int(match["days"]) * 1440 + hours * 60 + minutes + (seconds > 0)
        hours, minutes, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
        return hours * 60 + minutes + (seconds > 0)

    @property
    def warning_seconds(self) -> int:
        """How long before the limit SLURM tells the job, which then saves; it may do so a minute earlier still."""
        return min(_LONGEST_WARNING, self.minutes * 20)
