"""NAFNet: a U-Net without activation functions (Chen et al. 2022, "Simple Baselines for Image Restoration")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perpixel.models.restoration import RestorationNetwork

__all__ = ["NAFNET_SIZES", "NAFNet", "NAFNetSize", "nafnet"]


@dataclass(frozen=True)
class NAFNetSize:
    """``width``: channels at full size; ``encoder``, ``decoder``: blocks of each stage; ``middle``: blocks between."""

    width: int
    encoder: tuple[int, ...]
    middle: int
    decoder: tuple[int, ...]


NAFNET_SIZES = {
    "nafnet-xs": NAFNetSize(16, (1, 1, 1), 1, (1, 1, 1)),
    "nafnet-s": NAFNetSize(32, (1, 1, 1), 1, (1, 1, 1)),
    "nafnet-m": NAFNetSize(32, (1, 1, 1, 1), 1, (1, 1, 1, 1)),
    "nafnet-l": NAFNetSize(32, (1, 1, 1, 28), 1, (1, 1, 1, 1)),  # the paper's network for GoPro, width 32
}


def nafnet(name: str, scale: int = 1) -> NAFNet:
    """A network of `NAFNET_SIZES` by name; raises KeyError where there is none."""
    size = NAFNET_SIZES[name]
    return NAFNet(size.width, size.encoder, size.middle, size.decoder, scale=scale)


class NAFNet(RestorationNetwork):
    """The U-Net works at the size of the input; with ``scale`` > 1 PixelShuffle makes the output from its last maps.

    The output is added to the input, enlarged by Keys's bicubic kernel (a = -0.5, as MATLAB and Pillow). The last
    convolution starts at 0, which is not in the paper: an untrained network is the bicubic baseline itself.

    Args:
        width: channels at full size; each stage halves the size and doubles them.
        encoder_blocks: blocks of each stage on the way down.
        middle_blocks: blocks at the lowest size.
        decoder_blocks: blocks of each stage on the way up, the lowest first.
        scale: 1 or more.
    """

    def __init__(
        self,
        width: int,
        encoder_blocks: Sequence[int],
        middle_blocks: int,
        decoder_blocks: Sequence[int],
        *,
        scale: int = 1,
    ) -> None:
        if len(encoder_blocks) != len(decoder_blocks) or scale < 1:
            raise ValueError(f"as many stages down as up and scale >= 1: {encoder_blocks}, {decoder_blocks}, {scale}")
        # Channel attention averages over the whole image.
        super().__init__(scale=scale, divisor=2 ** len(encoder_blocks), context=None)
        self.head = nn.Conv2d(3, width, 3, padding=1)
        self.down_stages, self.downs = nn.ModuleList(), nn.ModuleList()
        for count in encoder_blocks:
            self.down_stages.append(_stage(width, count))
            self.downs.append(nn.Conv2d(width, 2 * width, 2, stride=2))
            width *= 2
        self.middle = _stage(width, middle_blocks)
        self.up_stages, self.ups = nn.ModuleList(), nn.ModuleList()
        for count in decoder_blocks:
            self.ups.append(nn.Sequential(nn.Conv2d(width, 2 * width, 1, bias=False), nn.PixelShuffle(2)))
            width //= 2
            self.up_stages.append(_stage(width, count))
        self.tail = nn.Conv2d(width, 3 * scale**2, 3, padding=1)
        nn.init.zeros_(self.tail.weight)
        assert self.tail.bias is not None
        nn.init.zeros_(self.tail.bias)

    def restore(self, image_bchw: Tensor) -> Tensor:
        x_bchw = self.head(image_bchw)
        skips = []
        for stage, down in zip(self.down_stages, self.downs, strict=True):
            x_bchw = stage(x_bchw)
            skips.append(x_bchw)
            x_bchw = down(x_bchw)
        x_bchw = self.middle(x_bchw)
        for stage, up in zip(self.up_stages, self.ups, strict=True):
            x_bchw = stage(up(x_bchw) + skips.pop())
        residual_bchw: Tensor = self.tail(x_bchw)
        if self.scale == 1:
            return image_bchw + residual_bchw
        # `antialias` changes nothing when enlarging, but for the kernel: a is -0.75 without.
        enlarged_bchw = F.interpolate(
            image_bchw.float(), scale_factor=self.scale, mode="bicubic", antialias=True, align_corners=False
        )
        return enlarged_bchw + F.pixel_shuffle(residual_bchw, self.scale)


def _stage(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(blocks)))


class NAFBlock(nn.Module):
    """Depthwise convolution with channel attention, then a pointwise one, each behind a norm and around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.expand1 = nn.Conv2d(channels, 2 * channels, 1)
        self.depthwise = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.attention = nn.Conv2d(channels, channels, 1)
        self.project1 = nn.Conv2d(channels, channels, 1)
        self.expand2 = nn.Conv2d(channels, 2 * channels, 1)
        self.project2 = nn.Conv2d(channels, channels, 1)
        # The weights of the two branches; at 0 a block changes nothing.
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x_bchw: Tensor) -> Tensor:
        y_bchw = _gate(self.depthwise(self.expand1(self.norm1(x_bchw))))
        y_bchw = y_bchw * self.attention(y_bchw.mean((2, 3), keepdim=True))
        x_bchw = x_bchw + _scaled(self.project1, y_bchw, self.beta)
        return x_bchw + _scaled(self.project2, _gate(self.expand2(self.norm2(x_bchw))), self.gamma)


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel; no copy is made where memory is channels-last."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x_bchw: Tensor) -> Tensor:
        normed_bhwc: Tensor = super().forward(x_bchw.permute(0, 2, 3, 1))
        return normed_bhwc.permute(0, 3, 1, 2)


def _scaled(layer: nn.Conv2d, x_bchw: Tensor, scale_1c11: Tensor) -> Tensor:
    """A pointwise convolution times a factor a channel; in training into its weights, which are few, not over the map.

    An exported graph holds weights as they are: products of them are no weights to those who quantize it.
    """
    if not torch.is_grad_enabled():
        y_bchw: Tensor = layer(x_bchw)
        return y_bchw * scale_1c11
    scale_c111 = scale_1c11.transpose(0, 1)
    assert layer.bias is not None
    return F.conv2d(x_bchw, layer.weight * scale_c111, layer.bias * scale_c111.flatten())


def _gate(x_bchw: Tensor) -> Tensor:
    """SimpleGate: the product of the two halves of the channels."""
    first_bchw, second_bchw = x_bchw.chunk(2, dim=1)
    return first_bchw * second_bchw
