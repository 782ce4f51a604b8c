"""Recipes: what was asked."""

from perpixel.recipe.loading import builtin_names, did_you_mean, dump_recipe, load_recipe, recipe_from_dict
from perpixel.recipe.loss import LOSS_NAMES, LossSection, parse_loss
from perpixel.recipe.schema import (
    AugmentationSection,
    DataSection,
    InferenceSection,
    InputSection,
    ModelSection,
    OptimizerSection,
    Recipe,
    ScheduleSection,
    SplitSection,
    SubmissionSection,
    TrainingSection,
)
from perpixel.recipe.targets import DepthTarget, SegmentationTarget

__all__ = [
    "LOSS_NAMES",
    "AugmentationSection",
    "DataSection",
    "DepthTarget",
    "InferenceSection",
    "InputSection",
    "LossSection",
    "ModelSection",
    "OptimizerSection",
    "Recipe",
    "ScheduleSection",
    "SegmentationTarget",
    "SplitSection",
    "SubmissionSection",
    "TrainingSection",
    "builtin_names",
    "did_you_mean",
    "dump_recipe",
    "load_recipe",
    "parse_loss",
    "recipe_from_dict",
]
