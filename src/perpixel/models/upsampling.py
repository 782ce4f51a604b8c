"""Decoders that double a map and then convolve it train without making the doubled map.

Imports segmentation-models-pytorch, so it is imported itself where a network of that library is built.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perpixel._torchvision import ensure_torchvision

ensure_torchvision()
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock  # noqa: E402
from segmentation_models_pytorch.decoders.unetplusplus.decoder import (  # noqa: E402
    DecoderBlock as UnetPlusPlusDecoderBlock,
)

__all__ = ["convolve_doubled", "train_without_doubled_maps"]

_POSITIONS_A_CHANNEL = 4  # with fewer, adding up the weights costs what the convolution saves


def convolve_doubled(x_bchw: Tensor, weight_oc33: Tensor, bias_o: Tensor | None = None) -> Tensor:
    """What a 3x3 convolution, with zeros around its input, makes of ``x_bchw`` doubled by nearest neighbours.

    Doubling writes every value four times, so that several of a kernel's nine weights meet the same value. Added up,
    they are a transposed convolution of stride 2 with 4x4 weights: four products for each output instead of nine.
    Exact but for rounding.

    Returns:
        Map of ``(B, O, 2H, 2W)``.
    """
    shifts = ((0, 1, 0, 1), (1, 0, 0, 1), (0, 1, 1, 0), (1, 0, 1, 0))
    weight_oc44 = torch.stack([F.pad(weight_oc33, shift) for shift in shifts]).sum(0)
    return F.conv_transpose2d(x_bchw, weight_oc44.flip(2, 3).transpose(0, 1), bias_o, stride=2, padding=1)


def train_without_doubled_maps(network: nn.Module) -> None:
    """Make the decoder blocks of U-Net and U-Net++ use `convolve_doubled` where they train on a processor.

    Prediction, export and GPUs take the usual way. Parameters, their names and the order of modules stay as they are.
    What is gained: benchmarks/levers.py.
    """
    for module in network.modules():
        way = _WAYS.get(type(module))
        if way is not None and module.interpolation_mode == "nearest":
            module.__class__ = way


def _applies(block: Any, x_bchw: Tensor, skip_bchw: Tensor | None) -> bool:
    """Whether the shorter way is open to a decoder block, and shorter."""
    if not torch.is_grad_enabled() or x_bchw.device.type != "cpu":
        return False
    attends = skip_bchw is not None and not isinstance(block.attention1.attention, nn.Identity)
    count, channels, height, width = x_bchw.shape
    return not attends and count * height * width >= _POSITIONS_A_CHANNEL * channels


def _convolve(block: Any, x_bchw: Tensor, skip_bchw: Tensor | None) -> Tensor:
    """What a decoder block makes of a map and of what skips the deeper layers; both meet in one sum."""
    first, *rest = block.conv1
    channels = x_bchw.shape[1]
    weight_oc33, skip_weight_oc33 = torch.split(first.weight, [channels, first.in_channels - channels], dim=1)
    y_bchw = convolve_doubled(x_bchw, weight_oc33, first.bias)
    if skip_bchw is not None:
        y_bchw = y_bchw + F.conv2d(skip_bchw, skip_weight_oc33, padding=1)
    for layer in (*rest, block.conv2, block.attention2):
        y_bchw = layer(y_bchw)
    return y_bchw


class _UnetBlock(UnetDecoderBlock):
    def forward(self, feature_map: Tensor, height: int, width: int, skip_connection: Tensor | None = None) -> Tensor:
        doubles = (height, width) == (2 * feature_map.shape[2], 2 * feature_map.shape[3])
        if doubles and _applies(self, feature_map, skip_connection):
            return _convolve(self, feature_map, skip_connection)
        usual: Tensor = super().forward(feature_map, height, width, skip_connection)
        return usual


class _UnetPlusPlusBlock(UnetPlusPlusDecoderBlock):
    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        if not self.is_empty and _applies(self, x, skip):
            return _convolve(self, x, skip)
        usual: Tensor = super().forward(x, skip)
        return usual


_WAYS: dict[type, type] = {UnetDecoderBlock: _UnetBlock, UnetPlusPlusDecoderBlock: _UnetPlusPlusBlock}
