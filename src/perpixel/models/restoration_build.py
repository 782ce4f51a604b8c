"""Building networks of restoration by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from perpixel.errors import RequestError, WeightsError
from perpixel.models.mrpnet import MRPNetSR
from perpixel.models.nafnet import NAFNET_SIZES, nafnet
from perpixel.models.network import PixelModel, WeightsReport
from perpixel.models.restoration import RestorationNetwork
from perpixel.models.spandrel import load_spandrel
from perpixel.models.weights import load_weights

__all__ = ["RESTORATION_ARCHITECTURES", "build_restoration"]

_SPANDREL = "spandrel"
RESTORATION_ARCHITECTURES = ("mrpnet-sr", *NAFNET_SIZES, _SPANDREL)


def build_restoration(
    architecture: str,
    *,
    encoder: str,
    weights: str,
    scale: int | None,
    decoder_norm: bool = True,
    decoder_attention: bool = False,
) -> PixelModel:
    """A network that makes a clean image, ``scale`` times as high and wide, of a degraded one.

    Args:
        architecture: one of `RESTORATION_ARCHITECTURES`; ``spandrel`` is whatever the checkpoint ``weights`` holds.
        encoder: ``none``: these networks have no pretrained part.
        weights: ``none`` (random), or a file: a whole `PixelModel`; of ``spandrel`` a published checkpoint.
        scale: what the targets ask for; None: the targets are no images.
        decoder_norm, decoder_attention: as they are by default; there is no decoder to choose.

    Raises:
        RequestError: architecture and targets do not belong together, or it does not have what is asked of it.
        WeightsError: the weights cannot be had, or are not those of this network.
    """
    _require(architecture, encoder, scale, plain=decoder_norm and not decoder_attention)
    assert scale is not None
    if architecture == _SPANDREL:
        return _from_checkpoint(weights, scale)
    makers: dict[str, Callable[[], RestorationNetwork]] = {
        "mrpnet-sr": lambda: MRPNetSR(scale),
        **{name: lambda name=name: nafnet(name, scale) for name in NAFNET_SIZES},  # type: ignore[misc]
    }
    if weights == "imagenet":
        raise RequestError(
            "there are no ImageNet weights of networks of restoration",
            where=f"architecture = {architecture}, weights = imagenet",
            cure="Set weights to none, or to a file or a run of this architecture.",
        )
    model = _pixel_model(makers[architecture]())
    model.weights_report = load_weights(model, encoder=encoder, weights=weights, hub=None)
    if weights != "none" and "whole model" not in model.weights_report.source:
        raise WeightsError(
            "this file holds no whole model",
            where=weights,
            rule="Networks of restoration begin with the best weights of a run.",
            cure=f"Give the folder of a run, or, for published checkpoints, set architecture to {_SPANDREL}.",
        )
    return model


def _require(architecture: str, encoder: str, scale: int | None, *, plain: bool) -> None:
    if scale is None or architecture not in RESTORATION_ARCHITECTURES:
        raise RequestError(
            f"{architecture} makes images, and the targets are maps"
            if scale is None
            else f"{architecture} is no network that makes images, and the targets are images",
            where=f"architecture = {architecture}",
            rule=f"Images are made by {', '.join(RESTORATION_ARCHITECTURES)}.",
            cure="Choose an architecture for these targets.",
        )
    if encoder != "none":
        raise RequestError(
            f"{architecture} has no encoder",
            where=f"encoder = {encoder}",
            rule="Networks of restoration have no pretrained part.",
            cure="Set encoder to none.",
        )
    if not plain:
        raise RequestError(
            f"{architecture} has no decoder to choose",
            where="decoder_norm, decoder_attention",
            cure="Leave both out.",
        )


def _from_checkpoint(weights: str, scale: int) -> PixelModel:
    if weights in ("none", "imagenet"):
        raise RequestError(
            "a checkpoint is needed: it says which network it is of",
            where=f"architecture = {_SPANDREL}, weights = {weights}",
            cure="Set weights to the file of a published checkpoint, .safetensors or .pth.",
        )
    network = load_spandrel(Path(weights))
    if network.scale != scale:
        raise WeightsError(
            f"this network enlarges {network.scale} times, and the targets are {scale} times as large as the images",
            where=weights,
            cure=f"Use a checkpoint of factor {scale}, or set the targets' scale to {network.scale} if they have it.",
        )
    model = _pixel_model(network)
    loaded = len(network.network.state_dict())
    model.weights_report = WeightsReport(source="file, whole model", file=weights, loaded=loaded)
    return model


def _pixel_model(network: RestorationNetwork) -> PixelModel:
    """Without normalisation; the network pads for itself, which `PixelModel` cannot where the output is larger."""
    return PixelModel(network, mean=(0, 0, 0), std=(1, 1, 1), divisor=1, minimum_size=1)
