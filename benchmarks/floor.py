"""What a training must compute, and what this machine can: operations of a batch, and the peak of one core.

python benchmarks/floor.py --peak        prints JSON: 10^9 operations a second of processor time
python benchmarks/floor.py --case unet   prints JSON: operations of a batch, forward and backward
"""

from __future__ import annotations

import argparse
import json
import time
import warnings

from cases import CASES, Case


def operations(case: Case) -> int:
    """Of convolutions and matrix products of one training batch; a multiplication and an addition are two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from perpixel._torchvision import ensure_torchvision

    ensure_torchvision()
    network = case.network()
    if case.frozen:
        network.encoder.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 3, *case.size)).square().mean().backward()
    return counter.get_total_flops() * case.batch // 2


def peaks(seconds: float = 1.5) -> dict[str, float]:
    """Of a product of matrices, and of a convolution of 3x3 in 256 channels forward and backward, in fp32 and bf16."""
    import torch

    torch.set_num_threads(1)
    found = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.rand(1024, 1024).to(kind), torch.rand(1024, 1024).to(kind)
        found[f"matrix {name}"] = _rate(lambda a=a, b=b: a @ b, 2 * 1024**3, seconds)
        layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False).to(kind).to(memory_format=torch.channels_last)
        image = torch.rand(8, 256, 32, 32).to(kind).contiguous(memory_format=torch.channels_last).requires_grad_()
        forward = 2 * 8 * 32 * 32 * 256 * 256 * 9
        gradient = torch.rand_like(image)
        found[f"convolution {name}"] = _rate(
            lambda layer=layer, image=image, gradient=gradient: layer(image).backward(gradient), 3 * forward, seconds
        )
    return found


def _rate(run: object, count: int, seconds: float) -> float:
    """10^9 operations a processor second, the best of three."""
    assert callable(run)
    run()
    best = 0.0
    for _ in range(3):
        began, times = time.process_time(), 0
        while time.process_time() - began < seconds / 3:
            run()
            times += 1
        best = max(best, count * times / (time.process_time() - began) / 1e9)
    return round(best, 1)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("--peak", action="store_true")
    parser.add_argument("--case", choices=CASES)
    asked = parser.parse_args()
    print(json.dumps(peaks() if asked.peak else operations(CASES[asked.case])))
