"""Derivatives of dilated depthwise convolutions in bf16, which PyTorch gets wrong on processors."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from perpixel.models import build_model
from perpixel.models.dilated import train_dilated_in_float32


def soil_memory() -> None:
    """Leave freed memory full of what reads as NaN, as an image that is white does."""
    for size in [2**power for power in range(8, 23)] * 2:
        torch.full((size,), 255, dtype=torch.uint8)


def weight_derivative(layer: nn.Module, image_bchw: torch.Tensor, *, bf16: bool) -> torch.Tensor:
    layer.zero_grad()
    soil_memory()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output_bchw = layer(image_bchw)
    soil_memory()
    output_bchw.float().square().mean().backward()
    (weight,) = layer.parameters()
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize(("channels", "kernel", "dilation"), [(192, 5, 2), (64, 3, 4), (512, 3, 12)])
def test_the_derivative_by_the_weights_is_right(channels: int, kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False)
    layer = layer.to(memory_format=torch.channels_last)
    image_bchw = torch.rand(4, channels, 32, 32).contiguous(memory_format=torch.channels_last)
    expected = weight_derivative(copy.deepcopy(layer).double(), image_bchw.double(), bf16=False)
    before = set(layer.state_dict())
    train_dilated_in_float32(layer)
    layer = copy.deepcopy(layer)  # as the moving average does
    assert set(layer.state_dict()) == before
    for _ in range(3):
        found = weight_derivative(layer, image_bchw, bf16=True)
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


def test_only_layers_that_train_leave_bf16() -> None:
    layer = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
    train_dilated_in_float32(layer)
    image_bchw = torch.rand(1, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(image_bchw).dtype == torch.float32
        with torch.no_grad():
            assert layer(image_bchw).dtype == torch.bfloat16
        assert layer.requires_grad_(False)(image_bchw).dtype == torch.bfloat16


def test_models_are_built_so() -> None:
    model = build_model(
        architecture="deeplabv3", encoder="tf_efficientnet_lite0", weights="none", out_channels=2, decoder_norm=True
    )
    dilated = [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1 and max(module.dilation) > 1
    ]
    assert dilated
    assert all(type(module).__name__.startswith("Float32Training") for module in dilated)
