"""What each lever does to a training step: U-Net on ResNet34, 128x128, batches of 32, one thread; loading left out.

    OMP_NUM_THREADS=1 python benchmarks/levers.py [ROUNDS]

Every way runs once a round in a process of its own; processor seconds of a step, medians, and peak memory.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time

STEPS, WARM = 5, 2
WAYS = {
    "plain: fp32, Adam": "",
    "channels-last": "last",
    "bf16": "bf16",
    "bf16, channels-last": "bf16 last",
    "bf16, channels-last, fused Adam": "bf16 last fused",
    "bf16, channels-last, fused Adam, memory kept": "bf16 last fused keep",
    "the same, no doubled maps": "bf16 last fused keep undoubled",
    "the same, torch.compile": "bf16 last fused keep undoubled compile",
    "the same but torch.compile, weights not channels-last": "bf16 images fused keep undoubled",
    "the same but that, weights in bf16": "bf16 last fused keep undoubled weights",
    "fp32 tensors, oneDNN computes in bf16, channels-last, fused Adam, memory kept": "inside last fused keep",
}


def measure(levers: set[str]) -> None:
    """Print processor seconds of a step, those before the first, and peak MiB."""
    import torch

    from perpixel._torchvision import ensure_torchvision

    ensure_torchvision()
    import segmentation_models_pytorch as smp

    from perpixel.training.fit import keep_freed_memory

    torch.set_num_threads(1)
    if "keep" in levers:
        keep_freed_memory()
    if "inside" in levers:
        torch.backends.mkldnn.conv.fp32_precision = "bf16"
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    network = smp.Unet("resnet34", encoder_weights=None, classes=1)
    image_bchw, mask_bchw = torch.rand(32, 3, 128, 128), torch.rand(32, 1, 128, 128).round()
    if "undoubled" in levers:
        from perpixel.models.upsampling import train_without_doubled_maps

        train_without_doubled_maps(network)
    if "last" in levers:
        network.to(memory_format=torch.channels_last)
    if levers & {"last", "images"}:
        image_bchw = image_bchw.contiguous(memory_format=torch.channels_last)
    if "weights" in levers:
        network.to(torch.bfloat16)
        image_bchw = image_bchw.to(torch.bfloat16)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused="fused" in levers)
    began = time.process_time()
    called = torch.compile(network) if "compile" in levers else network
    for step in range(WARM + STEPS):
        if step == WARM:
            timed = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in levers):
            output_bchw = called(image_bchw)
        torch.nn.functional.binary_cross_entropy_with_logits(output_bchw.float(), mask_bchw).backward()
        optimizer.step()
        optimizer.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print((time.process_time() - timed) / STEPS, timed - began, peak)


def main(rounds: int) -> None:
    """Run all in turn."""
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, levers in WAYS.items():
            done = subprocess.run([sys.executable, __file__, "--measure", levers], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{way}:\n{done.stderr[-2000:]}")
            found[way].append([float(number) for number in done.stdout.split()])
    plain = statistics.median(row[0] for row in found["plain: fp32, Adam"])
    print("| way | processor s a step | times as fast | s before the third step | peak MiB |")
    print("| :--- | ---: | ---: | ---: | ---: |")
    for way, rows in found.items():
        step, start, peak = (statistics.median(row[column] for row in rows) for column in range(3))
        print(f"| {way} | {step:.3f} | {plain / step:.2f} | {start:.1f} | {peak:.0f} |")


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure(set(sys.argv[-1].split()))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
