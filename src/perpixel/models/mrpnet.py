"""MRPNet followed by an SRResNet-like generator, trained as one: the network of the `lowlight` system."""

from __future__ import annotations

from torch import Tensor, nn

from perpixel.models.restoration import RestorationNetwork

__all__ = ["MRPNetSR"]

_SHUFFLES = {1: (), 2: (2,), 3: (3,), 4: (2, 2)}
_WIDTH = 64


class MRPNetSR(RestorationNetwork):
    """Denoise to 3 channels, then generate; 441,030 parameters with ``scale`` 4, 145,606 with 1.

    The system's description leaves three things open. All kernels of MRPNet and those of the generator's inner
    convolutions are 3 x 3: nothing else gives 441,030. ReLU follows the first three convolutions of MRPNet, not the
    one that puts out an image, and none follows the generator's first convolution, where the description has none.
    There is no residual around the whole, as in the system.

    Args:
        scale: 1 (no upsampling), 2, 3 or 4.

    Raises:
        ValueError: another scale.
    """

    def __init__(self, scale: int = 4) -> None:
        if scale not in _SHUFFLES:
            raise ValueError(f"scale must be one of {', '.join(map(str, _SHUFFLES))}; it is {scale}")
        # MRPNet reaches 4 pixels far, the first convolution of the generator 4, its residual block 1. What follows are
        # a 3 x 3 convolution at each size and a 9 x 9 one at the last, in pixels that are smaller and smaller.
        super().__init__(scale=scale, divisor=2, context=13 if scale == 1 else 12)
        self.denoise = nn.Sequential(
            nn.Conv2d(3, _WIDTH, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(_WIDTH, _WIDTH, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(_WIDTH, 3, 3, padding=1),
        )
        self.head = nn.Conv2d(3, _WIDTH, 9, padding=4)
        self.residual = nn.Sequential(
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.BatchNorm2d(_WIDTH), nn.ReLU(inplace=True)
        )
        upsample: list[nn.Module] = []
        for factor in _SHUFFLES[scale]:
            wider = nn.Conv2d(_WIDTH, _WIDTH * factor**2, 3, padding=1)
            upsample += [wider, nn.PixelShuffle(factor), nn.ReLU(inplace=True)]
        self.upsample = nn.Sequential(*upsample)
        self.tail = nn.Conv2d(_WIDTH, 3, 9, padding=4)

    def restore(self, image_bchw: Tensor) -> Tensor:
        x_bchw = self.head(self.denoise(image_bchw))
        output_bchw: Tensor = self.tail(self.upsample(x_bchw + self.residual(x_bchw)))
        return output_bchw
