"""perpixel: from a folder of images and per-pixel maps to a model you can trust."""

from perpixel.api import evaluate, grid, pack, predict, recipes, submit, synthesize, train
from perpixel.errors import PerpixelError
from perpixel.recipe import Recipe, load_recipe
from perpixel.run import Run

__all__ = [
    "PerpixelError",
    "Recipe",
    "Run",
    "evaluate",
    "grid",
    "load_recipe",
    "pack",
    "predict",
    "recipes",
    "submit",
    "synthesize",
    "train",
]
__version__ = "0.1.0"
