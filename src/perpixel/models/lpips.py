"""LPIPS 0.1 with AlexNet (Zhang et al. 2018): how different two pictures look, from weights that lie on this machine.

It needs two files that are not part of any package of perpixel: AlexNet's ImageNet weights as torchvision names them,
and the five linear layers of LPIPS (``alex.pth`` of its release). Where they are not at hand there is no such figure.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from perpixel.errors import WeightsError

__all__ = ["Lpips", "lpips_at_hand"]

# LPIPS normalises images in [-1, 1] by these, which is nearly ImageNet's mean and deviation of images in [0, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LINEAR = {"lpips": "weights/v0.1/alex.pth", "torchmetrics": "functional/image/lpips_models/alex.pth"}
_SMALLEST = 32  # pixels; AlexNet's last pooling has nothing left below


class Lpips:
    """The distance of two images; 0 when they are equal, larger when they look more different.

    Args:
        backbone: state of torchvision's ``alexnet`` (keys ``features.0.weight`` and so on; others are not looked at).
        linear: state of the linear layers (keys ``lin0.model.1.weight`` to ``lin4.model.1.weight``).

    Raises:
        WeightsError: a file that cannot be read, or lacks a tensor of the right shape.
    """

    def __init__(self, *, backbone: Path, linear: Path) -> None:
        stages = [
            nn.Sequential(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()),
            nn.Sequential(nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()),
        ]
        convolutions = [layer for stage in stages for layer in stage if isinstance(layer, nn.Conv2d)]
        state, weights = _read(backbone), _read(linear)
        for layer, number in zip(convolutions, (0, 3, 6, 8, 10), strict=True):
            for part in ("weight", "bias"):
                own = getattr(layer, part)
                own.data = _tensor(state, f"features.{number}.{part}", own.shape, backbone)
        self._stages = [stage.requires_grad_(False).eval() for stage in stages]
        self._linear = [
            _tensor(weights, f"lin{level}.model.1.weight", torch.Size((1, layer.out_channels, 1, 1)), linear)
            for level, layer in enumerate(convolutions)
        ]

    def __call__(self, first_hwc: NDArray[Any], second_hwc: NDArray[Any]) -> float:
        """The distance of two RGB images in [0, 1] of one size, at least 32 x 32.

        Raises:
            ValueError: the sizes differ, or are too small.
        """
        if first_hwc.shape != second_hwc.shape or min(first_hwc.shape[:2]) < _SMALLEST:
            raise ValueError(f"two images of one size, at least 32 x 32: {first_hwc.shape} and {second_hwc.shape}")
        pair = np.stack([first_hwc, second_hwc]).astype(np.float32)
        shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))
        x_bchw = (2 * torch.from_numpy(pair).permute(0, 3, 1, 2) - 1 - shift) / scale
        distance = 0.0
        with torch.no_grad():
            for stage, weight in zip(self._stages, self._linear, strict=True):
                x_bchw = stage(x_bchw)
                unit_bchw = x_bchw / (x_bchw.square().sum(1, keepdim=True).sqrt() + 1e-8)
                distance += float(((unit_bchw[:1] - unit_bchw[1:]).square() * weight).sum(1).mean())
        return distance


@cache
def lpips_at_hand() -> Lpips | None:
    """LPIPS, where its weights lie on this machine already: AlexNet in torch's folder of downloads, the linear layers
    in the package ``lpips`` or ``torchmetrics``. Nothing is fetched."""
    backbones = sorted(Path(torch.hub.get_dir(), "checkpoints").glob("alexnet-*.pth"))
    linears = [
        Path(found.origin).parent / inside
        for package, inside in _LINEAR.items()
        if (found := importlib.util.find_spec(package)) is not None and found.origin is not None
    ]
    linears = [path for path in linears if path.is_file()]
    return Lpips(backbone=backbones[0], linear=linears[0]) if backbones and linears else None


def _read(path: Path) -> dict[str, Any]:
    try:
        # weights_only: a pickle may run code when it is read; this way it holds tensors or is refused.
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a missing file, a damaged one or one of another kind: the cure is the same
        raise WeightsError(
            f"the weights of LPIPS cannot be read: {str(error).partition(chr(10))[0]}",
            where=path,
            cure="Correct the path, or go without LPIPS.",
        ) from error


def _tensor(state: dict[str, Any], name: str, shape: torch.Size, path: Path) -> Tensor:
    found = state.get(name)
    if not isinstance(found, Tensor) or found.shape != shape:
        raise WeightsError(
            f"there is no tensor {name} of shape {tuple(shape)}",
            where=path,
            rule="LPIPS needs torchvision's AlexNet and the linear layers of its release 0.1.",
            cure="Fetch the right file, or go without LPIPS.",
        )
    return found.float()
