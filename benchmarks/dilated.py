"""Derivative by the weights of depthwise convolutions in bf16 on a processor, against fp64.

python benchmarks/dilated.py
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from perpixel.models.dilated import train_dilated_in_float32
from perpixel.training.fit import keep_freed_memory

LAYERS = ((192, 5, 1), (192, 5, 2), (672, 5, 2), (1152, 5, 4), (1152, 3, 4), (512, 3, 12))
ROUNDS = 6


def derivative(layer: nn.Conv2d, image_bchw: torch.Tensor, *, bf16: bool) -> torch.Tensor:
    """Of the mean square of the output, beside freed memory that is full of 255."""
    layer.zero_grad()
    for size in [2**power for power in range(8, 24)] * 4:
        torch.full((size,), 255, dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output_bchw = layer(image_bchw)
    output_bchw.float().square().mean().backward()
    assert layer.weight.grad is not None
    return layer.weight.grad


def main() -> None:
    """A row a layer: the worst error of any weight, as a share of the largest derivative."""
    keep_freed_memory()  # as training does: memory is used again without being cleared
    print("| channels | kernel | dilation | bf16 | as perpixel trains it |\n| --- | --- | --- | --- | --- |")
    for channels, kernel, dilation in LAYERS:
        torch.manual_seed(0)
        padding = dilation * (kernel // 2)
        plain = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False)
        image_bchw = torch.rand(8, channels, 32, 32).contiguous(memory_format=torch.channels_last)
        expected = derivative(copy.deepcopy(plain).double(), image_bchw.double(), bf16=False)
        plain = plain.to(memory_format=torch.channels_last)
        cured = copy.deepcopy(plain)
        train_dilated_in_float32(cured)
        errors = []
        for layer in (plain, cured):
            found = [derivative(layer, image_bchw, bf16=True) - expected for _ in range(ROUNDS)]
            errors.append(max(float((item.abs().max() / expected.abs().max()).nan_to_num(torch.inf)) for item in found))
        print(f"| {channels} | {kernel} | {dilation} | {errors[0]:.2g} | {errors[1]:.2g} |")


if __name__ == "__main__":
    main()
