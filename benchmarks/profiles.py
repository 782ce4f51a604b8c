"""Where the processor's time goes in a training, before (the plain loop) and after (perpixel).

    python benchmarks/profiles.py [--case unet ...] [--out benchmarks/results/profiles.md]

Each training in a process of its own, on one thread, under PyTorch's profiler, which itself costs some time: only
shares are told; `benchmarks/suite.py` measures speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from cases import CASES, Case
from worker import Watch, by_perpixel

HERE = Path(__file__).parent
WAYS = ("plain Lightning", "perpixel")
# The first that an operation's name contains.
GROUPS = {
    "convolution, forward": ("convolution", "conv2d"),
    "convolution, backward": ("ConvolutionBackward", "convolution_backward"),
    "matrix products": ("addmm", "::mm", "bmm", "linear"),
    "normalisation": ("batch_norm", "layer_norm", "BatchNorm"),
    "pooling and resizing": ("pool", "upsample", "interpolate", "pad"),
    "optimiser": ("Optimizer", "_fused_adam", "_foreach"),
    "copies and conversions": ("copy_", "::to", "contiguous", "clone", "::cat", "stack", "fill_", "zero"),
    "loading and augmentation": ("DataLoader", "dataloader", "prepare_data"),
}
_ORDER = ("convolution, backward", *[name for name in GROUPS if name != "convolution, backward"])


def group_of(operation: str) -> str:
    """The group of an operation of the profiler; what has none is called the rest."""
    return next((name for name in _ORDER if any(part in operation for part in GROUPS[name])), "the rest")


class Profile(Watch):
    """Profiles the batches that the suite would time."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._case, self._last = case, case.images // case.batch
        self._profile: Any = None
        self._seconds: dict[str, float] = {}
        self._batches = 0

    def epoch_began(self, *_: Any) -> None:
        super().epoch_began()
        self._look()

    def batch_ended(self, *_: Any) -> None:
        super().batch_ended()
        self._batches += self._profile is not None
        self._look()

    def _look(self) -> None:
        epoch, batch = len(self.epochs) - 1, len(self.epochs[-1]) - 1
        if batch == self._last:
            self._stop()  # before the validation
        elif (batch == self._case.warm) if self._case.epochs == 1 else (batch == 0 and epoch >= self._case.warm):
            import torch

            self._profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
            self._profile.start()

    def _stop(self) -> None:
        if self._profile is not None:
            self._profile.stop()
            for event in self._profile.key_averages():
                name = group_of(event.key)
                self._seconds[name] = self._seconds.get(name, 0.0) + event.self_cpu_time_total / 1e6
            self._profile = None

    def seconds_by_group(self) -> dict[str, float]:
        """Seconds a batch."""
        return {name: seconds / self._batches for name, seconds in self._seconds.items()}


def one(case: Case, way: str, data: Path) -> dict[str, float]:
    """Train, and say where the time went."""
    import torch

    from perpixel._torchvision import ensure_torchvision

    ensure_torchvision()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    watch = Profile(case)
    if way == "perpixel":
        by_perpixel(case, data, watch, "bf16")
    else:
        from plain import train_plain

        train_plain(case, data, watch.epoch_began, watch.batch_ended)
    return watch.seconds_by_group()


def section(case: Case, found: dict[str, dict[str, float]]) -> list[str]:
    """A table: shares of the time by group."""
    lines = [f"## {case.title}", "", f"| | {' | '.join(WAYS)} |", "| :--- |" + " ---: |" * len(WAYS)]
    totals = {way: sum(found[way].values()) for way in WAYS}
    for name in [*GROUPS, "the rest"]:
        shares = [found[way].get(name, 0.0) / totals[way] for way in WAYS]
        lines.append(f"| {name} | {' | '.join(f'{share:.0%}' for share in shares)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "profiles.md")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "DATA"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(CASES[asked.case[0]], asked.one[0], Path(asked.one[1]))))
        return
    lines = [
        "# Where the time of a training goes",
        "",
        f"Written by `python benchmarks/profiles.py` on {time.strftime('%Y-%m-%d')}: one thread, PyTorch's profiler,"
        " shares of the operations' own time. The profiler measures by the wall clock and adds time of its own, so that"
        " there are no seconds here: speeds are in [training_speed.md](training_speed.md). The plain loop is"
        " `benchmarks/plain.py` in fp32; perpixel trains in bf16, channels-last, with a fused optimiser and its cache.",
        "",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.case or CASES:
            case, data = CASES[name], Path(folder) / name
            case.write(data, case.images)
            found = {}
            for way in WAYS:
                command = [sys.executable, str(Path(__file__)), "--case", name, "--one", way, str(data)]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                found[way] = json.loads(done.stdout.strip().splitlines()[-1])
            lines += section(case, found)
            asked.out.write_text("\n".join(lines), encoding="utf-8")
    print(asked.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
