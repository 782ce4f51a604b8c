"""What networks of restoration share: a clean image from a degraded one, ``scale`` times larger on each side."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["RestorationNetwork", "parameter_count"]


class RestorationNetwork(nn.Module, ABC):
    """A network for images of any size.

    Attributes:
        scale: height and width of the output over those of the input.
        divisor: the layers want sides that are a multiple of it, in pixels of the input; `forward` pads and crops. A
            tile must begin at a multiple of it, or its output is not that of the whole image.
        context: how many pixels of the input on each side an output pixel depends on; None: on the whole image.
        encoder: empty: nothing in these networks is pretrained, all parameters are the decoder's.
    """

    def __init__(self, *, scale: int, divisor: int, context: int | None) -> None:
        super().__init__()
        self.scale, self.divisor, self.context = scale, divisor, context
        self.encoder = nn.Sequential()

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Raw ``output_bchw`` (RGB, not clamped), ``scale`` times the size of ``image_bchw`` (RGB, [0, 1]).

        Missing rows and columns are added at the bottom and on the right by repeating the border, and cut off again.
        """
        height, width = image_bchw.shape[-2:]
        below, beside = -height % self.divisor, -width % self.divisor
        if below or beside:
            image_bchw = F.pad(image_bchw, (0, beside, 0, below), mode="replicate")
        return self.restore(image_bchw)[..., : height * self.scale, : width * self.scale]

    @abstractmethod
    def restore(self, image_bchw: Tensor) -> Tensor:
        """As `forward`, for sides that are multiples of ``divisor``."""


def parameter_count(network: nn.Module) -> int:
    """Number of single weights."""
    return sum(parameter.numel() for parameter in network.parameters())
