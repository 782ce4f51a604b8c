"""Does the encoder see what its weights were trained with? Compared is what really reaches its first convolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perpixel.models.network import PixelModel

__all__ = ["encoder_input_doubt"]

_NEAR = 0.5  # how far what is seen may be from what it is taken for


@torch.no_grad()
def encoder_input_doubt(model: PixelModel, image_bchw: Tensor) -> str | None:
    """A sentence when the encoder's input is normalised twice, or not at all, or its levels are scaled wrongly.

    Mean and deviation of each channel are held against those that the image would have after each of these slips;
    resizing and padding on the way hardly change them.

    Args:
        image_bchw: RGB, float, [0, 1], a few images.

    Returns:
        None where all is well, or where it cannot be told: no convolution of three channels, or flat images.
    """
    stem = next((m for m in model.encoder.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3), None)
    pixels = _moments(image_bchw)
    if stem is None or bool((pixels[1] < 1e-3).any()):
        return None
    seen: list[Tensor] = []
    handle = stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float()))
    was_training = model.training
    try:
        model.eval()(image_bchw)
    finally:
        handle.remove()
        model.train(was_training)
    if not seen:
        return None
    mean, std = (torch.tensor(values, device=image_bchw.device) for values in model.declared_normalization)

    def once(values: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return (values[0] - mean) / std, values[1] / std

    darkened, raw = ((pixels[0] * factor, pixels[1] * factor) for factor in (1 / 255, 255))
    slips = {
        "": once(pixels),
        "is not normalised at all": pixels,
        "is normalised twice": once(once(pixels)),
        "is divided by 255 once too often, so that every image is nearly black": once(darkened),
        "is not divided by 255": once(raw),
    }
    found = _moments(seen[0])
    apart = {name: _distance(found, moments) for name, moments in slips.items()}
    slip = min(apart, key=apart.__getitem__)  # the first of equals: all is well
    if not slip or apart[slip] > _NEAR:
        return None
    return (
        f"The encoder's input {slip}: channel means {_shown(found[0])} and deviations {_shown(found[1])}, where its"
        f" weights want {_shown(slips[''][0])} and {_shown(slips[''][1])}."
    )


def _moments(x_bchw: Tensor) -> tuple[Tensor, Tensor]:
    return x_bchw.mean((0, 2, 3)), x_bchw.std((0, 2, 3))


def _distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Of the deviations the ratio's logarithm, of the means the difference in deviations; means over the channels."""
    ratio = (found[1].clamp_min(1e-6) / wanted[1]).log().abs()
    shift = (found[0] - wanted[0]).abs() / torch.maximum(found[1], wanted[1])
    return float((ratio + shift).mean())


def _shown(values: Tensor) -> str:
    return ", ".join(f"{float(value):.2f}" for value in values)
