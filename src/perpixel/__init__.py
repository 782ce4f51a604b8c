"""perpixel: from a folder of images and per-pixel maps to a model you can trust."""

import os

# OpenMP's threads wait for each other by spinning, unless told otherwise before torch loads it. Beside any other busy
# process that makes a step several times slower (benchmarks/waiting.py); asleep they cost next to nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from perpixel.api import (
    before_after,
    compare,
    ensemble,
    evaluate,
    export,
    grid,
    init,
    inspect,
    pack,
    predict,
    recipes,
    report,
    search,
    shard,
    submit,
    synthesize,
    train,
)
from perpixel.errors import PerpixelError
from perpixel.recipe import Recipe, load_recipe
from perpixel.run import Run

__all__ = [
    "PerpixelError",
    "Recipe",
    "Run",
    "before_after",
    "compare",
    "ensemble",
    "evaluate",
    "export",
    "grid",
    "init",
    "inspect",
    "load_recipe",
    "pack",
    "predict",
    "recipes",
    "report",
    "search",
    "shard",
    "submit",
    "synthesize",
    "train",
]
__version__ = "0.1.0"
