"""The feature maps of a pretrained encoder by itself, for a loss that compares pictures by them."""

from __future__ import annotations

from torch import Tensor, nn

from perpixel.models.build import build_model
from perpixel.models.splitting import encode

__all__ = ["EncoderLevels"]


class EncoderLevels(nn.Module):
    """The maps that a decoder would get, the finest first; not the image itself, which encoders hand on too.

    Args:
        encoder: with ImageNet weights.

    Attributes:
        mean, std: that its weights were trained with, for RGB in [0, 1]; `forward` takes what is normalised by them.

    Raises:
        RequestError, WeightsError: there is no such encoder, or no weights of it.
    """

    def __init__(self, encoder: str) -> None:
        super().__init__()
        model = build_model(architecture="unet", encoder=encoder, weights="imagenet", out_channels=1)
        self.network = model.network
        self.mean: list[float] = model.normalization_mean.flatten().tolist()
        self.std: list[float] = model.normalization_std.flatten().tolist()

    def forward(self, x_bchw: Tensor) -> list[Tensor]:
        """Maps of normalised images."""
        return [level for level in encode(self.network, x_bchw)[1:] if level.numel()]
