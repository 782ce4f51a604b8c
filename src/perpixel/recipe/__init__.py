"""Recipes: what was asked."""

from perpixel.recipe.loading import builtin_names, did_you_mean, dump_recipe, load_recipe, recipe_from_dict
from perpixel.recipe.schema import (
    LOSS_NAMES,
    AugmentationSection,
    DataSection,
    InferenceSection,
    InputSection,
    LossSection,
    ModelSection,
    OptimizerSection,
    Recipe,
    ScheduleSection,
    SegmentationTarget,
    SplitSection,
    TrainingSection,
    parse_loss,
)

__all__ = [
    "LOSS_NAMES",
    "AugmentationSection",
    "DataSection",
    "InferenceSection",
    "InputSection",
    "LossSection",
    "ModelSection",
    "OptimizerSection",
    "Recipe",
    "ScheduleSection",
    "SegmentationTarget",
    "SplitSection",
    "TrainingSection",
    "builtin_names",
    "did_you_mean",
    "dump_recipe",
    "load_recipe",
    "parse_loss",
    "recipe_from_dict",
]
