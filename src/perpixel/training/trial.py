"""What trials before a training stand on: memory that is there and that a trial takes, and random numbers kept."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from perpixel.memory import release
from perpixel.recipe import Recipe

_SHARE = 0.8  # of the memory that is there may be taken: what is measured once is not the most that ever is


@contextlib.contextmanager
def random_state_kept() -> Iterator[None]:
    """Every global random state is afterwards what it was before."""
    states = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def costliest_epoch(recipe: Recipe) -> int:
    """The epoch, counted from 0, whose steps take most: the largest crops, the most of the encoder that trains."""
    starts = {0, *(start for start, _ in recipe.input.progressive), *recipe.model.unfreeze_epochs}

    def cost(epoch: int) -> tuple[int, int]:
        height, width = recipe.input.at_epoch(epoch).size
        return height * width, recipe.model.trainable_stages(epoch) or 0

    return max(sorted(starts), key=cost)


class MemoryMeter:
    """Bytes that may be taken on a device in addition to what is in use now, and that were taken at most.

    ``room`` is None where the system does not tell: elsewhere than on Linux, without a GPU.

    Args:
        fellows: processes that take memory of this machine at the same time.
    """

    def __init__(self, device: torch.device, fellows: int = 1) -> None:
        release()
        self._cuda = device.type == "cuda"
        self.room: int | None = None
        if self._cuda:
            self.room = int(_SHARE * torch.cuda.mem_get_info()[0])
            self._before = torch.cuda.memory_reserved()
        elif _reset_peak() and (free := free_memory()) is not None:
            self.room = int(_SHARE * free / fellows)
            self._before = _status("VmRSS")

    def reset(self) -> None:
        """Count the peak from here on."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset_peak()

    def taken(self) -> int:
        """Bytes at the peak, beyond what was in use when this meter was made."""
        if self.room is None:
            return 0
        peak = torch.cuda.max_memory_reserved() if self._cuda else _status("VmHWM")
        return max(0, peak - self._before)


def free_memory() -> int | None:
    """Bytes that this process may still take: the system's, or what its control groups leave; None: nobody tells."""
    try:
        meminfo = Path("/proc/meminfo").read_text()
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo, re.MULTILINE)
    if found is None:
        return None
    free = [int(found[1]) * 1024]
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            free += _left(Path("/sys/fs/cgroup"), path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            free += _left(Path("/sys/fs/cgroup/memory"), path, *names)
    return max(0, min(free))


def _left(root: Path, path: str, limit: str, usage: str, reclaimable: str) -> list[int]:
    """What a control group and those above it leave. In a container its own group stands at the root."""
    left = []
    own = root / path.lstrip("/")
    for folder in (own, *own.parents):
        with contextlib.suppress(OSError, ValueError):  # no limit, or no such file
            used = int((folder / usage).read_text())
            cached = re.search(rf"^{reclaimable} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
            left.append(int((folder / limit).read_text()) - used + (int(cached[1]) if cached else 0))
        if folder == root:
            break
    return left


def _reset_peak() -> bool:
    """Let the peak of this process's memory begin anew; False: the system does not offer it."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
