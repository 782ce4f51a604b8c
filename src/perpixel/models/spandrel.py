"""Published restoration networks by their checkpoints, through the package ``spandrel`` (an extra; MIT licence)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from perpixel._torchvision import ensure_torchvision
from perpixel.errors import RequestError, WeightsError
from perpixel.models.restoration import RestorationNetwork

__all__ = ["SpandrelNetwork", "load_spandrel"]


class SpandrelNetwork(RestorationNetwork):
    """A network that spandrel has built; how far it sees is not known, so that `context` is None.

    Args:
        network: maps image_bchw in [0, 1] to its restoration.
        scale: height and width of the output over those of the input.
        divisor, minimum_size: the network wants sides that are multiples of the one and not below the other.
    """

    def __init__(self, network: nn.Module, *, scale: int, divisor: int = 1, minimum_size: int = 0) -> None:
        super().__init__(scale=scale, divisor=divisor, context=None)
        self.network = network
        self.minimum_size = minimum_size

    def restore(self, image_bchw: Tensor) -> Tensor:
        height, width = image_bchw.shape[-2:]
        below, beside = max(self.minimum_size - height, 0), max(self.minimum_size - width, 0)
        if below or beside:
            image_bchw = F.pad(image_bchw, (0, beside, 0, below), mode="replicate")
        output_bchw: Tensor = self.network(image_bchw)
        return output_bchw


def load_spandrel(path: Path | str) -> SpandrelNetwork:
    """The network whose checkpoint ``path`` is; spandrel tells the architecture by the names and shapes of its tensors.

    Files are read without running what is in them: safetensors, or a ``.pth`` that holds nothing but tensors.

    Raises:
        RequestError: spandrel is not installed.
        WeightsError: no such file, no tensors, no architecture that spandrel knows, or none from RGB to RGB.
    """
    path = Path(path)
    ensure_torchvision()
    try:
        spandrel: Any = importlib.import_module("spandrel")
    except ModuleNotFoundError as error:
        raise RequestError(
            "the package spandrel is not installed",
            where=path,
            rule="Networks of other projects are built by spandrel.",
            cure="Install it: pip install 'perpixel[restoration]'.",
        ) from error
    state = _read(path)
    try:
        found = spandrel.ModelLoader().load_from_state_dict(spandrel.canonicalize_state_dict(state))
    except Exception as error:  # each architecture's reader fails in its own way on what is not its checkpoint
        raise WeightsError(
            "spandrel knows no architecture with these tensors",
            where=path,
            details=[", ".join(f"{name}" for name in list(state)[:3])],
            cure="Use a checkpoint of an architecture on spandrel's list.",
        ) from error
    sizes = found.size_requirements
    if not isinstance(found, spandrel.ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise WeightsError(
            f"{found.architecture.name} does not map a colour image to a colour image",
            where=path,
            rule="A restoration network has 3 channels at both ends, and needs nothing but the image.",
            cure="Use another checkpoint.",
        )
    if sizes.square:
        raise WeightsError(
            f"{found.architecture.name} takes square images only", where=path, cure="Use another checkpoint."
        )
    return SpandrelNetwork(found.model, scale=found.scale, divisor=sizes.multiple_of, minimum_size=sizes.minimum)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError("no such file of weights", where=path, cure="Correct the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return _bare(load_file(path))
        # weights_only: a pickle may run code when it is read; this way it holds tensors or is refused.
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
        return dict(content)
    except Exception as error:  # the two readers raise many kinds, and all mean the same to the user
        raise WeightsError(
            f"the file cannot be read as weights: {str(error).partition(chr(10))[0]}",
            where=path,
            rule="Weights are a .safetensors file, or a .pth file that holds nothing but tensors.",
            cure="Fetch or save the file again.",
        ) from error


def _bare(state: dict[str, Tensor]) -> dict[str, Any]:
    """The network's own tensors, where the file holds a `PixelModel` around it: the best weights of a run."""
    inside = "network.network."
    own = {name.removeprefix(inside): tensor for name, tensor in state.items() if name.startswith(inside)}
    return own or dict(state)
