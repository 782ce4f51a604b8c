"""The processes that train one run together: who this one is, and what they tell each other.

Whatever is decided, read or written once is the first process's; the others hear of it here. With one process every
method is what it says, without torch.distributed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from perpixel.errors import RunError
from perpixel.recipe import Recipe
from perpixel.run import Run

T = TypeVar("T")

# Of a step: a process that lives answers in it. One that has died is noticed at once, by its closed connections.
_STEP_LIMIT = timedelta(minutes=5)
# Of waiting for what only the first process does, such as decoding the data or the last evaluation.
_WORK_LIMIT = timedelta(days=7)
_GONE = ("closed by peer", "reset by peer", "Broken pipe", "Connection refused", "imed out", "imeout", "socket closed")


class LostProcessError(RunError):
    """Another process of this training has ended, or does not answer; its own error says why."""


@dataclass(frozen=True)
class Place:
    """Where a process stands among all, and the address at which they meet (``init_method`` of torch.distributed)."""

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    meeting: str


def place_in(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun or SLURM's srun gave this process; None: it was not started as one of several."""
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        place = Place(
            rank=int(environment["RANK"]),
            world_size=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
            local_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
            meeting="env://",
        )
    elif {"SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_JOB_ID"} <= environment.keys():
        from lightning.fabric.plugins.environments import SLURMEnvironment

        nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "127.0.0.1")
        port = 15000 + (int(environment["SLURM_JOB_ID"]) * 7 + int(environment.get("SLURM_STEP_ID", "0"))) % 10000
        tasks = int(environment["SLURM_STEP_NUM_TASKS"])
        place = Place(
            rank=int(environment["SLURM_PROCID"]),
            world_size=tasks,
            local_rank=int(environment["SLURM_LOCALID"]),
            local_size=-(-tasks // int(environment.get("SLURM_STEP_NUM_NODES", "1"))),
            meeting=f"tcp://{SLURMEnvironment.resolve_root_node_address(nodes)}:{port}",
        )
    else:
        return None
    return place if place.world_size > 1 else None


class Processes:
    """This process and its fellows; without a place there is no other one."""

    def __init__(self, place: Place | None = None, control: Any = None) -> None:
        self.rank, self.world_size = (place.rank, place.world_size) if place else (0, 1)
        self.local_rank, self.local_size = (place.local_rank, place.local_size) if place else (0, 1)
        self.first, self.several = self.rank == 0, self.world_size > 1
        self._control = control

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, on all of them."""
        if not self.several:
            return make()
        box: list[Any] = [make() if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self._control)
        made: T = box[0]
        return made

    def in_turn(self, work: Callable[[], T]) -> T:
        """Everyone's own work: the first process, then one a machine, then the others; so that files are made once."""
        turn = 0 if self.first else 1 if self.local_rank == 0 else 2
        done: list[T] = []
        for number in range(3):
            if turn == number:
                done.append(work())
            self.wait()
        return done[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order."""
        if not self.several:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether any process raises a flag, for each of them."""
        if not self.several:
            return flags
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, dist.ReduceOp.MAX, group=self._control)
        return tuple(bool(flag) for flag in raised)

    def wait(self) -> None:
        """Until all processes have come here."""
        if self.several:
            dist.barrier(group=self._control)

    def copy_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the first process."""
        for tensor in tensors if self.several else ():
            dist.broadcast(tensor, src=0)

    def whole_batch(self, own_b: torch.Tensor, count: int) -> torch.Tensor:
        """The batch of ``count`` of which each process has a share; only this one's own rows carry gradients."""
        if not self.several:
            return own_b
        lengths = [len(share) for share in shares(range(count), self.world_size)]
        padded = own_b.new_zeros((max(lengths), *own_b.shape[1:]))
        padded[: len(own_b)] = own_b.detach()
        sent = padded.view(torch.uint8)  # as bytes: gloo does not know every type
        received = [torch.empty_like(sent) for _ in lengths]
        dist.all_gather(received, sent)
        parts = [part.view(own_b.dtype)[:length] for part, length in zip(received, lengths, strict=True)]
        parts[self.rank] = own_b
        return torch.cat(parts)


class Onlooker(Run):
    """A run folder as all processes but the first see it: they read it, and write nothing."""

    def write_recipe(self, recipe: Recipe) -> None:
        """Nothing."""

    def update_manifest(self, **values: Any) -> None:
        """Nothing."""

    def write_split(self, subsets: Mapping[str, str], groups: Mapping[str, str]) -> None:
        """Nothing."""

    def write_history(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing."""


def shares(values: Sequence[T], count: int) -> list[Sequence[T]]:
    """Consecutive shares of ``values`` whose lengths differ by one at most, the longer ones first."""
    length, more = divmod(len(values), count)
    starts = [number * length + min(number, more) for number in range(count + 1)]
    return [values[start:end] for start, end in pairwise(starts)]


@contextlib.contextmanager
def meet(place: Place) -> Iterator[Processes]:
    """Meet the other processes; the group ends with the block.

    Raises:
        LostProcessError: another process has ended.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    try:
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=place.meeting,
            rank=place.rank,
            world_size=place.world_size,
            timeout=_STEP_LIMIT,
        )
        # Waiting and telling go through gloo on every machine: it notices a dead process at once, and needs no GPU.
        yield Processes(place, dist.new_group(backend="gloo", timeout=_WORK_LIMIT))
    except RuntimeError as error:
        # The group is left as it is: its connections close with this process, when its error has been told.
        if any(sign in str(error) for sign in _GONE) or isinstance(error, dist.DistError):
            raise LostProcessError(
                "another process of this training has ended, or does not answer",
                where=f"process {place.rank} of {place.world_size}",
                cure="see its own error, then continue with --resume.",
                details=[str(error).splitlines()[0]],
            ) from error
        raise
    dist.destroy_process_group()


def stay_on_this_machine() -> None:
    """Let processes of one machine talk through its loopback, which no other machine can reach."""
    import socket

    names = [name for _, name in socket.if_nameindex() if name.startswith("lo")]
    if names:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])
