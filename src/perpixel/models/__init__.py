"""Networks: float images in [0, 1] in, raw outputs of the same size out, with weights that say what they are.

The room knows no recipe: everything comes in as plain arguments.
"""

from perpixel.models.build import ARCHITECTURES, DEPTH_ARCHITECTURES, Architecture, build_model
from perpixel.models.levels import EncoderLevels
from perpixel.models.network import PixelModel, WeightsReport
from perpixel.models.restoration_build import RESTORATION_ARCHITECTURES

__all__ = [
    "ARCHITECTURES",
    "DEPTH_ARCHITECTURES",
    "RESTORATION_ARCHITECTURES",
    "Architecture",
    "EncoderLevels",
    "PixelModel",
    "WeightsReport",
    "build_model",
]
