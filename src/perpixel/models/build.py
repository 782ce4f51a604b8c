"""Building a `PixelModel` from plain arguments."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from perpixel._torchvision import ensure_torchvision
from perpixel.errors import RequestError
from perpixel.models.network import PixelModel
from perpixel.models.regression import GLOBAL_REGRESSION, GlobalRegression
from perpixel.models.restoration_build import RESTORATION_ARCHITECTURES, build_restoration
from perpixel.models.transformers_depth import DEPTH_FAMILIES
from perpixel.models.transformers_files import build_depth_transformer
from perpixel.models.weights import HubFile, load_weights

__all__ = ["ARCHITECTURES", "DEPTH_ARCHITECTURES", "Architecture", "build_model"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Architecture:
    """A decoder of segmentation-models-pytorch.

    Attributes:
        smp_class: name of the class in ``segmentation_models_pytorch`` (imported when a model is built).
        norm_optional: whether the decoder can be built without batch normalisation.
        attention_optional: whether it can be built with scSE attention.
        minimum_size: smallest side that it can take, in pixels.
        transformer: whether it stands on a plain vision transformer of timm, such as ``vit_small_patch16_224``;
            all others stand on a pyramid of features.
    """

    smp_class: str
    norm_optional: bool = False
    attention_optional: bool = False
    minimum_size: int = 32
    transformer: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "unet": Architecture("Unet", norm_optional=True, attention_optional=True),
    "unetplusplus": Architecture("UnetPlusPlus", norm_optional=True, attention_optional=True),
    "fpn": Architecture("FPN"),
    "deeplabv3": Architecture("DeepLabV3"),
    "deeplabv3plus": Architecture("DeepLabV3Plus"),
    "linknet": Architecture("Linknet", norm_optional=True),
    "manet": Architecture("MAnet", norm_optional=True),
    "pan": Architecture("PAN", minimum_size=128),  # halves the map at stride 16 three times more
    "pspnet": Architecture("PSPNet", norm_optional=True),
    "segformer": Architecture("Segformer"),
    "upernet": Architecture("UPerNet"),
    "dpt": Architecture("DPT", transformer=True),
}

DEPTH_ARCHITECTURES = (GLOBAL_REGRESSION, *DEPTH_FAMILIES)


def build_model(
    *,
    architecture: str,
    encoder: str,
    weights: str,
    out_channels: int,
    decoder_norm: bool = True,
    decoder_attention: bool = False,
    scale: int | None = None,
) -> PixelModel:
    """A network with its weights.

    Args:
        architecture: a key of `ARCHITECTURES` or a member of `DEPTH_ARCHITECTURES`; of `RESTORATION_ARCHITECTURES`
            where a ``scale`` is given: see `build_restoration`.
        encoder: an encoder of segmentation-models-pytorch (``resnet34``), or any timm model that yields a pyramid of
            features (``tf_efficientnet_lite0``) or, for ``dpt``, is a vision transformer; a name that both know
            means the former. For depth models of the transformers library see `build_depth_transformer`.
        weights: ``none`` (random), ``imagenet`` (of the encoder), or a file: weights of the encoder or a whole
            `PixelModel`, as ``.safetensors`` or ``.pth``.
        out_channels: channels of the output.
        decoder_norm: batch normalisation in the decoder.
        decoder_attention: scSE attention in the decoder.
        scale: of outputs that are images: how many times as high and as wide as the input; None: outputs are maps.

    Raises:
        RequestError: the architecture or the encoder does not exist, or does not have what is asked of it.
        WeightsError: the weights cannot be had, or are not those of this network.
    """
    if scale is not None or architecture in RESTORATION_ARCHITECTURES:
        return build_restoration(
            architecture,
            encoder=encoder,
            weights=weights,
            scale=scale,
            decoder_norm=decoder_norm,
            decoder_attention=decoder_attention,
        )
    if architecture in DEPTH_ARCHITECTURES:
        _require_depth(architecture, out_channels, decoder_norm=decoder_norm, decoder_attention=decoder_attention)
        if architecture != GLOBAL_REGRESSION:
            return build_depth_transformer(architecture, encoder, weights)
        return _global_regression(encoder, weights)
    chosen = _architecture(architecture, decoder_norm=decoder_norm, decoder_attention=decoder_attention)
    ensure_torchvision()
    hub, mean, std = _encoder_facts(encoder, any_size=chosen.transformer)
    network = _network(chosen, encoder, out_channels, decoder_norm, decoder_attention)
    model = PixelModel(network, mean=mean, std=std, minimum_size=chosen.minimum_size)
    model.weights_report = load_weights(model, encoder=encoder, weights=weights, hub=hub)
    return model


def _require_depth(name: str, out_channels: int, *, decoder_norm: bool, decoder_attention: bool) -> None:
    if out_channels != 1:
        raise RequestError(
            f"{name} puts out one map, and {out_channels} are wanted",
            where=f"architecture = {name}",
            rule="It is made for depth.",
            cure=f"Choose one of {', '.join(ARCHITECTURES)}.",
        )
    if decoder_attention or not decoder_norm:
        raise RequestError(
            f"{name} has no decoder to choose",
            where=f"decoder_norm = {decoder_norm}, decoder_attention = {decoder_attention}".lower(),
            cure="Leave both out.",
        )


def _global_regression(encoder: str, weights: str) -> PixelModel:
    ensure_torchvision()
    hub, mean, std = _encoder_facts(encoder, any_size=False)
    model = PixelModel(GlobalRegression(encoder), mean=mean, std=std, divisor=1)
    model.weights_report = load_weights(model, encoder=encoder, weights=weights, hub=hub)
    return model


def _architecture(name: str, *, decoder_norm: bool, decoder_attention: bool) -> Architecture:
    if name not in ARCHITECTURES:
        raise RequestError(
            f"no such architecture{_did_you_mean(name, [*ARCHITECTURES, *DEPTH_ARCHITECTURES])}",
            where=f"architecture = {name}",
            cure=f"Choose one of {', '.join(ARCHITECTURES)}; for depth also of {', '.join(DEPTH_ARCHITECTURES)}.",
        )
    chosen = ARCHITECTURES[name]
    if not decoder_norm and not chosen.norm_optional:
        able = ", ".join(key for key, value in ARCHITECTURES.items() if value.norm_optional)
        raise RequestError(
            f"{name} cannot be built without normalisation in its decoder",
            where="decoder_norm = false",
            cure=f"Set decoder_norm to true, or choose one of {able}.",
        )
    if decoder_attention and not chosen.attention_optional:
        able = ", ".join(key for key, value in ARCHITECTURES.items() if value.attention_optional)
        raise RequestError(
            f"{name} has no attention in its decoder",
            where="decoder_attention = true",
            cure=f"Set decoder_attention to false, or choose one of {able}.",
        )
    return chosen


def _encoder_facts(encoder: str, *, any_size: bool) -> tuple[HubFile | None, tuple[float, ...], tuple[float, ...]]:
    """Where the ImageNet weights of ``encoder`` lie, and the mean and standard deviation that they want.

    ``any_size``: the architecture makes an encoder of one size take any.
    """
    import timm
    from segmentation_models_pytorch.encoders import encoders as smp_encoders

    if encoder.startswith("mit_b"):
        raise RequestError(
            "this encoder is not offered",
            where=f"encoder = {encoder}",
            rule="The licence of the mit_* encoders forbids commercial use.",
            cure="Choose another, for example convnext_tiny or resnet50, also under the segformer decoder.",
        )
    if encoder.startswith(("tu-", "timm-")):
        plain = encoder.partition("-")[2]
        raise RequestError(
            "the prefix is not part of the name", where=f"encoder = {encoder}", cure=f"Write timm's own name: {plain}."
        )
    if encoder in smp_encoders:
        settings = smp_encoders[encoder]["pretrained_settings"].get("imagenet")
        hub = settings and HubFile(settings["repo_id"], "model.safetensors", settings["revision"], config="config.json")
        return hub, IMAGENET_MEAN, IMAGENET_STD
    if not timm.is_model(encoder):
        raise RequestError(
            f"no such encoder{_did_you_mean(encoder, [*smp_encoders, *timm.list_models()])}",
            where=f"encoder = {encoder}",
            rule="Encoders are those of segmentation-models-pytorch and the models of timm.",
            cure="Correct the name; resnet34 and tf_efficientnet_lite0 are good first choices.",
        )
    return _timm_facts(encoder, any_size=any_size)


def _timm_facts(encoder: str, *, any_size: bool) -> tuple[HubFile | None, tuple[float, ...], tuple[float, ...]]:
    import timm

    try:
        config: Any = timm.get_pretrained_cfg(encoder)
    except RuntimeError as error:  # the name is right, the tag after the dot is not
        name = encoder.partition(".")[0]
        raise RequestError(
            f"timm has no such weights of {name}",
            where=f"encoder = {encoder}",
            cure=f"Choose one of {', '.join(timm.list_pretrained(name)) or name}.",
        ) from error
    if config is None:
        return None, IMAGENET_MEAN, IMAGENET_STD
    if config.fixed_input_size and not any_size:
        raise RequestError(
            "this encoder takes images of one size only",
            where=f"encoder = {encoder}",
            rule="A model of perpixel takes images of any size.",
            cure="Choose a convolutional encoder, for example convnext_tiny or resnet50; or architecture dpt.",
        )
    hub = config.hf_hub_id and HubFile(config.hf_hub_id, config.hf_hub_filename or "model.safetensors")
    return hub or None, tuple(config.mean), tuple(config.std)


def _network(
    chosen: Architecture,
    encoder: str,
    out_channels: int,
    decoder_norm: bool,
    decoder_attention: bool,
) -> nn.Module:
    import segmentation_models_pytorch as smp
    from segmentation_models_pytorch.encoders import encoders as smp_encoders

    from perpixel.models.upsampling import train_without_doubled_maps

    options: dict[str, Any] = {} if decoder_norm else {"decoder_use_norm": False}
    if decoder_attention:
        options["decoder_attention_type"] = "scse"
    if chosen.transformer:  # position embeddings are resampled to the image; no classifier
        options |= {"dynamic_img_size": True, "num_classes": 0}
    try:
        network: nn.Module = getattr(smp, chosen.smp_class)(
            encoder_name=encoder if encoder in smp_encoders else f"tu-{encoder}",
            encoder_weights=None,
            classes=out_channels,
            **options,
        )
        if chosen.transformer:
            _require_patches(network)
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RequestError(
            f"{chosen.smp_class} cannot be built on this encoder: {error}",
            where=f"encoder = {encoder}",
            rule="An encoder yields features at 1/2 or 1/4, 1/8, 1/16 and 1/32 of the image; deeplabv3, deeplabv3plus "
            "and pan want one that can be dilated, dpt a plain vision transformer of timm.",
            cure="Choose another encoder, for example resnet34, or vit_small_patch16_224 for dpt.",
        ) from error
    train_without_doubled_maps(network)
    return network


def _require_patches(network: Any) -> None:
    """The DPT of segmentation-models-pytorch rounds 14 / 4 down, and then fails at the first image."""
    if 32 % network.encoder.output_stride:
        raise ValueError(f"its patches are of {network.encoder.output_stride} pixels, not 8, 16 or 32")


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
