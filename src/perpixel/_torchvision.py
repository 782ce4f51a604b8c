"""Makes ``import torchvision`` work beside a torch that its compiled operators were not built for.

The torchvision wheel of the package registry is built against the CUDA build of torch. Beside the CPU
build its compiled library does not load, and its import then ends in ``operator torchvision::nms does
not exist``, because it describes operators that nobody declared. perpixel uses none of them, so their
schemas are all that is needed.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["ensure_torchvision"]

_SYMPTOM = "operator torchvision::nms does not exist"
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_library: Any = None  # torch forgets the schemas as soon as the Library object that defined them dies


def ensure_torchvision() -> None:
    """Import torchvision; declare its two missing operators if, and only if, that is why it fails.

    Call it before torchvision, timm or segmentation-models-pytorch are imported. It does nothing
    beside a matching torch, and every other error of the import passes through untouched.
    """
    global _library
    try:
        importlib.import_module("torchvision")
        return
    except RuntimeError as error:
        if _SYMPTOM not in str(error):
            raise

    import torch

    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        _library.define(schema)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    importlib.import_module("torchvision")
