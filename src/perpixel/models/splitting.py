"""A network in two halves: its encoder's features, and what comes out of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from perpixel.models.regression import GlobalRegression

__all__ = ["can_split", "decode", "encode"]

_PARTS = ("encoder", "decoder", "segmentation_head")


def can_split(network: nn.Module) -> bool:
    """Whether `encode` and `decode` know this network: global regression, and all of segmentation-models-pytorch."""
    return isinstance(network, GlobalRegression) or all(hasattr(network, name) for name in _PARTS)


def encode(network: nn.Module, x_bchw: Tensor) -> list[Tensor]:
    """All that `decode` needs of normalised images: maps or vectors, the batch first."""
    if isinstance(network, GlobalRegression):
        return [network.features(x_bchw)]
    encoder: Any = network.encoder
    features = encoder(x_bchw)
    if isinstance(features, tuple):  # a plain vision transformer: maps, and tokens that belong to no place
        maps, tokens = features
        return [*maps, *(token for token in tokens if token is not None)]
    return list(features)


def decode(network: Any, features: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Raw ``output_bkhw`` of images of ``size`` (height, width) from what `encode` made of them."""
    if isinstance(network, GlobalRegression):
        return network.decode(features[0], size)
    if hasattr(network.encoder, "has_prefix_tokens"):
        count = len(network.encoder.out_channels)
        tokens: list[Tensor | None] = [*features[count:]] or [None] * count
        decoded = network.decoder(features[:count], tokens)
    else:
        decoded = network.decoder(features)
    output_bkhw: Tensor = network.segmentation_head(decoded)
    return output_bkhw
