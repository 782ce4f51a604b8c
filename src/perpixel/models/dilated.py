"""Dilated depthwise convolutions train in fp32 on processors, since their bf16 derivatives are wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["train_dilated_in_float32"]


def train_dilated_in_float32(network: nn.Module) -> None:
    """Make the dilated depthwise convolutions of ``network`` leave bf16 autocast where their weights train.

    With PyTorch 2.13 on a processor, the derivative by the weights of such a convolution in bf16 is off by a third and
    more, and at times reads memory that nobody has written, so that NaN comes and goes (benchmarks/dilated.py). Its
    output and the derivative by its input are right, and so is all of it in fp32, which is no slower. Encoders made of
    depthwise convolutions have such layers in DeepLab, where strides become dilations.

    Parameters, their names and the order of modules stay as they are.
    """
    for module in network.modules():
        if not isinstance(module, nn.Conv2d) or isinstance(module, _Float32Training):
            continue
        if module.groups == module.in_channels > 1 and max(module.dilation) > 1:
            module.__class__ = _in_float32(type(module))


def _in_float32(convolution: type[nn.Conv2d]) -> type[nn.Conv2d]:
    return type(f"Float32Training{convolution.__name__}", (_Float32Training, convolution), {})


class _Float32Training(nn.Conv2d):
    """Goes before the class of a convolution, whatever padding that one has."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name that torch gave it
        trains = torch.is_grad_enabled() and self.weight.requires_grad
        if not (trains and input.device.type == "cpu" and torch.is_autocast_enabled("cpu")):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())
