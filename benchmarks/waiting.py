"""A training step of U-Net with OpenMP threads that wait busily (the default) or asleep: alone, and beside other work.

python benchmarks/waiting.py [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

STEPS, WARM = 6, 2
POLICIES = ("ACTIVE by default", "PASSIVE")


def measure() -> None:
    """Print wall and processor seconds of a step."""
    import torch  # before perpixel, which asks for PASSIVE where nothing is asked

    from perpixel.models import build_model

    torch.set_num_threads(os.cpu_count() or 1)
    model = build_model(architecture="unet", encoder="tf_efficientnet_lite0", weights="none", out_channels=1)
    model.to(memory_format=torch.channels_last)
    image_bchw = torch.rand(16, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    for step in range(WARM + STEPS):
        if step == WARM:
            wall, processor = time.perf_counter(), time.process_time()
        model(image_bchw).square().mean().backward()
        model.zero_grad()
    print((time.perf_counter() - wall) / STEPS, (time.process_time() - processor) / STEPS)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that keep a core busy each."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def child(policy: str) -> tuple[float, float]:
    """One measurement in a process of its own, since the policy is read when torch is loaded."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if policy == "PASSIVE":
        environment["OMP_WAIT_POLICY"] = policy
    done = subprocess.run([sys.executable, __file__, "child"], env=environment, capture_output=True, check=True)
    wall, processor = map(float, done.stdout.split())
    return wall, processor


def main(rounds: int) -> None:
    """Interleaved rounds; medians."""
    print("| busy processes beside it | waiting | wall s a step | processor s a step |\n| --- | --- | --- | --- |")
    for busy in (0, 1, 2):
        found: dict[str, list[tuple[float, float]]] = {policy: [] for policy in POLICIES}
        with neighbours(busy):
            for _ in range(rounds):
                for policy in POLICIES:
                    found[policy].append(child(policy))
        for policy, values in found.items():
            wall, processor = (statistics.median(value[part] for value in values) for part in (0, 1))
            print(f"| {busy} | {policy} | {wall:.2f} | {processor:.2f} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["child"]:
        measure()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
