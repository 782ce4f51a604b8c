"""A training step of U-Net with and without `keep_freed_memory`: processes in turn, ratio of medians.

python benchmarks/allocator.py [ROUNDS]
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

STEPS, WARM = 12, 3


def measure(keep: bool) -> None:
    """Print processor and wall seconds of a step."""
    import torch

    from perpixel.models import build_model
    from perpixel.training.fit import keep_freed_memory

    if keep:
        keep_freed_memory()
    model = build_model(architecture="unet", encoder="tf_efficientnet_lite0", weights="none", out_channels=1)
    model.to(memory_format=torch.channels_last)
    image_bchw = torch.rand(32, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for step in range(WARM + STEPS):
        if step == WARM:
            wall, cpu = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(image_bchw)
        output.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print((time.process_time() - cpu) / STEPS, (time.perf_counter() - wall) / STEPS, peak)


def main() -> None:
    """Run both in turn."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    figures: dict[str, list[list[float]]] = {"default": [], "keep": []}
    for _ in range(rounds):
        for name in figures:
            output = subprocess.check_output([sys.executable, __file__, "--measure", name], text=True)
            figures[name].append([float(number) for number in output.split()])
    for column, unit in enumerate(("processor s/step", "wall s/step", "peak MiB")):
        default, keep = (statistics.median(row[column] for row in figures[name]) for name in figures)
        ratios = sorted(a[column] / b[column] for a, b in zip(figures["keep"], figures["default"], strict=True))
        spread = f"{ratios[0]:.2f} .. {ratios[-1]:.2f}"
        print(f"{unit:18} default {default:8.3f}  keep {keep:8.3f}  ratio {keep / default:.2f} ({spread})")


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(sys.argv[-1] == "keep")
    else:
        main()
