"""ZoeDepth, Depth Anything and DPT of the transformers library, as networks that take images of any size and train.

The library's classes refuse labels, so they are used for their raw output alone; the loss is ours. What the library
does to an image before the network (its image processors) is done here on tensors: the same size, the same filter, and
the normalisation of ``preprocessor_config.json`` as buffers of `PixelModel`. Two things differ on purpose:

- The aspect is always kept, also where the file of a DPT says otherwise; MiDaS's own transforms keep it as well.
- The output comes back by bilinear interpolation, not bicubic: bicubic overshoots at edges, down to negative depth.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["DEPTH_FAMILIES", "DepthTransformer", "Family", "Preprocessing", "preprocessing_of"]

_BICUBIC = 3  # of PIL's filters
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Preprocessing:
    """How an image meets the network.

    Attributes:
        size: (height, width) in pixels, one of which the image is scaled to: the one that scales it less.
        multiple: sides are rounded to the nearest multiple of it.
        bicubic: the filter; bilinear otherwise.
        align_corners: whether the corner pixels of both sizes fall together; there is no averaging then where the image
            shrinks.
        margin: whether the image is first enlarged by a mirrored margin of 3 sqrt(side / 2) pixels on each side.
        mean, std: of the normalisation, for RGB in [0, 1].
    """

    size: tuple[int, int]
    multiple: int
    bicubic: bool
    align_corners: bool
    margin: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Family:
    """One architecture of the library.

    Attributes:
        model_type: its name in ``config.json``.
        patches: how many patches a side is a multiple of: 2 where the layers halve the map of patches.
        align_corners, margin, bicubic, mean, std: as in `Preprocessing`, as the family was published.
    """

    model_type: str
    patches: int
    align_corners: bool
    margin: bool
    bicubic: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


DEPTH_FAMILIES: dict[str, Family] = {
    "zoedepth": Family("zoedepth", 2, True, True, False, *_HALF),
    "depth-anything": Family("depth_anything", 1, False, False, True, *_IMAGENET),
    "dpt-depth": Family("dpt", 2, False, False, True, *_HALF),
}


def preprocessing_of(family: Family, config: Any, settings: Mapping[str, Any]) -> Preprocessing:
    """What ``preprocessor_config.json`` says, and where it says nothing, what the family was published with.

    Args:
        family: of `DEPTH_FAMILIES`.
        config: transformers' configuration.
        settings: content of ``preprocessor_config.json``; may be empty.

    Raises:
        ValueError, TypeError, KeyError: the settings make no sense.
    """
    backbone = getattr(config, "backbone_config", None)
    patch, trained = (
        _first(getattr(backbone, name, None) or getattr(config, name)) for name in ("patch_size", "image_size")
    )
    size = settings.get("size", trained)
    height, width = (size, size) if isinstance(size, int) else (size["height"], size["width"])
    # The library's own default of ZoeDepth is 1/32, which is a slip for 32.
    multiple = math.lcm(max(1, int(settings.get("ensure_multiple_of", 1))), family.patches * patch)
    mean, std = (
        tuple(float(value) for value in settings.get(key, default))
        for key, default in (("image_mean", family.mean), ("image_std", family.std))
    )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0 or min(height, width) < 1:
        raise ValueError("image_mean and image_std want three numbers each, size two lengths in pixels")
    return Preprocessing(
        size=(int(height), int(width)),
        multiple=multiple,
        bicubic=settings["resample"] == _BICUBIC if "resample" in settings else family.bicubic,
        align_corners=family.align_corners,
        margin=bool(settings.get("do_pad", family.margin)) and family.margin,
        mean=mean,
        std=std,
    )


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, list | tuple) else value)


def _size(image_bchw: Tensor) -> tuple[int, int]:
    height, width = image_bchw.shape[-2:]
    return height, width


class DepthTransformer(nn.Module):
    """A depth estimator of the transformers library for normalised images of any size.

    Args:
        estimator: a ``...ForDepthEstimation`` of the library.
        preprocessing: how an image meets it.
        description: contents of its configuration files, kept with the weights so that they can be read alone.

    Attributes:
        output_kind: ``metric``: depth in metres; ``relative``: disparity up to scale and shift, near is large.
    """

    description: Tensor

    def __init__(self, estimator: Any, preprocessing: Preprocessing, description: Mapping[str, Any]) -> None:
        super().__init__()
        self.estimator = estimator
        self.preprocessing = preprocessing
        config = estimator.config
        metric = config.model_type == "zoedepth" or getattr(config, "depth_estimation_type", None) == "metric"
        self.output_kind: Literal["metric", "relative"] = "metric" if metric else "relative"
        text = json.dumps(description, sort_keys=True).encode()
        self.register_buffer("description", torch.frombuffer(bytearray(text), dtype=torch.uint8))

    @property
    def encoder(self) -> nn.Module:
        """The vision transformer."""
        estimator = self.estimator
        encoder = estimator.dpt if getattr(estimator, "backbone", None) is None else estimator.backbone
        assert isinstance(encoder, nn.Module)
        return encoder

    def start_decoder(self) -> None:
        """Draw neck and heads anew by torch's own rules, as their authors did.

        The library draws all weights with a deviation of 0.02, which leaves no signal behind a few convolutions. And a
        last ReLU is opened: where it is shut over the whole image, no gradient ever comes.
        """
        encoder = set(self.encoder.modules())
        for module in self.estimator.modules():
            if module not in encoder and hasattr(module, "reset_parameters"):
                module.reset_parameters()
        if self.output_kind == "relative":
            last = [module for module in self.estimator.head.modules() if isinstance(module, nn.Conv2d)][-1]
            assert last.bias is not None
            nn.init.ones_(last.bias)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Raw ``output_b1hw`` at the size of ``x_bchw``, in float32."""
        pixels_bchw = self.fit(x_bchw)
        if len(getattr(self.estimator.config, "bin_configurations", [])) > 1:
            # ZoeDepth with several heads votes over the batch which to take: no image may depend on its neighbours.
            output_bhw = torch.cat([self._estimate(image_chw[None]) for image_chw in pixels_bchw])
        else:
            output_bhw = self._estimate(pixels_bchw)
        return self._unfit(output_bhw[:, None].float(), _size(x_bchw))

    def fit(self, x_bchw: Tensor) -> Tensor:
        """The images as the network wants them: margin, then size."""
        top, left = self._margins(_size(x_bchw))
        if top or left:
            x_bchw = F.pad(x_bchw, (left, left, top, top), mode="reflect")
        return self._resize(x_bchw, self._wanted(_size(x_bchw)))

    def _wanted(self, size: tuple[int, int]) -> tuple[int, int]:
        by_height, by_width = (wanted / side for wanted, side in zip(self.preprocessing.size, size, strict=True))
        scale = by_width if abs(1 - by_width) < abs(1 - by_height) else by_height
        multiple = self.preprocessing.multiple
        height, width = (max(1, round(scale * side / multiple)) * multiple for side in size)
        return height, width

    def _margins(self, size: tuple[int, int]) -> tuple[int, int]:
        if not self.preprocessing.margin:
            return 0, 0
        top, left = (min(int(3 * math.sqrt(side / 2)), side - 1) for side in size)
        return top, left

    def _resize(self, x_bchw: Tensor, size: tuple[int, int], bilinear: bool = False) -> Tensor:
        if x_bchw.shape[-2:] == size:
            return x_bchw
        mode = "bicubic" if self.preprocessing.bicubic and not bilinear else "bilinear"
        if self.preprocessing.align_corners:
            return F.interpolate(x_bchw, size, mode=mode, align_corners=True)
        return F.interpolate(x_bchw, size, mode=mode, align_corners=False, antialias=True)

    def _unfit(self, output_b1hw: Tensor, size: tuple[int, int]) -> Tensor:
        """Back to the image's own size, without the margin, by the geometry of `fit`."""
        (height, width), (top, left) = size, self._margins(size)
        output_b1hw = self._resize(output_b1hw, (height + 2 * top, width + 2 * left), bilinear=True)
        return output_b1hw[..., top : top + height, left : left + width]

    def _estimate(self, pixels_bchw: Tensor) -> Tensor:
        """Raw output_bhw of fitted images."""
        estimator = self.estimator
        if getattr(estimator, "dpt", None) is not None:
            return self._estimate_dpt(pixels_bchw)
        output_bhw: Tensor = estimator(pixel_values=pixels_bchw).predicted_depth
        return output_bhw

    def _estimate_dpt(self, pixels_bchw: Tensor) -> Tensor:
        """As ``DPTForDepthEstimation.forward``, which fails at images that are not square.

        Its neck needs to be told the shape of the map of patches; and a hybrid resizes its position embedding, but has
        to be told that this size is welcome.
        """
        estimator, config = self.estimator, self.estimator.config
        if config.is_hybrid:
            estimator.dpt.embeddings.image_size = _size(pixels_bchw)
        outputs = estimator.dpt(pixels_bchw, output_hidden_states=True)
        blocks = outputs.hidden_states[1:]  # the first are the embeddings
        indices = sorted(config.backbone_out_indices)
        if config.is_hybrid:
            features = [*outputs.intermediate_activations, *(blocks[index] for index in indices[2:])]
        else:
            features = [blocks[index] for index in indices]
        patch = _first(config.patch_size)
        rows, columns = (side // patch for side in pixels_bchw.shape[-2:])
        output_bhw: Tensor = estimator.head(estimator.neck(features, rows, columns))
        return output_bhw
