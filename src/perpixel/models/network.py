"""The one shape in which every network is used: `PixelModel`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perpixel.errors import RequestError
from perpixel.models.dilated import train_dilated_in_float32
from perpixel.models.freezing import encoder_stages
from perpixel.models.restoration import RestorationNetwork
from perpixel.models.splitting import can_split, decode, encode

__all__ = ["PixelModel", "WeightsReport"]


@dataclass
class WeightsReport:
    """What was really loaded.

    Attributes:
        source: ``none``, or where the weights came from and whether they are the encoder's or the whole model's.
        file: the file that was read.
        loaded: number of tensors that were taken over.
        missing: tensors that keep their random start although the source was to fill them.
        unexpected: tensors of the file that have no place in the model, or another shape there.
    """

    source: str
    file: str | None = None
    loaded: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)


class PixelModel(nn.Module):
    """A network with its normalisation inside, for images of any size.

    Args:
        network: maps normalised ``image_bchw`` to raw ``output_bkhw`` at the same size; its ``encoder`` is the
            pretrained part, all the rest is called the decoder.
        mean, std: what the encoder's weights were trained with, a channel, for RGB in [0, 1].
        divisor: the network wants sides that are a multiple of it, in pixels.
        minimum_size: and at least this long, in pixels.
    """

    normalization_mean: Tensor
    normalization_std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        divisor: int = 32,
        minimum_size: int = 32,
    ) -> None:
        super().__init__()
        train_dilated_in_float32(network)
        self.network = network
        self.register_buffer("normalization_mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("normalization_std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        # Buffers come and go with files of weights; this stays what the network was built for.
        self.declared_normalization = (tuple(map(float, mean)), tuple(map(float, std)))
        self.divisor = divisor
        self.minimum_size = minimum_size
        self.weights_report = WeightsReport(source="none")

    @property
    def encoder(self) -> nn.Module:
        """The pretrained part."""
        encoder = self.network.encoder
        assert isinstance(encoder, nn.Module)
        return encoder

    def forward(self, image_bchw: Tensor) -> Tensor:
        """Raw ``output_bkhw`` (logits, no activation) at the size of ``image_bchw`` (RGB, float, [0, 1]).

        Sides that the network cannot take are padded by repeating the border and cut off again: zeros would put an
        edge into the image that is not there, mirroring fails where the image is smaller than the padding.
        """
        height, width = image_bchw.shape[-2:]
        output_bkhw: Tensor = self.network(self._fitted(image_bchw))
        return self._unfitted(output_bkhw, (height, width))

    @property
    def can_split(self) -> bool:
        """Whether the network comes in two halves, `encode` and `decode`."""
        return can_split(self.network)

    def encode(self, image_bchw: Tensor) -> list[Tensor]:
        """The encoder's features of ``image_bchw`` (RGB, float, [0, 1]): maps or vectors, the batch first."""
        return encode(self.network, self._fitted(image_bchw))

    def decode(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """What `forward` makes of images of ``size`` (height, width), from their features, bit for bit."""
        height, width = (side + self._padding(side) for side in size)
        return self._unfitted(decode(self.network, features, (height, width)), size)

    def _fitted(self, image_bchw: Tensor) -> Tensor:
        """Normalised, at a size that the network can take."""
        x_bchw = (image_bchw - self.normalization_mean) / self.normalization_std
        top, bottom, left, right = self._margins(*image_bchw.shape[-2:])
        return F.pad(x_bchw, (left, right, top, bottom), mode="replicate") if top + bottom + left + right else x_bchw

    def _unfitted(self, output_bkhw: Tensor, size: tuple[int, int]) -> Tensor:
        """Without the padding of images of ``size``."""
        top, bottom, left, right = self._margins(*size)
        if not top + bottom + left + right:
            return output_bkhw
        return output_bkhw[..., top : top + size[0], left : left + size[1]]

    def _margins(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixels above, below, left and right."""
        above, beside = self._padding(height), self._padding(width)
        return above // 2, above - above // 2, beside // 2, beside - beside // 2

    def _padding(self, side: int) -> int:
        wanted = max(-(-side // self.divisor) * self.divisor, self.minimum_size)
        return wanted - side

    @property
    def context(self) -> int | None:
        """How many pixels on each side of it an output pixel depends on; None: not known, or the whole image."""
        return self.network.context if isinstance(self.network, RestorationNetwork) else None

    @property
    def tile_step(self) -> int:
        """A tile of an image begins at a multiple of it, so that the network's strides fall on the same pixels."""
        return self.network.divisor if isinstance(self.network, RestorationNetwork) else self.divisor

    def encoder_parameters(self) -> list[nn.Parameter]:
        """All parameters of the encoder."""
        return list(self.encoder.parameters())

    def decoder_parameters(self) -> list[nn.Parameter]:
        """All parameters that are not the encoder's: decoder and head."""
        of_encoder = {id(parameter) for parameter in self.encoder.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in of_encoder]

    def encoder_stages(self) -> list[list[nn.Parameter]]:
        """The encoder's parameters by stage, the stage nearest the output first, the stem last.

        For layer-wise learning rates: stage ``i`` at ``factor * decay**i``.
        """
        return encoder_stages(self.encoder)

    def freeze_encoder(self) -> None:
        """Stop the encoder from changing: no gradients, and no new batch statistics, whatever ``train()`` says.

        Raises:
            RequestError: there is nothing to freeze.
        """
        self.set_trainable_stages(0)

    def set_trainable_stages(self, count: int) -> None:
        """Let the ``count`` stages of the encoder that are nearest the output train, and freeze the others.

        A frozen stage gets no gradient, and its layers stay in evaluation mode: the statistics of batch normalisation
        do not move, and nothing is dropped. May be called again, before any epoch.

        Raises:
            RequestError: there is nothing to freeze, or the encoder has fewer stages.
        """
        stages = self.encoder_stages()
        if not stages:
            raise RequestError(
                "nothing can be frozen: this network has no encoder",
                rule="A request to freeze that matches no parameter is an error.",
                cure="Leave freezing out, or choose an architecture with an encoder.",
            )
        if not 0 <= count <= len(stages):
            raise RequestError(
                f"this encoder has {len(stages)} stages",
                where=f"trainable stages = {count}",
                cure=f"Choose a number from 0 (all frozen) to {len(stages)} (all train).",
            )
        for index, stage in enumerate(stages):
            for parameter in stage:
                parameter.requires_grad_(index < count)
        self.train(self.training)

    def train(self, mode: bool = True) -> PixelModel:
        """As `torch.nn.Module.train`, but what is frozen in the encoder stays in evaluation mode."""
        super().train(mode)
        for module in self.encoder.modules() if mode else ():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return self

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of single weights: ``trained`` and ``frozen``."""
        trained = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        return {"trained": trained, "frozen": sum(parameter.numel() for parameter in self.parameters()) - trained}
