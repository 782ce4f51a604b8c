"""Depth by global regression: the whole map out of one vector of features, without any decoder."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from perpixel._torchvision import ensure_torchvision

__all__ = ["GLOBAL_REGRESSION", "GlobalRegression"]

GLOBAL_REGRESSION = "global-regression"
_SIDE = 128
_HIDDEN = (512, 256)


class GlobalRegression(nn.Module):
    """Encoder, global average pooling, dense 512 and 256 with ReLU, dense 16384 as a map of 128 x 128.

    Args:
        encoder: a key of segmentation-models-pytorch's encoders, or a timm model; of a timm model everything up to its
            classifier is taken, for ``efficientnet_b0`` the last 1x1 convolution with 1280 channels included.

    Attributes:
        output_kind: ``metric``: the map is in the units of the targets.
    """

    output_kind: Literal["metric", "relative"] = "metric"

    def __init__(self, encoder: str) -> None:
        super().__init__()
        self.encoder, channels = _trunk(encoder)
        first, second = _HIDDEN
        self.head = nn.Sequential(
            nn.Linear(channels, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, _SIDE * _SIDE),
        )

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Raw ``output_b1hw`` of normalised images, resized from 128 x 128 where they have another size."""
        height, width = x_bchw.shape[-2:]
        return self.decode(self.features(x_bchw), (height, width))

    def features(self, x_bchw: Tensor) -> Tensor:
        """The encoder's features_bf, averaged over the image."""
        features = self.encoder(x_bchw)
        return features if isinstance(features, Tensor) else features[-1].mean(dim=(2, 3))

    def decode(self, features_bf: Tensor, size: tuple[int, int]) -> Tensor:
        """Raw ``output_b1hw`` of ``size`` (height, width)."""
        output_b1hw: Tensor = self.head(features_bf).unflatten(1, (1, _SIDE, _SIDE))
        if size != (_SIDE, _SIDE):
            output_b1hw = F.interpolate(output_b1hw.float(), size, mode="bilinear", align_corners=False)
        return output_b1hw


def _trunk(name: str) -> tuple[nn.Module, int]:
    """The encoder without weights, and the number of its features."""
    ensure_torchvision()
    import timm
    from segmentation_models_pytorch.encoders import encoders as smp_encoders
    from segmentation_models_pytorch.encoders import get_encoder

    encoder: Any
    if name in smp_encoders:
        encoder = get_encoder(name, weights=None)
        return encoder, encoder.out_channels[-1]
    encoder = timm.create_model(name, pretrained=False, num_classes=0)
    return encoder, encoder.head_hidden_size
